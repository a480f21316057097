package usecase_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports/portsmock"
)

// handClock goes on by what is slept, and by what a test adds.
type handClock struct {
	at    time.Time
	slept []time.Duration
	woken func(n int) // called behind each sleep
}

func (c *handClock) Now() time.Time { return c.at }

func (c *handClock) Sleep(ctx context.Context, d time.Duration) error {
	c.at = c.at.Add(d)
	c.slept = append(c.slept, d)
	if c.woken != nil {
		c.woken(len(c.slept))
	}
	return ctx.Err()
}

func (c *handClock) total() (d time.Duration) {
	for _, s := range c.slept {
		d += s
	}
	return d
}

// backfillRig is a storage of some jobs, which a pass meets in their order; a position is the index of the next.
type backfillRig struct {
	copies *portsmock.MockJobCopies
	load   *portsmock.MockStorageLoad
	clock  *handClock

	jobs    []migration.StoredJob
	process string
	kept    migration.Checkpoint
	saved   []migration.Checkpoint
	copied  map[string]int // how often each job
	groups  [][]migration.JobRef
	pace    migration.Load
	onCopy  func()
	outcome migration.CopyOutcome
}

func newBackfillRig(t *testing.T, jobs int) *backfillRig {
	t.Helper()
	c := gomock.NewController(t)
	r := &backfillRig{
		copies: portsmock.NewMockJobCopies(c), load: portsmock.NewMockStorageLoad(c),
		clock: &handClock{at: time.Unix(1_000_000, 0)}, process: "first", copied: map[string]int{},
		outcome: migration.CopyMade,
	}
	acme, err := workspace.Parse("acme")
	require.NoError(t, err)
	for i := range jobs {
		id, err := job.ParseID(strconv.Itoa(i))
		require.NoError(t, err)
		r.jobs = append(r.jobs, migration.StoredJob{JobRef: migration.JobRef{Workspace: acme, ID: id}, Bytes: 1000})
	}
	r.copies.EXPECT().Keys(gomock.Any(), gomock.Any(), gomock.Any()).DoAndReturn(r.keys).AnyTimes()
	r.copies.EXPECT().Copy(gomock.Any(), gomock.Any(), migration.New, gomock.Any()).DoAndReturn(r.copy).AnyTimes()
	r.copies.EXPECT().Checkpoint(gomock.Any(), migration.New).DoAndReturn(
		func(context.Context, migration.Schema) (migration.Checkpoint, error) { return r.kept, nil }).AnyTimes()
	r.copies.EXPECT().SaveCheckpoint(gomock.Any(), migration.New, gomock.Any()).DoAndReturn(
		func(ctx context.Context, _ migration.Schema, c migration.Checkpoint) error {
			r.kept = c
			r.saved = append(r.saved, c)
			return ctx.Err()
		}).AnyTimes()
	r.load.EXPECT().Load(gomock.Any()).DoAndReturn(
		func(context.Context) (migration.Load, error) { return r.pace, nil }).AnyTimes()
	return r
}

func (r *backfillRig) keys(_ context.Context, at migration.Position, n int) (migration.KeyBatch, error) {
	end := min(int(at)+n, len(r.jobs))
	batch := migration.KeyBatch{Process: r.process, Jobs: r.jobs[at:end], Next: migration.Position(end)}
	if end == len(r.jobs) {
		batch.Next = 0
		batch.Strange = []migration.StrangeKey{{Key: "ai:jobs:odd", Class: migration.KeyInvalidWorkspace}}
	}
	return batch, nil
}

func (r *backfillRig) copy(
	ctx context.Context, jobs []migration.JobRef, _ migration.Schema, dry bool,
) ([]migration.Copied, error) {
	out := make([]migration.Copied, len(jobs))
	for i, j := range jobs {
		out[i] = migration.Copied{Job: j, Outcome: r.outcome, Entries: 1}
		if !dry {
			r.copied[j.ID.String()]++
		}
	}
	r.groups = append(r.groups, jobs)
	if r.onCopy != nil {
		r.onCopy()
	}
	return out, ctx.Err()
}

