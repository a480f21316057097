package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

const waitLimit = 20 * time.Second

// listed is a page as a caller sees it.
type listed struct {
	IDs  []string
	Next string
}

func list(t *testing.T, url, token, query string) listed {
	t.Helper()
	status, body := request(t, http.MethodGet, url+"/ai/jobs"+query, token, "")
	require.Equal(t, http.StatusOK, status, body)
	var page struct {
		Jobs []struct {
			JobID string `json:"job_id"`
		} `json:"jobs"`
		Next string `json:"next_cursor"`
	}
	require.NoError(t, json.Unmarshal([]byte(body), &page))
	l := listed{Next: page.Next}
	for _, j := range page.Jobs {
		l.IDs = append(l.IDs, j.JobID)
	}
	return l
}

func execute(t *testing.T, url, token string) string {
	t.Helper()
	status, body := request(t, http.MethodPost, url+"/ai/execute", token, action)
	require.Equal(t, http.StatusOK, status, body)
	var made struct {
		JobID string `json:"job_id"`
	}
	require.NoError(t, json.Unmarshal([]byte(body), &made))
	return made.JobID
}

// predecessor stores a job as a service does that knows only the old schema.
func predecessor(t *testing.T, rdb *redis.Client, ids ...string) {
	t.Helper()
	_, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		for _, id := range ids {
			p.HSet(t.Context(), "ai:jobs:"+id, "job_id", id, "status", "pending", "action_provider", "google",
				"action_name", "gmail.send", "params", "{}", "workspace_id", "acme", "actor_id", "a", "result", "",
				"enqueued_at", "2026-11-21T19:28:54.017837+00:00")
		}
		return nil
	})
	require.NoError(t, err)
}

func migrateIndex(t *testing.T, server *redisserver.Server, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return harness.Run(t, environment{"REDIS_URL": server.OperatorURL()}, append([]string{"migrate", "index"}, args...)...)
}

func TestListsGoByTheIndexWhereTheStorageWasEmpty(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	keys := harness.NewKeys(t)
	token := keys.Token(t, "acme")
	p := harness.Start(t, environment{"REDIS_URL": server.URL(), "RELAY_API_KEYS_FILE": keys.Path})
	harness.AwaitReady(t, p.URL)
	first, second := execute(t, p.URL, token), execute(t, p.URL, token)
	page := list(t, p.URL, token, "?limit=1")
	require.Equal(t, []string{second}, page.IDs)
	require.Regexp(t, `^at:\d+:`+second+`$`, page.Next)
	require.Equal(t, listed{IDs: []string{first}}, list(t, p.URL, token, "?limit=1000&cursor="+page.Next))
	require.Equal(t, app.ExitOK, p.Stop(t))
	require.Len(t, p.Log.Message(t, "lists go by the index"), 1)
}

