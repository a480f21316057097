package main_test

import (
	"encoding/json"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// dualWrite is the environment of an operator whose servers write both schemas.
func dualWrite(url string) environment {
	return environment{"REDIS_URL": url, "AI_JOBS_NEW_SCHEMA": "on"}
}

// TestMigrateMovesThePredecessorsJobs: what an operator types, from the first look to the proof.
func TestMigrateMovesThePredecessorsJobs(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	rdb := server.Client(t)
	redisserver.Load(t, rdb, redisserver.ReadFixture(t, "../../tests/migration/testdata/predecessor.jsonl"))
	migrate := func(args ...string) (int, string, string) {
		return harness.Run(t, dualWrite(server.OperatorURL()), append([]string{"migrate"}, args...)...)
	}
	before := redisserver.Dump(t, rdb, "*")

	code, stdout, stderr := migrate("backfill", "--dry-run", "--rate=0")
	require.Equal(t, app.ExitDiffers, code, stderr)
	require.Regexp(t, `would be backfilled +303\n`, stdout)
	code, stdout, _ = migrate("verify", "--rate=0", "--index-lag=0")
	require.Equal(t, app.ExitDiffers, code)
	require.Regexp(t, `missing +291, `, stdout)
	code, stdout, _ = migrate("status")
	require.Equal(t, app.ExitOK, code)
	require.Regexp(t, `phase +dual write\n`, stdout)
	require.Regexp(t, `gate retire +closed: two clean passes: `, stdout)
	require.Equal(t, before, redisserver.Dump(t, rdb, "*"), "looking changes nothing")

	code, stdout, stderr = migrate("backfill", "--execute", "--rate=0", "--verbose", "--batch-size=50")
	require.Equal(t, app.ExitDiffers, code, "what stands for no job stays: %s", stderr)
	require.Regexp(t, `backfilled +303\n`, stdout)
	require.Regexp(t, `no job: wrong-type +2\nno job: invalid-workspace +2\n`, stdout)
	require.Contains(t, stderr, "made ")
	require.Regexp(t, `errors +0\nat the end +yes\n$`, stdout, "no gate asks for it")
	code, stdout, _ = migrate("backfill", "--execute", "--rate=0", "--json")
	require.Equal(t, app.ExitDiffers, code)
	var again struct {
		Jobs    map[string]int `json:"jobs"`
		Entries int            `json:"entries"`
		Done    bool           `json:"done"`
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &again))
	require.True(t, again.Done)
	require.Zero(t, again.Entries)
	require.Zero(t, again.Jobs["made"]+again.Jobs["repaired"]+again.Jobs["ttl"])

	code, stdout, _ = migrate("verify", "--rate=0", "--index-lag=0")
	require.Equal(t, app.ExitDiffers, code, stdout)
	require.NotContains(t, stdout, "missing")
	code, stdout, stderr = migrate("verify", "--rate=0", "--index-lag=0", "--accept=wrong-type=2", "--accept=invalid-workspace=2")
	require.Equal(t, app.ExitOK, code, "%s%s", stdout, stderr)
	require.Regexp(t, `clean +yes\n$`, stdout)
	audit, err := rdb.XRange(t.Context(), "ai:migration-audit", "-", "+").Result()
	require.NoError(t, err)
	require.NotEmpty(t, audit)
	for _, entry := range audit {
		for _, value := range entry.Values {
			require.NotContains(t, value, redisserver.Password)
		}
	}
}

// TestMigrateGoesOnWhereItWasInterrupted: Ctrl-C leaves a message and a position.
func TestMigrateGoesOnWhereItWasInterrupted(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	rdb := server.Client(t)
	redisserver.Load(t, rdb, redisserver.ReadFixture(t, "../../tests/migration/testdata/predecessor.jsonl"))
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), harness.Binary(t), "migrate", "backfill", "--execute", "--rate=20", "--batch-size=10")
	cmd.Env, cmd.Stdout, cmd.Stderr = []string{"REDIS_URL=" + server.OperatorURL()}, &stdout, &stderr
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		return rdb.Exists(t.Context(), "ai:backfill-checkpoint:new").Val() > 0
	}, waitLimit, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	require.Error(t, cmd.Wait())
	require.Equal(t, app.ExitFault, cmd.ProcessState.ExitCode())
	require.Regexp(t, `relay: interrupted: \d+ keys, .*; run it again to go on`, stderr.String())
	require.Regexp(t, `(?s)^scanned +[1-9]\d*\n.*errors +0\nat the end +no: run it again to go on\n$`, stdout.String())
	require.EqualValues(t, 1, rdb.Exists(t.Context(), "ai:backfill-checkpoint:new").Val())
	code, whole, _ := harness.Run(t, dualWrite(server.OperatorURL()), "migrate", "backfill", "--execute", "--rate=0")
	require.Equal(t, app.ExitDiffers, code)
	require.Regexp(t, `scanned +507\n`, whole, "both runs together met each key once")
	require.Regexp(t, `at the end +yes\n$`, whole)
	require.Zero(t, rdb.Exists(t.Context(), "ai:migration-passes").Val())
	require.Zero(t, rdb.Exists(t.Context(), "ai:backfill-checkpoint:new").Val())
}

