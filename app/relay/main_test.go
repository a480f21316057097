package main_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/conformance"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

type environment = map[string]string

// request sends one request and gives the answer with its body read.
func request(t *testing.T, method, url, token, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := conformance.Client(t).Do(req)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // only read from
	content, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(content)
}

const action = `{"action_provider":"google","action_name":"gmail.send","params":{"to":"a@example.org"}}`

func TestServeFromStartToStop(t *testing.T) {
	t.Parallel()
	redis := redisserver.Start(t)
	keys := harness.NewKeys(t)
	acme, globex := keys.Token(t, "acme"), keys.Token(t, "globex")
	p := harness.Start(t, environment{
		"REDIS_URL": redis.SocketURL(), "RELAY_API_KEYS_FILE": keys.Path, "RELAY_LOG_LEVEL": "debug",
	}, "--ai-jobs-new-schema", "on")

	status, body := request(t, http.MethodPost, p.URL+"/ai/execute", acme, action)
	require.Equal(t, http.StatusOK, status, body)
	var made struct {
		JobID string `json:"job_id"`
	}
	require.NoError(t, json.Unmarshal([]byte(body), &made))
	status, body = request(t, http.MethodGet, p.URL+"/ai/jobs/"+made.JobID, acme, "")
	require.Equal(t, http.StatusOK, status, body)
	status, body = request(t, http.MethodGet, p.URL+"/ai/jobs", acme, "")
	require.Equal(t, http.StatusOK, status, body)
	require.Contains(t, body, made.JobID)
	status, _ = request(t, http.MethodGet, p.URL+"/ai/jobs/"+made.JobID, globex, "")
	require.Equal(t, http.StatusNotFound, status)

	status, _ = request(t, http.MethodGet, p.URL+"/readyz", "", "")
	require.Equal(t, http.StatusOK, status)
	body = harness.Admin(t, p.AdminURL+"/metrics")
	require.Contains(t, body, `relay_job_read_path_total{path="new",workspace_id="acme"} 1`)
	require.Contains(t, body, `relay_dual_write_attempt_total{result="succeeded",workspace_id="acme"} 1`)
	require.Contains(t, body, `relay_redis_command_duration_seconds_count`)
	status, _ = request(t, http.MethodGet, p.URL+"/metrics", "", "")
	require.Equal(t, http.StatusNotFound, status, "metrics name workspaces, and consumers must not read them")

	require.Equal(t, app.ExitOK, p.Stop(t))
	require.NotEmpty(t, p.Log.Message(t, "Job read"))
	require.Len(t, p.Log.Message(t, "Workspace mismatch during fallback"), 1, "the last events are flushed")
	for _, secret := range []string{acme, globex, "a@example.org"} {
		require.NotContains(t, p.Log.String(), secret)
	}
}

func TestServeStartsWithoutRedisAndBecomesReady(t *testing.T) {
	t.Parallel()
	redis := redisserver.Start(t)
	keys := harness.NewKeys(t)
	token := keys.Token(t, "acme")
	require.NoError(t, redis.Kill())
	p := harness.Start(t, environment{"REDIS_URL": redis.URL(), "RELAY_API_KEYS_FILE": keys.Path})

	status, _ := request(t, http.MethodGet, p.URL+"/livez", "", "")
	require.Equal(t, http.StatusOK, status)
	status, body := request(t, http.MethodGet, p.URL+"/readyz", "", "")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, body, "redis")
	require.Contains(t, body, `{"name":"index","ok":false}`, "not ready before the storage said whether it is empty")
	require.Contains(t, body, `{"name":"heartbeat","ok":false}`, "not ready before it beat")
	status, body = request(t, http.MethodPost, p.URL+"/ai/execute", token, action)
	require.Equal(t, http.StatusInternalServerError, status)
	require.Contains(t, body, "storage_unavailable")
	require.NotContains(t, body, redis.Addr)

	require.NoError(t, redis.Restart(t.Context()))
	harness.AwaitReady(t, p.URL)
	execute(t, p.URL, token)
	require.Empty(t, list(t, p.URL, token, "").Next)
	execute(t, p.URL, token)
	require.Regexp(t, "^at:", list(t, p.URL, token, "?limit=1").Next, "the empty storage was claimed")
	require.Equal(t, app.ExitOK, p.Stop(t))
	require.Len(t, p.Log.Message(t, "lists go by the index"), 1)
	require.Len(t, p.Log.Message(t, "the storage does not answer; asking on"), 2, "once for each check")
	failures := p.Log.Message(t, "Failed to enqueue job for workspace (job_id logged internally)")
	require.Len(t, failures, 1)
	require.Equal(t, "acme", failures[0]["workspace_id"])
	require.Equal(t, "unavailable", failures[0]["reason"])
}

