package redisjobs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/contract"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

type retireCase struct {
	copyCase // what it begins with, and its entries in the end
	outcome  migration.RetireOutcome
}

func retireCases() map[string]retireCase {
	running := []string{fieldStatus, "running", fieldStartedAt, second}
	completed := append(slices.Clone(running), fieldStatus, "completed", fieldFinishedAt, third)
	with := func(base []string, more ...string) hash { return record(append(slices.Clone(base), more...)...) }
	waits := []string{"z", first, "p", first}
	const hour = time.Hour
	return map[string]retireCase{
		"nothing":  {copyCase{}, migration.RetireAbsent},
		"only new": {copyCase{new: record(), entries: waits}, migration.RetireAbsent},
		"only old": {copyCase{old: record(), entries: waits}, migration.RetireKeptAlone},
		"a stub in new": {
			copyCase{old: record(), new: hash{fieldStatus: "completed", fieldWorkspace: "acme"}, entries: waits}, migration.RetireKeptAlone,
		},
		"equal":                {copyCase{old: record(), new: record(), entries: waits, stale: waits}, migration.RetireRemoved},
		"equal, of one expiry": {copyCase{old: record(), new: record(), oldTTL: hour, newTTL: hour, entries: waits}, migration.RetireRemoved},
		"equal, new expires sooner": {
			copyCase{old: record(), new: record(), oldTTL: hour, newTTL: hour - time.Millisecond, entries: waits}, migration.RetireRemoved,
		},
		"equal, only new expires": {copyCase{old: record(), new: record(), newTTL: hour, entries: waits}, migration.RetireRemoved},
		"equal, old expires sooner": {
			copyCase{old: record(), new: record(), oldTTL: hour - time.Millisecond, newTTL: hour, entries: waits}, migration.RetireKeptTTL,
		},
		"equal, only old expires": {copyCase{old: record(), new: record(), oldTTL: hour, entries: waits}, migration.RetireKeptTTL},
		"the higher rev in new": {
			copyCase{
				old: record(fieldRev, "1"), new: with(completed, fieldRev, "3"), oldTTL: hour,
				stale: append(slices.Clone(waits), "c", first), entries: []string{"z", first, "c", first},
			}, migration.RetireRemoved,
		},
		"the higher rev in new, which went back": {
			copyCase{old: with(running, fieldRev, "2"), new: record(fieldRev, "3"), entries: waits},
			migration.RetireRemoved,
		},
		"the higher rev in new, old is later": {
			copyCase{
				old: with(completed, fieldRev, "1"), new: with(running, fieldRev, "2"), entries: []string{"z", first, "r", first, "c", first},
			}, migration.RetireConflict,
		},
		"the higher rev in old": {
			copyCase{old: with(running, fieldRev, "2"), new: record(fieldRev, "1"), entries: []string{"z", first, "p", first, "r", first}},
			migration.RetireKeptFresh,
		},
		"no rev, old is later": {
			copyCase{old: with(completed), new: with(running), entries: []string{"z", first, "c", first, "r", first}}, migration.RetireKeptFresh,
		},
		"no rev, old is later and has another result": {
			copyCase{
				old: with(completed, fieldResult, "1"), new: with(running, fieldResult, "2"), entries: []string{"z", first, "c", first, "r", first},
			}, migration.RetireKeptFresh,
		},
		"no rev, new is later": {
			copyCase{old: with(running), new: with(completed, fieldResult, "2"), entries: []string{"z", first, "c", first}}, migration.RetireRemoved,
		},
		"no rev, new went further": {
			copyCase{old: record(), new: record(fieldStatus, "running"), entries: []string{"z", first, "r", first}}, migration.RetireRemoved,
		},
		"no rev, nothing tells which": {
			copyCase{old: record(fieldActor, "user:2"), new: record(), entries: waits}, migration.RetireKeptUnlike,
		},
		"an equal rev, another result": {
			copyCase{old: record(fieldRev, "1", fieldResult, "1"), new: record(fieldRev, "1", fieldResult, "2"), entries: waits},
			migration.RetireKeptFresh,
		},
		"an equal rev, other params": {
			copyCase{old: record(fieldRev, "1", fieldParams, "1"), new: record(fieldRev, "1", fieldParams, "2"), entries: waits},
			migration.RetireKeptUnlike,
		},
		"new lacks a field":    {copyCase{old: record(), new: record(fieldParams, ""), entries: waits}, migration.RetireKeptUnlike},
		"new lacks the status": {copyCase{old: record(), new: record(fieldStatus, ""), entries: waits}, migration.RetireKeptUnlike},
		"new has a field more": {copyCase{old: record(), new: record(fieldTraceParent, "00"), entries: waits}, migration.RetireRemoved},
		"old lacks the status": {copyCase{old: record(fieldStatus, ""), new: record(), entries: waits}, migration.RetireRemoved},
		"new has the higher rev and lacks what a job is made with": {
			copyCase{old: record(fieldRev, "1"), new: with(running, fieldRev, "2", fieldParams, ""), entries: append(slices.Clone(waits), "r", first)},
			migration.RetireKeptUnlike,
		},
		"another place": {
			copyCase{
				old: record(fieldRev, "1"), new: with(running, fieldRev, "2", fieldEnqueuedAt, second),
				stale: append(slices.Clone(waits), "z", second, "r", second), entries: []string{"z", second, "r", second},
			}, migration.RetireRemoved,
		},
		"another workspace's old":     {copyCase{old: record(fieldWorkspace, "acme-eu"), new: record(), entries: waits}, migration.RetireForeign},
		"another workspace's alone":   {copyCase{old: record(fieldWorkspace, "acme-eu")}, migration.RetireForeign},
		"nobody's old":                {copyCase{old: record(fieldWorkspace, ""), new: record(), entries: waits}, migration.RetireForeign},
		"an old record of another id": {copyCase{old: record(fieldID, "2"), new: record(), entries: waits}, migration.RetireForeign},
		"a stub in old":               {copyCase{old: hash{fieldStatus: "completed"}, new: record(), entries: waits}, migration.RetireForeign},
		"a new record of another workspace": {
			copyCase{old: record(), new: record(fieldWorkspace, "acme-eu")}, migration.RetireContradiction,
		},
	}
}

