package walks_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
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

// wrongClock has a client tell Redis what it would on a machine whose clock is off: a server's clock shows nowhere but
// in what the enqueue script is told.
type wrongClock struct {
	off  time.Duration
	told *atomic.Int64 // how often
}

func (w wrongClock) DialHook(next redis.DialHook) redis.DialHook { return next }

func (w wrongClock) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		w.set(cmd)
		return next(ctx, cmd)
	}
}

func (w wrongClock) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			w.set(cmd)
		}
		return next(ctx, cmds)
	}
}

// set puts this clock's time in the place of the real one: ARGV[3], [4] and the first five bytes of [10].
func (w wrongClock) set(cmd redis.Cmder) {
	args := cmd.Args()
	if name := cmd.Name(); name != "evalsha" && name != "eval" {
		return
	}
	keys := args[2].(int)
	if keys < 4 || args[3+2] != "ai:queue:pending" {
		return
	}
	now, argv := time.Now().UTC().Add(w.off), args[3+keys:]
	argv[2], argv[3] = strconv.FormatInt(now.Unix(), 10), now.Format("2006-01-02T15:04:05")
	argv[9] = string(binary.BigEndian.AppendUint64(nil, uint64(now.Unix()))[3:]) + argv[9].(string)[5:]
	w.told.Add(1)
}

// poller reads from the top until it meets a job that it knows.
type poller struct {
	server *redisjobs.Repository
	ws     workspace.ID
	limit  int
	known  map[job.ID]bool
	polls  int
}

func (p *poller) poll(ctx context.Context) error {
	p.polls++
	var met []job.ID
	defer func() {
		for _, id := range met {
			p.known[id] = true
		}
	}()
	for q := (job.Query{Limit: p.limit}); ; {
		page, err := p.server.List(ctx, p.ws, q)
		if err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		for _, j := range page.Jobs {
			if p.known[j.ID] {
				return nil
			}
			met = append(met, j.ID)
		}
		if page.Next.IsZero() {
			return nil
		}
		q.Cursor = page.Next
	}
}

// polled is a workspace with writers whose clocks differ by minutes, and pollers.
type polled struct {
	*ledger
	ws       workspace.ID
	alarms   alarms
	told     []*atomic.Int64 // by wrong clock
	operator *redisjobs.Repository
	writers  []*redisjobs.Repository
	pollers  []*poller
}

func newPolled(t *testing.T, s *redisserver.Server) *polled {
	t.Helper()
	p := &polled{ledger: newLedger(), ws: workspaceOf(t, "acme")}
	p.operator = operatorOf(t, s, &p.alarms)
	for _, off := range []time.Duration{-7 * time.Minute, 0, 11 * time.Minute} {
		rdb := connect(t, s)
		if off != 0 {
			told := new(atomic.Int64)
			rdb.AddHook(wrongClock{off: off, told: told})
			p.told = append(p.told, told)
		}
		p.writers = append(p.writers, redisjobs.New(rdb, migration.DualWrite, redisjobs.Options{Observer: &p.alarms}))
	}
	for _, limit := range []int{3, 50} {
		p.pollers = append(p.pollers, &poller{
			server: serverOf(t, s, migration.DualWrite, &p.alarms), ws: p.ws, limit: limit, known: make(map[job.ID]bool),
		})
	}
	require.NoError(t, p.writers[0].ClaimEmpty(t.Context()))
	return p
}

// watch polls until the returned function is called, and then once more; what was made and never met fails.
func (p *polled) watch(t *testing.T) (done func()) {
	t.Helper()
	c, ctx := newCrew(t)
	for _, reader := range p.pollers {
		c.start(func() error {
			for last := false; ; {
				if err := reader.poll(ctx); err != nil || last {
					return err
				}
				select {
				case <-c.stopped:
					last = true
				default:
				}
			}
		})
	}
	return func() {
		t.Helper()
		c.stop(t, ctx)
		for _, told := range p.told {
			require.Positive(t, told.Load(), "a wrong clock was asked")
		}
		for _, reader := range p.pollers {
			missed := 0
			for id := range p.lives {
				if !reader.known[id] {
					missed++
				}
			}
			require.Zero(t, missed, "jobs of %d that a poller with pages of %d missed", len(p.lives), reader.limit)
			t.Logf("%d jobs in %d polls with pages of %d, none missed", len(p.lives), reader.polls, reader.limit)
		}
		w := p.walk(p.pollers[0].server, p.ws, job.MaxLimit)
		require.NoError(t, w.toEnd(t.Context()))
		_, _, err := w.judge()
		require.NoError(t, err)
		require.Zero(t, p.alarms.told.Load())
		requireInStep(t, p.operator)
	}
}

