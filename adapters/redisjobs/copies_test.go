package redisjobs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// The stored times of the cases, one second apart.
const (
	first  = "2026-11-21T19:28:51.000001+00:00"
	second = "2026-11-21T19:28:52.000002+00:00"
	third  = "2026-11-21T19:28:53.000003+00:00"
)

type hash = map[string]string

// record is a whole record of acme's job "1" with changes; an empty change takes the field away.
func record(changes ...string) hash {
	h := hash{
		fieldID: "1", fieldWorkspace: "acme", fieldStatus: "pending", fieldProvider: "google", fieldName: "gmail.send",
		fieldParams: `{"to":"a"}`, fieldActor: "user:1", fieldResult: "", fieldEnqueuedAt: first,
	}
	for i := 0; i < len(changes); i += 2 {
		h[changes[i]] = changes[i+1]
		if changes[i+1] == "" && changes[i] != fieldResult {
			delete(h, changes[i])
		}
	}
	return h
}

func acmeJob(t *testing.T, text string) migration.JobRef {
	t.Helper()
	ws, err := workspace.Parse("acme")
	require.NoError(t, err)
	id, err := job.ParseID(text)
	require.NoError(t, err)
	return migration.JobRef{Workspace: ws, ID: id}
}

func copyOne(t *testing.T, c *Copies, ref migration.JobRef, to migration.Schema, dry bool) migration.Copied {
	t.Helper()
	copied, err := c.Copy(t.Context(), []migration.JobRef{ref}, to, dry)
	require.NoError(t, err)
	require.Len(t, copied, 1)
	require.Equal(t, ref, copied[0].Job)
	return copied[0]
}

// taken names the copy whose content and expiry both copies have in the end.
type taken uint8

const (
	neither taken = iota // nothing is written
	ofOld
	ofNew
)

type copyCase struct {
	old, new       hash          // nil for none
	oldTTL, newTTL time.Duration // 0 for none
	to             migration.Schema
	outcome        migration.CopyOutcome
	taken          taken
	waiting        []string // the queue before
	pushed         bool
	entries        []string // letters and stored times of the index in the end
	stale          []string // letters and stored times of entries that are there before
}

