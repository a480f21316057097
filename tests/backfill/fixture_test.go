package backfill_test

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// TestBackfillMigratesJobCorrectly: a job that only the old schema holds has the same copy in the new one, expiry and
// index entries included, and the old one stays.
func TestBackfillMigratesJobCorrectly(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	id := plain(t, rdb, 1)[0]
	require.NoError(t, rdb.PExpire(t.Context(), "ai:jobs:"+id, time.Hour).Err())
	before := redisserver.Dump(t, rdb, "*")

	would := run(t, rdb, usecase.BackfillInput{DryRun: true})
	require.Equal(t, before, redisserver.Dump(t, rdb, "*"))
	counts := run(t, rdb, usecase.BackfillInput{})
	require.Equal(t, would, counts)
	require.Equal(t, map[migration.CopyOutcome]int64{migration.CopyMade: 1}, counts.Jobs)
	after := redisserver.Dump(t, rdb, "*")
	require.Equal(t, before["ai:jobs:"+id], after["ai:jobs:"+id])
	require.Equal(t, before["ai:jobs:"+id], after["ai:job:acme:"+id])
	require.EqualValues(t, 2, rdb.ZCard(t.Context(), "ai:index:acme").Val())
	require.Contains(t, after, "ai:writer-without-rev")
	require.Len(t, after, 4)
}

// TestBackfillSkipsExistingJobs: what is there already and equal is left as it is, byte for byte.
func TestBackfillSkipsExistingJobs(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	plain(t, rdb, 50)
	run(t, rdb, usecase.BackfillInput{})
	before := redisserver.Dump(t, rdb, "*")
	counts := run(t, rdb, usecase.BackfillInput{})
	require.Equal(t, map[migration.CopyOutcome]int64{migration.CopyIdentical: 50}, counts.Jobs)
	require.True(t, counts.Clean())
	require.Equal(t, before, redisserver.Dump(t, rdb, "*"))
}

// TestBackfillHandlesMissingWorkspaceID: a record without a workspace is nobody's: reported, left, and no fault.
func TestBackfillHandlesMissingWorkspaceID(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	ids := plain(t, rdb, 3)
	require.NoError(t, rdb.HDel(t.Context(), "ai:jobs:"+ids[0], "workspace_id").Err())
	require.NoError(t, rdb.HSet(t.Context(), "ai:jobs:"+ids[1], "workspace_id", "../acme").Err())
	before := redisserver.Dump(t, rdb, "*")
	counts := run(t, rdb, usecase.BackfillInput{})
	require.Equal(t, map[migration.CopyOutcome]int64{migration.CopyMade: 1}, counts.Jobs)
	require.Equal(t, map[migration.KeyClass]int64{migration.KeyInvalidWorkspace: 2}, counts.Strange)
	after := redisserver.Dump(t, rdb, "*")
	for key, content := range before {
		require.Equal(t, content, after[key])
	}
	require.Contains(t, after, "ai:writer-without-rev")
	require.Len(t, after, len(before)+3, "one copy, one index, and that who made the job knows no rev")
}

// TestFixture moves what the predecessor's real code wrote, once and many times over.
func TestFixture(t *testing.T) {
	t.Run("as it is", func(t *testing.T) {
		rdb := startDebuggable(t)
		multiplied(t, rdb, 0)
		before := redisserver.Dump(t, rdb, "*")
		did := moveFixture(t, rdb)
		now, touched := redisserver.Dump(t, rdb, "*"), int64(0)
		for key, content := range before {
			ours := strings.HasPrefix(content, "hash") && strings.Contains(content, "workspace_id")
			if strings.HasPrefix(key, "ai:job") && ours {
				if now[key] != content {
					touched++
				}
				continue
			}
			if !strings.HasPrefix(key, "ai:job:") { // else a stub, which was rebuilt
				require.Equal(t, content, now[key], "%s is no job and stays as it is", key)
			}
		}
		require.LessOrEqual(t, touched, did.Jobs[migration.CopyRepaired], "a job's copy changes only where it differed")
	})
	t.Run("multiplied", func(t *testing.T) {
		rdb := startDebuggable(t)
		jobs := sized(3000, 1_000_000)
		multiplied(t, rdb, jobs)
		require.GreaterOrEqual(t, moveFixture(t, rdb).Scanned, int64(jobs))
	})
}

