package app

import (
	"context"
	"crypto/rand"

	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/ports"
)

// sweepRate is jobs and entries a second. Each costs Redis some 15 µs, so that a sweep takes 3 % of its time.
const sweepRate = 2000

// indexKeeper claims the index of an empty storage at the start and sweeps it from then on.
//
// A server is not ready before the claim was answered. A job that came before the claim would make the storage one that
// is not empty, whose index only `relay migrate index` completes.
type indexKeeper struct {
	*question

	index ports.JobIndex
	sweep usecase.SweepIndex
	log   *zap.Logger
}

// newIndexKeeper appends its hooks before those of the listeners, which depend on it, and behind that of the Redis client:
// the first claim comes before the first request, and the last pass ends before Redis is closed.
func newIndexKeeper(lc fx.Lifecycle, c Config, index ports.JobIndex, log *zap.Logger) *indexKeeper {
	k := &indexKeeper{index: index, log: log, sweep: usecase.SweepIndex{
		Jobs: usecase.IndexJobs{Index: index, Clock: systemclock.Clock{}}, Phase: c.Phase,
		Holder: rand.Text(), Interval: c.IndexSweep, Rate: sweepRate,
		Failed: func(err error) { log.Warn("index sweep failed", reason(err)) },
	}}
	k.question = &question{name: "index", ask: k.claim, log: log}
	inBackground(lc, k.question, k.sweep.Run)
	return k
}

// claim tells the log which way lists go once that is known.
func (k *indexKeeper) claim(ctx context.Context) error {
	if err := k.index.ClaimEmpty(ctx); err != nil {
		return err //nolint:wrapcheck // already a fault
	}
	complete, err := k.index.Complete(ctx)
	switch {
	case err != nil:
		return err //nolint:wrapcheck // already a fault
	case complete:
		k.log.Info("lists go by the index")
	default:
		k.log.Info("lists go by SCAN until `relay migrate index --execute` has completed the index")
	}
	return nil
}