func copyCases() map[string]copyCase {
	running := []string{fieldStatus, "running", fieldStartedAt, second}
	completed := append(slices.Clone(running), fieldStatus, "completed", fieldFinishedAt, third)
	const hour = time.Hour
	to, back := migration.New, migration.Old
	return map[string]copyCase{
		"nothing": {to: to, outcome: migration.CopyAbsent},
		"only old": {
			old: record(), to: to, outcome: migration.CopyMade, taken: ofOld, entries: []string{"z", first, "p", first},
		},
		"only old, with an expiry": {
			old: record(completed...), oldTTL: hour, to: to, outcome: migration.CopyMade, taken: ofOld,
			entries: []string{"z", first, "c", first},
		},
		"only old, of a status that nobody knows": {
			old: record(fieldStatus, "paused"), to: to, outcome: migration.CopyMade, taken: ofOld, entries: []string{"z", first},
		},
		"only old, without status": {
			old: record(fieldStatus, ""), to: to, outcome: migration.CopyMade, taken: ofOld, entries: []string{"z", first},
		},
		"only old, on the way back": {
			old: record(), to: back, outcome: migration.CopySingle, entries: []string{"z", first, "p", first},
		},
		"only new": {
			new: record(), to: to, outcome: migration.CopySingle, entries: []string{"z", first, "p", first},
		},
		"only new, on the way back, waits": {
			new: record(), newTTL: hour, to: back, outcome: migration.CopyMade, taken: ofNew, pushed: true,
			waiting: []string{"acme:1"}, entries: []string{"z", first, "p", first},
		},
		"only new, on the way back, runs": {
			new: record(running...), to: back, outcome: migration.CopyMade, taken: ofNew, entries: []string{"z", first, "r", first},
		},
		"only new, on the way back, over a stub": {
			old: hash{fieldStatus: "completed"}, new: record(), to: back, outcome: migration.CopyMade, taken: ofNew, pushed: true,
			entries: []string{"z", first, "p", first},
		},
		"old and a stub": {
			old: record(completed...), new: hash{fieldStatus: "completed", fieldResult: "{}", fieldFinishedAt: third}, newTTL: hour,
			to: to, outcome: migration.CopyMade, taken: ofOld, entries: []string{"z", first, "c", first},
		},
		"old and a stub with a workspace": {
			old: record(), new: hash{fieldWorkspace: "acme"}, to: to, outcome: migration.CopyMade, taken: ofOld,
			entries: []string{"z", first, "p", first},
		},
		"a stub alone": {new: hash{fieldStatus: "running"}, to: to, outcome: migration.CopyAbsent},
		"equal": {
			old: record(), new: record(), to: to, outcome: migration.CopyIdentical, entries: []string{"z", first, "p", first},
		},
		"equal, of one expiry": {
			old: record(), new: record(), oldTTL: hour, newTTL: hour, to: to, outcome: migration.CopyIdentical,
			entries: []string{"z", first, "p", first},
		},
		"equal, waits, on the way back": {
			old: record(), new: record(), to: back, outcome: migration.CopyIdentical, entries: []string{"z", first, "p", first},
		},
		"equal, old expires sooner": {
			old: record(), new: record(), oldTTL: hour - time.Millisecond, newTTL: hour, to: to, outcome: migration.CopyTTL,
			taken: ofOld, entries: []string{"z", first, "p", first},
		},
		"equal, new expires sooner": {
			old: record(), new: record(), oldTTL: hour, newTTL: hour - time.Millisecond, to: back, outcome: migration.CopyTTL,
			taken: ofNew, entries: []string{"z", first, "p", first},
		},
		"equal, only old expires": {
			old: record(), new: record(), oldTTL: hour, to: to, outcome: migration.CopyTTL, taken: ofOld,
			entries: []string{"z", first, "p", first},
		},
		"equal, only new expires": {
			old: record(), new: record(), newTTL: hour, to: to, outcome: migration.CopyTTL, taken: ofNew,
			entries: []string{"z", first, "p", first},
		},
		"no rev, old is later": {
			old: record(completed...), oldTTL: hour, new: record(running...), to: to, outcome: migration.CopyRepaired, taken: ofOld,
			entries: []string{"z", first, "c", first}, stale: []string{"r", first},
		},
		"no rev, new is later": {
			old: record(running...), new: record(completed...), to: to, outcome: migration.CopyRepaired, taken: ofNew,
			entries: []string{"z", first, "c", first},
		},
		"no rev, no times, old went further": {
			old: record(fieldStatus, "running"), new: record(), to: to, outcome: migration.CopyRepaired, taken: ofOld,
			entries: []string{"z", first, "r", first},
		},
		"the higher rev in old": {
			old: record(append(running, fieldRev, "3")...), new: record(fieldRev, "2"), newTTL: hour, to: to,
			outcome: migration.CopyRepaired, taken: ofOld, entries: []string{"z", first, "r", first},
		},
		"the higher rev in old, new is later": {
			old: record(fieldRev, "3"), new: record(append(running, fieldRev, "2")...), to: to, outcome: migration.CopyRepaired,
			taken: ofOld, entries: []string{"z", first, "p", first},
		},
		"the higher rev in new": {
			old: record(fieldRev, "1"), new: record(append(running, fieldRev, "2")...), to: to, outcome: migration.CopyRepaired,
			taken: ofNew, entries: []string{"z", first, "r", first},
		},
		"the higher rev in new, old is later": {
			old: record(append(completed, fieldRev, "1")...), new: record(append(running, fieldRev, "2")...), to: to,
			outcome: migration.CopyConflict, entries: []string{"z", first, "r", first, "c", first},
		},
		"an equal rev, old changed by who does not know it": {
			old: record(append(running, fieldRev, "1")...), new: record(fieldRev, "1"), to: to, outcome: migration.CopyRepaired,
			taken: ofOld, entries: []string{"z", first, "r", first},
		},
		"an equal version, another result": {
			old: record(fieldRev, "1", fieldResult, "1"), new: record(fieldRev, "1", fieldResult, "2"), to: to,
			outcome: migration.CopyRepaired, taken: ofOld, entries: []string{"z", first, "p", first},
		},
		"an equal version, new lacks a field": {
			old: record(), new: record(fieldParams, ""), to: to, outcome: migration.CopyRepaired, taken: ofOld,
			entries: []string{"z", first, "p", first},
		},
		"an equal version, old lacks a field": {
			old: record(fieldRev, "2", fieldParams, ""), new: record(fieldRev, "2"), to: to, outcome: migration.CopyRepaired,
			taken: ofNew, pushed: true, entries: []string{"z", first, "p", first},
		},
		"the fresher lacks what a job is made with": {
			old: record(), new: record(append(running, fieldParams, "")...), to: to, outcome: migration.CopyConflict,
			entries: []string{"z", first, "p", first, "r", first},
		},
		"another place": {
			old: record(fieldEnqueuedAt, second), new: record(), to: to, outcome: migration.CopyRepaired, taken: ofOld,
			entries: []string{"z", second, "p", second}, stale: []string{"z", first, "p", first},
		},
		"waits again in new, on the way back": {
			old: record(append(running, fieldRev, "2")...), new: record(fieldRev, "3"), to: back,
			outcome: migration.CopyRepaired, taken: ofNew, waiting: []string{"acme:1"}, pushed: true,
			entries: []string{"z", first, "p", first},
		},
		"waits in new, on the way back, with its entry": {
			old: record(fieldRev, "1"), new: record(fieldRev, "3"), to: back, outcome: migration.CopyRepaired, taken: ofNew,
			waiting: []string{"0", "1", "2"}, entries: []string{"z", first, "p", first},
		},
		"waits in new, not on the way back": {
			old: record(fieldRev, "1"), new: record(fieldRev, "3"), to: to, outcome: migration.CopyRepaired, taken: ofNew,
			waiting: []string{"acme:1"}, pushed: true, entries: []string{"z", first, "p", first},
		},
		"another workspace's old": {
			old: record(fieldWorkspace, "acme-eu"), new: record(), to: back, outcome: migration.CopyForeign,
			entries: []string{"z", first, "p", first},
		},
		"another workspace's old alone": {old: record(fieldWorkspace, "acme-eu"), to: to, outcome: migration.CopyAbsent},
		"an old record of another id":   {old: record(fieldID, "2"), new: record(), to: back, outcome: migration.CopyForeign, entries: []string{"z", first, "p", first}},
		"nobody's old":                  {old: record(fieldWorkspace, ""), to: to, outcome: migration.CopyAbsent},
		"a new record of another id":    {old: record(), new: record(fieldID, "2"), to: to, outcome: migration.CopyContradiction},
		"a new record of another workspace": {
			old: record(), new: record(fieldWorkspace, "acme-eu"), to: to, outcome: migration.CopyContradiction,
		},
	}
}

