package main_test

import (
	"encoding/json"
	"errors"
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

// inNewOnly runs a command as it is run once every server is in new only.
func (o operated) inNewOnly(want int, args ...string) (stdout, stderr string) {
	o.Helper()
	env := harness.PhaseEnvironment(migration.NewOnly)
	env["REDIS_URL"] = o.url
	code, stdout, stderr := harness.Run(o.T, env, append([]string{"migrate"}, args...)...)
	require.Equal(o, want, code, "%v: %s%s", args, stdout, stderr)
	return stdout, stderr
}

// openRetire does all that opens the gate, to jobs of which one waits.
func (o operated) openRetire() {
	o.Helper()
	o.predecessor(longAgo(), "1", "2", "3")
	o.migrate(app.ExitOK, "backfill", "--execute", "--rate=0")
	require.NoError(o, o.rdb.RPush(o.Context(), "ai:queue:pending", "acme:1").Err())
	for range 2 {
		o.inNewOnly(app.ExitOK, "verify", "--rate=0", "--index-lag=0", "--record")
	}
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
	require.NoError(t, o.rdb.Set(t.Context(), "ai:idempotency:acme:key", "gone", time.Hour).Err())
	require.Regexp(t, `(?s)idempotency +1, such as "ai:idempotency:acme:key"\n.*clean +yes\n`, o.verify(app.ExitOK))
	require.NoError(t, o.rdb.Del(t.Context(), "ai:idempotency:acme:key").Err())
	before := redisserver.Dump(t, o.rdb, "*")

	require.Regexp(t, `clean +yes\n`, o.verify(app.ExitOK))
	o.verify(app.ExitOK, "--accept=wrong-type=1")
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

	require.NoError(t, o.rdb.Set(t.Context(), "ai:jobs:odd", "no hash", 0).Err())
	o.verify(app.ExitDiffers, "--record")
	stdout = o.verify(app.ExitOK, "--record", "--accept=wrong-type=1")
	require.Contains(t, stdout, `wrong-type           1, such as "ai:jobs:odd"`, "no age is known of what has no time")
	require.Regexp(t, `written without rev +0 since `, stdout)
	passes = o.passes()
	require.False(t, passes[1].Clean)
	require.True(t, passes[0].Clean)
	require.Equal(t, map[string]int64{"wrong-type": 1}, passes[0].Counts)
	require.Equal(t, map[string]int64{"wrong-type": 1}, passes[0].Accepted)
	actions, all := o.audit()
	require.Equal(t, []string{"accept", "record"}, actions[len(actions)-2:])
	require.Contains(t, all, "wrong-type 1")
	require.NoError(t, o.rdb.Del(t.Context(), "ai:jobs:odd").Err())

	o.predecessor(time.Now().Add(time.Minute), "4") // whatever this machine's clock says
	o.migrate(app.ExitOK, "backfill", "--execute", "--rate=0")
	require.Regexp(t, `written without rev +1 since `, o.verify(app.ExitOK, "--record"))
	require.EqualValues(t, 1, o.passes()[0].WithoutRev)
	stdout, _ = o.migrate(app.ExitOK, "status")
	require.Regexp(t, `gate fallback off +closed:.* writers without rev: 1 jobs were written without rev`, stdout)
	require.Regexp(t, `gate new only +closed: two clean passes: 0 of 2 recorded in strict new \(the newest was in dual write\)`, stdout)
}

// TestMigrateSaysWhatCountsForGates: of a pass that is kept, and of one that could be.
func TestMigrateSaysWhatCountsForGates(t *testing.T) {
	t.Parallel()
	o := operate(t)
	o.predecessor(longAgo(), "1", "2", "3", "4")
	stdout, _ := o.migrate(app.ExitOK, "backfill", "--execute", "--rate=0")
	require.NotContains(t, stdout, "recorded", "no gate asks for it")
	for _, c := range []struct {
		want string
		code int
		args string
	}{
		{"yes", app.ExitOK, "--execute"},
		{"no: a dry run", app.ExitOK, "--dry-run"},
		{"no: it was of one workspace alone", app.ExitOK, "--execute --workspace=acme"},
		{"no: it is not at the end", app.ExitDiffers, "--execute --max-jobs=1 --batch-size=1"},
		{"no: it went on where an earlier run ended", app.ExitOK, "--execute"},
		{"yes", app.ExitOK, "--execute --restart"},
	} {
		stdout, _ := o.migrate(c.code, append([]string{"backfill", "--to=old", "--rate=0"}, strings.Fields(c.args)...)...)
		require.Regexp(t, `recorded for gate back +`+c.want+`\n$`, stdout, c.args)
	}
	require.Regexp(t, `clean +yes\n$`, o.verify(app.ExitOK))
	require.Regexp(t, `recorded +yes\n$`, o.verify(app.ExitOK, "--record"))
	for _, part := range []string{"--sample=2", "--workspace=acme"} {
		require.Regexp(t, `recorded +partial: counts for no gate\n$`, o.verify(app.ExitOK, "--record", part))
	}
}

// TestMigrateVerifyNamesWhatItFinds: each difference where that is asked for, and the servers that another phase fits.
func TestMigrateVerifyNamesWhatItFinds(t *testing.T) {
	t.Parallel()
	o := operate(t)
	o.predecessor(longAgo(), "1", "2\x1b")
	require.NoError(t, o.rdb.Set(t.Context(), "ai:jobs:odd", "no hash", 0).Err())
	for id, phase := range map[string]string{"one\x1b": "read routing", "two": "dual write"} {
		require.NoError(t, o.rdb.ZAdd(t.Context(), "ai:servers", redis.Z{Member: id}).Err())
		text, err := json.Marshal(map[string]string{"id": id, "phase": phase})
		require.NoError(t, err)
		require.NoError(t, o.rdb.Set(t.Context(), "ai:server:"+id, text, time.Minute).Err())
	}
	args := []string{"verify", "--rate=0", "--index-lag=0"}
	_, stderr := o.migrate(app.ExitDiffers, args...)
	require.Equal(t, "warning: \"one\\x1b\" serves in read routing, and this judges by dual write\n"+
		"relay: differences remain\n", stderr)
	stdout, stderr := o.migrate(app.ExitDiffers, append(args, "--verbose", "--json")...)
	for _, line := range []string{
		`missing "ai:jobs:1"`, `missing "ai:jobs:2\x1b"`, `wrong-type "ai:jobs:odd"`, `index-missing "ai:index:acme" entry "2\x1b"`,
	} {
		require.Equal(t, 1, strings.Count(stderr, line+"\n"), "%s: %s", line, stderr)
	}
	require.Contains(t, stdout, `"errors":0`)
	require.NoError(t, o.rdb.Set(t.Context(), "ai:fallback-hits", "odd", 0).Err())
	_, stderr = o.migrate(app.ExitDiffers, args...)
	require.Contains(t, stderr, "which servers live is not known: ")
	_, stderr = o.migrate(app.ExitFault, append(args, "--record")...)
	require.NotContains(t, stderr, "differences")
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
	require.Regexp(t, `no job: wrong-type +2\nno job: invalid-workspace +2\n`, stdout)
	require.Regexp(t, `errors +0\ngate retire +closed: two clean passes: .*\n$`, stdout)

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
	require.Regexp(t, `no job: wrong-type +2\nno job: invalid-workspace +2\n`, stdout)
}

// TestMigrateRetireIsRefusedByEachCondition: each alone keeps the gate closed that is open without it, is named alone, and
// nothing is changed.
func TestMigrateRetireIsRefusedByEachCondition(t *testing.T) {
	t.Parallel()
	soon := func() string { return strconv.FormatInt(time.Now().Add(time.Minute).UnixMicro(), 10) }
	shown := map[migration.Condition]bool{}
	for name, c := range map[string]struct {
		condition migration.Condition
		because   string
		unmet     func(o operated) error
	}{
		"one pass alone": {migration.ConditionVerified, "1 of 2 recorded", func(o operated) error {
			err := o.rdb.Del(o.Context(), "ai:migration-passes").Err()
			o.inNewOnly(app.ExitOK, "verify", "--rate=0", "--index-lag=0", "--record")
			return err
		}},
		"a difference": {migration.ConditionVerified, "left differences: index-", func(o operated) error {
			err := o.rdb.ZAdd(o.Context(), "ai:index:acme", redis.Z{Member: "none"}).Err()
			o.inNewOnly(app.ExitDiffers, "verify", "--rate=0", "--index-lag=0", "--record")
			return err
		}},
		"a live server": {migration.ConditionServers, `1 of 2 live servers do not fit: "one" in strict new`, func(o operated) error {
			var err error
			for id, phase := range map[string]string{"one": "strict new", "two": "new only"} {
				said := `{"id":"` + id + `","phase":"` + phase + `"}`
				err = errors.Join(err, o.rdb.ZAdd(o.Context(), "ai:servers", redis.Z{Member: id}).Err(),
					o.rdb.Set(o.Context(), "ai:server:"+id, said, time.Hour).Err())
			}
			return err
		}},
		"a server that is gone": {migration.ConditionServers, "a server in dual write may have served until", func(o operated) error {
			at := soon()
			return o.rdb.HSet(o.Context(), "ai:phases-seen", "dual write:since", at, "dual write:last", at).Err()
		}},
		"a writer": {migration.ConditionWriters, "1 jobs were written without rev since", func(o operated) error {
			o.predecessor(time.Now().Add(time.Minute), "late")
			o.migrate(app.ExitOK, "backfill", "--execute", "--rate=0")
			o.inNewOnly(app.ExitOK, "verify", "--rate=0", "--index-lag=0", "--record")
			return nil
		}},
		"a read": {migration.ConditionFallback, "the last of 7 at", func(o operated) error {
			return o.rdb.HSet(o.Context(), "ai:fallback-hits", "count", 7, "last", soon()).Err()
		}},
		"an entry": {migration.ConditionQueue, "1 of 2 entries name no workspace", func(o operated) error {
			return o.rdb.RPush(o.Context(), "ai:queue:pending", "1").Err()
		}},
		"a worker": {migration.ConditionWorkers, "1 connection takes from a list", func(o operated) error {
			go o.rdb.BLPop(o.Context(), 0, "nobody") // it ends with the test
			require.Eventually(o, func() bool {
				return strings.Contains(o.rdb.ClientList(o.Context()).Val(), "cmd=blpop")
			}, waitLimit, 10*time.Millisecond)
			return nil
		}},
	} {
		shown[c.condition] = true
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := operate(t)
			o.openRetire()
			require.NoError(t, c.unmet(o))
			before := redisserver.Dump(t, o.rdb, "*")
			stdout, stderr := o.inNewOnly(app.ExitRefused, "retire", "--execute", "--rate=0")
			require.Empty(t, stdout)
			require.Contains(t, stderr, `relay: refused: the gate "retire" is closed: `+c.condition.String()+": ")
			require.Contains(t, stderr, c.because)
			for _, other := range migration.GateRetire.Conditions() {
				require.True(t, other == c.condition || !strings.Contains(stderr, other.String()+": "), stderr)
			}
			require.Equal(t, before, redisserver.Dump(t, o.rdb, "*"), "a refused command changes nothing")
		})
	}
	for _, condition := range migration.GateRetire.Conditions() {
		require.True(t, shown[condition], condition)
	}
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		o := operate(t)
		o.openRetire()
		stdout, _ := o.inNewOnly(app.ExitOK, "retire", "--execute", "--rate=0")
		require.Regexp(t, `removed +3\n`, stdout)
		require.Empty(t, redisserver.Dump(t, o.rdb, "ai:jobs:*"))
		require.Len(t, redisserver.Dump(t, o.rdb, "ai:job:acme:*"), 3)
	})
}

