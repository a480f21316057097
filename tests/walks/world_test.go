// Package walks_test goes through lists while they change, and holds every walk against a ledger of what was made and
// deleted when. Plain `go test` does it in small; RELAY_SOAK=full, which `make soak` sets, at the size that matters.
package walks_test

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// full tells whether the tests run at the size that matters.
func full(t *testing.T) bool {
	t.Helper()
	const variable = "RELAY_SOAK"
	value := os.Getenv(variable)
	require.Contains(t, []string{"", "full"}, value, variable)
	return value != ""
}

func workspaceOf(t *testing.T, text string) workspace.ID {
	t.Helper()
	ws, err := workspace.Parse(text)
	require.NoError(t, err)
	return ws
}

// connect makes a client of its own, as each server process has, with the settings that production runs with.
func connect(t *testing.T, s *redisserver.Server) *redis.Client {
	t.Helper()
	rdb, err := redisjobs.Connect(redisjobs.ConnectOptions{URL: s.SocketURL()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	return rdb
}

// serverOf is the storage of one more server process.
func serverOf(t *testing.T, s *redisserver.Server, phase migration.Phase, alarms *alarms) *redisjobs.Repository {
	t.Helper()
	return redisjobs.New(connect(t, s), phase, redisjobs.Options{Observer: alarms})
}

// operatorOf is what an operator works on the storage with.
func operatorOf(t *testing.T, s *redisserver.Server, alarms *alarms) *redisjobs.Repository {
	t.Helper()
	return redisjobs.New(redisserver.AsOperator(t, s.Client(t)), migration.DualWrite, redisjobs.Options{Observer: alarms})
}

// alarms is an Observer that counts what nothing in these tests gives a reason for.
type alarms struct{ told atomic.Int64 }

func (*alarms) JobRead(workspace.ID, job.ID, job.Copy)               {}
func (*alarms) JobsListed(workspace.ID, job.ListPath, int)           {}
func (*alarms) StaleCopyRead(workspace.ID)                           {} // the predecessor writes old alone
func (*alarms) WorkspaceMismatch(workspace.ID, workspace.ID)         {}
func (*alarms) RecordInvalid(workspace.ID)                           {}
func (*alarms) WrongTypeRead(workspace.ID)                           {}
func (a *alarms) EnqueueFailed(workspace.ID, fault.Kind)             { a.told.Add(1) }
func (a *alarms) OtherWorkspaceRequested(workspace.ID, workspace.ID) { a.told.Add(1) }
func (a *alarms) IsolationBreach(workspace.ID)                       { a.told.Add(1) }
func (a *alarms) IDCollision(workspace.ID)                           { a.told.Add(1) }
func (a *alarms) IndexNotMended(workspace.ID)                        { a.told.Add(1) }
func (a *alarms) DualWritten(_ workspace.ID, ok bool) {
	if !ok {
		a.told.Add(1)
	}
}

func pass(
	ctx context.Context, index *redisjobs.Repository, in usecase.IndexJobsInput, progress func(),
) (migration.IndexCounts, error) {
	return usecase.IndexJobs{Index: index, Clock: systemclock.Clock{}}.Do(ctx, in, func(usecase.IndexJobsProgress) {
		if progress != nil {
			progress()
		}
	})
}

// requireInStep checks that a whole pass would change nothing.
func requireInStep(t *testing.T, index *redisjobs.Repository) {
	t.Helper()
	counts, err := pass(t.Context(), index, usecase.IndexJobsInput{DryRun: true}, nil)
	require.NoError(t, err)
	require.Positive(t, counts.Identical)
	require.Zero(t, counts.Mended, "jobs without their entries: %+v", counts)
	require.Zero(t, counts.Dropped, "entries without their jobs: %+v", counts)
	t.Logf("a whole pass in dry run: %+v", counts)
}

func newDraft(ws workspace.ID) (job.Draft, error) {
	id, err := job.ParseID(uuid.NewString()) // random: no order may come from the ids
	return job.Draft{
		ID: id, Workspace: ws, Provider: "google", Name: "gmail.send", Params: job.JSON(`{"to":"a@example.com"}`), Actor: "tester",
	}, err
}

// crew is goroutines that stop together: when told to, or at the first one's error.
type crew struct {
	fail    context.CancelCauseFunc
	stopped chan struct{}
	wg      sync.WaitGroup
}

func newCrew(t *testing.T) (*crew, context.Context) {
	t.Helper()
	ctx, fail := context.WithCancelCause(t.Context())
	c := &crew{fail: fail, stopped: make(chan struct{})}
	t.Cleanup(func() {
		c.fail(nil)
		c.wg.Wait()
	})
	return c, ctx
}

func (c *crew) start(f func() error) {
	c.wg.Go(func() {
		if err := f(); err != nil {
			c.fail(err)
		}
	})
}

// await waits until all have come to their end.
func (c *crew) await(t *testing.T, ctx context.Context) { //nolint:revive // a helper's first parameter is t
	t.Helper()
	c.wg.Wait()
	require.NoError(t, context.Cause(ctx))
}

// stop tells all to stop and waits until they have.
func (c *crew) stop(t *testing.T, ctx context.Context) { //nolint:revive // as above
	t.Helper()
	close(c.stopped)
	c.await(t, ctx)
}

// pace is how often something was done, in how long.
type pace struct {
	done atomic.Int64
	took time.Duration
}

func (p *pace) rate() float64 { return float64(p.done.Load()) / p.took.Seconds() }

// paced has several hands do something so many times a second together until the crew stops; who is late catches up.
func (c *crew) paced(ctx context.Context, p *pace, rate float64, hands int, do func(hand int) error) {
	begun, before := time.Now(), p.took
	var next atomic.Int64
	var working sync.WaitGroup
	working.Add(hands)
	for hand := range hands {
		c.start(func() error {
			defer working.Done()
			for {
				due := begun.Add(time.Duration(float64(next.Add(1)) / rate * float64(time.Second)))
				select {
				case <-ctx.Done():
					return nil
				case <-c.stopped:
					return nil
				case <-time.After(time.Until(due)):
				}
				if err := do(hand); err != nil {
					return err
				}
				p.done.Add(1)
			}
		})
	}
	c.start(func() error {
		working.Wait()
		p.took = before + time.Since(begun)
		return nil
	})
}

// ledger knows of each job when it was made and deleted, on a clock that counts what happens. A job is there
// throughout a walk where it was made before the walk began and nobody set about deleting it before the walk ended.
type ledger struct {
	mu    sync.Mutex
	now   int64
	lives map[job.ID]*life
}

// life is one job's; 0 is not yet.
type life struct {
	made    int64
	indexed int64 // it has its entry: for what the predecessor made, since the end of a pass that began after
	dying   int64 // its deletion was sent
	gone    int64 // and answered
}

func newLedger() *ledger { return &ledger{lives: make(map[job.ID]*life)} }

// note writes something down that happens now.
func (l *ledger) note(write func(now int64)) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now++
	if write != nil {
		write(l.now)
	}
	return l.now
}

// enqueue makes a job through a server.
func (l *ledger) enqueue(ctx context.Context, server *redisjobs.Repository, ws workspace.ID) (job.ID, error) {
	d, err := newDraft(ws)
	if err != nil {
		return job.ID{}, err
	}
	of := &life{}
	l.note(func(int64) { l.lives[d.ID] = of })
	if _, err := server.Enqueue(ctx, d); err != nil {
		return job.ID{}, fmt.Errorf("enqueue: %w", err)
	}
	l.note(func(now int64) { of.made, of.indexed = now, now })
	return d.ID, nil
}

// walk is one reader's way through a list, from the newest job on.
type walk struct {
	server *redisjobs.Repository
	ws     workspace.ID
	ledger *ledger
	limits []int // of its pages, in turn

	begun  int64
	pages  int
	cursor job.Cursor
	ended  bool
	ways   map[bool]int // how many of its cursors were of the index, and how many of SCAN
	last   job.Place
	seen   map[job.ID]int
}

func (l *ledger) walk(server *redisjobs.Repository, ws workspace.ID, limits ...int) *walk {
	return &walk{
		server: server, ws: ws, ledger: l, limits: limits,
		begun: l.note(nil), ways: make(map[bool]int), seen: make(map[job.ID]int),
	}
}

func (w *walk) byIndex() bool { return w.ways[true] > 0 }

// page takes one page and checks what can be told from it.
func (w *walk) page(ctx context.Context) error {
	q := job.Query{Limit: w.limits[w.pages%len(w.limits)], Cursor: w.cursor}
	p, err := w.server.List(ctx, w.ws, q)
	if err != nil {
		return fmt.Errorf("page %d: %w", w.pages, err)
	}
	w.pages++
	if len(p.Jobs) > q.Limit {
		return fmt.Errorf("%d jobs on a page of %d", len(p.Jobs), q.Limit)
	}
	if p.Next.IsZero() {
		w.ended = true
	} else {
		// As a caller gives it back.
		if w.cursor, err = job.ParseCursor(p.Next.String()); err != nil {
			return fmt.Errorf("cursor %q: %w", p.Next, err)
		}
		_, ordered := w.cursor.Order()
		w.ways[ordered]++
	}
	if len(w.ways) > 1 {
		return errors.New("a walk changed its way")
	}
	for i, j := range p.Jobs {
		w.seen[j.ID]++
		switch place := j.Place(); {
		case j.Workspace != w.ws:
			return fmt.Errorf("%s is shown a job of %s", w.ws, j.Workspace)
		case w.byIndex() && len(w.seen) > 1 && place.Compare(w.last) >= 0,
			!w.byIndex() && i > 0 && place.Compare(w.last) > 0: // twice is for judge to say
			return fmt.Errorf("page %d: %v comes after %v", w.pages, place, w.last)
		default:
			w.last = place
		}
	}
	return nil
}

func (w *walk) toEnd(ctx context.Context) error {
	for !w.ended {
		if err := w.page(ctx); err != nil {
			return err
		}
	}
	return nil
}

// judge holds an ended walk against the ledger: how many jobs it had to show, and how many it showed more than once.
func (w *walk) judge() (owed, twice int, err error) {
	over := w.ledger.note(nil)
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	var lost, ghosts, odd []job.ID
	for id, of := range w.ledger.lives {
		since := of.made
		if w.byIndex() {
			since = of.indexed
		}
		there := since > 0 && since < w.begun && (of.dying == 0 || of.dying > over)
		if there {
			owed++
		}
		switch times := w.seen[id]; {
		case there && times == 0:
			lost = append(lost, id)
		case times > 0 && of.gone > 0 && of.gone < w.begun:
			ghosts = append(ghosts, id)
		case times > 1:
			twice++
		}
	}
	for id := range w.seen {
		if w.ledger.lives[id] == nil {
			odd = append(odd, id)
		}
	}
	for _, wrong := range []struct {
		jobs []job.ID
		what string
	}{
		{lost, "were there throughout and not shown"},
		{ghosts, "had been deleted and were shown"},
		{odd, "were shown and never made"},
	} {
		if n := len(wrong.jobs); n > 0 {
			slices.SortFunc(wrong.jobs, func(a, b job.ID) int { return job.Place{ID: a}.Compare(job.Place{ID: b}) })
			return owed, twice, fmt.Errorf("%d jobs of %d %s: %q …", n, owed, wrong.what, wrong.jobs[0])
		}
	}
	if w.byIndex() && twice > 0 {
		return owed, twice, fmt.Errorf("%d jobs of %d were shown twice", twice, owed)
	}
	return owed, twice, nil
}

// buckets gives the size of the table of a server with so many keys: it doubles where they become more than it has.
func buckets(keys int64) int64 { return 1 << bits.Len64(uint64(keys-1)) }