// plant writes what a case begins with.
func (c copyCase) plant(t *testing.T, rdb *redis.Client) {
	t.Helper()
	ctx, far := t.Context(), time.Now()
	for key, h := range map[string]hash{"ai:jobs:1": c.old, "ai:job:acme:1": c.new} {
		if h != nil {
			require.NoError(t, rdb.HSet(ctx, key, h).Err())
		}
	}
	for key, ttl := range map[string]time.Duration{"ai:jobs:1": c.oldTTL, "ai:job:acme:1": c.newTTL} {
		if ttl > 0 {
			require.NoError(t, rdb.PExpireAt(ctx, key, far.Add(ttl)).Err())
		}
	}
	for _, id := range c.waiting {
		require.NoError(t, rdb.RPush(ctx, queueKey, id).Err())
	}
	for i := 0; i < len(c.stale); i += 2 {
		require.NoError(t, rdb.ZAdd(ctx, "ai:index:acme", redis.Z{Member: c.stale[i] + entryAt(c.stale[i+1])}).Err())
	}
}

func entryAt(stored string) string {
	at := job.ParseTime(stored)
	return secondsInBytes(at.Unix()) + fmt.Sprintf("%06d", at.Nanosecond()/1000) + "\x001"
}

func TestCopyOutcomes(t *testing.T) {
	server := redisserver.Start(t)
	rdb, ctx, one := server.Client(t), t.Context(), acmeJob(t, "1")
	copies := NewCopies(redisserver.AsOperator(t, rdb))
	reached := map[migration.CopyOutcome]bool{}
	for name, c := range copyCases() {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() {
				require.NoError(t, rdb.Del(context.Background(), "ai:jobs:1", "ai:job:acme:1", "ai:index:acme", queueKey).Err())
			})
			c.plant(t, rdb)
			before := redisserver.Dump(t, rdb, "*")

			would := copyOne(t, copies, one, c.to, true)
			require.Equal(t, before, redisserver.Dump(t, rdb, "*"), "a dry run changes nothing")
			did := copyOne(t, copies, one, c.to, false)
			require.Equal(t, c.outcome.String(), did.Outcome.String())
			require.Equal(t, would, did, "a dry run says what would be done")
			reached[c.outcome] = true

			after := redisserver.Dump(t, rdb, "*")
			from := map[taken]string{ofOld: before["ai:jobs:1"], ofNew: before["ai:job:acme:1"]}[c.taken]
			if c.taken == neither {
				require.Equal(t, before["ai:jobs:1"], after["ai:jobs:1"])
				require.Equal(t, before["ai:job:acme:1"], after["ai:job:acme:1"])
			} else {
				require.Equal(t, from, after["ai:jobs:1"], "fields and expiry")
				require.Equal(t, from, after["ai:job:acme:1"], "fields and expiry")
			}
			queue, err := rdb.LRange(ctx, queueKey, 0, -1).Result()
			require.NoError(t, err)
			want := slices.Clone(c.waiting)
			if c.pushed {
				want = append(want, "1")
			}
			require.ElementsMatch(t, want, queue)
			var entries []string
			for i := 0; i < len(c.entries); i += 2 {
				entries = append(entries, c.entries[i]+entryAt(c.entries[i+1]))
			}
			index, err := rdb.ZRange(ctx, "ai:index:acme", 0, -1).Result()
			require.NoError(t, err)
			require.ElementsMatch(t, entries, index)

			again := copyOne(t, copies, one, c.to, false)
			require.Zero(t, again.Entries)
			switch {
			case c.outcome.Changed():
				require.Equal(t, migration.CopyIdentical, again.Outcome)
			default:
				require.Equal(t, c.outcome, again.Outcome)
			}
			require.Equal(t, after, redisserver.Dump(t, rdb, "*"), "a second time changes nothing")
		})
	}
	reached[migration.CopyWrongType] = true // below
	require.Len(t, slices.Collect(maps.Keys(reached)), len(migration.CopyOutcomes()))
}

