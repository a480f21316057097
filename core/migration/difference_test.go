package migration_test

import (
	"encoding/json"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
)

// forEver is what is left of a copy that does not expire.
const forEver = -time.Millisecond

// whole is a copy with rev and a time, whose fields say so; changes are fields and values by turns, ” takes one away.
func whole(key string, rev, started int64, changes ...string) migration.StoredCopy {
	c := migration.StoredCopy{
		Key: key, Holds: migration.HoldsWhole, Left: forEver,
		Version: job.Version{Rev: rev, Status: job.Pending, Enqueued: 1, Started: started},
		Fields:  map[string]string{"job_id": "1", "name": "a", "rev": string(rune('0' + rev)), "at": string(rune('0' + started))},
	}
	for i := 0; i < len(changes); i += 2 {
		if c.Fields[changes[i]] = changes[i+1]; changes[i+1] == "" {
			delete(c.Fields, changes[i])
		}
	}
	return c
}

func oldCopy(rev, started int64, changes ...string) migration.StoredCopy {
	return whole("old", rev, started, changes...)
}

func newCopy(rev, started int64, changes ...string) migration.StoredCopy {
	return whole("new", rev, started, changes...)
}

func holds(key string, h migration.Holding) migration.StoredCopy {
	return migration.StoredCopy{Key: key, Holds: h, Left: forEver}
}

func equalFor(old, new time.Duration) migration.JobFacts { //nolint:revive // the names of the two schemas
	f := migration.JobFacts{Old: oldCopy(1, 1), New: newCopy(1, 1), Equal: true}
	f.Old.Left, f.New.Left = old, new
	return f
}