func TestServeRefusesWhatCannotBeMeant(t *testing.T) {
	t.Parallel()
	const secret = "hunter2hunter2"
	keys := harness.NewKeys(t)
	broken := filepath.Join(t.TempDir(), "broken.yaml")
	require.NoError(t, os.WriteFile(broken, []byte("keys: "+secret), 0o600))
	for name, c := range map[string]struct {
		env   environment
		args  []string
		names string
	}{
		"no authentication":   {environment{}, nil, "RELAY_API_KEYS_FILE"},
		"a variable":          {environment{"RELAY_RETENTION": secret}, nil, "RELAY_RETENTION"},
		"a flag":              {nil, []string{"--retention=" + secret}, "RELAY_RETENTION (--retention)"},
		"an empty variable":   {environment{"RELAY_API_KEYS_FILE": keys.Path, "REDIS_URL": ""}, nil, "REDIS_URL (--redis-url)"},
		"an empty flag":       {environment{"RELAY_API_KEYS_FILE": keys.Path}, []string{"--redis-url="}, "REDIS_URL (--redis-url)"},
		"a URL with password": {environment{"REDIS_URL": "redis://:" + secret + "@h:port"}, nil, "REDIS_URL"},
		"a short secret": {
			environment{
				"RELAY_JWT_ALGORITHMS": "HS256", "RELAY_JWT_ISSUER": "i", "RELAY_JWT_AUDIENCE": "a", "RELAY_JWT_SECRET": secret,
			}, nil, "RELAY_JWT_SECRET",
		},
		"a leeway": {
			environment{
				"RELAY_JWT_ALGORITHMS": "HS256", "RELAY_JWT_ISSUER": "i", "RELAY_JWT_AUDIENCE": "a",
				"RELAY_JWT_SECRET": strings.Repeat(secret, 3), "RELAY_JWT_LEEWAY": "10m",
			}, nil, "RELAY_JWT_LEEWAY",
		},
		"no keys for JWTs": {
			environment{"RELAY_JWT_ALGORITHMS": "RS256", "RELAY_JWT_ISSUER": "i", "RELAY_JWT_AUDIENCE": "a"},
			nil,
			"RELAY_JWT_JWKS_URL (--jwt-jwks-url): a URL or a file of public keys must be set",
		},
		"a phase that is none": {
			environment{"RELAY_API_KEYS_FILE": keys.Path, "AI_JOBS_OLD_SCHEMA": "off"}, nil, "AI_JOBS_NEW_SCHEMA",
		},
		"no key file":      {environment{"RELAY_API_KEYS_FILE": "/nowhere/keys.yaml"}, nil, "RELAY_API_KEYS_FILE"},
		"a broken one":     {environment{"RELAY_API_KEYS_FILE": broken}, nil, "RELAY_API_KEYS_FILE"},
		"an unknown flag":  {nil, []string{"--hurry"}, "--hurry"},
		"an argument":      {nil, []string{secret}, "`relay serve` takes no arguments"},
		"demo and a Redis": {environment{"RELAY_DEMO": "on", "REDIS_URL": "redis://:" + secret + "@h"}, nil, "REDIS_URL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := harness.Run(t, c.env, append([]string{"serve"}, c.args...)...)
			require.Equal(t, app.ExitRefused, code, stderr)
			require.Contains(t, stderr, c.names)
			require.NotContains(t, stdout+stderr, secret)
			complaints := regexp.MustCompile(`(?m)^(?:relay: refused: )?([A-Z_]+) \(--`).FindAllStringSubmatch(stderr, -1)
			about := map[string]bool{}
			for _, complaint := range complaints {
				require.False(t, about[complaint[1]], "more than one line about %s: %s", complaint[1], stderr)
				about[complaint[1]] = true
			}
		})
	}
}

func TestServeSaysThatAnAddressIsTaken(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, taken.Close()) })
	keys := harness.NewKeys(t)
	for _, variable := range []string{"RELAY_HTTP_ADDR", "RELAY_ADMIN_ADDR"} {
		code, _, stderr := harness.Run(t, harness.Environment(environment{
			"RELAY_API_KEYS_FILE": keys.Path, variable: taken.Addr().String(),
		}), "serve")
		require.Equal(t, app.ExitFault, code)
		require.Contains(t, stderr, taken.Addr().String())
		require.Contains(t, stderr, "address already in use")
	}
}