func (r *backfillRig) pass() usecase.Backfill {
	return usecase.Backfill{Copies: r.copies, Load: r.load, Clock: r.clock}
}

func (r *backfillRig) do(t *testing.T, in usecase.BackfillInput) (migration.BackfillCounts, bool) {
	t.Helper()
	in.To = migration.New
	counts, done, err := r.pass().Do(t.Context(), in, nil)
	require.NoError(t, err)
	return counts, done
}

func TestBackfillGoesThroughEveryKeyAndForgetsItsPosition(t *testing.T) {
	r := newBackfillRig(t, 25)
	var fractions []float64
	counts, done, err := r.pass().Do(t.Context(), usecase.BackfillInput{To: migration.New, Batch: 10},
		func(p usecase.BackfillProgress) { fractions = append(fractions, p.Fraction) })
	require.NoError(t, err)
	require.True(t, done)
	require.Equal(t, migration.BackfillCounts{
		Scanned: 26, Entries: 25, Jobs: map[migration.CopyOutcome]int64{migration.CopyMade: 25},
		Strange: map[migration.KeyClass]int64{migration.KeyInvalidWorkspace: 1},
	}, counts)
	require.Len(t, r.copied, 25)
	require.Len(t, r.saved, 3)
	for i, at := range []migration.Position{10, 20} {
		require.Equal(t, "first", r.saved[i].Process)
		require.Equal(t, at, r.saved[i].At, "a position behind each step")
	}
	require.True(t, r.kept.IsZero(), "none at the end")
	require.InDelta(t, 1, fractions[2], 0)
}

func TestBackfillDryRunKeepsNothing(t *testing.T) {
	r := newBackfillRig(t, 25)
	r.kept = migration.Checkpoint{Process: "first", At: 20}
	counts, done := r.do(t, usecase.BackfillInput{Batch: 10, DryRun: true})
	require.True(t, done)
	require.EqualValues(t, 25, counts.Jobs[migration.CopyMade], "it starts at the beginning")
	require.Empty(t, r.copied)
	require.Empty(t, r.saved)
}

func TestBackfillResumes(t *testing.T) {
	ten := migration.BackfillCounts{Scanned: 10, Jobs: map[migration.CopyOutcome]int64{migration.CopySingle: 10}}
	for name, c := range map[string]struct {
		kept    migration.Checkpoint
		restart bool
		want    int // jobs that are copied
	}{
		"in the same process":         {migration.Checkpoint{Process: "first", At: 10, Counts: ten}, false, 15},
		"not in another":              {migration.Checkpoint{Process: "zeroth", At: 10, Counts: ten}, false, 25},
		"not where none is named":     {migration.Checkpoint{At: 10, Counts: ten}, false, 25},
		"not where it is to be anew":  {migration.Checkpoint{Process: "first", At: 10, Counts: ten}, true, 25},
		"not where nothing was kept":  {migration.Checkpoint{}, false, 25},
		"not that of a workspace":     {migration.Checkpoint{Process: "first", At: 10, Workspace: neighbour(t)}, false, 25},
		"with counts that lack a map": {migration.Checkpoint{Process: "first", At: 10}, false, 15},
	} {
		t.Run(name, func(t *testing.T) {
			r := newBackfillRig(t, 25)
			r.kept = c.kept
			counts, done := r.do(t, usecase.BackfillInput{Batch: 10, Restart: c.restart})
			require.True(t, done)
			require.Len(t, r.copied, c.want)
			require.EqualValues(t, c.want, counts.Jobs[migration.CopyMade])
			if c.want == 15 {
				require.Equal(t, c.kept.Counts.Jobs[migration.CopySingle], counts.Jobs[migration.CopySingle], "counts go on")
			} else {
				require.Zero(t, counts.Jobs[migration.CopySingle], "counts begin anew")
			}
			if c.restart {
				require.True(t, r.saved[0].IsZero(), "an earlier position is forgotten before anything is done")
			}
		})
	}
}

