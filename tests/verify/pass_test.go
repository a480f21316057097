package verify_test

import (
	"context"
	"fmt"
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

func planterOn(t *testing.T) *planter {
	t.Helper()
	rdb := startServer(t)
	return &planter{
		t: t, rdb: rdb, want: map[thing]bool{},
		repo: redisjobs.New(redisserver.AsServer(t, rdb), migration.DualWrite, redisjobs.Options{Observer: quiet{}}),
	}
}

func (p *planter) verifier() usecase.Verify {
	copies := redisjobs.NewCopies(redisserver.AsOperator(p.t, p.rdb))
	return usecase.Verify{Copies: copies, Comparison: copies, Index: p.repo, Load: copies, Clock: systemclock.Clock{}}
}

// input is the usual one.
func input() usecase.VerifyInput { return usecase.VerifyInput{Phase: migration.DualWrite, Batch: 10} }

// TestWhatPassesIsNotReported: a difference that is gone when it is asked about again is none, of whatever class.
func TestWhatPassesIsNotReported(t *testing.T) {
	t.Parallel()
	p := planterOn(t)
	p.plant()
	suspects, later := 0, 0
	_, err := p.verifier().Do(t.Context(), input(), func(v usecase.VerifyProgress) {
		if suspects > 0 {
			later += len(v.Found)
		} else if v.Part == usecase.VerifyQueue {
			suspects = v.Suspects
			for key := range redisserver.Dump(t, p.rdb, "*") {
				p.do("DEL", key)
			}
		}
	})
	require.NoError(t, err)
	require.Positive(t, suspects)
	require.Zero(t, later)
}

// TestWhatMovesOnIsNotReported: a copy that is behind whenever somebody looks, and another one each time, is not stuck;
// one that stays behind while the other moves is.
func TestWhatMovesOnIsNotReported(t *testing.T) {
	t.Parallel()
	p := planterOn(t)
	moving, _ := p.job("acme")
	stuck, _ := p.job("acme")
	n := 0
	set := func(key, id string) {
		n++
		p.do("HSET", key+id, "started_at", time.Unix(2_000_000_000+int64(n), 0).UTC().Format(storedTime))
	}
	move := func() {
		set("ai:job:acme:", moving)
		set("ai:jobs:", moving)
		set("ai:jobs:", stuck)
	}
	move()
	var seen []migration.Difference
	report, err := p.verifier().Do(t.Context(), input(), func(v usecase.VerifyProgress) {
		seen = append(seen, v.Found...)
		move()
	})
	require.NoError(t, err)
	require.Len(t, seen, 1)
	require.Equal(t, "ai:job:acme:"+stuck, seen[0].Key)
	require.Equal(t, int64(1), report.Differences[migration.DifferenceStale].Count)
	require.GreaterOrEqual(t, report.Differences[migration.DifferenceStale].SeenMS, int64(1200))
}

// TestIndexLag: what a writer without the index leaves to the next sweep is no difference where the sweep is waited for.
func TestIndexLag(t *testing.T) {
	t.Parallel()
	p := planterOn(t)
	p.do("SET", "ai:index-state", "complete")
	id, place := p.job("acme")
	p.do("ZREM", "ai:index:acme", "z"+place, "p"+place)
	_, found := verify(t, p.rdb, input())
	require.Equal(t, map[thing]bool{{migration.DifferenceIndexMissing, "ai:index:acme", id}: true}, things(found))

	in, swept := input(), false
	in.IndexLag = 6 * time.Second
	sweep := make(chan error, 1)
	report, err := p.verifier().Do(t.Context(), in, func(v usecase.VerifyProgress) {
		if v.Part == usecase.VerifySuspects || swept {
			return
		}
		swept = true
		time.AfterFunc(1500*time.Millisecond, func() {
			_, err := usecase.IndexJobs{Index: p.repo, Clock: systemclock.Clock{}}.Do(context.WithoutCancel(t.Context()),
				usecase.IndexJobsInput{Scope: migration.IndexOld}, nil)
			sweep <- err
		})
	})
	require.NoError(t, err)
	require.NoError(t, <-sweep)
	require.True(t, report.Clean(nil), "%v", report.Differences)
}

// TestExpiredJobsAreNoFault: their entries are told, and hold no pass up, for finished jobs expire all the time where they are
// not kept for ever. Others expire nowhere.
func TestExpiredJobsAreNoFault(t *testing.T) {
	t.Parallel()
	p := planterOn(t)
	p.do("SET", "ai:index-state", "complete")
	p.job("acme")
	lose := func(moves ...job.Status) (place string) {
		id, place := p.job("acme")
		for _, to := range moves {
			require.NoError(t, p.repo.Move(t.Context(), workspaceOf(t, "acme"), idOf(t, id), job.Move{To: to}))
		}
		p.do("PEXPIREAT", "ai:jobs:"+id, "1")
		p.do("PEXPIREAT", "ai:job:acme:"+id, "1")
		return place
	}
	for range 20 {
		lose(job.Running, job.Completed)
		lose(job.Running, job.Failed)
	}
	in := input()
	in.IndexLag = time.Hour
	report, _ := verify(t, p.rdb, in)
	require.Len(t, report.Differences, 1)
	require.Equal(t, int64(40), report.Differences[migration.DifferenceIndexGone].Count)
	require.True(t, report.Clean(nil))

	in.IndexLag = 0
	waits, runs, again := "z"+lose(), "z"+lose(job.Running), "z"+lose(job.Running, job.Pending)
	report, found := verify(t, p.rdb, in)
	require.False(t, report.Clean(nil))
	require.Equal(t, int64(3), report.Differences[migration.DifferenceIndexExtra].Count)
	for _, entry := range []string{waits, runs, again} {
		require.Contains(t, found, thing{migration.DifferenceIndexExtra, "ai:index:acme", entry})
	}
}

// TestIncompleteIndexIsNotWaitedFor: that it lacks entries is told as soon as other differences; what is wrong with those
// that it has is left to the sweep.
func TestIncompleteIndexIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	p := planterOn(t)
	missing, place := p.job("acme")
	p.do("ZREM", "ai:index:acme", "z"+place, "p"+place)
	_, place = p.job("acme")
	p.do("ZADD", "ai:index:acme", "0", "c"+place)
	ctx, cancel := context.WithCancel(t.Context())
	in := input()
	in.IndexLag = time.Hour
	var found []migration.Difference
	_, err := p.verifier().Do(ctx, in, func(v usecase.VerifyProgress) {
		if found = append(found, v.Found...); len(found) > 0 {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled, "the other one is still waited for")
	require.Len(t, found, 1)
	require.Equal(t, migration.DifferenceIndexMissing, found[0].Class)
	require.Equal(t, missing, found[0].Entry)
}

// TestWritersWithoutRevAreCounted: by the latest time of a copy without rev, whichever schema holds it, and only where they
// are looked for.
func TestWritersWithoutRevAreCounted(t *testing.T) {
	t.Parallel()
	p := planterOn(t)
	p.job("acme")
	equal, _ := p.job("acme")
	alone, _ := p.job("globex")
	for _, id := range []string{equal, alone} {
		p.do("HDEL", "ai:jobs:"+id, "rev")
		p.do("HDEL", "ai:job:acme:"+id, "rev")
	}
	p.do("DEL", "ai:job:globex:"+alone)
	stored, err := p.rdb.HGet(t.Context(), "ai:jobs:"+equal, "enqueued_at").Result()
	require.NoError(t, err)
	at := timeOf(t, stored)
	for _, c := range []struct {
		since time.Time
		want  int64
	}{{time.Time{}, 0}, {at.Add(-time.Microsecond), 2}, {at, 1}, {at.Add(time.Hour), 0}} {
		in := input()
		in.RevSince = c.since
		report, _ := verify(t, p.rdb, in)
		require.Equal(t, c.want, report.WithoutRev, "%v", c.since)
		require.Equal(t, c.since, report.RevSince)
	}
}

// changing gives another process from some batch of keys on.
type changing struct {
	*redisjobs.Copies
	batches, at int
}

func (c *changing) Keys(ctx context.Context, at migration.Position, n int) (migration.KeyBatch, error) {
	batch, err := c.Copies.Keys(ctx, at, n)
	if c.batches++; c.batches == c.at {
		batch.Process = "another"
	}
	return batch, err
}

func (c *changing) References(ctx context.Context, at migration.Position, n int) (migration.ReferenceBatch, error) {
	batch, err := c.Copies.References(ctx, at, n)
	if c.batches++; c.batches == c.at {
		batch.Process = "another"
	}
	return batch, err
}

// TestPassStartsOver: what was found in one server process says nothing of another, in whichever walk it changes.
func TestPassStartsOver(t *testing.T) {
	t.Parallel()
	p := planterOn(t)
	const jobs = 40
	for range jobs {
		p.job("acme")
	}
	id, _ := p.job("acme")
	p.do("DEL", "ai:job:acme:"+id)
	steps := &changing{Copies: redisjobs.NewCopies(redisserver.AsOperator(t, p.rdb))}
	v := p.verifier()
	v.Copies, v.Comparison = steps, steps
	_, err := v.Do(t.Context(), input(), nil)
	require.NoError(t, err)
	once := steps.batches
	for _, at := range []int{1, 2, once} {
		c := &changing{Copies: redisjobs.NewCopies(redisserver.AsOperator(t, p.rdb)), at: at}
		v.Copies, v.Comparison = c, c
		report, err := v.Do(t.Context(), input(), nil)
		require.NoError(t, err)
		require.Equal(t, once+at, c.batches, "the pass that failed, and a whole one")
		require.Equal(t, int64(jobs+1), report.Jobs)
		require.Equal(t, int64(1), report.Differences[migration.DifferenceMissing].Count)
	}
}

// TestManySuspects: what is remembered is bounded, and all are found.
func TestManySuspects(t *testing.T) {
	t.Parallel()
	p := planterOn(t)
	const jobs = 20_000
	_, err := p.rdb.Pipelined(t.Context(), func(pipe redis.Pipeliner) error {
		for n := range jobs {
			id := fmt.Sprint(n)
			pipe.HSet(t.Context(), "ai:jobs:"+id, "job_id", id, "workspace_id", "acme", "status", "odd")
			pipe.ZAdd(t.Context(), "ai:index:acme", redis.Z{Member: "z" + placeOf(t, time.Unix(0, 0).UTC(), id)})
		}
		return nil
	})
	require.NoError(t, err)
	most := 0
	in := input()
	in.Batch = 500
	report, err := p.verifier().Do(t.Context(), in, func(v usecase.VerifyProgress) { most = max(most, v.Suspects) })
	require.NoError(t, err)
	require.Equal(t, int64(jobs), report.Differences[migration.DifferenceMissing].Count)
	require.Len(t, report.Differences, 1, "%v", report.Differences)
	require.LessOrEqual(t, most, 1<<14)
}

// TestVerifyEndsWithItsContext: at once, also while it waits for suspects.
func TestVerifyEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p := planterOn(t)
	id, _ := p.job("acme")
	p.do("DEL", "ai:job:acme:"+id)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := p.verifier().Do(ctx, input(), func(v usecase.VerifyProgress) {
		if v.Part == usecase.VerifyQueue {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
}

// TestLargeJobsGoAlone: two copies of a megabyte that differ are compared, and found to.
func TestLargeJobsGoAlone(t *testing.T) {
	t.Parallel()
	p := planterOn(t)
	want := map[thing]bool{}
	for n := range 3 {
		id, _ := p.job("acme")
		for _, key := range []string{"ai:jobs:", "ai:job:acme:"} {
			p.do("HSET", key+id, "result", `"`+string(make([]byte, 1<<20))+fmt.Sprint(len(key)*n)+`"`)
		}
		if n > 0 {
			want[thing{migration.DifferenceStale, "ai:job:acme:" + id, ""}] = true
		}
	}
	_, found := verify(t, p.rdb, input())
	require.Equal(t, want, things(found))
}

// TestWaitingForSuspectsIsTold: before the pass sleeps it says for how many and until when.
func TestWaitingForSuspectsIsTold(t *testing.T) {
	t.Parallel()
	p := planterOn(t)
	p.plant()
	in := input()
	in.IndexLag = 2 * time.Second
	began, waited := time.Now(), false
	told := map[thing]int{}
	_, err := p.verifier().Do(t.Context(), in, func(v usecase.VerifyProgress) {
		require.Equal(t, v.Suspects == 0, v.Due.IsZero())
		for _, d := range v.Found {
			told[thing{d.Class, d.Key, d.Entry}]++
		}
		if v.Part == usecase.VerifySuspects && !waited { // the first that is told of this part
			waited = true
			require.Positive(t, v.Suspects)
			require.Empty(t, v.Found, "none was asked about")
			require.WithinRange(t, v.Due, began, began.Add(time.Minute))
		}
	})
	require.NoError(t, err)
	require.True(t, waited)
	require.NotEmpty(t, told)
	for d, n := range told {
		require.Equal(t, 1, n, "%v is told once", d)
	}
}