func TestMigrateIndexBuildsTheIndexOfOldJobs(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	rdb := server.Client(t)
	predecessor(t, rdb, "one", "two", "three")
	require.NoError(t, rdb.Set(t.Context(), "ai:jobs:none", "no job", 0).Err())
	keys := harness.NewKeys(t)
	token := keys.Token(t, "acme")
	p := harness.Start(t, environment{"REDIS_URL": server.URL(), "RELAY_API_KEYS_FILE": keys.Path})
	byScan := list(t, p.URL, token, "?limit=2")
	require.Regexp(t, `^new:\d+:old:\d+`, byScan.Next)

	type counts struct {
		Scanned, Mended, Identical, Dropped, Ignored int
		DryRun                                       bool `json:"dry_run"`
		Complete                                     bool
	}
	run := func(code int, args ...string) (c counts) {
		got, stdout, stderr := migrateIndex(t, server, append(args, "--json")...)
		require.Equal(t, code, got, stderr)
		require.NoError(t, json.Unmarshal([]byte(stdout), &c), stdout)
		return c
	}
	before := redisserver.Dump(t, rdb, "*")
	require.Equal(t, counts{Scanned: 4, Mended: 3, Ignored: 1, DryRun: true}, run(app.ExitDiffers, "--dry-run"))
	require.Equal(t, before, redisserver.Dump(t, rdb, "*"), "a dry run changes nothing")
	require.Equal(t, counts{Scanned: 4, Mended: 3, Ignored: 1, Complete: true}, run(app.ExitOK, "--execute"))
	require.Equal(t, counts{Scanned: 4, Identical: 3, Ignored: 1, DryRun: true, Complete: true}, run(app.ExitOK, "--dry-run"))

	actions, all := operated{T: t, rdb: rdb}.audit()
	require.Equal(t, []string{"execute"}, actions, "of the one that was no dry run")
	require.Contains(t, all, "relay migrate index --execute=true")

	page := list(t, p.URL, token, "?limit=2")
	require.Equal(t, []string{"two", "three"}, page.IDs, "one time: by the bytes of the ids, downwards")
	require.True(t, strings.HasPrefix(page.Next, "at:"), page.Next)
	require.Equal(t, listed{IDs: []string{"one"}}, list(t, p.URL, token, "?limit=2&cursor="+page.Next))
	rest := list(t, p.URL, token, "?cursor="+byScan.Next)
	require.ElementsMatch(t, []string{"one", "two", "three"}, append(byScan.IDs, rest.IDs...), "a walk ends as it began")

	require.NoError(t, rdb.Del(t.Context(), "ai:jobs:one").Err())
	code, stdout, stderr := migrateIndex(t, server, "--dry-run")
	require.Equal(t, app.ExitDiffers, code)
	require.Regexp(t, `would be dropped +1\nerrors +0\nindex complete +yes\n$`, stdout)
	require.Contains(t, stderr, "--execute")
	code, stdout, stderr = migrateIndex(t, server, "--execute", "--rate=0")
	require.Equal(t, app.ExitOK, code)
	require.Regexp(t, `dropped +1\nerrors +0\nindex complete +yes\n$`, stdout)
	require.Empty(t, stderr)

	require.Equal(t, app.ExitOK, p.Stop(t))
	require.Len(t, p.Log.Message(t, "lists go by SCAN until `relay migrate index --execute` has completed the index"), 1)
}

func TestMigrateIndexRefusesWhatCannotBeMeant(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	for says, args := range map[string][]string{
		"exactly one of --dry-run and --execute": {},
		"give exactly one":                       {"--dry-run", "--execute"},
		"exactly one":                            {"--execute=false"},
		"--rate must be":                         {"--execute", "--rate=-1"},
		"REDIS_URL (--redis-url)":                {"--execute", "--redis-url=redis://:" + secret + "@h:port"},
		"is set but empty":                       {"--execute", "--redis-url="},
		"takes no arguments":                     {"--execute", secret},
	} {
		code, stdout, stderr := harness.Run(t, nil, append([]string{"migrate", "index"}, args...)...)
		require.Equal(t, app.ExitRefused, code, "%v", args)
		require.Contains(t, stderr, "relay: refused: ")
		require.Contains(t, stderr, says)
		require.NotContains(t, stdout+stderr, secret)
	}
}

func TestMigrateIndexSaysThatRedisIsAway(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	require.NoError(t, server.Kill())
	code, stdout, stderr := migrateIndex(t, server, "--execute", "--redis-url", server.SocketURL())
	require.Equal(t, app.ExitFault, code)
	require.Contains(t, stderr, "The job storage is not available")
	require.Empty(t, stdout)
}