func retireOne(t *testing.T, o *OldCopies, ref migration.JobRef, dry bool) migration.Retired {
	t.Helper()
	retired, err := o.Retire(t.Context(), []migration.JobRef{ref}, dry)
	require.NoError(t, err)
	require.Len(t, retired, 1)
	require.Equal(t, ref, retired[0].Job)
	return retired[0]
}

func TestRetireOutcomes(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	one, old := acmeJob(t, "1"), NewOldCopies(redisserver.AsOperator(t, rdb))
	reached := map[migration.RetireOutcome]bool{migration.RetireWrongType: true} // below
	for name, c := range retireCases() {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() {
				require.NoError(t, rdb.Del(context.Background(), "ai:jobs:1", "ai:job:acme:1", "ai:index:acme").Err())
			})
			c.plant(t, rdb)
			before := redisserver.Dump(t, rdb, "*")
			would := retireOne(t, old, one, true)
			require.Equal(t, before, redisserver.Dump(t, rdb, "*"), "a dry run changes nothing")
			did := retireOne(t, old, one, false)
			require.Equal(t, c.outcome.String(), did.Outcome.String())
			require.Equal(t, would, did, "a dry run says what would be done")
			reached[c.outcome] = true

			after := redisserver.Dump(t, rdb, "*")
			require.Equal(t, before["ai:job:acme:1"], after["ai:job:acme:1"], "the new copy is never touched")
			if c.outcome == migration.RetireRemoved {
				require.NotContains(t, after, "ai:jobs:1")
			} else {
				require.Equal(t, before["ai:jobs:1"], after["ai:jobs:1"])
			}
			var entries []string
			for i := 0; i < len(c.entries); i += 2 {
				entries = append(entries, c.entries[i]+entryAt(c.entries[i+1]))
			}
			require.ElementsMatch(t, entries, rdb.ZRange(t.Context(), "ai:index:acme", 0, -1).Val())

			again := retireOne(t, old, one, false)
			require.Zero(t, again.Entries)
			if c.outcome == migration.RetireRemoved {
				require.Equal(t, migration.RetireAbsent, again.Outcome)
			} else {
				require.Equal(t, c.outcome, again.Outcome)
			}
			require.Equal(t, after, redisserver.Dump(t, rdb, "*"), "a second time changes nothing")
		})
	}
	require.Len(t, slices.Collect(maps.Keys(reached)), len(migration.RetireOutcomes()))
}

