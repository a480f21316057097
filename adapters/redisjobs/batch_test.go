package redisjobs

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// tollgate holds round trips back until it is opened, and counts them; those that set a connection up go free.
type tollgate struct {
	trips atomic.Int64
	open  chan struct{}
}

func (g *tollgate) pass(first redis.Cmder) {
	if name := first.Name(); name == "eval" || name == "evalsha" {
		g.trips.Add(1)
		<-g.open
	}
}

func (*tollgate) DialHook(next redis.DialHook) redis.DialHook { return next }

func (g *tollgate) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		g.pass(cmd)
		return next(ctx, cmd)
	}
}

func (g *tollgate) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		g.pass(cmds[0])
		return next(ctx, cmds)
	}
}

func (b *batcher) waitingCommands() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.waiting {
		n += len(t.commands)
	}
	return n
}

func echo(ctx context.Context, text string) *redis.Cmd {
	return redis.NewCmd(ctx, "eval", "return ARGV[1]", 0, text)
}

func TestCallersShareRoundTrips(t *testing.T) {
	t.Parallel()
	rdb := open(t, ConnectOptions{URL: redisserver.Start(t).URL()})
	gate := &tollgate{open: make(chan struct{})}
	rdb.AddHook(gate)
	b := newBatcher(rdb)
	b.patience = time.Hour
	var callers sync.WaitGroup
	call := func(n int) {
		first, second := echo(t.Context(), fmt.Sprintf("%d first", n)), echo(t.Context(), fmt.Sprintf("%d second", n))
		if err := b.run(t.Context(), []redis.Cmder{first, second}); err != nil ||
			first.Val() != fmt.Sprintf("%d first", n) || second.Val() != fmt.Sprintf("%d second", n) {
			t.Errorf("caller %d: %v, %v, %v", n, err, first, second)
		}
	}
	for n := range maxFlights {
		callers.Go(func() { call(n) })
	}
	require.Eventually(t, func() bool { return gate.trips.Load() == maxFlights }, 10*time.Second, time.Millisecond)
	for n := range maxJoined { // two commands each: two trips
		callers.Go(func() { call(maxFlights + n) })
	}
	require.Eventually(t, func() bool { return b.waitingCommands() == 2*maxJoined }, 10*time.Second, time.Millisecond)

	gone, leave := context.WithCancel(t.Context())
	leave()
	require.ErrorIs(t, b.run(gone, []redis.Cmder{echo(gone, "gone")}), context.Canceled, "leaves while the others wait")
	require.ErrorIs(t, b.EvalSha(gone, "0000", nil).Err(), context.Canceled)

	close(gate.open)
	callers.Wait()
	require.Eventually(t, func() bool { return gate.trips.Load() == maxFlights+3 }, 10*time.Second, time.Millisecond,
		"the last for what the caller who left had asked")
	call(0)
	require.EqualValues(t, maxFlights+4, gate.trips.Load(), "nothing is left under way")
}

func TestNoCommandsMakeNoTrip(t *testing.T) {
	t.Parallel()
	b := newBatcher(nil)
	b.patience = time.Hour
	b.flights = maxFlights
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // whoever waits for a trip leaves
	require.NoError(t, b.run(ctx, nil))
	require.Empty(t, b.waiting)
}

func TestATripDoesNotWaitForSlowOnes(t *testing.T) {
	t.Parallel()
	rdb := open(t, ConnectOptions{URL: redisserver.Start(t).URL()})
	gate := &tollgate{open: make(chan struct{})}
	rdb.AddHook(gate)
	b := newBatcher(rdb)
	var callers sync.WaitGroup
	for n := range maxFlights + 1 {
		callers.Go(func() {
			if err := b.run(t.Context(), []redis.Cmder{echo(t.Context(), "held")}); err != nil {
				t.Errorf("caller %d: %v", n, err)
			}
		})
	}
	require.Eventually(t, func() bool { return gate.trips.Load() == maxFlights+1 }, 10*time.Second, time.Millisecond)
	close(gate.open)
	callers.Wait()
}

