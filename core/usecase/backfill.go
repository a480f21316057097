package usecase

import (
	"context"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// Backfill makes the copies that a schema lacks, and equal copies of those that differ, in one pass through the stored
// keys, while others write. It may run twice and at once.
type Backfill struct {
	Copies ports.JobCopies
	Load   ports.StorageLoad
	Clock  ports.Clock
}

// BackfillInput says what to go through and how fast.
type BackfillInput struct {
	To        migration.Schema
	DryRun    bool
	Batch     int          // keys of one step; 0 for as many as the pace allows
	Rate      int          // jobs a second at most; 0 for no bound
	Workspace workspace.ID // the only one; zero for all
	MaxJobs   int64        // the pass ends early behind the step that reaches so many jobs; 0 for no bound
	Restart   bool         // forget what was kept of an earlier pass
}

// BackfillProgress is told after each step.
type BackfillProgress struct {
	Counts   migration.BackfillCounts
	Copied   []migration.Copied     // of this step
	Strange  []migration.StrangeKey // of this step
	Fraction float64                // of the keyspace that is behind the pass
	Pace     migration.Pace
	Waiting  bool // the pass stands still, nothing is new but the pace
}

// maxStarts bounds how often a pass starts over: where a server hides which process it is and connections do not last, no
// pass ends.
const maxStarts = 100

// Do goes through all keys in one server process: a position of another is worthless, so that the pass starts over where
// the process changed, under it or since the pass that left a checkpoint. Where the context ends it leaves a checkpoint
// and gives the context's error. done is false where MaxJobs ended the pass early, or where its checkpoint could not be
// forgotten; either leaves one, too. counts are of the whole pass, with what was done before the checkpoint that it took up, be
// that of a pass that still goes on.
func (u Backfill) Do(
	ctx context.Context, in BackfillInput, progress func(BackfillProgress),
) (counts migration.BackfillCounts, done bool, err error) {
	p := backfillPass{Backfill: u, in: in, progress: progress}
	p.pacer = pacer{load: u.Load, clock: u.Clock, rate: in.Rate, batch: in.Batch}
	if err := p.resume(ctx); err != nil {
		return p.kept.Counts, false, err
	}
	for {
		if err := p.pacer.wait(ctx, p.standing); err != nil {
			return p.kept.Counts, false, err
		}
		end, err := p.step(ctx)
		if err != nil {
			return p.kept.Counts, false, err
		}
		if end {
			err := p.save(ctx, migration.Checkpoint{})
			return p.kept.Counts, err == nil, err
		}
		if in.MaxJobs > 0 && p.total >= in.MaxJobs {
			return p.kept.Counts, false, nil
		}
	}
}

// backfillPass is the state of one pass.
type backfillPass struct {
	Backfill
	in       BackfillInput
	progress func(BackfillProgress)
	kept     migration.Checkpoint
	pacer    pacer
	total    int64 // jobs of this run
	starts   int   // how often the pass started over
}

// standing tells that the pass stands still.
func (p *backfillPass) standing() {
	if p.progress != nil {
		p.progress(BackfillProgress{
			Counts: p.kept.Counts, Fraction: p.kept.At.Fraction(), Pace: p.pacer.pace, Waiting: true,
		})
	}
}

// resume takes up the checkpoint of an earlier pass of the same kind.
func (p *backfillPass) resume(ctx context.Context) error {
	if p.in.DryRun {
		return nil
	}
	if p.in.Restart {
		return p.save(ctx, migration.Checkpoint{})
	}
	kept, err := p.Copies.Checkpoint(ctx, p.in.To)
	if err != nil {
		return err //nolint:wrapcheck // already a fault
	}
	if kept.Workspace == p.in.Workspace {
		p.kept = kept
	}
	return nil
}

// step does one batch, and tells whether it was the last.
func (p *backfillPass) step(ctx context.Context) (end bool, err error) {
	n := p.pacer.step()
	if p.in.MaxJobs > 0 {
		n = int(min(int64(n), p.in.MaxJobs-p.total))
	}
	batch, err := p.Copies.Keys(ctx, p.kept.At, n)
	if err != nil {
		return false, err //nolint:wrapcheck // already a fault
	}
	if p.kept.At != 0 && batch.Process != p.kept.Process {
		return false, p.startOver()
	}
	copied, err := p.copy(ctx, batch.Jobs)
	if err != nil {
		return false, err
	}
	strange := batch.Strange
	if !p.in.Workspace.IsZero() {
		strange = nil // nobody's
	}
	p.kept.Counts.Add(copied, strange)
	p.pacer.did(len(copied))
	p.total += int64(len(copied))
	p.kept.Process, p.kept.At, p.kept.Workspace = batch.Process, batch.Next, p.in.Workspace
	end = batch.Next == 0
	if p.progress != nil {
		fraction := batch.Next.Fraction()
		if end {
			fraction = 1
		}
		p.progress(BackfillProgress{
			Counts: p.kept.Counts, Copied: copied, Strange: strange, Fraction: fraction, Pace: p.pacer.pace,
		})
	}
	if end {
		return p.sameProcess(ctx)
	}
	return false, p.save(ctx, p.kept)
}

// sameProcess tells whether the server process that the whole pass went through still answers. What one that failed over
// was given last, the replica that took its place may not have: the pass starts over then.
func (p *backfillPass) sameProcess(ctx context.Context) (bool, error) {
	probe, err := p.Copies.Keys(ctx, 0, 1)
	if err != nil {
		return false, err //nolint:wrapcheck // already a fault
	}
	if probe.Process != p.kept.Process {
		return false, p.startOver()
	}
	return true, nil
}

// startOver forgets how far the pass came, unless that happens for ever.
func (p *backfillPass) startOver() error {
	p.kept = migration.Checkpoint{Workspace: p.in.Workspace}
	p.starts++
	return boundStarts(p.starts)
}

// boundStarts ends a pass that started over too often.
func boundStarts(starts int) error {
	if starts > maxStarts {
		return fault.New(fault.Unavailable, fault.CodeStorageUnavailable, "Another server answers again and again")
	}
	return nil
}

// copy copies the jobs of a batch.
func (p *backfillPass) copy(ctx context.Context, jobs []migration.StoredJob) ([]migration.Copied, error) {
	var all []migration.Copied
	err := p.pacer.trips(ctx, jobs, p.in.Workspace, func(ctx context.Context, trip []migration.JobRef) error {
		copied, err := p.Copies.Copy(ctx, trip, p.in.To, p.in.DryRun)
		all = append(all, copied...)
		return err //nolint:wrapcheck // already a fault
	})
	return all, err
}

// save keeps how far the pass came, also where the context has ended meanwhile: who finds a checkpoint goes on from it.
func (p *backfillPass) save(ctx context.Context, kept migration.Checkpoint) error {
	if p.in.DryRun {
		return nil
	}
	return p.Copies.SaveCheckpoint(context.WithoutCancel(ctx), p.in.To, kept) //nolint:wrapcheck // already a fault
}
