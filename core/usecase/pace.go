package usecase

import (
	"context"
	"time"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// loadInterval is how often the storage is asked for its load, and how long a pass sleeps at most before it looks again:
// a change of the pace takes effect in a step that waits, too.
const loadInterval = 500 * time.Millisecond

// largeTrip bounds the memory of the jobs that the storage is asked about together; a larger one goes alone. Others wait for
// no more.
const largeTrip = 1 << 20

// maxSpread bounds how long a trip of a step waits, and loadInterval how long all of them do: a slow rate is held to between
// steps, where a new pace takes effect.
const maxSpread = 5 * time.Millisecond

// keysOfAJob is how many keys a step may look at for the time of one job, where it finds few or none among others.
const keysOfAJob = 20

// pacer holds a pass to the rate that was asked for and to what the storage can bear.
type pacer struct {
	load  ports.StorageLoad
	clock ports.Clock
	rate  int // jobs a second at most; 0 for no bound
	batch int // keys of one step; 0 for as many as the pace allows

	pace  migration.Pace
	asked time.Time     // when the load was read
	began time.Time     // when the pass was last let go on
	jobs  int64         // since then
	keys  int64         // that the step which was let go on looks at
	sent  int           // since then, in trips
	slept time.Duration // since then, between them
}

// did counts jobs towards the rate.
func (p *pacer) did(jobs int) { p.jobs += int64(jobs) }

// step gives how many keys the next step looks at: as many as were asked for, or as many as the pace allows.
func (p *pacer) step() int {
	if p.batch > 0 {
		return p.batch
	}
	return p.pace.StepKeys()
}

// trips parts the jobs of a step, those of one workspace or of all where only is zero, into what the storage is asked about
// together, and spreads that over the time that the step is to take: whoever comes behind it waits for a trip, not for a step.
// Where ctx ends the rest goes at once, so that the step is done and counts as a whole.
func (p *pacer) trips(
	ctx context.Context, jobs []migration.StoredJob, only workspace.ID,
	do func(ctx context.Context, trip []migration.JobRef) error,
) error {
	for _, trip := range partJobs(jobs, only, p.pace.TripJobs()) {
		p.spread(ctx)
		if err := do(context.WithoutCancel(ctx), trip); err != nil {
			return err
		}
		p.sent += len(trip)
	}
	return nil
}

// partJobs makes parts of at most n jobs.
func partJobs(jobs []migration.StoredJob, only workspace.ID, n int) (parts [][]migration.JobRef) {
	var bytes int64
	for _, j := range jobs {
		if !only.IsZero() && j.Workspace != only {
			continue
		}
		last := len(parts) - 1
		if bytes += j.Bytes; last < 0 || bytes > largeTrip || len(parts[last]) == n {
			parts, bytes, last = append(parts, nil), j.Bytes, last+1
		}
		parts[last] = append(parts[last], j.JobRef)
	}
	return parts
}

// spread waits for the time of the next trip.
func (p *pacer) spread(ctx context.Context) {
	if p.pace.Rate == 0 || p.slept >= loadInterval {
		return
	}
	now := p.clock.Now()
	left := p.began.Add(time.Duration(p.sent) * time.Second / time.Duration(p.pace.Rate)).Sub(now)
	if left <= 0 {
		return
	}
	_ = p.clock.Sleep(ctx, min(left, maxSpread)) // wait tells that the context has ended
	p.slept += p.clock.Now().Sub(now)
}

// wait waits until the pass may go on. It is called between two steps; the time since it last returned is the time that
// the pass worked, or spread its trips over. Each step has to take the time that its jobs are worth: time lost in one is
// not caught up in another. standing is called as long as the pass has to stand still.
func (p *pacer) wait(ctx context.Context, standing func()) error {
	ended := p.clock.Now()
	if p.began.IsZero() {
		p.began = ended
	}
	for {
		if err := p.ask(ctx); err != nil {
			return err
		}
		left := loadInterval
		if p.pace.Share > 0 {
			left = p.due(ended).Sub(p.clock.Now())
		} else {
			standing()
		}
		if left <= 0 {
			break
		}
		if err := p.clock.Sleep(ctx, min(left, loadInterval)); err != nil {
			return err //nolint:wrapcheck // the context's own error
		}
	}
	p.began, p.jobs, p.sent, p.slept = p.clock.Now(), 0, 0, 0
	p.keys = int64(p.step())
	return ctx.Err() //nolint:wrapcheck // the context's own error
}

// due is when a step that ended has taken its time.
func (p *pacer) due(ended time.Time) time.Time {
	due := p.began.Add(time.Duration(float64(ended.Sub(p.began)-p.slept) / p.pace.Share))
	if p.pace.Rate > 0 {
		worth := time.Duration(max(p.jobs*keysOfAJob, p.keys)) * (time.Second / keysOfAJob) / time.Duration(p.pace.Rate)
		if paid := p.began.Add(worth); paid.After(due) {
			due = paid
		}
	}
	return due
}

// ask reads the load, where it is not fresh, and decides the pace anew.
func (p *pacer) ask(ctx context.Context) error {
	now := p.clock.Now()
	if !p.asked.IsZero() && now.Sub(p.asked) < loadInterval {
		return nil
	}
	load, err := p.load.Load(ctx)
	if err != nil {
		return err //nolint:wrapcheck // already a fault
	}
	p.pace, p.asked = migration.PaceOf(p.rate, load), now
	return nil
}