func neighbour(t *testing.T) workspace.ID {
	t.Helper()
	ws, err := workspace.Parse("acme-eu")
	require.NoError(t, err)
	return ws
}

func TestBackfillStartsOverInAnotherProcess(t *testing.T) {
	for _, at := range []int{1, 2, 3} { // the step in which the process changes; the third is the last
		r := newBackfillRig(t, 25)
		r.onCopy = func() {
			if len(r.groups) == at {
				r.process = "second"
			}
		}
		counts, done := r.do(t, usecase.BackfillInput{Batch: 10})
		require.True(t, done)
		require.EqualValues(t, 25, counts.Jobs[migration.CopyMade], "counts are those of the pass that ended")
		for id, times := range r.copied {
			n, err := strconv.Atoi(id)
			require.NoError(t, err)
			want := 1
			if n < at*10 {
				want = 2
			}
			require.Equal(t, want, times, "step %d, job %s", at, id)
		}
	}
}

func TestBackfillEndsWhereNoTwoAnswersAreOfOneProcess(t *testing.T) {
	r := newBackfillRig(t, 25)
	r.onCopy = func() { r.process = fmt.Sprint(len(r.groups)) }
	_, done, err := r.pass().Do(t.Context(), usecase.BackfillInput{To: migration.New, Batch: 10}, nil)
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.False(t, done)
}

func TestBackfillEndsBehindMaxJobsAndGoesOnFromThere(t *testing.T) {
	r := newBackfillRig(t, 25)
	_, done := r.do(t, usecase.BackfillInput{Batch: 10, MaxJobs: 12})
	require.False(t, done)
	require.Len(t, r.copied, 12)
	counts, done := r.do(t, usecase.BackfillInput{Batch: 10, MaxJobs: 13})
	require.True(t, done, "the last job was the last key")
	require.Len(t, r.copied, 25)
	require.EqualValues(t, 25, counts.Jobs[migration.CopyMade])
	for id, n := range r.copied {
		require.Equal(t, 1, n, id)
	}
}

func TestBackfillOfOneWorkspace(t *testing.T) {
	r := newBackfillRig(t, 25)
	for i := 5; i < 12; i++ {
		r.jobs[i].Workspace = neighbour(t)
	}
	counts, done := r.do(t, usecase.BackfillInput{Batch: 10, Workspace: neighbour(t)})
	require.True(t, done)
	require.Equal(t, migration.BackfillCounts{
		Scanned: 7, Entries: 7, Jobs: map[migration.CopyOutcome]int64{migration.CopyMade: 7},
		Strange: map[migration.KeyClass]int64{},
	}, counts, "what is nobody's is not the workspace's")
	require.Equal(t, neighbour(t), r.saved[0].Workspace)
}

// TestBackfillBoundsTheBytesOfATrip: large jobs go alone, and smaller ones share what bytes allow.
func TestBackfillBoundsTheBytesOfATrip(t *testing.T) {
	r := newBackfillRig(t, 10)
	for i := range r.jobs {
		r.jobs[i].Bytes = 400 << 10
	}
	r.jobs[3].Bytes, r.jobs[7].Bytes = 1<<20+1, 5<<20
	r.do(t, usecase.BackfillInput{Batch: 10})
	var sizes []int
	for _, group := range r.groups {
		sizes = append(sizes, len(group))
	}
	require.Equal(t, []int{2, 1, 1, 2, 1, 1, 2}, sizes, "0 1, 2, 3, 4 5, 6, 7, 8 9")
	require.Equal(t, "3", r.groups[2][0].ID.String())
	require.Equal(t, "7", r.groups[5][0].ID.String())
}