// TestCopyLeavesOtherTypes: a key that holds no hash is no fault, and nothing beside it is touched.
func TestCopyLeavesOtherTypes(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	ctx := t.Context()
	for _, key := range []string{"ai:jobs:1", "ai:job:acme:1"} {
		for _, to := range []migration.Schema{migration.Old, migration.New} {
			require.NoError(t, rdb.Del(ctx, "ai:jobs:1", "ai:job:acme:1").Err())
			require.NoError(t, rdb.HSet(ctx, "ai:jobs:1", record()).Err())
			require.NoError(t, rdb.HSet(ctx, "ai:job:acme:1", record(fieldStatus, "running")).Err())
			require.NoError(t, rdb.Del(ctx, key).Err())
			require.NoError(t, rdb.RPush(ctx, key, "something").Err())
			before := redisserver.Dump(t, rdb, "*")
			require.Equal(t, migration.CopyWrongType, copyOne(t, NewCopies(redisserver.AsOperator(t, rdb)), acmeJob(t, "1"), to, false).Outcome)
			require.Equal(t, before, redisserver.Dump(t, rdb, "*"))
		}
	}
}

// TestCopyOfBigHashes: copies that Redis holds in another form, or in another order, are still equal.
func TestCopyOfBigHashes(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	ctx := t.Context()
	big := record(fieldParams, strings.Repeat("x", 2<<20))
	require.NoError(t, rdb.HSet(ctx, "ai:jobs:1", big).Err())
	for _, field := range slices.Sorted(maps.Keys(big)) {
		require.NoError(t, rdb.HSet(ctx, "ai:job:acme:1", field, big[field]).Err())
	}
	copies := NewCopies(redisserver.AsOperator(t, rdb))
	require.Equal(t, migration.CopyIdentical, copyOne(t, copies, acmeJob(t, "1"), migration.New, false).Outcome)
	require.NoError(t, rdb.HSet(ctx, "ai:jobs:1", fieldStatus, "failed").Err())
	require.Equal(t, migration.CopyRepaired, copyOne(t, copies, acmeJob(t, "1"), migration.New, false).Outcome)
	require.Equal(t, rdb.HGetAll(ctx, "ai:jobs:1").Val(), rdb.HGetAll(ctx, "ai:job:acme:1").Val())
	batch, err := copies.Keys(ctx, 0, 1000)
	require.NoError(t, err)
	require.Greater(t, batch.Jobs[0].Bytes, int64(2<<20))
}