func TestTheWaitForASharedTripIsASpanOfItsCaller(t *testing.T) {
	t.Parallel()
	b := newBatcher(open(t, ConnectOptions{URL: redisserver.Start(t).URL()}))
	b.flights = maxFlights // who comes joins the next trip, which goes when it has no more patience
	seen := tracetest.NewSpanRecorder()
	ctx, caller := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(seen)).Tracer("").Start(t.Context(), "request")
	require.NoError(t, b.run(ctx, []redis.Cmder{echo(ctx, "text")}))
	require.NoError(t, b.run(t.Context(), []redis.Cmder{echo(t.Context(), "text of nobody who is traced")}))
	require.Len(t, seen.Ended(), 1)
	require.Equal(t, caller.SpanContext(), seen.Ended()[0].Parent())
	require.Equal(t, "shared PIPELINE", seen.Ended()[0].Name())
	for _, a := range seen.Ended()[0].Attributes() {
		require.Equal(t, "db.system.name", string(a.Key))
	}
}

// breaking loses the connection under every trip of several commands, before or after they were sent.
type breaking struct {
	tollgate
	sent bool
}

func (k *breaking) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() != "eval" {
			return next(ctx, cmds)
		}
		k.trips.Add(1)
		if k.sent {
			_ = next(ctx, cmds)
			for _, c := range cmds[1:] {
				c.SetErr(io.EOF)
			}
		}
		return io.EOF
	}
}

func TestCallersOfABrokenTripGoAlone(t *testing.T) {
	t.Parallel()
	for name, sent := range map[string]bool{"before it is sent": false, "after it is sent": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb := open(t, ConnectOptions{URL: redisserver.Start(t).URL()})
			broken := &breaking{sent: sent}
			broken.open = make(chan struct{})
			rdb.AddHook(broken)
			b := newBatcher(rdb)
			b.patience = time.Hour
			var callers sync.WaitGroup
			call := func(n int) {
				cmd := echo(t.Context(), strconv.Itoa(n))
				if err := b.run(t.Context(), []redis.Cmder{cmd}); err != nil || cmd.Err() != nil || cmd.Val() != strconv.Itoa(n) {
					t.Errorf("caller %d: %v, %v", n, err, cmd)
				}
			}
			for n := range maxFlights {
				callers.Go(func() { call(n) })
			}
			require.Eventually(t, func() bool { return broken.trips.Load() == maxFlights }, 10*time.Second, time.Millisecond)
			for n := range 10 {
				callers.Go(func() { call(maxFlights + n) })
			}
			require.Eventually(t, func() bool { return b.waitingCommands() == 10 }, 10*time.Second, time.Millisecond)
			close(broken.open)
			callers.Wait()
			alone := int64(10)
			if sent {
				alone--
			}
			require.Equal(t, maxFlights+1+alone, broken.trips.Load())
		})
	}
}

func TestEachCommandOfATripHasItsOwnError(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	rdb := open(t, ConnectOptions{URL: server.URL()})
	b := newBatcher(rdb)
	good, bad := echo(t.Context(), "good"), redis.NewCmd(t.Context(), "nonsense")
	require.NoError(t, b.run(t.Context(), []redis.Cmder{bad, good}))
	require.ErrorContains(t, bad.Err(), "unknown command")
	require.NoError(t, good.Err())
	require.Equal(t, "good", good.Val())

	require.NoError(t, server.Client(t).ConfigSet(t.Context(), "requirepass", "sesame").Err())
	server.DeniesOnPurpose()
	stranger := newBatcher(open(t, ConnectOptions{URL: "redis://" + server.Addr}))
	first, second := echo(t.Context(), "first"), echo(t.Context(), "second")
	require.NoError(t, stranger.run(t.Context(), []redis.Cmder{first, second}))
	require.ErrorContains(t, first.Err(), "NOAUTH")
	require.ErrorContains(t, second.Err(), "NOAUTH")
}