// TestBackfillSpreadsAStep over the time that its rate gives it.
func TestBackfillSpreadsAStep(t *testing.T) {
	for name, c := range map[string]struct {
		rate int
		work time.Duration   // that each trip takes
		at   []time.Duration // when each begins
	}{
		"a fast rate":           {10_000, 0, []time.Duration{0, 1, 2, 3}},
		"while trips take less": {10_000, 400 * time.Microsecond, []time.Duration{0, 1, 2, 3}},
		"while trips take more": {10_000, 2 * time.Millisecond, []time.Duration{0, 2, 4, 6}},
		"a slow rate":           {100, 0, []time.Duration{0, 5, 10, 15}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newBackfillRig(t, 40)
			began, at := r.clock.at, []time.Duration(nil)
			r.onCopy = func() {
				at = append(at, r.clock.at.Sub(began)/time.Millisecond)
				r.clock.at = r.clock.at.Add(c.work)
			}
			r.do(t, usecase.BackfillInput{Rate: c.rate})
			require.Equal(t, c.at, at)
			require.Len(t, r.groups[0], 10)
		})
	}
}

// TestBackfillSpreadIsNoWork: what a step waits within it is no time that it worked, of which a share is taken.
func TestBackfillSpreadIsNoWork(t *testing.T) {
	r := newBackfillRig(t, 40)
	r.pace = migration.Load{Ping: 9 * time.Millisecond} // a quarter of the time
	began, last := r.clock.at, time.Duration(0)
	r.onCopy = func() { last = r.clock.at.Sub(began) }
	r.do(t, usecase.BackfillInput{Batch: 20, Rate: 10_000})
	require.Equal(t, 3*time.Millisecond, last, "four trips, a millisecond apart")
}

// TestBackfillEndsAStepThatItsCallerLeaves: what was copied counts, and the checkpoint stands behind it.
func TestBackfillEndsAStepThatItsCallerLeaves(t *testing.T) {
	r := newBackfillRig(t, 100)
	ctx, cancel := context.WithCancel(t.Context())
	r.clock.woken = func(int) { cancel() }
	counts, done, err := r.pass().Do(ctx, usecase.BackfillInput{To: migration.New, Batch: 40, Rate: 10_000}, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, done)
	require.Len(t, r.copied, 40)
	require.EqualValues(t, 40, counts.Scanned)
	require.Len(t, r.saved, 1)
	require.Equal(t, counts, r.saved[0].Counts)
}

// TestBackfillWaitsForALargeStepNoLongerThanForANewPace.
func TestBackfillWaitsForALargeStepNoLongerThanForANewPace(t *testing.T) {
	r := newBackfillRig(t, 10_000)
	began, last := r.clock.at, time.Duration(0)
	r.onCopy = func() { last = r.clock.at.Sub(began) }
	r.do(t, usecase.BackfillInput{Batch: 10_000, Rate: 100})
	require.Equal(t, 500*time.Millisecond, last)
}

// TestBackfillTakesLargerStepsWithoutABound of its rate.
func TestBackfillTakesLargerStepsWithoutABound(t *testing.T) {
	r := newBackfillRig(t, 650)
	r.do(t, usecase.BackfillInput{})
	var sizes []int
	for _, group := range r.groups {
		sizes = append(sizes, len(group))
	}
	require.Equal(t, []int{100, 100, 100, 100, 100, 100, 50}, sizes)
	require.Len(t, r.saved, 2, "one position behind 500, none at the end")
}

func TestBackfillStopsWithItsCallerAndKeepsWhatWasDone(t *testing.T) {
	r := newBackfillRig(t, 25)
	ctx, cancel := context.WithCancel(t.Context())
	_, done, err := r.pass().Do(ctx, usecase.BackfillInput{To: migration.New, Batch: 10},
		func(usecase.BackfillProgress) { cancel() })
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, done)
	require.Equal(t, migration.Position(10), r.kept.At)
	r.do(t, usecase.BackfillInput{Batch: 10})
	require.Len(t, r.copied, 25)
}