// TestDemoLinesWorkAsPasted has a shell take the printed lines apart and sends what curl would.
func TestDemoLinesWorkAsPasted(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, environment{"RELAY_DEMO": "on"})
	require.Eventually(t, func() bool {
		return strings.Contains(p.Output.String(), "a forged workspace")
	}, 10*time.Second, 5*time.Millisecond)
	require.Contains(t, p.Output.String(), "NOTHING IS KEPT")
	var statuses []int
	for line := range strings.Lines(p.Output.String()) {
		args, ok := strings.CutPrefix(line, "curl ")
		if !ok {
			continue
		}
		words, err := exec.CommandContext(t.Context(), "sh", "-c", `printf '%s\0' `+args).Output()
		require.NoError(t, err)
		statuses = append(statuses, curl(t, strings.Split(strings.TrimSuffix(string(words), "\x00"), "\x00")))
	}
	require.Equal(t, []int{200, 200, 200, 404, 403}, statuses)
	require.Equal(t, app.ExitOK, p.Stop(t))
	require.NotEmpty(t, p.Log.Message(t, "DEMO: the embedded Redis keeps nothing, all jobs are lost when this process stops"))
	require.NotContains(t, p.Log.String(), "relay_sk_")
}

// curl knows the options that the demo prints.
func curl(t *testing.T, args []string) int {
	t.Helper()
	flags := pflag.NewFlagSet("curl", pflag.ContinueOnError)
	flags.BoolP("silent", "s", false, "")
	flags.BoolP("show-error", "S", false, "")
	flags.StringP("write-out", "w", "", "")
	headers := flags.StringArrayP("header", "H", nil, "")
	data := flags.StringP("data", "d", "", "")
	require.NoError(t, flags.Parse(args))
	require.Equal(t, 1, flags.NArg(), "%q", args)
	method := http.MethodGet
	if *data != "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(t.Context(), method, flags.Arg(0), strings.NewReader(*data))
	require.NoError(t, err)
	for _, h := range *headers {
		name, value, ok := strings.Cut(h, ": ")
		require.True(t, ok, h)
		req.Header.Set(name, value)
	}
	resp, err := conformance.Client(t).Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

func TestNewAPIKeyIsAdmittedByItsEntry(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := harness.Run(t, nil, "apikey", "new", "--workspace", "acme", "--actor", "alice",
		"--scopes", "ai:jobs:read", "--expires-at", "2999-01-01T00:00:00Z")
	require.Equal(t, app.ExitOK, code, stderr)
	token := regexp.MustCompile(`relay_sk_[A-Za-z0-9_-]{43}`).FindString(stdout)
	require.NotEmpty(t, token, stdout)
	require.Equal(t, 1, strings.Count(stdout, token), "shown once")
	_, entry, ok := strings.Cut(stdout, "RELAY_API_KEYS_FILE:\n\n")
	require.True(t, ok, stdout)

	keys := filepath.Join(t.TempDir(), "keys.yaml")
	require.NoError(t, os.WriteFile(keys, []byte("keys:\n"+entry), 0o600))
	redis := redisserver.Start(t)
	p := harness.Start(t, environment{"REDIS_URL": redis.URL(), "RELAY_API_KEYS_FILE": keys})
	status, body := request(t, http.MethodGet, p.URL+"/ai/jobs", token, "")
	require.Equal(t, http.StatusOK, status, body)
	status, _ = request(t, http.MethodPost, p.URL+"/ai/execute", token, action)
	require.Equal(t, http.StatusForbidden, status, "a scope that was not asked for")
}

func TestNewAPIKeyRefusesWhatTheFileWouldNotTake(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{},
		{"--workspace", "acme"},
		{"--actor", "alice"},
		{"--workspace", "Acme", "--actor", "alice"},
		{"--workspace", "", "--actor", "alice"},
		{"--workspace", "acme", "--actor", ""},
		{"--workspace", "acme", "--actor", "alice", "--expires-at", "tomorrow"},
		{"--workspace", "acme", "--actor", "alice", "--expires-at", ""},
		{"--workspace", "acme", "--actor", "alice", "extra"},
	} {
		code, stdout, stderr := harness.Run(t, nil, append([]string{"apikey", "new"}, args...)...)
		require.Equal(t, app.ExitRefused, code, "%v: %s", args, stderr)
		require.NotEmpty(t, stderr)
		require.NotContains(t, stdout, "relay_sk_", "no token without its entry")
	}
}