// TestCopyAnswersInTheOrderOfItsJobs, also where Redis does not know the script.
func TestCopyAnswersInTheOrderOfItsJobs(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	ctx := t.Context()
	copies := NewCopies(redisserver.AsOperator(t, rdb))
	for range 2 {
		require.NoError(t, rdb.ScriptFlush(ctx).Err())
		var refs []migration.JobRef
		for i := range 50 {
			id := strconv.Itoa(i)
			refs = append(refs, acmeJob(t, id))
			require.NoError(t, rdb.Del(ctx, "ai:jobs:"+id, "ai:job:acme:"+id).Err())
			if i%3 > 0 {
				require.NoError(t, rdb.HSet(ctx, "ai:jobs:"+id, record(fieldID, id)).Err())
			}
			if i%3 > 1 {
				require.NoError(t, rdb.HSet(ctx, "ai:job:acme:"+id, record(fieldID, id)).Err())
			}
		}
		copied, err := copies.Copy(ctx, refs, migration.New, false)
		require.NoError(t, err)
		for i, c := range copied {
			require.Equal(t, refs[i], c.Job)
			want := []migration.CopyOutcome{migration.CopyAbsent, migration.CopyMade, migration.CopyIdentical}[i%3]
			require.Equal(t, want, c.Outcome, "%d", i)
		}
	}
	none, err := copies.Copy(ctx, nil, migration.New, false)
	require.NoError(t, err)
	require.Empty(t, none)
}

// TestScriptsShareABoundedTrip, also those of a large step, and where Redis forgets the script in the middle.
func TestScriptsShareABoundedTrip(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	operator := redisserver.AsOperator(t, rdb)
	counted := &pipelines{before: func(n int) {
		if n == 2 { // behind the first whole trip
			require.NoError(t, rdb.ScriptFlush(t.Context()).Err())
		}
	}}
	operator.AddHook(counted)
	var refs []migration.JobRef
	for i := range 2*tripScripts + 1 {
		refs = append(refs, acmeJob(t, strconv.Itoa(i)))
		require.NoError(t, rdb.HSet(t.Context(), "ai:jobs:"+strconv.Itoa(i), record(fieldID, strconv.Itoa(i))).Err())
	}
	copied, err := NewCopies(operator).Copy(t.Context(), refs, migration.New, false)
	require.NoError(t, err)
	require.Len(t, copied, len(refs))
	for i, c := range copied {
		require.Equal(t, refs[i], c.Job)
		require.Equal(t, migration.CopyMade, c.Outcome)
	}
	require.Equal(t, []int{tripScripts, tripScripts, tripScripts, tripScripts, 1}, counted.sizes, "two again: Redis did not know the script")
}

// pipelines keeps how many scripts each had. before is called with how many there were.
type pipelines struct {
	sizes  []int
	before func(n int)
}

func (*pipelines) DialHook(next redis.DialHook) redis.DialHook { return next }

func (*pipelines) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (p *pipelines) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() == "evalsha" {
			p.before(len(p.sizes))
			p.sizes = append(p.sizes, len(cmds))
		}
		return next(ctx, cmds)
	}
}