func TestRetireLeavesOtherTypes(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	ctx, old := t.Context(), NewOldCopies(redisserver.AsOperator(t, rdb))
	for _, key := range []string{"ai:jobs:1", "ai:job:acme:1"} {
		require.NoError(t, rdb.Del(ctx, "ai:jobs:1", "ai:job:acme:1").Err())
		require.NoError(t, rdb.HSet(ctx, "ai:jobs:1", record()).Err())
		require.NoError(t, rdb.HSet(ctx, "ai:job:acme:1", record()).Err())
		require.NoError(t, rdb.Set(ctx, key, "odd", 0).Err())
		before := redisserver.Dump(t, rdb, "*")
		require.Equal(t, migration.RetireWrongType, retireOne(t, old, acmeJob(t, "1"), false).Outcome, key)
		require.Equal(t, before, redisserver.Dump(t, rdb, "*"))
	}
	require.NoError(t, rdb.Del(ctx, "ai:jobs:1", "ai:job:acme:1").Err())
	require.NoError(t, rdb.HSet(ctx, "ai:jobs:1", record()).Err())
	require.NoError(t, rdb.HSet(ctx, "ai:job:acme:1", record()).Err())
	require.NoError(t, rdb.Set(ctx, "ai:index:acme", "odd", 0).Err())
	require.Equal(t, migration.RetireWrongType, retireOne(t, old, acmeJob(t, "1"), false).Outcome)
	require.Equal(t, int64(1), rdb.Exists(ctx, "ai:jobs:1").Val(), "entries first: no copy goes while they cannot follow")
}

// TestWhatChangesBehindTheLookIsNotRemoved: a job that was found fit to be removed, and whose old copy somebody changed
// since.
func TestWhatChangesBehindTheLookIsNotRemoved(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	ctx, old, one := t.Context(), NewOldCopies(redisserver.AsOperator(t, rdb)), acmeJob(t, "1")
	require.NoError(t, rdb.HSet(ctx, "ai:jobs:1", record()).Err())
	require.NoError(t, rdb.HSet(ctx, "ai:job:acme:1", record()).Err())
	require.Equal(t, migration.RetireRemoved, retireOne(t, old, one, true).Outcome)
	require.NoError(t, rdb.HSet(ctx, "ai:jobs:1", fieldStatus, "completed", fieldFinishedAt, second, fieldResult, "1").Err())
	require.Equal(t, migration.RetireKeptFresh, retireOne(t, old, one, false).Outcome)
	require.Equal(t, "1", rdb.HGet(ctx, "ai:jobs:1", fieldResult).Val())
}

func TestHeld(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	ctx, old := t.Context(), NewOldCopies(redisserver.AsOperator(t, rdb))
	stub := hash{fieldStatus: "running"}
	var refs []migration.JobRef
	var want []migration.Held
	for i, c := range []struct {
		old, new hash
		held     migration.Held
	}{
		{nil, nil, migration.Held{}},
		{record(), nil, migration.Held{Old: true}},
		{nil, record(), migration.Held{New: true}},
		{record(), record(), migration.Held{Old: true, New: true}},
		{record(), stub, migration.Held{Old: true}},
		{stub, record(), migration.Held{New: true}},
		{record(fieldWorkspace, "acme-eu"), record(), migration.Held{New: true}},
		{record(), record(fieldWorkspace, "acme-eu"), migration.Held{Old: true}},
	} {
		id := strconv.Itoa(i)
		refs, want = append(refs, acmeJob(t, id)), append(want, c.held)
		for key, h := range map[string]hash{"ai:jobs:" + id: c.old, "ai:job:acme:" + id: c.new} {
			if h == nil {
				continue
			}
			if h[fieldID] != "" {
				h = maps.Clone(h)
				h[fieldID] = id
			}
			require.NoError(t, rdb.HSet(ctx, key, h).Err())
		}
	}
	held, err := old.Held(ctx, refs)
	require.NoError(t, err)
	require.Equal(t, want, held)
	require.NoError(t, rdb.Set(ctx, "ai:jobs:3", "odd", 0).Err())
	held, err = old.Held(ctx, refs[3:4])
	require.NoError(t, err)
	require.Equal(t, []migration.Held{{New: true}}, held)
}

