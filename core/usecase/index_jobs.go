package usecase

import (
	"context"
	"time"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// IndexJobs brings the index in step with the stored jobs in one pass, while others write.
type IndexJobs struct {
	Index ports.JobIndex
	Clock ports.Clock
}

// IndexJobsInput says what to go through and how fast.
type IndexJobsInput struct {
	Scope  migration.IndexScope
	DryRun bool
	Rate   int // jobs and entries a second at most; 0 for no bound
}

// IndexJobsProgress is told after each step.
type IndexJobsProgress struct {
	Counts   migration.IndexCounts
	Fraction float64 // of the keyspace that is behind the pass
}

// Do goes through the whole scope in one server process: positions of another are worthless, so that the pass starts
// over where the process changed under it. A pass over everything that was no dry run ends with a complete index.
func (u IndexJobs) Do(
	ctx context.Context, in IndexJobsInput, progress func(IndexJobsProgress),
) (migration.IndexCounts, error) {
	p := indexPass{
		IndexJobs: u, in: in, progress: progress, started: u.Clock.Now(), walked: map[workspace.ID]bool{},
	}
	for {
		batch, err := u.Index.Batch(ctx, in.Scope, p.at, in.DryRun)
		if err != nil {
			return p.counts, err //nolint:wrapcheck // already a fault
		}
		if p.at != 0 && batch.Process != p.process {
			p.begin()
			continue
		}
		p.at, p.process = batch.Next, batch.Process
		p.paced += scanCost
		if err := p.step(ctx, batch.IndexCounts); err != nil {
			return p.counts, err
		}
		if err := p.trim(ctx, batch); err != nil {
			return p.counts, err
		}
		if p.at != 0 {
			continue
		}
		if in.DryRun || in.Scope != migration.IndexAll {
			return p.counts, nil
		}
		marked, err := u.Index.MarkComplete(ctx, p.process)
		if err != nil || marked {
			return p.counts, err //nolint:wrapcheck // already a fault
		}
		p.begin()
	}
}

const (
	// scanCost is what looking for the jobs of one step costs the storage, in jobs.
	scanCost = 25
	// trimRounds bounds how long a pass stays with one index: others wait for it.
	trimRounds = 200
	// maxDebt bounds what a pass catches up on after the storage was slow.
	maxDebt = time.Second
)

// indexPass is the state of one pass.
type indexPass struct {
	IndexJobs
	in       IndexJobsInput
	progress func(IndexJobsProgress)
	started  time.Time
	paced    int64 // jobs and entries since started, and what finding them cost; of a pass that started over too

	at      migration.Position
	process string
	counts  migration.IndexCounts
	walked  map[workspace.ID]bool // indexes that were gone through from end to end: SCAN may give a key twice
}

// begin forgets what was done in another server process.
func (p *indexPass) begin() {
	p.counts, p.at = migration.IndexCounts{}, 0
	clear(p.walked)
}

// step counts, tells and waits until the rate allows more.
func (p *indexPass) step(ctx context.Context, c migration.IndexCounts) error {
	p.counts = p.counts.Add(c)
	p.paced += c.Scanned + c.Entries
	if p.progress != nil {
		p.progress(IndexJobsProgress{Counts: p.counts, Fraction: p.at.Fraction()})
	}
	if p.in.Rate <= 0 {
		return nil
	}
	due := p.started.Add(time.Duration(p.paced) * time.Second / time.Duration(p.in.Rate))
	wait := due.Sub(p.Clock.Now())
	if wait > 0 {
		return p.Clock.Sleep(ctx, wait) //nolint:wrapcheck // the context's own error
	}
	p.started = p.started.Add(max(0, -wait-maxDebt))
	return nil
}

// trim takes what has expired off the indexes that a batch met: all of it where the pass is one over everything, and else
// as much as a pass that comes again soon has to.
func (p *indexPass) trim(ctx context.Context, batch migration.IndexBatch) error {
	for _, ws := range batch.Indexes {
		if p.in.Scope == migration.IndexAll {
			if err := p.trimAll(ctx, ws); err != nil {
				return err
			}
			continue
		}
		for range trimRounds {
			counts, more, err := p.Index.Trim(ctx, ws, p.in.DryRun)
			if err != nil {
				return err //nolint:wrapcheck // already a fault
			}
			if err := p.step(ctx, counts); err != nil {
				return err
			}
			if !more {
				break
			}
		}
	}
	return nil
}

// trimAll goes through a whole index.
func (p *indexPass) trimAll(ctx context.Context, ws workspace.ID) error {
	if p.walked[ws] {
		return nil
	}
	p.walked[ws] = true
	for before := ""; ; {
		counts, next, err := p.Index.TrimAll(ctx, ws, before, p.in.DryRun)
		if err != nil {
			return err //nolint:wrapcheck // already a fault
		}
		if err := p.step(ctx, counts); err != nil {
			return err
		}
		if before = next; before == "" {
			return nil
		}
	}
}
