package usecase

import (
	"context"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/migration"
)

const (
	// sampleKeys is how many jobs a preflight looks at.
	sampleKeys = 1000
	// sampleSteps bounds how long it looks for them among other keys. The pass itself heeds the memory, too.
	sampleSteps = 1000
)

// Preflight tells whether the storage can bear the pass, without changing anything: nil, or fault.Invalid with a message
// for the operator. What the copies will take is judged by the first jobs that the pass would meet.
func (u Backfill) Preflight(ctx context.Context, in BackfillInput) error {
	load, err := u.Load.Load(ctx)
	if err != nil {
		return err //nolint:wrapcheck // already a fault
	}
	refusal := migration.BackfillRefusal(load, migration.BackfillSample{})
	if refusal == "" && load.MaxMemory > 0 {
		sample, err := u.sample(ctx, in)
		if err != nil {
			return err
		}
		refusal = migration.BackfillRefusal(load, sample)
	}
	if refusal != "" {
		return fault.New(fault.Invalid, fault.CodeInvalidParameter, refusal)
	}
	return nil
}

// sample begins where the pass would: what lies before has its copies already.
func (u Backfill) sample(ctx context.Context, in BackfillInput) (migration.BackfillSample, error) {
	p := backfillPass{Backfill: u, in: in}
	if !in.Restart {
		if err := p.resume(ctx); err != nil {
			return migration.BackfillSample{}, err
		}
	}
	p.in.DryRun = true
	at, process := p.kept.At, p.kept.Process
	sample := migration.BackfillSample{From: at.Fraction()}
	for met, steps := 0, 0; met < sampleKeys && steps < sampleSteps; steps++ {
		batch, err := u.Copies.Keys(ctx, at, sampleKeys/10)
		if err != nil {
			return migration.BackfillSample{}, err //nolint:wrapcheck // already a fault
		}
		if at != 0 && batch.Process != process { // as the pass itself will start over
			at, met, sample = 0, 0, migration.BackfillSample{}
			if err := p.startOver(); err != nil {
				return migration.BackfillSample{}, err
			}
			continue
		}
		copied, err := p.copy(ctx, batch.Jobs)
		if err != nil {
			return migration.BackfillSample{}, err
		}
		sample.Sampled(batch.Jobs, copied)
		at, process = batch.Next, batch.Process
		if at == 0 {
			sample.To = 1
			break
		}
		sample.To = at.Fraction()
		met += len(batch.Jobs)
	}
	return sample, nil
}