func TestJudge(t *testing.T) {
	var (
		all      = migration.Phases()
		readsNew = []migration.Phase{migration.ReadRouting, migration.StrictNew, migration.NewOnly}
		looksNew = append(readsNew, migration.Canary, migration.DualWrite)
		both     = []migration.Phase{migration.Canary, migration.ReadRouting, migration.DualWrite, migration.StrictNew}
		looksOld = append([]migration.Phase{migration.Legacy}, both...)
		nothing  = holds("old", migration.HoldsNothing)
		none     = holds("new", migration.HoldsNothing)
	)
	for name, c := range map[string]struct {
		facts  migration.JobFacts
		class  migration.DifferenceClass
		behind string            // the key that is named
		in     []migration.Phase // elsewhere nothing is wrong
	}{
		"nowhere":                 {facts: migration.JobFacts{Old: nothing, New: none}},
		"equal":                   {facts: equalFor(forEver, forEver)},
		"equal, within a second":  {facts: equalFor(time.Minute, time.Minute+time.Second)},
		"equal, beyond a second":  {equalFor(time.Minute, 61*time.Second+time.Millisecond), migration.DifferenceTTL, "new", both},
		"equal, new expires late": {equalFor(time.Minute, time.Hour), migration.DifferenceTTL, "new", both},
		"equal, old expires":      {equalFor(time.Minute, forEver), migration.DifferenceTTL, "new", both},
		"equal, new expires":      {equalFor(forEver, 0), migration.DifferenceTTL, "new", both},
		"only old":                {migration.JobFacts{Old: oldCopy(1, 1), New: none}, migration.DifferenceMissing, "old", looksNew},
		"only new":                {migration.JobFacts{Old: nothing, New: newCopy(1, 1)}, migration.DifferenceGhost, "new", looksOld},
		"only new beside a stub": {
			migration.JobFacts{Old: holds("old", migration.HoldsStub), New: newCopy(1, 1)},
			migration.DifferenceGhost, "new", looksOld,
		},
		"new beside another's":  {facts: migration.JobFacts{Old: holds("old", migration.HoldsForeign), New: newCopy(1, 1)}},
		"new beside no hash":    {facts: migration.JobFacts{Old: holds("old", migration.HoldsOther), New: newCopy(1, 1)}},
		"nothing but another's": {facts: migration.JobFacts{Old: holds("old", migration.HoldsForeign), New: none}},
		"stub beside old": {
			migration.JobFacts{Old: oldCopy(1, 1), New: holds("new", migration.HoldsStub)},
			migration.DifferencePartial, "new", looksNew,
		},
		"stub alone": {
			migration.JobFacts{Old: nothing, New: holds("new", migration.HoldsStub)},
			migration.DifferencePartial, "new", looksNew,
		},
		"contradiction": {
			migration.JobFacts{Old: oldCopy(1, 1), New: holds("new", migration.HoldsForeign)},
			migration.DifferenceContradiction, "new", all,
		},
		"wrong type": {
			migration.JobFacts{Old: oldCopy(1, 1), New: holds("new", migration.HoldsOther)},
			migration.DifferenceWrongType, "new", all,
		},
		"new has too many fields": {
			migration.JobFacts{Old: oldCopy(1, 1), New: holds("new", migration.HoldsUnwieldy)},
			migration.DifferenceWrongType, "new", all,
		},
		"old has too many fields": {
			migration.JobFacts{Old: holds("old", migration.HoldsUnwieldy), New: none},
			migration.DifferenceWrongType, "old", looksOld,
		},
		"old has too many fields, beside new": {
			migration.JobFacts{Old: holds("old", migration.HoldsUnwieldy), New: newCopy(1, 1)},
			migration.DifferenceWrongType, "old", looksOld,
		},
		"old has the higher rev": {
			migration.JobFacts{Old: oldCopy(2, 1), New: newCopy(1, 2)}, migration.DifferenceStale, "new", looksNew,
		},
		"new has the higher rev": {
			migration.JobFacts{Old: oldCopy(1, 1), New: newCopy(2, 1)}, migration.DifferenceStale, "old", looksOld,
		},
		"no rev, old is later": {
			migration.JobFacts{Old: oldCopy(0, 3), New: newCopy(0, 2)}, migration.DifferenceStale, "new", looksNew,
		},
		"no rev, new is later": {
			migration.JobFacts{Old: oldCopy(0, 2), New: newCopy(0, 3)}, migration.DifferenceStale, "old", looksOld,
		},
		"one rev, other times": {
			migration.JobFacts{Old: oldCopy(2, 2), New: newCopy(2, 3)}, migration.DifferenceStale, "new", looksNew,
		},
		"one version, other bodies": {
			migration.JobFacts{Old: oldCopy(2, 2), New: newCopy(2, 2, "name", "b")}, migration.DifferenceStale, "new", looksNew,
		},
		"one version without rev, other bodies": {
			migration.JobFacts{Old: oldCopy(0, 2), New: newCopy(0, 2, "name", "b")}, migration.DifferenceConflict, "new", all,
		},
		"one version without rev, each has a field of its own": {
			migration.JobFacts{Old: oldCopy(0, 2, "name", "a", "attempts", "2"), New: newCopy(0, 2, "name", "a", "traceparent", "t")},
			migration.DifferenceConflict, "new", all,
		},
		"one version without rev, new has more": {
			migration.JobFacts{Old: oldCopy(0, 2, "name", "a"), New: newCopy(0, 2, "name", "a", "attempts", "2")},
			migration.DifferenceExtraField, "old", looksOld,
		},
		"new has the higher rev, old the later time": {
			migration.JobFacts{Old: oldCopy(1, 3), New: newCopy(2, 2)}, migration.DifferenceConflict, "new", all,
		},
		"new lacks a field": {
			migration.JobFacts{Old: oldCopy(1, 1), New: newCopy(1, 1, "name", "")}, migration.DifferencePartial, "new", looksNew,
		},
		"each lacks a field": {
			migration.JobFacts{Old: oldCopy(1, 1, "more", "1"), New: newCopy(1, 1, "other", "1")},
			migration.DifferencePartial, "new", looksNew,
		},
		"new lacks the time": {
			migration.JobFacts{Old: oldCopy(0, 2), New: newCopy(0, 0, "at", "")}, migration.DifferenceStale, "new", looksNew,
		},
		"new has a field more": {
			migration.JobFacts{Old: oldCopy(1, 1), New: newCopy(1, 1, "more", "1")}, migration.DifferenceExtraField, "old", looksOld,
		},
		"new has the rev alone": {
			migration.JobFacts{Old: oldCopy(0, 1, "rev", ""), New: newCopy(1, 1)}, migration.DifferenceExtraField, "old", looksOld,
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, phase := range all {
				want := []migration.Difference(nil)
				for _, p := range c.in {
					if p == phase {
						want = []migration.Difference{{Class: c.class, Key: c.behind, Latest: c.facts.Latest()}}
					}
				}
				got := migration.Judge(phase, c.facts)
				for i := range got {
					got[i].Mark = 0
				}
				require.Equal(t, want, got, phase)
			}
		})
	}
}

func TestJudgeEntries(t *testing.T) {
	for name, c := range map[string]struct {
		missing, extra []string
		class          migration.DifferenceClass
	}{
		"missing":   {missing: []string{"z1"}, class: migration.DifferenceIndexMissing},
		"extra":     {extra: []string{"c1"}, class: migration.DifferenceIndexExtra},
		"misplaced": {missing: []string{"p1"}, extra: []string{"c1"}, class: migration.DifferenceIndexMisplaced},
	} {
		for _, phase := range migration.Phases() {
			f := equalFor(forEver, forEver)
			f.Index, f.MissingEntries, f.ExtraEntries = "index", c.missing, c.extra
			got := migration.Judge(phase, f)
			require.Len(t, got, 1, name)
			require.Equal(t, c.class, got[0].Class, name)
			require.Equal(t, "index", got[0].Key)
			require.True(t, c.class.OfIndex())
		}
	}
}

