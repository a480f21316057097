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

// turnMargin is how many intervals a turn lasts, so that its holder takes the next one before others.
const turnMargin = 2

// Run sweeps until the context ends.
func (u SweepIndex) Run(ctx context.Context) {
	if u.Interval <= 0 {
		return
	}
	for ctx.Err() == nil {
		started := u.Jobs.Clock.Now()
		if err := u.sweep(ctx); err != nil && ctx.Err() == nil {
			u.Failed(err)
		}
		wait := max(0, u.Interval-u.Jobs.Clock.Now().Sub(started))
		if u.Jobs.Clock.Sleep(ctx, wait) != nil {
			return
		}
	}
}

func (u SweepIndex) sweep(ctx context.Context) error {
	scope := migration.IndexEntries
	if u.Phase.WritesOld() {
		scope = migration.IndexOld
	}
	mine, err := u.Jobs.Index.TakeSweep(ctx, u.Holder, turnMargin*u.Interval)
	if err != nil || !mine {
		return err //nolint:wrapcheck // already a fault
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var lost error
	_, err = u.Jobs.Do(ctx, IndexJobsInput{Scope: scope, Rate: u.Rate}, func(migration.IndexCounts) {
		if mine, lost = u.Jobs.Index.TakeSweep(ctx, u.Holder, turnMargin*u.Interval); !mine {
			cancel() // another server sweeps by now
		}
	})
	if !mine {
		return lost //nolint:wrapcheck // already a fault
	}
	return err
}