// TestExampleFilesServe: what an operator starts from is taken as it is.
func TestExampleFilesServe(t *testing.T) {
	t.Parallel()
	redis := redisserver.Start(t)
	p := harness.Start(t, environment{"REDIS_URL": redis.URL(), "RELAY_API_KEYS_FILE": "../../configs/keys.yaml"})
	status, _ := request(t, http.MethodGet, p.URL+"/ai/jobs", "relay_sk_"+strings.Repeat("A", 43), "")
	require.Equal(t, http.StatusUnauthorized, status)
}

func TestUnknownCommandsAreRefused(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"unknown"}, {"migrate", "unknown"}, {"apikey", "unknown"}} {
		code, _, stderr := harness.Run(t, nil, args...)
		require.Equal(t, app.ExitRefused, code, "%v: %s", args, stderr)
		require.Contains(t, stderr, "unknown command")
	}
	code, stdout, _ := harness.Run(t, nil, "migrate")
	require.Equal(t, app.ExitOK, code)
	require.Contains(t, stdout, "index")
}

// TestArgumentsAreNotRepeated: where a flag was meant, they may hold a password.
func TestArgumentsAreNotRepeated(t *testing.T) {
	t.Parallel()
	const secret = "redis://:hunter2@h:1"
	for _, command := range []string{
		"", "serve", "version", "apikey", "apikey new", "migrate", "migrate status", "migrate backfill", "migrate index", "migrate verify",
		"migrate retire",
	} {
		for _, argument := range []string{secret, "-redis-url=" + secret} {
			code, stdout, stderr := harness.Run(t, nil, append(strings.Fields(command), argument)...)
			require.Equal(t, app.ExitRefused, code, "%s: %s", command, stderr)
			require.Regexp(t, `takes no arguments|unknown command|an unknown flag`, stderr)
			require.NotContains(t, stdout+stderr, "hunter2")
		}
	}
}

func TestVersionNamesTheBuild(t *testing.T) {
	t.Parallel()
	code, stdout, _ := harness.Run(t, nil, "version")
	require.Equal(t, app.ExitOK, code)
	require.Regexp(t, `^relay \S+ \(revision \S+, go1\.\d+`, stdout)
}

// TestReadmeHasTheTableOfPhases keeps the README's table to what the code does in each phase.
func TestReadmeHasTheTableOfPhases(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	unset, err := app.Load(environment{"RELAY_API_KEYS_FILE": "keys.yaml"})
	require.NoError(t, err)

	word := map[bool]string{true: "on", false: "off"}
	schemas := func(old, both bool) string {
		switch {
		case both:
			return "both"
		case old:
			return "old"
		}
		return "new"
	}
	table := "|---|---|---|---|---|---|---|\n"
	for _, p := range migration.Phases() {
		name, f := p.String(), p.Flags()
		if p == unset.Phase {
			name += " (the default)"
		}
		table += "| " + strings.Join([]string{
			name, word[f.NewSchema], word[f.OldSchema], word[f.PrefersNew], word[f.FallbackOld],
			schemas(p.WritesOld(), p.WritesBoth()), schemas(p.ReadsOld(), p.ReadsOld() && p.ReadsNew()),
		}, " | ") + " |\n"
	}
	require.Contains(t, string(readme), table+"\n")
}

// TestDocumentsListEveryVariable keeps the README, the example and the help of `relay serve` to what the code reads.
func TestDocumentsListEveryVariable(t *testing.T) {
	t.Parallel()
	code, help, _ := harness.Run(t, nil, "serve", "--help")
	require.Equal(t, app.ExitOK, code)
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	example, err := os.ReadFile("../../configs/relay.env")
	require.NoError(t, err)

	var table, assignments bytes.Buffer
	for _, v := range app.Variables() {
		require.Regexp(t, `(?m)--`+v.Flag+` string +`+regexp.QuoteMeta(v.Usage+" ["+v.Name+"]"), help)
		value := "–"
		if v.Default != "" {
			value = "`" + v.Default + "`"
			require.Contains(t, help, `(default "`+v.Default+`")`)
		}
		table.WriteString("| `" + v.Name + "` | " + value + " | " + v.Usage + " |\n")
		assignments.WriteString("# " + v.Usage + "\n#" + v.Name + "=" + v.Default + "\n")
	}
	require.Contains(t, string(readme), table.String())
	require.Contains(t, string(example), assignments.String())
}
