package usecase

import (
	"context"
	"time"

	"github.com/relay-jobs/relay/core/migration"
)

// SweepIndex repeats a throttled pass on one server at a time: over the jobs that have an old copy while a predecessor
// may write them, and over what has expired.
type SweepIndex struct {
	Jobs     IndexJobs
	Phase    migration.Phase
	Holder   string        // this server, unlike any other
	Interval time.Duration // from the start of one pass to that of the next; 0 for none
	Rate     int
	Failed   func(error) // told of a pass that failed; the next one comes
}

// Run sweeps until the context ends. A server whose turn it is not asks several times in an interval, so that one that
// goes away is missed for less than that.
func (u SweepIndex) Run(ctx context.Context) {
	if u.Interval <= 0 {
		return
	}
	tick := u.Interval / 4
	defer func() {
		ctx, cancel := lastWords(ctx)
		defer cancel()
		_, _ = u.take(ctx, 0) // it ends by itself soon
	}()
	var next time.Time
	for ctx.Err() == nil {
		mine, err := u.take(ctx, 2*tick)
		now := u.Jobs.Clock.Now()
		wait := tick
		switch {
		case err != nil || !mine:
			next = time.Time{}
		case now.Before(next):
			wait = min(tick, next.Sub(now))
		default:
			next = now.Add(u.Interval)
			err = u.sweep(ctx, 2*tick)
			wait = 0
		}
		if err != nil && ctx.Err() == nil {
			u.Failed(err)
			wait = tick
		}
		if u.Jobs.Clock.Sleep(ctx, wait) != nil {
			return
		}
	}
}

func (u SweepIndex) scope() migration.IndexScope {
	if u.Phase.WritesOld() {
		return migration.IndexOld
	}
	return migration.IndexEntries
}

func (u SweepIndex) take(ctx context.Context, turn time.Duration) (bool, error) {
	return u.Jobs.Index.TakeSweep(ctx, u.scope(), u.Holder, turn) //nolint:wrapcheck // already a fault
}

func (u SweepIndex) sweep(ctx context.Context, turn time.Duration) error {
	if err := u.Jobs.Index.ClaimEmpty(ctx); err != nil {
		return err //nolint:wrapcheck // already a fault
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	mine, lost := true, error(nil)
	_, err := u.Jobs.Do(ctx, IndexJobsInput{Scope: u.scope(), Rate: u.Rate}, func(IndexJobsProgress) {
		if mine, lost = u.take(ctx, turn); !mine {
			cancel() // another server sweeps by now
		}
	})
	if !mine {
		return lost
	}
	return err
}
