package main_test

import (
	"encoding/json"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// operated is a Redis and an operator who works on it.
type operated struct {
	*testing.T

	url string
	rdb *redis.Client
}

func operate(t *testing.T) operated {
	t.Helper()
	server := redisserver.Start(t)
	return operated{t, server.OperatorURL(), server.Client(t)}
}

// migrate runs a command and asks for its exit code.
func (o operated) migrate(want int, args ...string) (stdout, stderr string) {
	o.Helper()
	code, stdout, stderr := harness.Run(o.T, dualWrite(o.url), append([]string{"migrate"}, args...)...)
	require.Equal(o, want, code, "%v: %s%s", args, stdout, stderr)
	return stdout, stderr
}

// verify runs one at full speed.
func (o operated) verify(want int, args ...string) (stdout string) {
	o.Helper()
	stdout, _ = o.migrate(want, append([]string{"verify", "--rate=0", "--index-lag=0"}, args...)...)
	return stdout
}

// predecessor stores jobs as the predecessor does: in old alone, without rev.
func (o operated) predecessor(at time.Time, ids ...string) {
	o.Helper()
	for _, id := range ids {
		require.NoError(o, o.rdb.HSet(o.Context(), "ai:jobs:"+id, "job_id", id, "workspace_id", "acme", "status", "pending",
			"action_provider", "google", "action_name", "gmail.send", "params", "{}", "enqueued_at", at.Format(job.TimeLayout)).Err())
	}
}

// audit gives the actions of the account and all that it says, the oldest first.
func (o operated) audit() (actions []string, all string) {
	o.Helper()
	entries, err := o.rdb.XRange(o.Context(), "ai:migration-audit", "-", "+").Result()
	require.NoError(o, err)
	for _, e := range entries {
		actions = append(actions, e.Values["action"].(string))
		all += e.Values["detail"].(string) + "\n"
	}
	return actions, all
}

// passes gives those that status knows, the newest first.
func (o operated) passes() []migration.RecordedPass {
	o.Helper()
	stdout, _ := o.migrate(app.ExitOK, "status", "--json")
	var told struct {
		Passes []migration.RecordedPass `json:"passes"`
	}
	require.NoError(o, json.Unmarshal([]byte(stdout), &told))
	return told.Passes
}

func longAgo() time.Time { return time.Date(2020, 1, 2, 3, 4, 5, 6000, time.UTC) }

// TestMigrateRecordsWhatItVerified: for the gates, with a trace, and only where that is asked for.
func TestMigrateRecordsWhatItVerified(t *testing.T) {
	t.Parallel()
	o := operate(t)
	o.predecessor(longAgo(), "1", "2", "3")
	o.migrate(app.ExitOK, "backfill", "--execute", "--rate=0")
	require.NoError(t, o.rdb.Del(t.Context(), "ai:migration-passes", "ai:migration-audit").Err())
	before := redisserver.Dump(t, o.rdb, "*")

	require.Regexp(t, `clean +yes\n`, o.verify(app.ExitOK))
	o.verify(app.ExitOK, "--accept=missing=1")
	require.Equal(t, before, redisserver.Dump(t, o.rdb, "*"), "a plain one changes nothing")

	o.verify(app.ExitOK, "--record")
	o.verify(app.ExitOK, "--record")
	after := redisserver.Dump(t, o.rdb, "*")
	maps.DeleteFunc(after, func(key, _ string) bool { return key == "ai:migration-passes" || key == "ai:migration-audit" })
	require.Equal(t, before, after)
	actions, _ := o.audit()
	require.Equal(t, []string{"record", "record"}, actions)
	passes := o.passes()
	require.Len(t, passes, 2)
	for _, p := range passes {
		require.Equal(t, migration.PassVerify, p.Kind)
		require.Equal(t, migration.DualWrite, p.Phase)
		require.True(t, p.Whole && p.Clean)
		require.EqualValues(t, 3, p.Jobs)
		require.Zero(t, p.WithoutRev)
	}
	require.True(t, passes[1].Since.IsZero(), "there was none before")
	require.True(t, passes[0].Since.Equal(passes[1].Started))
	require.NotEmpty(t, passes[0].Process)
	stdout, _ := o.migrate(app.ExitOK, "status")
	require.Regexp(t, `gate fallback off +closed: fallback hits: [^;]*\n`, stdout, "nothing else is missing")

	o.verify(app.ExitOK, "--record", "--workspace=acme")
	o.verify(app.ExitOK, "--record", "--sample=2")
	for _, p := range o.passes()[:2] {
		require.True(t, p.Clean)
		require.False(t, p.Whole, "something was left out")
	}

	require.NoError(t, o.rdb.Del(t.Context(), "ai:job:acme:1").Err())
	o.verify(app.ExitDiffers, "--record")
	stdout = o.verify(app.ExitOK, "--record", "--accept=missing=1")
	require.Regexp(t, `written without rev +0 since `, stdout)
	passes = o.passes()
	require.False(t, passes[1].Clean)
	require.True(t, passes[0].Clean)
	require.Equal(t, map[string]int64{"missing": 1}, passes[0].Counts)
	require.Equal(t, map[string]int64{"missing": 1}, passes[0].Accepted)
	actions, all := o.audit()
	require.Equal(t, []string{"accept", "record"}, actions[len(actions)-2:])
	require.Contains(t, all, "missing 1")

	o.predecessor(time.Now().Add(time.Minute), "4") // whatever this machine's clock says
	o.migrate(app.ExitOK, "backfill", "--execute", "--rate=0")
	require.Regexp(t, `written without rev +1 since `, o.verify(app.ExitOK, "--record"))
	require.EqualValues(t, 1, o.passes()[0].WithoutRev)
	stdout, _ = o.migrate(app.ExitOK, "status")
	require.Regexp(t, `gate fallback off +closed:.* writers without rev: 1 jobs were written without rev`, stdout)
}

// TestMigrateRetiresOldCopies: not while a gate is closed, unless somebody says why that does not matter, and only what
// new holds.
func TestMigrateRetiresOldCopies(t *testing.T) {
	t.Parallel()
	o := operate(t)
	ctx := t.Context()
	redisserver.Load(t, o.rdb, redisserver.ReadFixture(t, "../../tests/migration/testdata/predecessor.jsonl"))
	o.migrate(app.ExitDiffers, "backfill", "--execute", "--rate=0")
	o.predecessor(longAgo(), "alone")
	before := redisserver.Dump(t, o.rdb, "*")
	stdout, _ := o.migrate(app.ExitDiffers, "retire", "--dry-run", "--rate=0")
	require.Equal(t, before, redisserver.Dump(t, o.rdb, "*"), "a dry run changes nothing")
	require.Regexp(t, `would be removed +[1-9]\d*\n`, stdout)
	require.Regexp(t, `kept: alone +1\n`, stdout)
	require.Regexp(t, `no job: wrong type +2\nno job: invalid workspace +2\n`, stdout)

	// All that can keep the gate closed.
	o.verify(app.ExitDiffers, "--record")
	o.predecessor(time.Now().Add(time.Minute), "late")
	o.verify(app.ExitDiffers, "--record")
	require.NoError(t, o.rdb.HSet(ctx, "ai:fallback-hits", "count", 7, "last", time.Now().UnixMicro()).Err())
	require.NoError(t, o.rdb.ZAdd(ctx, "ai:servers", redis.Z{Member: "one"}).Err())
	require.NoError(t, o.rdb.Set(ctx, "ai:server:one", `{"id":"one","phase":"dual write"}`, time.Minute).Err())
	require.NoError(t, o.rdb.LPush(ctx, "ai:queue:pending", "late").Err())
	taken := make(chan error, 1)
	go func() { taken <- o.rdb.BLPop(ctx, 0, "nobody").Err() }()
	require.Eventually(t, func() bool {
		return strings.Contains(o.rdb.ClientList(ctx).Val(), "cmd=blpop")
	}, waitLimit, 10*time.Millisecond)
	before = redisserver.Dump(t, o.rdb, "ai:*")
	_, stderr := o.migrate(app.ExitRefused, "retire", "--execute", "--rate=0")
	require.Contains(t, stderr, `relay: refused: the gate "retire" is closed: `)
	for _, c := range migration.GateRetire.Conditions() {
		require.Contains(t, stderr, c.String()+": ")
	}
	after := redisserver.Dump(t, o.rdb, "ai:*")
	delete(before, "ai:server:one") // its expiry goes on
	delete(after, "ai:server:one")
	require.Equal(t, before, after, "a refused command changes nothing")
	require.NoError(t, o.rdb.RPush(ctx, "nobody", "an end").Err())
	require.NoError(t, <-taken)

	old := map[string]map[string]string{}
	for key, content := range redisserver.Dump(t, o.rdb, "ai:jobs:*") {
		if strings.HasPrefix(content, "hash") {
			old[key] = o.rdb.HGetAll(ctx, key).Val()
		}
	}
	stdout, _ = o.migrate(app.ExitDiffers, "retire", "--execute", "--rate=0", "--batch-size=50", "--json", "--force=the trial is over")
	var told struct {
		Jobs map[string]int `json:"jobs"`
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &told))
	removed := 0
	after = redisserver.Dump(t, o.rdb, "ai:*")
	for key, content := range before {
		if _, stays := after[key]; stays || key == "ai:server:one" {
			continue
		}
		removed++
		fields := old[key]
		require.NotEmpty(t, fields, "%s was no job: %s", key, content)
		require.Equal(t, fields, o.rdb.HGetAll(ctx, "ai:job:"+fields["workspace_id"]+":"+fields["job_id"]).Val())
	}
	require.Greater(t, removed, 100)
	require.Equal(t, removed, told.Jobs["removed"])
	require.Contains(t, after, "ai:jobs:alone")
	require.Contains(t, after, "ai:jobs:late")
	actions, all := o.audit()
	require.Equal(t, []string{"force", "execute"}, actions[len(actions)-2:])
	require.Contains(t, all, "reason: the trial is over; the gate")

	stdout, _ = o.migrate(app.ExitDiffers, "retire", "--execute", "--rate=0", "--force=again")
	require.Regexp(t, `removed +0\nhad no old copy +`+strconv.Itoa(removed)+`\n`, stdout)
	require.Regexp(t, `kept: alone +2\n`, stdout)
	require.Regexp(t, `no job: wrong type +2\nno job: invalid workspace +2\n`, stdout)
}

// TestMigrateRetireEndsCleanly: with nothing left there is nothing to say.
func TestMigrateRetireEndsCleanly(t *testing.T) {
	t.Parallel()
	o := operate(t)
	o.predecessor(longAgo(), "1", "2")
	o.migrate(app.ExitOK, "backfill", "--execute", "--rate=0")
	o.migrate(app.ExitDiffers, "retire", "--dry-run")
	for _, args := range [][]string{{"--dry-run", "--force=why"}, {"--execute", "--force= "}, {"--execute", "--batch-size=0"}, nil} {
		_, stderr := o.migrate(app.ExitRefused, append([]string{"retire"}, args...)...)
		require.NotContains(t, stderr, "gate")
	}
	stdout, _ := o.migrate(app.ExitOK, "retire", "--execute", "--workspace=globex", "--force=none of theirs")
	require.Regexp(t, `removed +0\n`, stdout)
	stdout, _ = o.migrate(app.ExitOK, "retire", "--execute", "--restart", "--force=all of them")
	require.Regexp(t, `removed +2\n`, stdout)
	require.Zero(t, o.rdb.Exists(t.Context(), "ai:jobs:1", "ai:jobs:2").Val())
}