func TestKeysTellsJobsFromWhatIsNone(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	ctx := t.Context()
	set := func(key string, h hash) { require.NoError(t, rdb.HSet(ctx, key, h).Err()) }
	set("ai:jobs:1", record())
	set("ai:job:acme:1", record())             // met under its old key
	set("ai:job:acme:2", record(fieldID, "2")) // alone
	set("ai:jobs:legacy:with:colons", record(fieldID, "legacy:with:colons"))
	set("ai:jobs:3", record(fieldID, "3", fieldWorkspace, "acme-eu"))
	set("ai:job:acme:3", record(fieldID, "3"))                 // an id in two workspaces: both are met
	set("ai:jobs:4", record(fieldID, "4", fieldWorkspace, "")) // nobody's
	set("ai:jobs:5", record(fieldID, "5", fieldWorkspace, "Acme\n"))
	set("ai:jobs:6", record(fieldID, "7"))
	set("ai:job:acme:6", record(fieldID, "6"))
	set("ai:job:acme:8", hash{fieldStatus: "running"}) // a stub
	set("ai:job:Acme:9", record())
	set("ai:job::9", record())
	set("ai:job:acme", record())
	set("ai:job:acme:", record())
	set("ai:jobs:", record())
	set("ai:jobs:"+strings.Repeat("x", 257), record())
	require.NoError(t, rdb.RPush(ctx, "ai:jobs:recent", "1").Err())
	require.NoError(t, rdb.RPush(ctx, "ai:job:acme:list", "1").Err())
	require.NoError(t, rdb.Set(ctx, "ai:jobsX", "1", 0).Err())
	require.NoError(t, rdb.Set(ctx, "ai:job-like", "1", 0).Err())
	before := redisserver.Dump(t, rdb, "*")

	batch, err := NewCopies(redisserver.AsOperator(t, rdb)).Keys(ctx, 0, 1000)
	require.NoError(t, err)
	require.Zero(t, batch.Next)
	require.Len(t, batch.Process, 40)
	var jobs []string
	for _, j := range batch.Jobs {
		jobs = append(jobs, j.Workspace.String()+" "+j.ID.String())
		require.Positive(t, j.Bytes)
	}
	require.ElementsMatch(t, []string{
		"acme 1", "acme 2", "acme legacy:with:colons", "acme-eu 3", "acme 3", "acme 6", "acme 8", "acme list",
	}, jobs)
	require.ElementsMatch(t, []migration.StrangeKey{
		{Key: "ai:jobs:4", Class: migration.KeyInvalidWorkspace},
		{Key: "ai:jobs:5", Class: migration.KeyInvalidWorkspace},
		{Key: "ai:jobs:6", Class: migration.KeyOtherID},
		{Key: "ai:job:Acme:9", Class: migration.KeyInvalidWorkspace},
		{Key: "ai:job::9", Class: migration.KeyInvalidWorkspace},
		{Key: "ai:job:acme", Class: migration.KeyNotAJob},
		{Key: "ai:job:acme:", Class: migration.KeyNotAJob},
		{Key: "ai:jobs:", Class: migration.KeyNotAJob},
		{Key: "ai:jobs:" + strings.Repeat("x", 257), Class: migration.KeyNotAJob},
		{Key: "ai:jobs:recent", Class: migration.KeyWrongType},
	}, batch.Strange)
	require.Equal(t, before, redisserver.Dump(t, rdb, "*"))
}

func TestConnectionsAreToldApart(t *testing.T) {
	a, b := NewCopies(nil), NewCopies(nil)
	const info = "id=7 addr=127.0.0.1:40000 laddr=127.0.0.1:6379 fd=8 name= age=1 idle=0 cmd=client|info user=default\n"
	name := a.connectionOf(info)
	require.Equal(t, name, a.connectionOf(strings.Replace(info, "age=1", "age=99", 1)), "for as long as it lasts")
	require.NotEqual(t, name, b.connectionOf(info), "of another run")
	for _, change := range [][2]string{{"id=7", "id=8"}, {"40000", "40001"}, {"6379", "6380"}} {
		require.NotEqual(t, name, a.connectionOf(strings.Replace(info, change[0], change[1], 1)), change[1])
	}
}

