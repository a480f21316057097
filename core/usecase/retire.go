package usecase

import (
	"context"
	"time"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// Retire removes the old copies in one pass through the stored keys, while others write. What is not as fresh and whole
// in the new schema stays, and so does what is no job. It may run twice and at once.
type Retire struct {
	Keys  ports.JobCopies
	Old   ports.OldCopies
	Load  ports.StorageLoad
	Clock ports.Clock
	Gates GateKeeper
}

// RetireInput says what to go through, how fast, and who answers for it.
type RetireInput struct {
	DryRun    bool
	Batch     int          // keys of one step; 0 for as many as the pace allows
	Rate      int          // jobs a second at most; 0 for no bound
	Workspace workspace.ID // the only one; zero for all
	Force     string       // the reason why a closed gate does not matter; empty to respect it
	Command   Command
}

// RetireProgress is told after each step.
type RetireProgress struct {
	Counts   migration.RetireCounts
	Fraction float64 // of the keyspace that is behind the pass
	Pace     migration.Pace
	Waiting  bool // the pass stands still, nothing is new but the pace
}

// gateInterval is how often a pass asks whether its gate is still open: a server that writes old copies may start
// meanwhile.
const gateInterval = 10 * time.Second

// Do is refused with a *migration.ClosedError while the gate is closed, at the start and under way, unless it is forced
// or a dry run. It goes through all keys in one server process, and starts over where that changed. No position is kept
// of a pass that did not come to its end: what it removed is gone, and old copies may have been made again since, also
// behind where it stood.
func (u Retire) Do(
	ctx context.Context, in RetireInput, progress func(RetireProgress),
) (counts migration.RetireCounts, err error) {
	p := retirePass{Retire: u, in: in, progress: progress}
	p.pacer = pacer{load: u.Load, clock: u.Clock, rate: in.Rate, batch: in.Batch}
	if err := p.begin(ctx); err != nil {
		return p.counts, err
	}
	for {
		if err := p.pacer.wait(ctx, p.standing); err != nil {
			return p.counts, err
		}
		if err := p.gate(ctx); err != nil {
			return p.counts, err
		}
		end, err := p.step(ctx)
		if err != nil {
			return p.counts, err
		}
		if end {
			return p.counts, nil
		}
	}
}

// retirePass is the state of one pass.
type retirePass struct {
	Retire
	in       RetireInput
	progress func(RetireProgress)
	counts   migration.RetireCounts
	at       migration.Position
	process  string // that at belongs to
	starts   int    // how often the pass started over
	pacer    pacer
	decided  time.Time // when the gate was last found open
}

// begin passes the gate and leaves a trace.
func (p *retirePass) begin(ctx context.Context) error {
	if p.in.DryRun {
		return nil
	}
	if err := p.Gates.Pass(ctx, migration.GateRetire, p.in.Command, p.in.Force); err != nil {
		return err
	}
	p.decided = p.Clock.Now()
	return p.Gates.Executes(ctx, p.in.Command)
}

// gate stops the pass where the gate has closed.
func (p *retirePass) gate(ctx context.Context) error {
	now := p.Clock.Now()
	if p.in.DryRun || p.in.Force != "" || now.Sub(p.decided) < gateInterval {
		return nil
	}
	s, err := p.Gates.State(ctx, migration.GateRetire)
	if err == nil && !s.Open {
		return &migration.ClosedError{GateState: s}
	}
	p.decided = now
	return err
}

// servers stops the pass where a server writes old copies. A server beats before it serves, so that where none does now,
// none had made a job whose key was met before.
func (p *retirePass) servers(ctx context.Context) error {
	if p.in.DryRun || p.in.Force != "" {
		return nil
	}
	s, err := p.Gates.Servers(ctx, migration.GateRetire)
	if err == nil && !s.Open {
		return &migration.ClosedError{GateState: s}
	}
	return err
}

// standing tells that the pass stands still.
func (p *retirePass) standing() {
	p.tell(true)
}

func (p *retirePass) tell(waiting bool) {
	if p.progress != nil {
		p.progress(RetireProgress{
			Counts: p.counts, Fraction: p.at.Fraction(), Pace: p.pacer.pace, Waiting: waiting,
		})
	}
}

// step does one batch, and tells whether it was the last.
func (p *retirePass) step(ctx context.Context) (end bool, err error) {
	batch, err := p.Keys.Keys(ctx, p.at, p.pacer.step())
	if err != nil {
		return false, err //nolint:wrapcheck // already a fault
	}
	if p.at != 0 && batch.Process != p.process {
		p.counts, p.at = migration.RetireCounts{}, 0
		p.starts++
		return false, boundStarts(p.starts)
	}
	if err := p.servers(ctx); err != nil {
		return false, err
	}
	retired, err := p.retire(ctx, batch.Jobs)
	if err != nil {
		return false, err
	}
	strange := batch.Strange
	if !p.in.Workspace.IsZero() {
		strange = nil // nobody's
	}
	p.counts.Add(retired, strange)
	p.process, p.at = batch.Process, batch.Next
	p.pacer.did(len(retired))
	p.tell(false)
	return batch.Next == 0, nil
}

// retire removes the old copies of a batch.
func (p *retirePass) retire(ctx context.Context, jobs []migration.StoredJob) ([]migration.Retired, error) {
	var all []migration.Retired
	err := p.pacer.trips(ctx, jobs, p.in.Workspace, func(ctx context.Context, trip []migration.JobRef) error {
		retired, err := p.Old.Retire(ctx, trip, p.in.DryRun)
		all = append(all, retired...)
		return err //nolint:wrapcheck // already a fault
	})
	return all, err
}
