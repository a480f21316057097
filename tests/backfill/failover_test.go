package backfill_test

import (
	"context"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/ports"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// pair is a primary with a replica, behind one address.
type pair struct {
	primary, replica *redisserver.Server
	at               atomic.Pointer[string] // where connections go
	rdb              *redis.Client
}

func newPair(t *testing.T, jobs int) *pair {
	t.Helper()
	p := &pair{primary: redisserver.Start(t)}
	host, port, err := net.SplitHostPort(p.primary.Addr)
	require.NoError(t, err)
	p.replica = redisserver.Start(t, "--replicaof", host+" "+port, "--repl-diskless-sync-delay", "0")
	plain(t, p.primary.Client(t), jobs)
	copied := p.replica.Client(t)
	require.Eventually(t, func() bool {
		n, err := copied.DBSize(t.Context()).Result()
		return err == nil && n == int64(jobs)
	}, waitTimeout, pollInterval)
	p.at.Store(&p.primary.Addr)
	p.rdb = redis.NewClient(&redis.Options{
		Addr: "behind.one.address:6379", Username: redisserver.OperatorUser, Password: redisserver.Password,
		DisableIdentity: true, MaxRetries: 5,
		Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", *p.at.Load())
		},
	})
	t.Cleanup(func() { _ = p.rdb.Close() })
	return p
}

// failOver makes the replica the primary and ends the other, whatever the replica has not got yet.
func (p *pair) failOver(t *testing.T) {
	t.Helper()
	require.NoError(t, p.replica.Client(t).ReplicaOf(t.Context(), "NO", "ONE").Err())
	p.at.Store(&p.replica.Addr)
	require.NoError(t, p.primary.Kill())
}

// carried takes every position for one of the process that answers.
type carried struct{ *redisjobs.Copies }

func (c carried) Keys(ctx context.Context, at migration.Position, n int) (migration.KeyBatch, error) {
	batch, err := c.Copies.Keys(ctx, at, n)
	batch.Process = "the same"
	return batch, err
}

// secretive is a server that hides which process it is.
type secretive struct{}

func (secretive) DialHook(next redis.DialHook) redis.DialHook { return next }

func (secretive) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (secretive) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		for _, c := range cmds {
			if info, ok := c.(*redis.StringCmd); ok && c.Name() == "info" {
				info.SetVal(strings.ReplaceAll(info.Val(), "run_id:", "hidden:"))
			}
		}
		return err
	}
}

// storage is what a pass needs.
type storage interface {
	ports.JobCopies
	ports.StorageLoad
}

// passThrough makes a pass in the middle of which the servers fail over, again where it ends with a fault, and gives how
// many jobs it missed.
func passThrough(t *testing.T, p *pair, seed uint64, copies storage) (missed int) {
	t.Helper()
	at, failed := 0.2+0.6*rand.New(rand.NewPCG(seed, 3)).Float64(), false
	for done := false; !done; {
		var err error
		_, done, err = usecase.Backfill{Copies: copies, Load: copies, Clock: systemclock.Clock{}}.Do(
			t.Context(), usecase.BackfillInput{To: migration.New, Batch: 20}, func(b usecase.BackfillProgress) {
				if b.Fraction >= at && !failed {
					failed = true
					p.failOver(t)
				}
			})
		require.True(t, failed || err == nil, "%v", err)
	}
	require.True(t, failed)
	wrong, jobs := differences(t, p.replica.Client(t))
	require.Positive(t, jobs)
	return len(wrong)
}

// TestFailoverInMidPass: where a replica takes over, the pass starts over and misses no job, although the replica lacks
// the last copies and goes through its keys in another order. Every second server hides which process it is.
func TestFailoverInMidPass(t *testing.T) {
	t.Parallel()
	for i := range sized(2, 20) {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			p := newPair(t, sized(1000, 20_000))
			if i%2 == 1 {
				p.rdb.AddHook(secretive{})
			}
			require.Zero(t, passThrough(t, p, uint64(i), redisjobs.NewCopies(p.rdb)))
		})
	}
}

// TestCarriedPositionMissesJobs is the control: a pass that goes on with the position of another process misses jobs.
func TestCarriedPositionMissesJobs(t *testing.T) {
	t.Parallel()
	p := newPair(t, sized(1000, 20_000))
	missed := passThrough(t, p, 1, carried{redisjobs.NewCopies(p.rdb)})
	t.Logf("%d missed", missed)
	require.Positive(t, missed)
}
