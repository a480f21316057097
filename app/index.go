package app

import (
	"context"
	"crypto/rand"
	"sync/atomic"
	"time"

	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/ports"
)

const (
	// claimTimeout bounds one question to Redis at the start: a server whose Redis is away starts all the same.
	claimTimeout = time.Second
	claimPause   = 500 * time.Millisecond
	// sweepRate is jobs and entries a second. Each costs Redis some 15 µs, so that a sweep takes 3 % of its time.
	sweepRate = 2000
)

// indexKeeper claims the index of an empty storage at the start and sweeps it from then on.
//
// It is a ports.HealthCheck: a server is not ready before the claim was answered. A job that came before the claim would
// make the storage one that is not empty, whose index only `relay migrate index` completes.
type indexKeeper struct {
	index ports.JobIndex
	sweep usecase.SweepIndex
	log   *zap.Logger

	claimed atomic.Bool
	warned  bool
}

// newIndexKeeper appends its hooks before those of the listeners, which depend on it, and behind that of the Redis client:
// the first claim comes before the first request, and the last pass ends before Redis is closed.
func newIndexKeeper(lc fx.Lifecycle, c Config, index ports.JobIndex, log *zap.Logger) *indexKeeper {
	k := &indexKeeper{index: index, log: log, sweep: usecase.SweepIndex{
		Jobs: usecase.IndexJobs{Index: index, Clock: systemclock.Clock{}}, Phase: c.Phase,
		Holder: rand.Text(), Interval: c.IndexSweep, Rate: sweepRate,
		Failed: func(err error) { log.Warn("index sweep failed", reason(err)) },
	}}
	running, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	lc.Append(fx.StartStopHook(
		func(ctx context.Context) {
			k.claim(ctx)
			go func() {
				defer close(ended)
				k.run(running)
			}()
		},
		func(ctx context.Context) error {
			cancel()
			select {
			case <-ended:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	))
	return k
}

func (k *indexKeeper) run(ctx context.Context) {
	for !k.claimed.Load() {
		if k.sweep.Jobs.Clock.Sleep(ctx, claimPause) != nil {
			return
		}
		k.claim(ctx)
	}
	k.sweep.Run(ctx)
}

// claim asks once, and tells the log which way lists go once that is known.
func (k *indexKeeper) claim(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	err := k.index.ClaimEmpty(ctx)
	complete := false
	if err == nil {
		complete, err = k.index.Complete(ctx)
	}
	switch {
	case err != nil && k.warned:
	case err != nil:
		k.warned = true // the same every half second would tell no more
		k.log.Warn("the storage does not say whether it is empty; asking on", reason(err))
	case complete:
		k.log.Info("lists go by the index")
	default:
		k.log.Info("lists go by SCAN until `relay migrate index --execute` has completed the index")
	}
	k.claimed.Store(err == nil)
}

// Name implements ports.HealthCheck.
func (*indexKeeper) Name() string { return "index" }

// Check implements ports.HealthCheck.
func (k *indexKeeper) Check(context.Context) error {
	if k.claimed.Load() {
		return nil
	}
	return fault.New(fault.Unavailable, fault.CodeStorageUnavailable, "the storage has not said yet whether it is empty")
}

// reason is what a log line may say of an error of the storage.
func reason(err error) zap.Field { return zap.Stringer("reason", fault.KindOf(err)) }
