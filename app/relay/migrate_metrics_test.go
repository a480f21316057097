package main_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// gateway keeps the latest push.
func gateway(t *testing.T) (url string, pushed *atomic.Pointer[string]) {
	t.Helper()
	pushed = &atomic.Pointer[string]{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPut {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		text := string(body)
		pushed.Store(&text)
	}))
	t.Cleanup(server.Close)
	return server.URL, pushed
}

// countsOf adds up the counts of all workspaces.
func countsOf(t *testing.T, text string) map[string]int {
	t.Helper()
	counts := map[string]int{}
	line := regexp.MustCompile(`(?m)^backfill_jobs_total\{.*result="(\w+)".*\} (\d+)$`)
	for _, found := range line.FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(found[2])
		require.NoError(t, err)
		counts[found[1]] += n
	}
	return counts
}

// TestBackfillTellsItsCounts: a scrape sees them while a run goes on, and a gateway gets those of each run, of an
// interrupted one too.
func TestBackfillTellsItsCounts(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	rdb := server.Client(t)
	redisserver.Load(t, rdb, redisserver.ReadFixture(t, "../../tests/migration/testdata/predecessor.jsonl"))
	require.NoError(t, rdb.HSet(t.Context(), "ai:job:acme:planted", "job_id", "planted", "workspace_id", "globex").Err())
	url, pushed := gateway(t)
	var stderr harness.Buffer
	cmd := exec.CommandContext(t.Context(), harness.Binary(t), "migrate", "backfill", "--execute", "--rate=20", "--batch-size=10",
		"--metrics-addr=127.0.0.1:0", "--pushgateway="+url)
	cmd.Env, cmd.Stderr = []string{"REDIS_URL=" + server.OperatorURL()}, &stderr
	require.NoError(t, cmd.Start())
	said := regexp.MustCompile(`metrics at (http://\S+/metrics)\n`)
	require.Eventually(t, func() bool { return said.MatchString(stderr.String()) }, waitLimit, 10*time.Millisecond)
	metrics := said.FindStringSubmatch(stderr.String())[1]
	require.Eventually(t, func() bool {
		return countsOf(t, harness.Admin(t, metrics))["succeeded"] > 0
	}, waitLimit, 10*time.Millisecond)
	require.Nil(t, pushed.Load(), "a run that goes on has pushed nothing")
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	require.Error(t, cmd.Wait())
	require.Equal(t, app.ExitFault, cmd.ProcessState.ExitCode(), stderr.String())
	require.NotNil(t, pushed.Load())
	sum := countsOf(t, *pushed.Load())
	require.Positive(t, sum["succeeded"])

	code, stdout, errs := harness.Run(t, dualWrite(server.OperatorURL()), "migrate", "backfill", "--execute", "--rate=0", "--json",
		"--pushgateway="+url+"/")
	require.Equal(t, app.ExitDiffers, code, errs)
	for result, n := range countsOf(t, *pushed.Load()) {
		sum[result] += n
	}
	var both struct {
		Jobs map[string]int `json:"jobs"`
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &both))
	of := func(outcomes ...string) (n int) {
		for _, o := range outcomes {
			n += both.Jobs[o]
		}
		return n
	}
	require.Equal(t, map[string]int{
		"succeeded": of("made", "repaired", "ttl"), "failed": of("conflict", "foreign", "contradiction", "wrong-type"),
		"skipped": of("absent", "identical", "single"),
	}, sum, "both runs together")
	require.Positive(t, sum["failed"])
}

// TestMetricsTakeNothingFromABackfill: what cannot be meant is refused, and a gateway that is away is only told of.
func TestMetricsTakeNothingFromABackfill(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	rdb := server.Client(t)
	redisserver.Load(t, rdb, redisserver.ReadFixture(t, "../../tests/migration/testdata/predecessor.jsonl"))
	before := redisserver.Dump(t, rdb, "*")
	url, pushed := gateway(t)
	backfill := func(args ...string) (int, string) {
		code, _, stderr := harness.Run(t, dualWrite(server.OperatorURL()), append([]string{"migrate", "backfill", "--rate=0"}, args...)...)
		return code, stderr
	}
	for _, args := range [][]string{
		{"--execute", "--metrics-addr=9090"},
		{"--execute", "--metrics-addr=:port"},
		{"--execute", "--metrics-addr=127.0.0.1:65536"},
		{"--execute", "--pushgateway=gateway:9091"},
		{"--execute", "--pushgateway=http://"},
		{"--execute", "--pushgateway=http://me:sesame@127.0.0.1:9091"},
		{"--dry-run", "--pushgateway=" + url},
		{"--dry-run", "--metrics-addr=127.0.0.1:0"},
	} {
		code, stderr := backfill(args...)
		require.Equal(t, app.ExitRefused, code, "%v: %s", args, stderr)
		require.Contains(t, stderr, "relay: refused: --")
		require.NotContains(t, stderr, "sesame")
	}
	code, stderr := backfill("--execute", "--metrics-addr="+server.Addr, "--pushgateway="+url)
	require.Equal(t, app.ExitFault, code, stderr)
	require.Contains(t, stderr, "relay: --metrics-addr: ")
	require.Equal(t, before, redisserver.Dump(t, rdb, "*"), "nothing was done")
	require.Nil(t, pushed.Load())

	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	code, stderr = backfill("--execute", "--pushgateway="+away.URL)
	require.Equal(t, app.ExitDiffers, code, stderr)
	require.Contains(t, stderr, "relay: the counts were not pushed: ")
	require.NotEqual(t, before, redisserver.Dump(t, rdb, "*"), "the run has come to its end all the same")
}