// TestMarkFollowsTheCopyThatIsBehind: the difference is the same one while that copy stays, whatever the other does.
func TestMarkFollowsTheCopyThatIsBehind(t *testing.T) {
	mark := func(f migration.JobFacts) uint64 {
		found := migration.Judge(migration.DualWrite, f)
		require.Len(t, found, 1)
		return found[0].Mark
	}
	stale := func(old, new int64) uint64 { //nolint:revive // the names of the two schemas
		return mark(migration.JobFacts{Old: oldCopy(0, old), New: newCopy(0, new)})
	}
	require.Equal(t, stale(3, 1), stale(4, 1))
	require.NotEqual(t, stale(3, 1), stale(3, 2))
	require.Equal(t, mark(equalFor(time.Minute, forEver)), mark(equalFor(time.Second, forEver)))
	require.NotEqual(t, mark(equalFor(time.Minute, forEver)), mark(equalFor(forEver, time.Minute)))
	entries := func(missing, extra []string) uint64 {
		f := equalFor(forEver, forEver)
		f.MissingEntries, f.ExtraEntries = missing, extra
		return mark(f)
	}
	require.NotEqual(t, entries([]string{"p1"}, nil), entries([]string{"r1"}, nil))
	require.NotEqual(t, entries([]string{"p1", "z1"}, nil), entries([]string{"p1"}, []string{"z1"}))
}

func TestMendableDifferences(t *testing.T) {
	require.Len(t, migration.DifferenceClasses(), 20)
	var mendable []string
	for _, c := range migration.DifferenceClasses() {
		if c.Mendable() {
			mendable = append(mendable, c.String())
		}
	}
	require.Equal(t, []string{
		"missing", "ghost", "stale", "partial", "extra-field", "ttl", "index-missing", "index-extra", "index-misplaced",
		"index-gone",
	}, mendable)
	for _, k := range migration.KeyClasses() {
		require.NotZero(t, k.Difference(), k)
	}
}

func TestVerifyReport(t *testing.T) {
	now := time.UnixMicro(10_000_000)
	var r migration.VerifyReport
	require.True(t, r.Clean(nil))
	require.True(t, r.Whole())
	stale := migration.Difference{Class: migration.DifferenceStale, Key: "a\xff", Latest: 4_000_000}
	r.Add(stale, time.Second, now)
	r.Add(migration.Difference{Class: migration.DifferenceStale, Key: "b", Latest: 9_000_000}, 2*time.Second, now)
	r.Add(migration.Difference{Class: migration.DifferenceQueue, Key: "q", Entry: "e"}, time.Second, now)
	require.Equal(t, map[migration.DifferenceClass]migration.DifferenceTally{
		migration.DifferenceStale: {Count: 2, AgeMS: 6000, SeenMS: 2000, Example: migration.Example{Key: "a\xff"}},
		migration.DifferenceQueue: {Count: 1, SeenMS: 1000, Example: migration.Example{Key: "q", Entry: "e"}},
	}, r.Differences)

	accepted := map[migration.DifferenceClass]int64{migration.DifferenceStale: 2}
	require.False(t, r.Clean(nil))
	require.False(t, r.Clean(accepted), "the other class is not accepted")
	accepted[migration.DifferenceQueue] = 1
	require.True(t, r.Clean(accepted))
	higher := maps.Clone(accepted)
	higher[migration.DifferenceStale] = 3
	require.True(t, r.Clean(higher))
	accepted[migration.DifferenceStale] = 1
	require.False(t, r.Clean(accepted))

	var harmless migration.VerifyReport
	for _, c := range migration.DifferenceClasses() {
		require.Equal(t, c == migration.DifferenceIdempotency || c == migration.DifferenceIndexGone, c.Harmless(), c)
		if c.Harmless() {
			harmless.Add(migration.Difference{Class: c, Key: "k"}, time.Second, now)
		}
	}
	require.True(t, harmless.Clean(nil))
	require.Equal(t, int64(1), harmless.Differences[migration.DifferenceIdempotency].Count, "it is told all the same")
	harmless.Add(migration.Difference{Class: migration.DifferenceIdempotencyForeign, Key: "k"}, time.Second, now)
	require.False(t, harmless.Clean(nil))

	text, err := json.Marshal(r)
	require.NoError(t, err)
	require.Contains(t, string(text), `"queue":{"count":1,"age_ms":0,"seen_ms":1000,"example":{"key":"q","entry":"e"}}`)
	var back migration.VerifyReport
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, r.Differences[migration.DifferenceQueue], back.Differences[migration.DifferenceQueue])

	require.False(t, migration.VerifyReport{Sample: 2}.Whole())
	require.False(t, migration.VerifyReport{Workspace: "acme"}.Whole())
}
