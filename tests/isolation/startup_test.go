package isolation_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/tests/harness"
)

// malformedSettings lists values that stop the start, for each variable.
func malformedSettings(t *testing.T) map[string][]string {
	t.Helper()
	broken := filepath.Join(t.TempDir(), "broken")
	require.NoError(t, os.WriteFile(broken, []byte(`{"keys": ["`+canary+`"]}`), 0o600))
	switches := []string{"maybe" + canary, "", "yes", "2", " on", "on\n"}
	timeouts := []string{canary, "2", "0s", "-1s"}
	addresses := []string{canary, "127.0.0.1", "127.0.0.1:" + canary, "127.0.0.1:65536", "127.0.0.1:-1"}
	return map[string][]string{
		"RELAY_HTTP_ADDR": addresses, "RELAY_ADMIN_ADDR": addresses,
		"REDIS_URL": {
			canary, "http://" + canary, "redis://:" + canary + "@h:port", "redis://h/" + canary, "redis://h?" + canary + "=1", "redis://%zz" + canary,
		},
		"RELAY_REDIS_POOL_SIZE":    {canary, "-1", "10001", "1.5", "0x10"},
		"RELAY_REDIS_DIAL_TIMEOUT": timeouts, "RELAY_REDIS_READ_TIMEOUT": timeouts, "RELAY_REDIS_WRITE_TIMEOUT": timeouts,
		"AI_JOBS_NEW_SCHEMA": switches, "AI_JOBS_OLD_SCHEMA": switches, "READ_PREFERS_NEW": switches, "READ_FALLBACK_OLD": switches,
		"RELAY_API_KEYS_FILE":  {"/nowhere/keys.yaml", broken, filepath.Dir(broken)},
		"RELAY_JWT_ALGORITHMS": {canary, "none", "HS256,none", "hs256", "HS512", "HS256," + canary},
		"RELAY_JWT_ISSUER":     {""}, "RELAY_JWT_AUDIENCE": {""},
		"RELAY_JWT_JWKS_URL":             {canary, "http://" + canary + ".example/jwks", "https://user:" + canary + "@h/jwks", "file:///" + canary},
		"RELAY_JWT_JWKS_FILE":            {"/nowhere/jwks.json", broken, filepath.Dir(broken)},
		"RELAY_JWT_SECRET":               {canary, ""},
		"RELAY_JWT_SECRET_FILE":          {"/nowhere/secret", filepath.Dir(broken)},
		"RELAY_JWT_LEEWAY":               {canary, "30", "-1s", "5m1s"},
		"RELAY_RETENTION":                {canary, "30", "-1s", "999ms"},
		"RELAY_INDEX_SWEEP":              {canary, "60", "-1s", "999ms"},
		"RELAY_HTTP_READ_HEADER_TIMEOUT": timeouts, "RELAY_HTTP_READ_TIMEOUT": timeouts, "RELAY_HTTP_WRITE_TIMEOUT": timeouts,
		"RELAY_HTTP_IDLE_TIMEOUT": timeouts, "RELAY_SHUTDOWN_GRACE": timeouts,
		"RELAY_LOG_LEVEL":        {canary, "loud", "fatal", "-5"},
		"RELAY_WORKSPACE_LABELS": {canary, "0", "-1", "100001"},
		"RELAY_TRACE_RATIO":      {canary, "-0.1", "1.1", "NaN", "1%"},
		"OTEL_EXPORTER_OTLP_ENDPOINT": {
			canary, canary + ":4318", "grpc://" + canary, "http://", "https://user:" + canary + "@h", "https://h?" + canary + "=1", "http://%zz" + canary,
		},
		"RELAY_DEMO": switches,
	}
}

// TestMalformedSettingsStopTheStart gives the binary, by its environment and by its flags, one wrong value at a time
// beside a configuration that is good without it.
func TestMalformedSettingsStopTheStart(t *testing.T) {
	t.Parallel()
	issued := newAuthority(t)
	_, good := issued.site(t)
	good["REDIS_URL"] = "redis://:" + issued.secret + "@127.0.0.1:1/0"
	good = harness.Environment(good)
	control := harness.Start(t, good)
	require.Zero(t, control.Stop(t))

	malformed := malformedSettings(t)
	for _, v := range app.Variables() {
		values, known := malformed[v.Name]
		require.True(t, known, "no malformed value for %s", v.Name)
		delete(malformed, v.Name)
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			for i, value := range values {
				env, args := harness.Environment(good), []string{"serve"}
				if v.Name == "RELAY_JWT_SECRET_FILE" {
					delete(env, "RELAY_JWT_SECRET")
				}
				if i == 0 {
					args = append(args, "--"+v.Flag+"="+value)
				} else {
					env[v.Name] = value
				}
				code, stdout, stderr := harness.Run(t, env, args...)
				require.Equal(t, app.ExitRefused, code, "%q: %s", value, stderr)
				require.Contains(t, stderr, v.Name, "%q", value)
				require.Empty(t, stdout)
				harness.RequireCleanLog(t, stderr)
			}
		})
	}
	require.Empty(t, malformed, "variables that are none")
}

// TestIllegalFlagSetsStopTheStart tries all sixteen sets of the four flags; the six legal ones are served elsewhere.
func TestIllegalFlagSetsStopTheStart(t *testing.T) {
	t.Parallel()
	issued := newAuthority(t)
	_, good := issued.site(t)
	legal := map[string]bool{}
	for _, p := range phases(t) {
		legal[fmt.Sprint(p.env)] = true
	}
	word, refused := map[bool]string{true: "on", false: "off"}, 0
	for set := range 16 {
		flags := map[string]string{
			"AI_JOBS_NEW_SCHEMA": word[set&1 > 0], "AI_JOBS_OLD_SCHEMA": word[set&2 > 0],
			"READ_PREFERS_NEW": word[set&4 > 0], "READ_FALLBACK_OLD": word[set&8 > 0],
		}
		if legal[fmt.Sprint(flags)] {
			continue
		}
		refused++
		code, _, stderr := harness.Run(t, harness.Environment(good, flags), "serve")
		require.Equal(t, app.ExitRefused, code, "%v: %s", flags, stderr)
		require.True(t, strings.Contains(stderr, "AI_JOBS_") || strings.Contains(stderr, "READ_"), stderr)
	}
	require.Equal(t, 10, refused)
}