func TestMigrateIndexTellsHowFarItIsAndStopsWhenInterrupted(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	rdb := server.Client(t)
	var ids []string
	for i := range 2000 {
		ids = append(ids, fmt.Sprint("job-", i))
	}
	predecessor(t, rdb, ids...)
	var stderr harness.Buffer
	cmd := exec.CommandContext(t.Context(), harness.Binary(t), "migrate", "index", "--execute", "--rate=1")
	cmd.Env, cmd.Stderr = []string{"REDIS_URL=" + server.OperatorURL()}, &stderr
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return strings.Contains(stderr.String(), "keys of jobs") }, waitLimit, 20*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	require.Error(t, cmd.Wait())
	require.Equal(t, app.ExitFault, cmd.ProcessState.ExitCode())
	require.Regexp(t, `relay: interrupted: [1-9]\d* keys of jobs`, stderr.String())
	require.Zero(t, rdb.Exists(t.Context(), "ai:index-state").Val(), "less than all is not complete")
	require.Positive(t, rdb.ZCard(t.Context(), "ai:index:acme").Val())
}

// TestSweepFindsAJobOfThePredecessor: in the demo's embedded Redis, too.
func TestSweepFindsAJobOfThePredecessor(t *testing.T) {
	t.Parallel()
	t.Run("real Redis", func(t *testing.T) {
		t.Parallel()
		server := redisserver.Start(t)
		rdb := server.Client(t)
		keys := harness.NewKeys(t)
		token := keys.Token(t, "acme")
		p := harness.Start(t, environment{
			"REDIS_URL": server.URL(), "RELAY_API_KEYS_FILE": keys.Path, "RELAY_INDEX_SWEEP": "1s",
		})
		requireSwept(t, p, rdb, token)
		for _, way := range []string{"--execute", "--dry-run"} {
			code, _, stderr := migrateIndex(t, server, way)
			require.Equal(t, app.ExitOK, code, stderr)
		}
		require.Empty(t, p.Log.Message(t, "index sweep failed"))

		require.NoError(t, server.Kill())
		require.Eventually(t, func() bool { return len(p.Log.Message(t, "index sweep failed")) > 0 }, waitLimit, 20*time.Millisecond)
		require.Equal(t, app.ExitOK, p.Stop(t))
		for _, failure := range p.Log.Message(t, "index sweep failed") {
			require.Equal(t, "warn", failure["level"])
			require.Equal(t, "unavailable", failure["reason"])
		}
		require.NotContains(t, p.Log.String(), server.Addr)
	})
	t.Run("the demo", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t, environment{"RELAY_DEMO": "on", "RELAY_INDEX_SWEEP": "1s"})
		tokens := regexp.MustCompile(`relay_sk_\S{43}`)
		require.Eventually(t, func() bool { return tokens.MatchString(p.Output.String()) }, waitLimit, 5*time.Millisecond)
		const says = "DEMO: the embedded Redis keeps nothing, all jobs are lost when this process stops"
		require.Eventually(t, func() bool { return len(p.Log.Message(t, says)) > 0 }, waitLimit, 5*time.Millisecond)
		addr, _ := p.Log.Message(t, says)[0]["redis_addr"].(string)
		rdb := redis.NewClient(&redis.Options{Addr: addr, DisableIdentity: true})
		t.Cleanup(func() { require.NoError(t, rdb.Close()) })
		requireSwept(t, p, rdb, tokens.FindString(p.Output.String()))
		require.Equal(t, app.ExitOK, p.Stop(t))
		require.Empty(t, p.Log.Message(t, "index sweep failed"))
	})
}

func requireSwept(t *testing.T, p *harness.Process, rdb *redis.Client, token string) {
	t.Helper()
	own := execute(t, p.URL, token)
	predecessor(t, rdb, "theirs")
	status, body := request(t, http.MethodGet, p.URL+"/ai/jobs/theirs", token, "")
	require.Equal(t, http.StatusOK, status, body)
	var page listed
	require.Eventually(t, func() bool {
		page = list(t, p.URL, token, "")
		return len(page.IDs) > 0 && page.IDs[len(page.IDs)-1] == "theirs" // the oldest
	}, waitLimit, 20*time.Millisecond)
	require.Contains(t, page.IDs, own)
	require.NoError(t, rdb.Del(t.Context(), "ai:jobs:theirs").Err())
}