// TestMigrateRetireGoesByTheQuietThatIsAskedFor: a gate that status calls open for it is open.
func TestMigrateRetireGoesByTheQuietThatIsAskedFor(t *testing.T) {
	t.Parallel()
	o := operate(t)
	o.predecessor(longAgo(), "1")
	o.migrate(app.ExitOK, "backfill", "--execute", "--rate=0")
	env := dualWrite(o.url)
	env["AI_JOBS_OLD_SCHEMA"], env["READ_FALLBACK_OLD"] = "off", "off"
	for range 2 {
		code, stdout, stderr := harness.Run(t, env, "migrate", "verify", "--rate=0", "--index-lag=0", "--record")
		require.Equal(t, app.ExitOK, code, "%s%s", stdout, stderr)
	}
	require.NoError(t, o.rdb.HSet(t.Context(), "ai:fallback-hits", "count", 7, "last", time.Now().Add(-time.Minute).UnixMicro()).Err())
	stdout, _ := o.migrate(app.ExitOK, "status", "--quiet=1s")
	require.Regexp(t, `gate retire +open\n`, stdout)
	_, stderr := o.migrate(app.ExitRefused, "retire", "--execute", "--rate=0")
	require.Contains(t, stderr, `the gate "retire" is closed: fallback hits: `)
	stdout, _ = o.migrate(app.ExitDiffers, "retire", "--dry-run", "--rate=0", "--quiet=1s")
	require.Regexp(t, `gate retire +open\n`, stdout)
	o.migrate(app.ExitOK, "retire", "--execute", "--rate=0", "--quiet=1s")
	actions, all := o.audit()
	require.Equal(t, "execute", actions[len(actions)-1])
	require.Contains(t, all, "--quiet=1s")
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
	_, refused := o.migrate(app.ExitRefused, "retire", "--execute")
	stdout, stderr := o.migrate(app.ExitOK, "retire", "--execute", "--workspace=globex", "--force=none of theirs")
	require.Regexp(t, `removed +0\n`, stdout)
	require.Regexp(t, `gate retire +closed: two clean passes: .*\n$`, stdout)
	require.Equal(t, strings.Replace(refused, "relay: refused: ", "forced: ", 1), stderr, "it says what it overrules")
	stdout, _ = o.migrate(app.ExitOK, "retire", "--execute", "--force=all of them")
	require.Regexp(t, `removed +2\n`, stdout)
	require.Zero(t, o.rdb.Exists(t.Context(), "ai:jobs:1", "ai:jobs:2").Val())
}