func TestBackfillGivesEachFault(t *testing.T) {
	broken := fault.New(fault.Unavailable, fault.CodeStorageUnavailable, "away")
	batch := migration.KeyBatch{Process: "first", Next: 3, Jobs: newBackfillRig(t, 1).jobs}
	for name, expect := range map[string]func(c *portsmock.MockJobCopies, l *portsmock.MockStorageLoad){
		"the position": func(c *portsmock.MockJobCopies, _ *portsmock.MockStorageLoad) {
			c.EXPECT().Checkpoint(gomock.Any(), migration.New).Return(migration.Checkpoint{}, broken)
		},
		"the load": func(c *portsmock.MockJobCopies, l *portsmock.MockStorageLoad) {
			c.EXPECT().Checkpoint(gomock.Any(), migration.New)
			l.EXPECT().Load(gomock.Any()).Return(migration.Load{}, broken)
		},
		"the keys": func(c *portsmock.MockJobCopies, l *portsmock.MockStorageLoad) {
			c.EXPECT().Checkpoint(gomock.Any(), migration.New)
			l.EXPECT().Load(gomock.Any())
			c.EXPECT().Keys(gomock.Any(), gomock.Any(), 500).Return(migration.KeyBatch{}, broken)
		},
		"the copies": func(c *portsmock.MockJobCopies, l *portsmock.MockStorageLoad) {
			c.EXPECT().Checkpoint(gomock.Any(), migration.New)
			l.EXPECT().Load(gomock.Any())
			c.EXPECT().Keys(gomock.Any(), gomock.Any(), 500).Return(batch, nil)
			c.EXPECT().Copy(gomock.Any(), gomock.Any(), migration.New, false).Return(nil, broken)
		},
		"the new position": func(c *portsmock.MockJobCopies, l *portsmock.MockStorageLoad) {
			c.EXPECT().Checkpoint(gomock.Any(), migration.New)
			l.EXPECT().Load(gomock.Any())
			c.EXPECT().Keys(gomock.Any(), gomock.Any(), 500).Return(batch, nil)
			c.EXPECT().Copy(gomock.Any(), gomock.Any(), migration.New, false)
			c.EXPECT().SaveCheckpoint(gomock.Any(), migration.New, gomock.Any()).Return(broken)
		},
		"the end, from which the next run would go on": func(c *portsmock.MockJobCopies, l *portsmock.MockStorageLoad) {
			c.EXPECT().Checkpoint(gomock.Any(), migration.New).Return(migration.Checkpoint{Process: "first", At: 3}, nil)
			l.EXPECT().Load(gomock.Any())
			last := batch
			last.Next = 0
			c.EXPECT().Keys(gomock.Any(), migration.Position(3), 500).Return(last, nil)
			c.EXPECT().Copy(gomock.Any(), gomock.Any(), migration.New, false)
			c.EXPECT().Keys(gomock.Any(), migration.Position(0), 1).Return(batch, nil)
			c.EXPECT().SaveCheckpoint(gomock.Any(), migration.New, migration.Checkpoint{}).Return(broken)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := gomock.NewController(t)
			copies, load := portsmock.NewMockJobCopies(c), portsmock.NewMockStorageLoad(c)
			expect(copies, load)
			_, done, err := usecase.Backfill{Copies: copies, Load: load, Clock: &handClock{}}.Do(
				t.Context(), usecase.BackfillInput{To: migration.New}, nil)
			require.ErrorIs(t, err, broken)
			require.False(t, done)
		})
	}
}

