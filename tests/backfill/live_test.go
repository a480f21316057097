package backfill_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
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

// truth is what the last acknowledged update of a job left. Its lock is held by the one writer that updates the job, so
// that the backfill alone is at work beside it.
type truth struct {
	mu      sync.Mutex
	status  job.Status
	started string // where the predecessor set it last, else empty
	result  string
	rev     int64
}

// live is a server with jobs that writers update where a backfill is just at work.
type live struct {
	rdb     *redis.Client
	copies  *headed
	truths  map[string]*truth
	legacy  *redisjobs.Repository
	dual    *redisjobs.Repository
	writing atomic.Pointer[redisjobs.Repository] // by which Relay's writers write now
	updates [2]atomic.Int64                      // of Relay and of the predecessor
}

func newLive(t *testing.T, jobs int) *live {
	t.Helper()
	rdb := redisserver.Start(t).Client(t)
	l := &live{
		rdb: rdb, copies: &headed{Copies: redisjobs.NewCopies(redisserver.AsOperator(t, rdb))}, truths: map[string]*truth{},
		legacy: redisjobs.New(redisserver.AsServer(t, rdb), migration.Legacy, redisjobs.Options{Observer: quiet{}}),
		dual:   redisjobs.New(redisserver.AsServer(t, rdb), migration.DualWrite, redisjobs.Options{Observer: quiet{}}),
	}
	for _, id := range plain(t, rdb, jobs) {
		l.truths[id] = &truth{status: job.Pending}
	}
	l.writing.Store(l.legacy)
	return l
}

// write updates jobs at the head of the backfill until ctx ends. The error says what was lost or stale.
func (l *live) write(ctx context.Context, seed uint64, predecessor bool) error {
	random := rand.New(rand.NewPCG(seed, 1))
	for ctx.Err() == nil {
		head := l.copies.head.Load()
		if head == nil || len(*head) == 0 {
			continue
		}
		ref := (*head)[random.IntN(len(*head))]
		if err := l.update(ref, random, predecessor); err != nil {
			return err
		}
	}
	return nil
}

// update makes one update of a job and reads it back. It is not cut short: what was sent is part of the truth.
func (l *live) update(ref migration.JobRef, random *rand.Rand, predecessor bool) error {
	ctx, job := context.Background(), l.truths[ref.ID.String()]
	job.mu.Lock()
	defer job.mu.Unlock()
	if err := l.requireTruth(ctx, ref, job, "before an update"); err != nil {
		return err
	}
	var err error
	if predecessor {
		err = l.updateAsPredecessor(ctx, ref, job)
		l.updates[1].Add(1)
	} else {
		err = l.updateAsRelay(ctx, ref, job, random)
		l.updates[0].Add(1)
	}
	if err != nil {
		return err
	}
	return l.requireTruth(ctx, ref, job, "behind an update")
}

// updateAsPredecessor writes what its update_status wrote: plain commands on the old hash alone, the queue aside.
func (l *live) updateAsPredecessor(ctx context.Context, ref migration.JobRef, tr *truth) error {
	key := "ai:jobs:" + ref.ID.String()
	if tr.status == job.Pending {
		tr.status, tr.started = job.Running, stamp(time.Now())
		if err := l.rdb.HSet(ctx, key, "status", "running", "started_at", tr.started).Err(); err != nil {
			return fmt.Errorf("predecessor: %w", err)
		}
		return nil
	}
	// A job that ended is reported again with another result, as its workers did after a lost lease.
	tr.status, tr.result = job.Completed, `{"n":`+strconv.FormatInt(l.updates[1].Load(), 10)+`}`
	fields := []any{"status", "completed", "finished_at", stamp(time.Now()), "result", tr.result}
	if err := l.rdb.HSet(ctx, key, fields...).Err(); err != nil {
		return fmt.Errorf("predecessor: %w", err)
	}
	return nil
}

