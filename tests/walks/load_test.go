package walks_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// population is a workspace's jobs as those who write them know them.
type population struct {
	*ledger
	ws  workspace.ID
	rdb *redis.Client

	mu      sync.Mutex
	living  []job.ID
	movable []moving // in nobody's hands
}

type moving struct {
	id job.ID
	in job.Status
}

// draw takes any one of them out.
func draw[T any](of *[]T) (one T, ok bool) {
	n := len(*of)
	if n == 0 {
		return one, false
	}
	i := rand.IntN(n)
	one = (*of)[i]
	(*of)[i] = (*of)[n-1]
	*of = (*of)[:n-1]
	return one, true
}

func (p *population) enqueue(ctx context.Context, server *redisjobs.Repository) error {
	id, err := p.ledger.enqueue(ctx, server, p.ws)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.living = append(p.living, id)
	p.movable = append(p.movable, moving{id, job.Pending})
	return nil
}

// move takes one job a step along its states.
func (p *population) move(ctx context.Context, server *redisjobs.Repository) error {
	p.mu.Lock()
	one, ok := draw(&p.movable)
	p.mu.Unlock()
	if !ok {
		return nil
	}
	to := job.Running
	if one.in == job.Running {
		to = []job.Status{job.Completed, job.Failed, job.Pending}[rand.IntN(3)]
	}
	err := server.Move(ctx, p.ws, one.id, job.Move{To: to})
	if fault.KindOf(err) == fault.NotFound {
		dying := false
		p.note(func(int64) { dying = p.lives[one.id].dying > 0 })
		if dying {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("move to %s: %w", to, err)
	}
	if !to.Final() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.movable = append(p.movable, moving{one.id, to})
	}
	return nil
}

// remove deletes one job past Relay, as an operator or an expiry does.
func (p *population) remove(ctx context.Context) error {
	p.mu.Lock()
	id, ok := draw(&p.living)
	p.mu.Unlock()
	if !ok {
		return nil
	}
	p.note(func(now int64) { p.lives[id].dying = now })
	if err := p.rdb.Del(ctx, "ai:jobs:"+id.String(), "ai:job:"+p.ws.String()+":"+id.String()).Err(); err != nil {
		return err
	}
	p.note(func(now int64) { p.lives[id].gone = now })
	return nil
}

// times does something n times, by several goroutines.
func times(t *testing.T, n int, do func(ctx context.Context) error) {
	t.Helper()
	const hands = 32
	c, ctx := newCrew(t)
	for hand := range hands {
		c.start(func() error {
			for i := hand; i < n; i += hands {
				if err := do(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	c.await(t, ctx)
}

// TestWalksUnderLoad: while jobs are enqueued, moved and deleted, each walk shows every job that was there throughout
// exactly once, none twice, and all in strict order across pages.
func TestWalksUnderLoad(t *testing.T) {
	const enqueues, moves, deletions = 1000, 500, 200 // a second
	// The workspace is brought back to its size after each round, so that the last walks are no longer than the first.
	size, rounds, walkers, each, limits := 2000, 1, 3, 1, []int{100, 77, 10}
	if full(t) {
		size, rounds, walkers, each, limits = 100_000, 25, 2, 2, []int{1000, 777, 100}
	}
	s := redisserver.Start(t)
	var told alarms
	p := &population{ledger: newLedger(), ws: workspaceOf(t, "acme"), rdb: s.Client(t)}
	writers := []*redisjobs.Repository{
		serverOf(t, s, migration.DualWrite, &told), serverOf(t, s, migration.DualWrite, &told),
	}
	readers := make([]*redisjobs.Repository, walkers)
	for i := range readers {
		readers[i] = serverOf(t, s, migration.DualWrite, &told)
	}
	require.NoError(t, writers[0].ClaimEmpty(t.Context()))
	times(t, size, func(ctx context.Context) error { return p.enqueue(ctx, writers[0]) })

	var enqueued, moved, removed pace
	var mu sync.Mutex
	var walks, pages, shown int
	var took []time.Duration
	for round := range rounds {
		writing, ctx := newCrew(t)
		by := func(hand int) *redisjobs.Repository { return writers[hand%len(writers)] }
		writing.paced(ctx, &enqueued, enqueues, 64, func(hand int) error { return p.enqueue(ctx, by(hand)) })
		writing.paced(ctx, &moved, moves, 32, func(hand int) error { return p.move(ctx, by(hand)) })
		writing.paced(ctx, &removed, deletions, 16, func(int) error { return p.remove(ctx) })

		walking, walkingCtx := newCrew(t)
		for i, reader := range readers {
			walking.start(func() error {
				for range each {
					turned := append(slices.Clone(limits[i%len(limits):]), limits[:i%len(limits)]...)
					w, begun := p.walk(reader, p.ws, turned...), time.Now()
					if err := w.toEnd(walkingCtx); err != nil {
						return err
					}
					owed, _, err := w.judge()
					if err != nil {
						return err
					}
					mu.Lock()
					walks, pages, shown, took = walks+1, pages+w.pages, shown+owed, append(took, time.Since(begun))
					mu.Unlock()
				}
				return nil
			})
		}
		walking.await(t, walkingCtx)
		writing.stop(t, ctx)
		t.Logf("round %d of %d: %d jobs, a walk took up to %v", round+1, rounds, len(p.living), slices.Max(took).Round(time.Millisecond))
		times(t, len(p.living)-size, p.remove)
	}
	slices.Sort(took)
	t.Logf("%d walks, %d pages, %.0f jobs there throughout a walk; a walk took %v to %v", walks, pages,
		float64(shown)/float64(walks), took[0].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	t.Logf("meanwhile in %v a second: %.0f enqueues, %.0f status changes, %.0f deletions", enqueued.took.Round(time.Second),
		enqueued.rate(), moved.rate(), removed.rate())
	require.Equal(t, rounds*walkers*each, walks)

	// Relay's writers alone have kept every job in the index, and a walk clears what deletions left behind.
	operator := operatorOf(t, s, &told)
	counts, err := pass(t.Context(), operator, usecase.IndexJobsInput{DryRun: true}, nil)
	require.NoError(t, err)
	require.Zero(t, counts.Mended)
	w := p.walk(readers[0], p.ws, limits...)
	require.NoError(t, w.toEnd(t.Context()))
	owed, _, err := w.judge()
	require.NoError(t, err)
	require.Equal(t, len(p.living), owed)
	require.Equal(t, owed, len(w.seen)) //nolint:testifylint // Len would print them all
	require.EqualValues(t, 2*owed, p.rdb.ZCard(t.Context(), "ai:index:acme").Val(), "one entry for all, one for its state")
	requireInStep(t, operator)
	require.Zero(t, told.told.Load())
}