func TestCheckpoints(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	ctx := t.Context()
	copies := NewCopies(redisserver.AsOperator(t, rdb))
	kept := migration.Checkpoint{
		Process: "p", At: 1 << 63, Workspace: acmeJob(t, "1").Workspace, Counts: migration.BackfillCounts{
			Scanned: 3, Entries: 1, Jobs: map[migration.CopyOutcome]int64{migration.CopyMade: 2},
			Strange: map[migration.KeyClass]int64{migration.KeyNotAJob: 1},
		},
	}
	require.NoError(t, copies.SaveCheckpoint(ctx, migration.New, kept))
	got, err := NewCopies(redisserver.AsOperator(t, rdb)).Checkpoint(ctx, migration.New)
	require.NoError(t, err)
	require.Equal(t, kept, got)
	other, err := copies.Checkpoint(ctx, migration.Old)
	require.NoError(t, err)
	require.True(t, other.IsZero(), "each direction has its own")

	key := checkpointKey(migration.New)
	for _, garbage := range []string{"", "x", "null", "[]", "{}", `{"at":"1"}`, `{"at":1,"workspace_id":"Acme"}`, `{"at":-1}`, `{"at":1,"counts":{"jobs":{"odd":1}}}`} {
		require.NoError(t, rdb.Set(ctx, key, garbage, 0).Err())
		got, err := copies.Checkpoint(ctx, migration.New)
		require.NoError(t, err)
		require.Equal(t, migration.Checkpoint{}, got, garbage)
	}
	require.NoError(t, rdb.Del(ctx, key).Err())
	require.NoError(t, rdb.RPush(ctx, key, "1").Err())
	got, err = copies.Checkpoint(ctx, migration.New)
	require.NoError(t, err)
	require.True(t, got.IsZero(), "another type")
	require.NoError(t, copies.SaveCheckpoint(ctx, migration.New, kept))
	require.NoError(t, copies.SaveCheckpoint(ctx, migration.New, migration.Checkpoint{}))
	require.Zero(t, rdb.DBSize(ctx).Val())
}

func TestLoadOfARealServer(t *testing.T) {
	server := redisserver.Start(t, "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
	rdb, ctx := server.Client(t), t.Context()
	copies := NewCopies(redisserver.AsOperator(t, rdb))
	load, err := copies.Load(ctx)
	require.NoError(t, err)
	require.Regexp(t, `^\d+\.\d+\.\d+$`, load.Version)
	require.Equal(t, "allkeys-lru", load.EvictionPolicy)
	require.EqualValues(t, 64<<20, load.MaxMemory)
	require.Positive(t, load.UsedMemory)
	require.Positive(t, load.Ping)
	require.False(t, load.Paused || load.Saving)
	require.Zero(t, load.Rate)

	require.NoError(t, rdb.Set(ctx, "ai:backfill-pause", "why", 0).Err())
	for text, rate := range map[string]int{"50": 50, "0": migration.RateUnbounded, "-3": 0, "fast": 0, "": 0} {
		require.NoError(t, rdb.Set(ctx, "ai:backfill-rate", text, 0).Err())
		load, err = copies.Load(ctx)
		require.NoError(t, err)
		require.True(t, load.Paused)
		require.Equal(t, rate, load.Rate, text)
	}
}

func TestReadInfo(t *testing.T) {
	var load migration.Load
	readInfo(strings.ReplaceAll(`# Server
redis_version:6.2.14
used_memory:1000
maxmemory:2000
maxmemory_policy:noeviction
rdb_bgsave_in_progress:0
aof_rewrite_in_progress:1
connected_slaves:2
slave0:ip=10.0.0.1,port=6379,state=online,offset=900,lag=1
slave1:ip=10.0.0.2,port=6379,state=online,offset=400,lag=7
master_repl_offset:1000
`, "\n", "\r\n"), &load)
	require.Equal(t, migration.Load{
		Version: "6.2.14", EvictionPolicy: "noeviction", UsedMemory: 1000, MaxMemory: 2000, ReplicaDelay: 7 * time.Second,
		ReplicaBehind: 600, Saving: true,
	}, load)
	load = migration.Load{}
	readInfo("rdb_bgsave_in_progress:1\r\n", &load)
	require.Equal(t, migration.Load{Saving: true}, load)
	load = migration.Load{}
	readInfo("", &load)
	require.Equal(t, migration.Load{}, load)
}