func (l *live) updateAsRelay(ctx context.Context, ref migration.JobRef, tr *truth, random *rand.Rand) error {
	move := job.Move{To: job.Running}
	if tr.status == job.Running {
		move.To = job.Pending
		if random.IntN(20) == 0 {
			move.To, move.Result = job.Completed, job.JSON(strconv.Itoa(random.Int()))
		}
	}
	if tr.status == job.Completed {
		return nil
	}
	if err := l.writing.Load().Move(ctx, ref.Workspace, ref.ID, move); err != nil {
		return fmt.Errorf("%s from %s to %s: %w", ref.ID, tr.status, move.To, err)
	}
	tr.status, tr.started = move.To, ""
	tr.rev++
	if move.Result != "" {
		tr.result = string(move.Result)
	}
	return nil
}

// requireTruth reads a job as a server in dual write does.
func (l *live) requireTruth(ctx context.Context, ref migration.JobRef, tr *truth, when string) error {
	got, err := l.dual.Get(ctx, ref.Workspace, ref.ID)
	if err != nil {
		return fmt.Errorf("%s %s: %w", ref.ID, when, err)
	}
	started := ""
	if tr.started != "" {
		started = stamp(got.StartedAt)
	}
	if got.Status != tr.status || string(got.Result) != tr.result || got.Rev != tr.rev || started != tr.started {
		return fmt.Errorf("%s %s: %s, %q, rev %d, started %q is served; the last update left %s, %q, rev %d, started %q",
			ref.ID, when, got.Status, got.Result, got.Rev, started, tr.status, tr.result, tr.rev, tr.started)
	}
	if got.Provider != "google" || got.Params == "" || got.EnqueuedAt.IsZero() {
		return fmt.Errorf("%s %s: a partial record is served: %+v", ref.ID, when, got)
	}
	return nil
}

// TestWritersAtTheHead: eight writers update the jobs that are just being copied, two of them as the predecessor does,
// while Relay's change between legacy and dual write. No update is lost, no read is stale, no record is partial, and one
// quiet pass later all copies are equal.
func TestWritersAtTheHead(t *testing.T) {
	for _, jobs := range slices.Compact([]int{sized(3000, 20_000), sized(3000, 1_000_000)}) {
		t.Run(strconv.Itoa(jobs), func(t *testing.T) { writeAtTheHead(t, jobs) })
	}
}

func writeAtTheHead(t *testing.T, jobs int) {
	t.Helper()
	l := newLive(t, jobs)
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	failed := make(chan error, 8)
	for i := range 8 {
		writers.Go(func() {
			if err := l.write(ctx, uint64(i), i%4 == 0); err != nil {
				failed <- err
				stop()
			}
		})
	}
	// A pass goes through phases by quarters; passes go on until the writers have made their share.
	repaired := int64(0)
	share := int64(sized(500, 10_000))
	for passes := 0; passes == 0 || l.updates[0].Load() < 3*share || l.updates[1].Load() < share; passes++ {
		counts, done, err := usecase.Backfill{Copies: l.copies, Load: l.copies, Clock: systemclock.Clock{}}.Do(
			ctx, usecase.BackfillInput{To: migration.New, Batch: 25}, func(p usecase.BackfillProgress) {
				way := l.legacy
				if int(p.Fraction*4)%2 == 1 {
					way = l.dual
				}
				l.writing.Store(way)
			})
		if ctx.Err() != nil {
			break // a writer found something wrong
		}
		require.NoError(t, err)
		require.True(t, done)
		repaired += counts.Jobs[migration.CopyRepaired]
		require.Zero(t, counts.Jobs[migration.CopyConflict])
	}
	stop()
	writers.Wait()
	close(failed)
	for err := range failed {
		require.NoError(t, err)
	}
	repaired += run(t, l.rdb, usecase.BackfillInput{}).Jobs[migration.CopyRepaired]
	t.Logf("%d updates of Relay, %d of the predecessor, %d repaired", l.updates[0].Load(), l.updates[1].Load(), repaired)
	require.Positive(t, repaired, "the writers left something to repair")
	clean := run(t, l.rdb, usecase.BackfillInput{})
	require.Equal(t, map[migration.CopyOutcome]int64{migration.CopyIdentical: int64(jobs)}, clean.Jobs)
	require.True(t, clean.Clean())
	require.Equal(t, jobs, requireEqualCopies(t, l.rdb))
	for id, tr := range l.truths {
		ref, err := job.ParseID(id)
		require.NoError(t, err)
		require.NoError(t, l.requireTruth(t.Context(), migration.JobRef{Workspace: acme(t), ID: ref}, tr, "in the end"))
	}
}