// TestMigrateTellsWhatAFaultEnded: what was done before it, and that something had to be left.
func TestMigrateTellsWhatAFaultEnded(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	rdb := server.Client(t)
	redisserver.Load(t, rdb, redisserver.ReadFixture(t, "../../tests/migration/testdata/predecessor.jsonl"))
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), harness.Binary(t), "migrate", "backfill", "--execute", "--rate=20", "--batch-size=10", "--json")
	cmd.Env, cmd.Stdout, cmd.Stderr = []string{"REDIS_URL=" + server.OperatorURL()}, &stdout, &stderr
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		return rdb.Exists(t.Context(), "ai:backfill-checkpoint:new").Val() > 0
	}, waitLimit, 10*time.Millisecond)
	require.NoError(t, server.Kill())
	require.Error(t, cmd.Wait())
	require.Equal(t, app.ExitFault, cmd.ProcessState.ExitCode())
	require.Regexp(t, `relay: after [1-9]\d* keys, .*: The job storage `, stderr.String())
	var told struct {
		Scanned, Errors int
		Done, Recorded  bool
	}
	require.NoError(t, json.Unmarshal([]byte(stdout.String()), &told), stdout.String())
	require.Positive(t, told.Scanned)
	require.Equal(t, 1, told.Errors)
	require.False(t, told.Done || told.Recorded)
}

// TestMigrateTellsOfWhatNoSchemaHoldsWhole: backfill counts it, and verify finds it until somebody deletes it.
func TestMigrateTellsOfWhatNoSchemaHoldsWhole(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	rdb := server.Client(t)
	require.NoError(t, rdb.HSet(t.Context(), "ai:job:acme:1", "status", "completed", "result", "{}").Err())
	migrate := func(want int, args ...string) string {
		code, stdout, stderr := harness.Run(t, dualWrite(server.OperatorURL()), append([]string{"migrate"}, args...)...)
		require.Equal(t, want, code, stderr)
		return stdout
	}
	require.Regexp(t, `no whole copy +1\n`, migrate(app.ExitOK, "backfill", "--execute"))
	require.Regexp(t, `partial +1\b`, migrate(app.ExitDiffers, "verify"))
	require.NoError(t, rdb.Del(t.Context(), "ai:job:acme:1").Err())
	require.Regexp(t, `no whole copy +0\n`, migrate(app.ExitOK, "backfill", "--execute"))
	migrate(app.ExitOK, "verify")
}

// TestMigrateDryRunKeepsNoPosition, and says nothing of one.
func TestMigrateDryRunKeepsNoPosition(t *testing.T) {
	t.Parallel()
	o := operate(t)
	o.predecessor(longAgo(), "1", "2", "3", "4", "5", "6", "7", "8")
	stdout, _ := o.migrate(app.ExitDiffers, "backfill", "--dry-run", "--max-jobs=1")
	require.Regexp(t, `at the end +no\n`, stdout)
	stdout, _ = o.migrate(app.ExitDiffers, "backfill", "--execute", "--max-jobs=1")
	require.Regexp(t, `at the end +no: run it again to go on\n`, stdout)
	stdout, _ = o.migrate(app.ExitOK, "backfill", "--execute")
	require.Regexp(t, `at the end +yes\n`, stdout)
	require.Len(t, redisserver.Dump(t, o.rdb, "ai:job:acme:*"), 8)
}

func TestMigrateRefusesWhatCannotBeMeant(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	rdb := server.Client(t)
	for _, args := range [][]string{
		{"backfill"},
		{"backfill", "--dry-run", "--execute"},
		{"backfill", "--execute", "--to=both"},
		{"backfill", "--execute", "--workspace=ACME"},
		{"backfill", "--execute", "--rate=-1"},
		{"backfill", "--execute", "--batch-size=0"},
		{"backfill", "--execute", "extra"},
		{"verify", "--sample=0"},
		{"verify", "--accept=missing"},
		{"verify", "--accept=nothing=1"},
		{"verify", "--accept=wrong-type=0"},
		{"verify", "--accept=missing=1"},
		{"verify", "--accept=index-extra=1"},
		{"status", "extra"},
		{"status", "--quiet=-1s"},
		{"retire", "--dry-run", "--quiet=0"},
	} {
		code, stdout, stderr := harness.Run(t, dualWrite(server.OperatorURL()), append([]string{"migrate"}, args...)...)
		require.Equal(t, app.ExitRefused, code, "%v: %s", args, stderr)
		require.Contains(t, stderr, "refused: ")
		require.Empty(t, stdout)
	}
	code, _, stderr := harness.Run(t, environment{"REDIS_URL": server.OperatorURL(), "AI_JOBS_OLD_SCHEMA": "off"}, "migrate", "verify")
	require.Equal(t, app.ExitRefused, code, stderr)
	require.NoError(t, rdb.ConfigSet(t.Context(), "maxmemory", "1gb").Err())
	require.NoError(t, rdb.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err())
	code, _, stderr = harness.Run(t, dualWrite(server.OperatorURL()), "migrate", "backfill", "--execute")
	require.Equal(t, app.ExitRefused, code, stderr)
	require.Contains(t, stderr, "maxmemory-policy")
	require.Zero(t, rdb.DBSize(t.Context()).Val(), "a refused command changes nothing")
}
