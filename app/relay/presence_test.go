package main_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

func strictNew(url string) environment {
	return environment{"REDIS_URL": url, "AI_JOBS_NEW_SCHEMA": "on", "READ_FALLBACK_OLD": "off"}
}

// liveServer is a server as `relay migrate status` tells of it.
type liveServer struct {
	ID    string `json:"id"`
	Phase string `json:"phase"`
}

type migrationStatus struct {
	Servers []liveServer `json:"servers"`
	Differ  bool         `json:"servers_differ"`
	Hits    int64        `json:"fallback_hits"`
}

func statusOf(t *testing.T, env environment) (s migrationStatus) {
	t.Helper()
	code, stdout, stderr := harness.Run(t, env, "migrate", "status", "--json")
	require.Equal(t, app.ExitOK, code, stderr)
	require.NoError(t, json.Unmarshal([]byte(stdout), &s), stdout)
	return s
}

// TestServersTellOfThemselves: from before they are ready until they end, each in its phase; one that is killed is
// forgotten soon.
func TestServersTellOfThemselves(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	rdb := server.Client(t)
	keys := harness.NewKeys(t)
	serve := func(env environment) *harness.Process {
		env = maps.Clone(env)
		env["RELAY_API_KEYS_FILE"] = keys.Path
		p := harness.Start(t, env)
		harness.AwaitReady(t, p.URL)
		return p
	}
	first := serve(dualWrite(server.URL()))
	s := statusOf(t, dualWrite(server.OperatorURL()))
	require.Len(t, s.Servers, 1)
	require.Equal(t, "dual write", s.Servers[0].Phase)
	require.False(t, s.Differ)
	host, err := os.Hostname()
	require.NoError(t, err)
	require.Contains(t, s.Servers[0].ID, host+"/", "an operator finds it")
	said, err := rdb.Get(t.Context(), "ai:server:"+s.Servers[0].ID).Result()
	require.NoError(t, err)
	left, err := rdb.PTTL(t.Context(), "ai:server:"+s.Servers[0].ID).Result()
	require.NoError(t, err)
	require.Positive(t, left, "who ends without a word is forgotten")

	_, table, _ := harness.Run(t, dualWrite(server.OperatorURL()), "migrate", "status")
	require.Contains(t, table, fmt.Sprintf("%q in dual write\n", s.Servers[0].ID))

	second := serve(strictNew(server.URL()))
	s = statusOf(t, dualWrite(server.OperatorURL()))
	require.Len(t, s.Servers, 2)
	require.True(t, s.Differ)

	require.Equal(t, app.ExitOK, second.Stop(t))
	s = statusOf(t, dualWrite(server.OperatorURL()))
	require.Len(t, s.Servers, 1, "who ends takes its word back")
	// What it says never changes, and it says it again before it would be forgotten.
	require.NoError(t, rdb.PExpire(t.Context(), "ai:server:"+s.Servers[0].ID, time.Hour).Err())
	require.Eventually(t, func() bool {
		left, err := rdb.PTTL(t.Context(), "ai:server:"+s.Servers[0].ID).Result()
		require.NoError(t, err)
		return left < time.Minute
	}, waitLimit, 20*time.Millisecond)
	again, err := rdb.Get(t.Context(), "ai:server:"+s.Servers[0].ID).Result()
	require.NoError(t, err)
	require.Equal(t, said, again)
	first.Kill(t)
	require.EqualValues(t, 1, rdb.Exists(t.Context(), "ai:server:"+s.Servers[0].ID).Val())
}

// TestFallbackHitsReachTheStorage: of phases that read both schemas, in a batch and at the end.
func TestFallbackHitsReachTheStorage(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int64{"dual write": 3, "legacy": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redisserver.Start(t)
			rdb := server.Client(t)
			predecessor(t, rdb, "theirs")
			keys := harness.NewKeys(t)
			token := keys.Token(t, "acme")
			env := dualWrite(server.URL())
			if want == 0 {
				env = environment{"REDIS_URL": server.URL(), "READ_PREFERS_NEW": "off"}
			}
			env["RELAY_API_KEYS_FILE"] = keys.Path
			p := harness.Start(t, env)
			for range 2 {
				status, _ := request(t, http.MethodGet, p.URL+"/ai/jobs/theirs", token, "")
				require.Equal(t, http.StatusOK, status)
			}
			if want > 0 {
				require.Eventually(t, func() bool { return statusOf(t, dualWrite(server.OperatorURL())).Hits == 2 }, waitLimit, 100*time.Millisecond)
			}
			require.Len(t, list(t, p.URL, token, "").IDs, 1)
			own := execute(t, p.URL, token)
			status, _ := request(t, http.MethodGet, p.URL+"/ai/jobs/"+own, token, "")
			require.Equal(t, http.StatusOK, status)
			require.Equal(t, app.ExitOK, p.Stop(t))
			require.Equal(t, want, statusOf(t, dualWrite(server.OperatorURL())).Hits)
			last, err := rdb.HGet(t.Context(), "ai:fallback-hits", "last").Result()
			if want == 0 {
				require.ErrorIs(t, err, redis.Nil)
				return
			}
			require.NoError(t, err)
			require.NotEmpty(t, last)
		})
	}
}

// TestStrictNewWarnsBehindAClosedGate: and serves. What keeps the gate closed is named, and in other phases nothing is said.
func TestStrictNewWarnsBehindAClosedGate(t *testing.T) {
	t.Parallel()
	const says = "serving behind a closed gate; `relay migrate status` says why"
	server := redisserver.Start(t)
	keys := harness.NewKeys(t)
	token := keys.Token(t, "acme")
	for _, env := range []environment{dualWrite(server.URL()), strictNew(server.URL())} {
		env["RELAY_API_KEYS_FILE"] = keys.Path
		if env["READ_FALLBACK_OLD"] != "" { // what another version kept holds up nobody's start
			require.NoError(t, server.Client(t).RPush(t.Context(), "ai:migration-passes", "{").Err())
		}
		p := harness.Start(t, env)
		harness.AwaitReady(t, p.URL)
		execute(t, p.URL, token)
		require.Equal(t, app.ExitOK, p.Stop(t))
		warned := p.Log.Message(t, says)
		if env["READ_FALLBACK_OLD"] == "" {
			require.Empty(t, warned)
			continue
		}
		require.Len(t, warned, 1)
		require.Equal(t, "warn", warned[0]["level"])
		require.Equal(t, "fallback off", warned[0]["gate"])
		require.Equal(t, []any{"two clean passes", "fallback hits"}, warned[0]["closed_by"])
	}
}