// TestRetireUnderWriters: while servers in new only finish jobs, and somebody who knows no rev finishes others in old
// where a copy is still there, old copies are removed over and over. Nothing that was written is lost: each job's last
// state stands in new, or in an old copy that was kept.
func TestRetireUnderWriters(t *testing.T) {
	server := redisserver.Start(t)
	rdb := server.Client(t)
	ctx := t.Context()
	const jobs, writers = 600, 4
	var refs []migration.JobRef
	_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range jobs {
			ref := acmeJob(t, fmt.Sprintf("job-%d", i))
			refs = append(refs, ref)
			h := record(fieldID, ref.ID.String(), fieldRev, "1")
			p.HSet(ctx, oldKey(ref.ID), h)
			p.HSet(ctx, newKey(ref.Workspace, ref.ID), h)
		}
		return nil
	})
	require.NoError(t, err)

	old := NewOldCopies(redisserver.AsOperator(t, rdb))
	// The removal goes up and the writers go down, as fast as each other: they race where they meet.
	const step = 20
	turns := make(chan struct{}, step)
	written := make([]bool, jobs) // by who knows no rev; each by one writer
	var wg sync.WaitGroup
	for w := range writers {
		client := server.Client(t)
		relay := New(redisserver.AsServer(t, client), migration.NewOnly, Options{Observer: contract.Unobserved{}})
		wg.Go(func() {
			for i := jobs - writers + w; i >= 0; i -= writers {
				<-turns
				ref := refs[i]
				if w%2 == 0 {
					if err := relay.Move(ctx, ref.Workspace, ref.ID, job.Move{To: job.Running}); err != nil {
						t.Errorf("move %d: %v", i, err)
					}
					continue
				}
				err := client.Watch(ctx, func(tx *redis.Tx) error {
					if tx.Exists(ctx, oldKey(ref.ID)).Val() == 0 {
						return nil
					}
					_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
						p.HSet(ctx, oldKey(ref.ID), fieldStatus, "completed", fieldFinishedAt, second, fieldResult, "1")
						return nil
					})
					if err == nil {
						written[i] = true
					}
					return err
				}, oldKey(ref.ID))
				if err != nil && err != redis.TxFailedErr { //nolint:errorlint // the library gives it as it is
					t.Errorf("write %d: %v", i, err)
				}
			}
		})
	}
	for chunk := range slices.Chunk(refs, step) {
		for range step {
			turns <- struct{}{}
		}
		_, err := old.Retire(ctx, chunk, false)
		require.NoError(t, err)
	}
	wg.Wait()
	for range 2 {
		_, err = old.Retire(ctx, refs, false)
		require.NoError(t, err)
	}
	kept := 0
	for i, ref := range refs {
		inOld := rdb.HGetAll(ctx, oldKey(ref.ID)).Val()
		inNew := rdb.HGetAll(ctx, newKey(ref.Workspace, ref.ID)).Val()
		require.Len(t, inNew, len(record())+1+map[bool]int{true: 1}[inNew[fieldStatus] == "running"], "whole")
		switch {
		case written[i]:
			kept++
			require.Equal(t, "1", inOld[fieldResult], "%s is the only one that holds the result", ref.ID)
		default:
			require.Empty(t, inOld)
		}
		if i%writers%2 == 0 {
			require.Equal(t, "running", inNew[fieldStatus])
		}
	}
	require.Positive(t, kept)
	require.Less(t, kept, jobs/2, "some were removed before their writer came")
}