func TestBackfillHoldsItsRate(t *testing.T) {
	for name, c := range map[string]struct {
		rate   int
		load   migration.Load
		work   time.Duration // that a step of 10 jobs takes
		at     time.Duration // when the last step of ten begins, nine behind the first
		reason migration.SlowReason
	}{
		"steps that take no time":         {100, migration.Load{}, 0, 900 * time.Millisecond, ""},
		"steps that take less":            {100, migration.Load{}, 60 * time.Millisecond, 900 * time.Millisecond, ""},
		"steps that take more":            {100, migration.Load{}, 130 * time.Millisecond, 1170 * time.Millisecond, ""},
		"a rate beyond all sense":         {1 << 62, migration.Load{}, 10 * time.Millisecond, 90 * time.Millisecond, ""},
		"no rate":                         {0, migration.Load{}, 10 * time.Millisecond, 90 * time.Millisecond, ""},
		"the operator's":                  {0, migration.Load{Rate: 10}, 0, 9 * time.Second, ""},
		"half of the time":                {0, migration.Load{Saving: true}, 10 * time.Millisecond, 180 * time.Millisecond, "save or rewrite running"},
		"a quarter, the rate is stricter": {10, migration.Load{Ping: 9 * time.Millisecond}, 10 * time.Millisecond, 9 * time.Second, "latency"},
		"a quarter, stricter than a rate": {1000, migration.Load{Ping: 9 * time.Millisecond}, 10 * time.Millisecond, 360 * time.Millisecond, "latency"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newBackfillRig(t, 100)
			r.pace = c.load
			began, last := r.clock.at, time.Duration(0)
			r.onCopy = func() {
				last = r.clock.at.Sub(began)
				r.clock.at = r.clock.at.Add(c.work)
			}
			var reason migration.SlowReason
			_, _, err := r.pass().Do(t.Context(), usecase.BackfillInput{To: migration.New, Batch: 10, Rate: c.rate},
				func(p usecase.BackfillProgress) { reason = p.Pace.Reason })
			require.NoError(t, err)
			require.InDelta(t, c.at, last, float64(time.Microsecond))
			require.Equal(t, c.reason, reason)
		})
	}
}

// TestBackfillHoldsItsRateWhereItFindsNoJobs: to look for them costs the storage something, too.
func TestBackfillHoldsItsRateWhereItFindsNoJobs(t *testing.T) {
	r := newBackfillRig(t, 100)
	globex, err := workspace.Parse("globex")
	require.NoError(t, err)
	r.do(t, usecase.BackfillInput{Batch: 10, Rate: 100, Workspace: globex})
	require.Empty(t, r.copied)
	require.Equal(t, 9*5*time.Millisecond, r.clock.total(), "nine of ten steps wait for the one before, half as long as a job takes")
}

func TestBackfillDoesNotCatchUpWhatItLost(t *testing.T) {
	r := newBackfillRig(t, 100)
	r.onCopy = func() {
		if len(r.groups) == 1 {
			r.clock.at = r.clock.at.Add(time.Hour)
		}
	}
	r.do(t, usecase.BackfillInput{Batch: 10, Rate: 100})
	require.Equal(t, 800*time.Millisecond, r.clock.total(), "nine steps wait for the one before, but for the slow one")
}

func TestBackfillStandsStillWhilePausedAndTakesANewRateAtOnce(t *testing.T) {
	r := newBackfillRig(t, 20)
	r.pace = migration.Load{Paused: true}
	r.clock.woken = func(n int) {
		switch n {
		case 3:
			r.pace = migration.Load{Rate: 1} // ten seconds for the first step
		case 6:
			r.pace = migration.Load{Rate: migration.RateUnbounded}
		}
	}
	waiting := 0
	_, done, err := r.pass().Do(t.Context(), usecase.BackfillInput{To: migration.New, Batch: 10, Rate: 5},
		func(p usecase.BackfillProgress) {
			if p.Waiting {
				waiting++
				require.Empty(t, r.copied)
				require.Equal(t, migration.SlowedByPause, p.Pace.Reason)
			}
		})
	require.NoError(t, err)
	require.True(t, done)
	require.Equal(t, 3, waiting)
	require.Len(t, r.clock.slept, 6, "three asleep, three of the ten seconds")
}