// moveFixture makes a dry run and two passes, and verifies what they left.
func moveFixture(t *testing.T, rdb *redis.Client) (did migration.BackfillCounts) {
	t.Helper()
	before := digest(t, rdb)
	require.NoError(t, backfillOf(redisjobs.NewCopies(redisserver.AsOperator(t, rdb))).Preflight(t.Context(), usecase.BackfillInput{To: migration.New}))
	would := run(t, rdb, usecase.BackfillInput{DryRun: true, Batch: 500})
	require.Equal(t, before, digest(t, rdb), "a dry run and a preflight change nothing")
	began := time.Now()
	did = run(t, rdb, usecase.BackfillInput{Batch: 500})
	t.Logf("%d scanned in %v", did.Scanned, time.Since(began))
	require.Equal(t, would, did, "a dry run says what would be done")
	for _, o := range []migration.CopyOutcome{migration.CopyMade, migration.CopyRepaired} {
		require.Positive(t, did.Jobs[o], o)
	}
	require.Positive(t, did.Strange[migration.KeyInvalidWorkspace])
	require.EqualValues(t, 2, did.Strange[migration.KeyWrongType])

	after := digest(t, rdb)
	require.NotEqual(t, before, after)
	again := run(t, rdb, usecase.BackfillInput{Batch: 500})
	require.Equal(t, after, digest(t, rdb), "a second pass changes nothing")
	require.Zero(t, again.Entries)
	for o, n := range again.Jobs {
		require.False(t, o.Changed(), "%s: %d", o, n)
		if o.Left() {
			require.Equal(t, did.Jobs[o], n, o)
		}
	}
	require.Equal(t, did.Strange, again.Strange)
	require.Positive(t, requireEqualCopies(t, rdb))
	verifyFixture(t, rdb)
	require.Equal(t, after, digest(t, rdb), "a verification changes nothing")
	return did
}

// verifyFixture finds nothing that a pass could have mended; what is left can be accepted by its number, and not by less.
func verifyFixture(t *testing.T, rdb *redis.Client) {
	t.Helper()
	copies := redisjobs.NewCopies(redisserver.AsOperator(t, rdb))
	index := redisjobs.New(redisserver.AsOperator(t, rdb), migration.DualWrite, redisjobs.Options{Observer: quiet{}})
	began := time.Now()
	report, err := usecase.Verify{Copies: copies, Comparison: copies, Index: index, Load: copies, Clock: systemclock.Clock{}}.Do(
		t.Context(), usecase.VerifyInput{Phase: migration.DualWrite, Batch: 500}, nil)
	require.NoError(t, err)
	t.Logf("%d jobs, %d index entries compared in %v: %v", report.Jobs, report.IndexEntries, time.Since(began), report.Differences)
	accept := map[migration.DifferenceClass]int64{}
	for class, found := range report.Differences {
		require.False(t, class.Mendable(), "%s: %d, such as %+v", class, found.Count, found.Example)
		accept[class] = found.Count
	}
	require.EqualValues(t, 2, accept[migration.DifferenceWrongType])
	require.Positive(t, accept[migration.DifferenceInvalidWorkspace])
	require.True(t, report.Clean(accept))
	accept[migration.DifferenceInvalidWorkspace]--
	require.False(t, report.Clean(accept))
}

