package harness_test

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/conformance"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func post(t *testing.T, url, token string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/ai/execute",
		strings.NewReader(`{"action_provider":"p","action_name":"n"}`))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := conformance.Client(t).Do(req)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

// TestTwoServicesShareARedis: in process and as the binary, in neighbouring phases, with nothing in common but Redis.
func TestTwoServicesShareARedis(t *testing.T) {
	t.Parallel()
	redis := redisserver.Start(t)
	keys := harness.NewKeys(t)
	token := keys.Token(t, "acme")
	env := func(p migration.Phase) map[string]string {
		return harness.Environment(harness.PhaseEnvironment(p), map[string]string{
			"REDIS_URL": redis.URL(), "RELAY_API_KEYS_FILE": keys.Path,
		})
	}
	old := harness.Boot(t, env(migration.Legacy))
	both := harness.Start(t, env(migration.Canary))
	require.Equal(t, http.StatusOK, post(t, old.URL, token))
	require.Empty(t, redisserver.Dump(t, redis.Client(t), "ai:job:acme:*"))
	require.Equal(t, http.StatusOK, post(t, both.URL, token))
	require.Len(t, redisserver.Dump(t, redis.Client(t), "ai:job:acme:*"), 1)
	require.Len(t, redisserver.Dump(t, redis.Client(t), "ai:jobs:*"), 2)

	require.NoError(t, old.Stop())
	require.NoError(t, old.Stop())
	require.Len(t, old.Log.Message(t, "request"), 1)
	require.Equal(t, "legacy", old.Log.Message(t, "serving")[0]["phase"])
	_, err := conformance.Client(t).Get(old.URL + "/livez") //nolint:noctx,bodyclose // nobody answers
	require.Error(t, err)
	require.Equal(t, 0, both.Stop(t))
	require.Equal(t, "canary", both.Log.Message(t, "serving")[0]["phase"])
}

func TestKilledProcessLeavesNoExitCode(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, map[string]string{"RELAY_DEMO": "on"})
	p.Kill(t)
	require.Equal(t, -1, p.Wait(t))
}