func TestBackfillPreflight(t *testing.T) {
	const full = 93 << 20 / 100
	for name, c := range map[string]struct {
		load    migration.Load
		kept    migration.Checkpoint
		restart bool
		outcome migration.CopyOutcome
		want    string
	}{
		"a good server": {migration.Load{Version: "7.2.4"}, migration.Checkpoint{}, false, migration.CopyMade, ""},
		"too old":       {migration.Load{Version: "6.0.16"}, migration.Checkpoint{}, false, migration.CopyMade, "too old"},
		"evicts": {
			migration.Load{MaxMemory: 1 << 20, EvictionPolicy: "allkeys-lfu"}, migration.Checkpoint{}, false, migration.CopyMade, "evict",
		},
		"too little room": { // 100 jobs of 1000 bytes and an entry
			migration.Load{MaxMemory: 1 << 20, UsedMemory: full - 110_000}, migration.Checkpoint{}, false, migration.CopyMade, "would take about",
		},
		"room enough": {
			migration.Load{MaxMemory: 1 << 20, UsedMemory: full - 113_000}, migration.Checkpoint{}, false, migration.CopyMade, "",
		},
		"nothing to make but entries": {
			migration.Load{MaxMemory: 1 << 20, UsedMemory: full - 13_000}, migration.Checkpoint{}, false, migration.CopyIdentical, "",
		},
		"a position of another process": {
			migration.Load{MaxMemory: 1 << 20, UsedMemory: full - 110_000},
			migration.Checkpoint{Process: "zeroth", At: 90},
			false, migration.CopyMade, "would take about",
		},
		"a position that is to be forgotten": {
			migration.Load{MaxMemory: 1 << 20, UsedMemory: full - 110_000},
			migration.Checkpoint{Process: "first", At: 90},
			true, migration.CopyMade, "would take about",
		},
		"a position near the end": {
			migration.Load{MaxMemory: 1 << 20, UsedMemory: full - 12_000},
			migration.Checkpoint{Process: "first", At: 90},
			false, migration.CopyMade, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newBackfillRig(t, 100)
			r.pace, r.kept, r.outcome = c.load, c.kept, c.outcome
			err := r.pass().Preflight(t.Context(), usecase.BackfillInput{To: migration.New, Restart: c.restart})
			require.Empty(t, r.copied)
			require.Empty(t, r.saved)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.Equal(t, fault.Invalid, fault.KindOf(err))
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestBackfillPreflightLooksAtTheFirstJobsAlone(t *testing.T) {
	r := newBackfillRig(t, 5000)
	r.pace = migration.Load{MaxMemory: 1 << 40}
	require.NoError(t, r.pass().Preflight(t.Context(), usecase.BackfillInput{To: migration.New}))
	met := 0
	for _, group := range r.groups {
		met += len(group)
	}
	require.Equal(t, 1000, met)
}

// TestBackfillPreflightEndsAmongOtherKeys, however many they are.
func TestBackfillPreflightEndsAmongOtherKeys(t *testing.T) {
	c := gomock.NewController(t)
	copies, load := portsmock.NewMockJobCopies(c), portsmock.NewMockStorageLoad(c)
	load.EXPECT().Load(gomock.Any()).Return(migration.Load{MaxMemory: 1 << 40}, nil)
	copies.EXPECT().Checkpoint(gomock.Any(), migration.New)
	copies.EXPECT().Keys(gomock.Any(), gomock.Any(), 100).DoAndReturn(
		func(_ context.Context, at migration.Position, _ int) (migration.KeyBatch, error) {
			return migration.KeyBatch{Process: "first", Next: at + 1}, nil
		}).Times(1000)
	require.NoError(t, usecase.Backfill{Copies: copies, Load: load}.Preflight(t.Context(), usecase.BackfillInput{To: migration.New}))
}

func TestBackfillPreflightGivesTheFault(t *testing.T) {
	c := gomock.NewController(t)
	load, gone := portsmock.NewMockStorageLoad(c), errors.New("gone")
	load.EXPECT().Load(gomock.Any()).Return(migration.Load{}, gone)
	require.ErrorIs(t, usecase.Backfill{Load: load}.Preflight(t.Context(), usecase.BackfillInput{}), gone)
}
