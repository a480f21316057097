package verify_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// traffic is what goes on beside a verify. Writers end with the context, each behind a whole job.
type traffic struct {
	t     *testing.T
	rdb   *redis.Client
	repo  *redisjobs.Repository
	ws    []workspace.ID
	jobs  atomic.Int64
	moves atomic.Int64

	mu     sync.Mutex
	theirs map[string]bool // ids of the jobs that the predecessor-like writers change: they know no index
}

func (w *traffic) draft(n int64) job.Draft {
	key, err := job.ParseClientRequestID(fmt.Sprintf("live-%d", n))
	require.NoError(w.t, err)
	return job.Draft{
		ID: idOf(w.t, fmt.Sprintf("b0000000-0000-7000-8000-%012x", n)), Workspace: w.ws[n%int64(len(w.ws))],
		Provider: "google", Name: "gmail.send", Params: `{"to":"a"}`, Actor: "user:1", ClientRequestID: key,
	}
}

// relay enqueues and moves jobs, and takes entries off the queue.
func (w *traffic) relay(ctx context.Context) error {
	for ctx.Err() == nil {
		pause := time.Duration(sized(2, 10)) * time.Millisecond // ten long runs do not double the jobs
		if err := (systemclock.Clock{}).Sleep(context.WithoutCancel(ctx), pause); err != nil {
			return err
		}
		d := w.draft(w.jobs.Add(1))
		if _, err := w.repo.Enqueue(context.WithoutCancel(ctx), d); err != nil {
			return err
		}
		for _, m := range []job.Move{{To: job.Running}, {To: job.Completed, Result: `{"ok":true}`}} {
			if rand.IntN(3) == 0 {
				break
			}
			if err := w.repo.Move(context.WithoutCancel(ctx), d.Workspace, d.ID, m); err != nil {
				return err
			}
			w.moves.Add(1)
		}
		if rand.IntN(8) == 0 {
			if err := w.rdb.LPop(context.WithoutCancel(ctx), "ai:queue:pending").Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// predecessor makes and changes jobs as the predecessor does in dual write: plain commands, first old, a while later new.
func (w *traffic) predecessor(ctx context.Context, writer int) error {
	forSure := context.WithoutCancel(ctx)
	both := func(id, ws string, command func(key string) error) error {
		for _, key := range []string{"ai:jobs:" + id, "ai:job:" + ws + ":" + id} {
			if err := command(key); err != nil {
				return err
			}
			if err := (systemclock.Clock{}).Sleep(forSure, time.Duration(1+rand.IntN(4))*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}
	now := func() string { return time.Now().UTC().Format(storedTime) }
	set := func(id, ws string, fields ...any) error {
		return both(id, ws, func(key string) error { return w.rdb.HSet(forSure, key, fields...).Err() })
	}
	for n := 0; ctx.Err() == nil; n++ {
		id, ws := fmt.Sprintf("c%07x-0000-4000-8000-%012x", writer, n%20), w.ws[n%len(w.ws)].String()
		if n >= 20 {
			ws = w.ws[n%20%len(w.ws)].String()
		}
		w.mu.Lock()
		w.theirs[id] = true
		w.mu.Unlock()
		err := errors.Join(
			set(id, ws, "job_id", id, "workspace_id", ws, "status", "pending", "action_provider", "google",
				"action_name", "gmail.send", "params", "{}", "actor_id", "user:1", "result", "", "enqueued_at", now()),
			w.rdb.Set(forSure, "ai:idempotency:"+ws+":"+id, id, 24*time.Hour).Err(),
			w.rdb.RPush(forSure, "ai:queue:pending", id).Err(),
			set(id, ws, "status", "running", "started_at", now()),
			set(id, ws, "status", "completed", "finished_at", now(), "result", fmt.Sprint(n)),
			both(id, ws, func(key string) error {
				return w.rdb.Expire(forSure, key, time.Hour+time.Duration(n)*time.Minute).Err()
			}),
		)
		if err != nil {
			return err
		}
		w.moves.Add(1)
	}
	return nil
}

// hot changes one job that Relay made all the time, so that whoever looks often sees its copies differ.
func (w *traffic) hot(ctx context.Context, ws workspace.ID, id string) error {
	forSure := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		now := time.Now().UTC().Format(storedTime)
		for _, key := range []string{"ai:jobs:" + id, "ai:job:" + ws.String() + ":" + id} {
			if err := w.rdb.HSet(forSure, key, "started_at", now, "attempts", rand.IntN(9)).Err(); err != nil {
				return err
			}
			if err := (systemclock.Clock{}).Sleep(forSure, 2*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// start starts everything; stop ends it.
func (w *traffic) start(hot []string) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	failed := make(chan error, 100)
	run := func(f func(context.Context) error) { wg.Go(func() { failed <- f(ctx) }) }
	for range 3 {
		run(w.relay)
	}
	for writer := range 2 {
		run(func(ctx context.Context) error { return w.predecessor(ctx, writer) })
	}
	for _, id := range hot {
		run(func(ctx context.Context) error { return w.hot(ctx, w.ws[0], id) })
	}
	return func() {
		cancel()
		wg.Wait()
		close(failed)
		for err := range failed {
			require.NoError(w.t, err)
		}
	}
}

// TestEachClassAmongLiveWriters: all that is planted is found and nothing else, while jobs are made, moved and taken, and
// writers without scripts set old first and new some milliseconds later. What those leave in the index until a sweep
// comes is wrong indeed, and may be told.
func TestEachClassAmongLiveWriters(t *testing.T) {
	t.Parallel()
	rdb := startServer(t)
	repo := redisjobs.New(redisserver.AsServer(t, rdb), migration.DualWrite, redisjobs.Options{Observer: quiet{}})
	w := &traffic{
		t: t, rdb: rdb, repo: repo, ws: []workspace.ID{workspaceOf(t, "acme"), workspaceOf(t, "acme-eu")},
		theirs: map[string]bool{},
	}
	var wg sync.WaitGroup
	left := atomic.Int64{}
	left.Store(int64(sized(3000, 1_000_000)))
	for range 16 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := repo.Enqueue(t.Context(), w.draft(w.jobs.Add(1))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	p := &planter{t: t, rdb: rdb, repo: repo, want: map[thing]bool{}}
	hot := []string{}
	for range 3 {
		id, _ := p.job("acme")
		hot = append(hot, id)
	}
	stop := w.start(hot)
	for p.round = range sized(1, 10) {
		p.plant()
		report, found := verify(t, rdb, usecase.VerifyInput{Phase: migration.DualWrite, Batch: 100})
		got := things(found)
		w.mu.Lock()
		for th := range got {
			d := found[th]
			if d.Class.OfIndex() && (w.theirs[d.Job.ID.String()] || w.theirs[idAt(th.entry)]) {
				delete(got, th)
			}
		}
		w.mu.Unlock()
		requireThings(t, p.want, got)
		t.Logf("run %d: %d jobs, %d index entries, %d queue entries, %d idempotency keys in %s; beside it %d jobs made in all, %d moves",
			p.round, report.Jobs, report.IndexEntries, report.QueueEntries, report.IdempotencyKeys,
			report.Ended.Sub(report.Started), w.jobs.Load(), w.moves.Load())
	}
	require.Positive(t, w.moves.Load())
	stop()
}

// idAt reads the id of a UUID at the end of an entry.
func idAt(entry string) string {
	if len(entry) != 1+5+6+16 {
		return ""
	}
	b := entry[12:]
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