// TestWayBack: after the new schema alone was written, each job has an old copy, and each that waits one bare queue
// entry, also where two passes run at once and one runs again.
func TestWayBack(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	ctx, n := t.Context(), sized(200, 20_000)
	relay := redisjobs.New(redisserver.AsServer(t, rdb), migration.NewOnly, redisjobs.Options{Observer: quiet{}})
	waiting := map[string]bool{}
	for i := range n {
		id, err := job.ParseID(strconv.Itoa(i))
		require.NoError(t, err)
		_, err = relay.Enqueue(ctx, job.Draft{ID: id, Workspace: acme(t), Provider: "google", Name: "gmail.send", Params: "{}"})
		require.NoError(t, err)
		moves := [][]job.Status{{}, {job.Running}, {job.Running, job.Completed}, {job.Running, job.Pending}}[i%4]
		for _, s := range moves {
			require.NoError(t, relay.Move(ctx, acme(t), id, job.Move{To: s}))
		}
		if i%4 == 0 || i%4 == 3 {
			waiting[id.String()] = true
		}
	}
	require.NoError(t, rdb.Del(ctx, "ai:queue:pending").Err())

	// Counted by steps: where one takes up the other's checkpoint, its own counts hold what the other had done.
	var both sync.WaitGroup
	var made [2]int
	var failed [2]error
	for i := range 2 {
		both.Go(func() {
			_, _, failed[i] = backfillOf(redisjobs.NewCopies(redisserver.AsOperator(t, rdb))).Do(
				ctx, usecase.BackfillInput{To: migration.Old, Batch: 10}, func(p usecase.BackfillProgress) {
					for _, c := range p.Copied {
						if c.Outcome == migration.CopyMade {
							made[i]++
						}
					}
				})
		})
	}
	both.Wait()
	require.NoError(t, errors.Join(failed[:]...))
	require.Equal(t, n, made[0]+made[1])
	again := run(t, rdb, usecase.BackfillInput{To: migration.Old})
	require.EqualValues(t, n, again.Jobs[migration.CopyIdentical])
	require.True(t, again.Clean())
	require.Equal(t, n, requireEqualCopies(t, rdb))
	queue := rdb.LRange(ctx, "ai:queue:pending", 0, -1).Val()
	require.Len(t, queue, len(waiting), "each once")
	for _, entry := range queue {
		require.True(t, waiting[entry], entry)
	}

	legacy := redisjobs.New(redisserver.AsServer(t, rdb), migration.Legacy, redisjobs.Options{Observer: quiet{}})
	for i := range n {
		id, err := job.ParseID(strconv.Itoa(i))
		require.NoError(t, err)
		_, err = legacy.Get(ctx, acme(t), id)
		require.NoError(t, err)
	}
}

// TestJobsThatGoAwayInMidPass: neither a job that is deleted nor one that expires between its key's meeting and its
// copying comes back.
func TestJobsThatGoAwayInMidPass(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	ctx := t.Context()
	ids := plain(t, rdb, 100)
	copies := &headed{Copies: redisjobs.NewCopies(redisserver.AsOperator(t, rdb))}
	gone := map[string]bool{}
	copies.meet = func() {
		for i, ref := range *copies.head.Load() {
			key := "ai:jobs:" + ref.ID.String()
			switch i % 3 {
			case 0:
				require.NoError(t, rdb.Del(ctx, key).Err())
				gone[ref.ID.String()] = true
			case 1:
				require.NoError(t, rdb.PExpireAt(ctx, key, time.Now().Add(-time.Second)).Err())
				gone[ref.ID.String()] = true
			}
		}
	}
	counts, done, err := usecase.Backfill{Copies: copies, Load: copies, Clock: systemclock.Clock{}}.Do(
		ctx, usecase.BackfillInput{To: migration.New, Batch: 10}, nil)
	require.NoError(t, err)
	require.True(t, done)
	require.EqualValues(t, len(gone), counts.Jobs[migration.CopyAbsent])
	require.EqualValues(t, len(ids)-len(gone), counts.Jobs[migration.CopyMade])
	for _, id := range ids {
		want := int64(2)
		if gone[id] {
			want = 0
		}
		require.Equal(t, want, rdb.Exists(ctx, "ai:jobs:"+id, "ai:job:acme:"+id).Val())
	}
	require.EqualValues(t, 2*(len(ids)-len(gone)), rdb.ZCard(ctx, "ai:index:acme").Val())
}

// TestLargeJobsGoAlone: a job above 1 MB travels with no other.
func TestLargeJobsGoAlone(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	ids := plain(t, rdb, 30)
	for _, id := range ids[:3] {
		require.NoError(t, rdb.HSet(t.Context(), "ai:jobs:"+id, "result", strings.Repeat("x", 1<<20)).Err())
	}
	copies := &headed{Copies: redisjobs.NewCopies(redisserver.AsOperator(t, rdb))}
	alone := 0
	copies.meet = func() {
		head := *copies.head.Load()
		for _, ref := range head {
			if rdb.HStrLen(t.Context(), "ai:jobs:"+ref.ID.String(), "result").Val() > 0 {
				require.Len(t, head, 1)
				alone++
			}
		}
	}
	_, done, err := usecase.Backfill{Copies: copies, Load: copies, Clock: systemclock.Clock{}}.Do(
		t.Context(), usecase.BackfillInput{To: migration.New, Batch: 1000}, nil)
	require.NoError(t, err)
	require.True(t, done)
	require.Equal(t, 3, alone)
	require.Equal(t, 30, requireEqualCopies(t, rdb))
}