// TestPollersMissNothing: three servers' clocks differ by minutes, and newer entries than Redis' own time stand in the
// index, as where that clock was set back.
func TestPollersMissNothing(t *testing.T) {
	s := redisserver.Start(t)
	p := newPolled(t, s)
	rdb := s.Client(t)
	done := p.watch(t)
	for _, ahead := range []time.Duration{20 * time.Second, 35 * time.Second, 50 * time.Second} {
		p.plant(t, rdb, ahead)
		var enqueued pace
		c, ctx := newCrew(t)
		c.paced(ctx, &enqueued, 900, 9, func(hand int) error {
			_, err := p.enqueue(ctx, p.writers[hand%len(p.writers)], p.ws)
			return err
		})
		require.Eventually(t, func() bool { return enqueued.done.Load() > 300 || ctx.Err() != nil }, time.Minute, time.Millisecond)
		c.stop(t, ctx)
	}
	done()
}

// plant stores a job as a predecessor does whose clock is ahead, and has it indexed.
func (p *polled) plant(t *testing.T, rdb *redis.Client, ahead time.Duration) {
	t.Helper()
	id, of := uuid.NewString(), &life{}
	parsed, err := job.ParseID(id)
	require.NoError(t, err)
	p.note(func(int64) { p.lives[parsed] = of })
	require.NoError(t, rdb.HSet(t.Context(), "ai:jobs:"+id, predecessors(p.ws.String(), id, time.Now().Add(ahead))).Err())
	counts, err := pass(t.Context(), p.writers[0], usecase.IndexJobsInput{Scope: migration.IndexOld}, nil)
	require.NoError(t, err)
	require.Positive(t, counts.Mended)
	p.note(func(now int64) { of.made, of.indexed = now, now })
}

// TestPollersMissNothingWhereRedisSetsItsClockBack is the same with a Redis whose clock is really set back, half a
// minute at a time. In small the entries ahead of the test above stand for it: this one needs libfaketime.
func TestPollersMissNothingWhereRedisSetsItsClockBack(t *testing.T) {
	if !full(t) {
		return
	}
	const eachWay, rate = 5 * time.Second, 900
	set := fakeTime(t)
	s := redisserver.Start(t)
	rdb := s.Client(t)
	p := newPolled(t, s)
	done := p.watch(t)
	var enqueued pace
	c, ctx := newCrew(t)
	c.paced(ctx, &enqueued, rate, 9, func(hand int) error {
		_, err := p.enqueue(ctx, p.writers[hand%len(p.writers)], p.ws)
		return err
	})
	back := 0
	clock := rdb.Time(ctx).Val()
	// Never more than a minute behind the newest entry, from where on no order is promised.
	for _, off := range []int{0, -30, 0, -30, -55, -25, -55, 0, -30, 0} {
		set(off)
		now, err := rdb.Time(ctx).Result()
		require.NoError(t, err)
		if now.Before(clock.Add(-20 * time.Second)) {
			back++
		}
		require.NoError(t, systemclock.Clock{}.Sleep(ctx, eachWay))
		clock = rdb.Time(ctx).Val()
	}
	c.stop(t, ctx)
	require.Equal(t, 5, back, "times that Redis' clock went back half a minute or so")
	t.Logf("%.0f enqueues a second; Redis' clock went back %d times", enqueued.rate(), back)
	done()
}

// fakeTime has Redis servers that start from here on read their clock from a file, and gives how to set it: seconds
// from the real time.
func fakeTime(t *testing.T) (set func(seconds int)) {
	t.Helper()
	var found []string
	for _, folder := range []string{"/usr/lib/*", "/usr/lib*", "/usr/local/lib", "/opt/homebrew/lib"} {
		paths, err := filepath.Glob(folder + "/faketime/libfaketimeMT.so.1")
		require.NoError(t, err)
		found = append(found, paths...)
	}
	require.NotEmpty(t, found, "libfaketime is not here; install it: Debian, Ubuntu, Fedora: faketime")
	file := filepath.Join(t.TempDir(), "clock")
	set = func(seconds int) {
		require.NoError(t, os.WriteFile(file+"~", fmt.Appendf(nil, "%+d\n", seconds), 0o600))
		require.NoError(t, os.Rename(file+"~", file)) // never half of it
	}
	set(0)
	// libc's own malloc: libfaketime and a jemalloc that is linked in wait for each other at the start.
	t.Setenv("LD_PRELOAD", found[0]+":libc.so.6")
	t.Setenv("FAKETIME_TIMESTAMP_FILE", file)
	t.Setenv("FAKETIME_NO_CACHE", "1")
	t.Setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
	return set
}
