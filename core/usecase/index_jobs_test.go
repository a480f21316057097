package usecase_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports/portsmock"
)

// clock is a time that passes only where somebody sleeps.
type clock struct {
	now   time.Time
	slept []time.Duration
	woken func() // called at the end of each sleep, where set
}

func (c *clock) Now() time.Time { return c.now }

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.now = c.now.Add(d)
	c.slept = append(c.slept, d)
	if c.woken != nil {
		c.woken()
	}
	return ctx.Err()
}

// indexRig is a strict mock of the index and a pass over it.
type indexRig struct {
	*portsmock.MockJobIndex

	clock           *clock
	acme, neighbour workspace.ID
}

func newIndexRig(t *testing.T) indexRig {
	t.Helper()
	r := newRig(t)
	return indexRig{
		MockJobIndex: portsmock.NewMockJobIndex(gomock.NewController(t)), clock: &clock{now: time.Unix(1_000_000, 0)},
		acme: r.acme, neighbour: r.neighbour,
	}
}

func (r indexRig) pass() usecase.IndexJobs {
	return usecase.IndexJobs{Index: r.MockJobIndex, Clock: r.clock}
}

// step is one batch: of these many keys that were mended, by this process, with this place behind it.
func step(scanned int64, process string, next migration.Position, met ...workspace.ID) migration.IndexBatch {
	return migration.IndexBatch{
		IndexCounts: migration.IndexCounts{Scanned: scanned, Mended: scanned}, Process: process, Next: next, Indexes: met,
	}
}

// batches expects these steps in order, each asked for at the place behind the one before, and gives their calls.
func (r indexRig) batches(scope migration.IndexScope, dry bool, steps ...migration.IndexBatch) []*gomock.Call {
	var calls []*gomock.Call
	at := migration.Position(0)
	for _, s := range steps {
		calls = append(calls, r.EXPECT().Batch(gomock.Any(), scope, at, dry).Return(s, nil))
		at = s.Next
	}
	return calls
}

func everything(rate int) usecase.IndexJobsInput {
	return usecase.IndexJobsInput{Scope: migration.IndexAll, Rate: rate}
}

func TestIndexJobsGoesThroughAllAndThenMarksTheIndexComplete(t *testing.T) {
	t.Parallel()
	r := newIndexRig(t)
	steps := r.batches(migration.IndexAll, false, step(3, "p", 7), step(0, "p", 5), step(4, "p", 0))
	gomock.InOrder(append(steps, r.EXPECT().MarkComplete(gomock.Any(), "p").Return(true, nil))...)
	var told []int64
	counts, err := r.pass().Do(t.Context(), everything(0), func(p usecase.IndexJobsProgress) {
		told = append(told, p.Counts.Scanned)
	})
	require.NoError(t, err)
	require.Equal(t, migration.IndexCounts{Scanned: 7, Mended: 7}, counts)
	require.Equal(t, []int64{3, 3, 7}, told, "the counts so far")
	require.Empty(t, r.clock.slept, "no bound")
}

func TestIndexJobsMarksNothingCompleteBehindLessThanAWholePass(t *testing.T) {
	t.Parallel()
	broken := fault.New(fault.Unavailable, fault.CodeStorageUnavailable, "gone")
	for name, c := range map[string]struct {
		in    usecase.IndexJobsInput
		setup func(r indexRig)
		kind  fault.Kind
		fails bool
	}{
		"a dry run": {
			in:    usecase.IndexJobsInput{Scope: migration.IndexAll, DryRun: true},
			setup: func(r indexRig) { r.batches(migration.IndexAll, true, step(1, "p", 2), step(1, "p", 0)) },
		},
		"old jobs alone": {
			in:    usecase.IndexJobsInput{Scope: migration.IndexOld},
			setup: func(r indexRig) { r.batches(migration.IndexOld, false, step(1, "p", 0)) },
		},
		"entries alone": {
			in:    usecase.IndexJobsInput{Scope: migration.IndexEntries},
			setup: func(r indexRig) { r.batches(migration.IndexEntries, false, step(1, "p", 0)) },
		},
		"a step that fails": {
			in: everything(0), fails: true, kind: fault.Unavailable,
			setup: func(r indexRig) {
				r.batches(migration.IndexAll, false, step(1, "p", 2))
				r.EXPECT().Batch(gomock.Any(), migration.IndexAll, migration.Position(2), false).
					Return(step(0, "p", 0), broken)
			},
		},
		"an index that cannot be trimmed": {
			in: everything(0), fails: true, kind: fault.Unavailable,
			setup: func(r indexRig) {
				r.batches(migration.IndexAll, false, step(1, "p", 0, r.acme))
				r.EXPECT().TrimAll(gomock.Any(), r.acme, "", false).Return(migration.IndexCounts{}, "", broken)
			},
		},
		"a caller who left": {
			in: everything(1), fails: true, kind: fault.Canceled,
			setup: func(r indexRig) { r.batches(migration.IndexAll, false, step(1, "p", 0)) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newIndexRig(t) // strict: MarkComplete fails the test
			c.setup(r)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r.clock.woken = cancel
			counts, err := r.pass().Do(ctx, c.in, nil)
			require.Equal(t, c.fails, err != nil, "%v", err)
			if c.fails {
				require.Equal(t, c.kind, fault.KindOf(err))
			}
			require.Positive(t, counts.Scanned, "what was done is told all the same")
		})
	}
}

func TestIndexJobsGivesTheErrorOfMarkingComplete(t *testing.T) {
	t.Parallel()
	r := newIndexRig(t)
	r.batches(migration.IndexAll, false, step(1, "p", 0))
	broken := errors.New("broken")
	r.EXPECT().MarkComplete(gomock.Any(), "p").Return(false, broken)
	_, err := r.pass().Do(t.Context(), everything(0), nil)
	require.ErrorIs(t, err, broken)
}

// Positions of a server process say nothing about another's keys: what lies before them there may never have been seen.
func TestIndexJobsStartsOverInAnotherProcess(t *testing.T) {
	t.Parallel()
	r := newIndexRig(t)
	const all = migration.IndexAll
	at := func(p migration.Position, give migration.IndexBatch) *gomock.Call {
		return r.EXPECT().Batch(gomock.Any(), all, p, false).Return(give, nil)
	}
	gomock.InOrder(
		at(0, step(5, "first", 7)),
		at(7, step(5, "second", 0, r.acme)), // the end of what is another server's by now
		at(0, step(2, "second", 3)), at(3, step(1, "second", 0)),
		r.EXPECT().MarkComplete(gomock.Any(), "second").Return(false, nil), // a third one by now
		at(0, step(3, "third", 0)),
		r.EXPECT().MarkComplete(gomock.Any(), "third").Return(true, nil),
	)
	counts, err := r.pass().Do(t.Context(), everything(0), nil)
	require.NoError(t, err)
	require.Equal(t, int64(3), counts.Scanned, "what one server process holds, once")
}

func TestIndexJobsTrimsEachIndexForAsLongAsItIsWorthIt(t *testing.T) {
	t.Parallel()
	for _, dry := range []bool{false, true} {
		r := newIndexRig(t)
		dropped := migration.IndexCounts{Entries: 100, Dropped: 100}
		const old = migration.IndexOld
		gomock.InOrder(
			r.EXPECT().Batch(gomock.Any(), old, migration.Position(0), dry).Return(step(1, "p", 9, r.acme, r.neighbour), nil),
			r.EXPECT().Trim(gomock.Any(), r.acme, dry).Return(dropped, true, nil).Times(2),
			r.EXPECT().Trim(gomock.Any(), r.acme, dry).Return(migration.IndexCounts{Entries: 100, Dropped: 1}, false, nil),
			r.EXPECT().Trim(gomock.Any(), r.neighbour, dry).Return(migration.IndexCounts{}, false, nil),
			r.EXPECT().Batch(gomock.Any(), old, migration.Position(9), dry).Return(step(1, "p", 0), nil),
		)
		counts, err := r.pass().Do(t.Context(), usecase.IndexJobsInput{Scope: old, DryRun: dry}, nil)
		require.NoError(t, err)
		require.Equal(t, migration.IndexCounts{Scanned: 2, Mended: 2, Entries: 300, Dropped: 201}, counts)
	}
}

func TestIndexJobsKeepsItsRateOverTheWholePass(t *testing.T) {
	t.Parallel()
	r := newIndexRig(t)
	first := r.EXPECT().Batch(gomock.Any(), migration.IndexAll, migration.Position(0), false).Return(step(50, "p", 1, r.acme), nil)
	gomock.InOrder(
		first,
		// Entries count as jobs do. This step takes 700 ms by itself, 500 more than its 20 jobs and entries are due.
		r.EXPECT().TrimAll(gomock.Any(), r.acme, "", false).DoAndReturn(
			func(context.Context, workspace.ID, string, bool) (migration.IndexCounts, string, error) {
				r.clock.now = r.clock.now.Add(700 * time.Millisecond)
				return migration.IndexCounts{Entries: 20}, "", nil
			}),
		r.EXPECT().Batch(gomock.Any(), migration.IndexAll, migration.Position(1), false).Return(step(80, "p", 2), nil),
		r.EXPECT().Batch(gomock.Any(), migration.IndexAll, migration.Position(2), false).Return(step(0, "p", 0), nil),
		r.EXPECT().MarkComplete(gomock.Any(), "p").Return(true, nil),
	)
	_, err := r.pass().Do(t.Context(), everything(100), nil)
	require.NoError(t, err)
	// Each step counts 25 jobs more for finding them.
	require.Equal(t, []time.Duration{750 * time.Millisecond, 550 * time.Millisecond, 250 * time.Millisecond}, r.clock.slept)
}

func TestIndexJobsCatchesUpOnASecondAtMost(t *testing.T) {
	t.Parallel()
	r := newIndexRig(t)
	slow := func(context.Context, migration.IndexScope, migration.Position, bool) {
		r.clock.now = r.clock.now.Add(time.Minute)
	}
	gomock.InOrder(
		r.EXPECT().Batch(gomock.Any(), migration.IndexAll, migration.Position(0), false).Do(slow).Return(step(75, "p", 1), nil),
		r.EXPECT().Batch(gomock.Any(), migration.IndexAll, migration.Position(1), false).Return(step(75, "p", 2), nil),
		r.EXPECT().Batch(gomock.Any(), migration.IndexAll, migration.Position(2), false).Return(step(75, "p", 0), nil),
		r.EXPECT().MarkComplete(gomock.Any(), "p").Return(true, nil),
	)
	_, err := r.pass().Do(t.Context(), everything(100), nil)
	require.NoError(t, err)
	require.Equal(t, []time.Duration{time.Second}, r.clock.slept)
}

// A pass over everything goes through each index from end to end, once in a server process.
func TestIndexJobsOverEverythingTrimsAll(t *testing.T) {
	t.Parallel()
	r := newIndexRig(t)
	some := migration.IndexCounts{Entries: 10, Dropped: 1}
	trimmed := func(ws workspace.ID, before, next string) *gomock.Call {
		return r.EXPECT().TrimAll(gomock.Any(), ws, before, true).Return(some, next, nil)
	}
	batch := func(at migration.Position, b migration.IndexBatch) *gomock.Call {
		return r.EXPECT().Batch(gomock.Any(), migration.IndexAll, at, true).Return(b, nil)
	}
	gomock.InOrder(
		batch(0, step(1, "first", 9, r.acme)), trimmed(r.acme, "", ""),
		batch(9, step(1, "second", 5)),
		batch(0, step(1, "second", 9, r.acme, r.neighbour)),
		trimmed(r.acme, "", "z2"), trimmed(r.acme, "z2", "c1"), trimmed(r.acme, "c1", ""), trimmed(r.neighbour, "", ""),
		batch(9, step(1, "second", 0, r.acme)),
	)
	counts, err := r.pass().Do(t.Context(), usecase.IndexJobsInput{Scope: migration.IndexAll, DryRun: true}, nil)
	require.NoError(t, err)
	require.Equal(t, migration.IndexCounts{Scanned: 2, Mended: 2, Entries: 40, Dropped: 4}, counts)
}

func TestIndexJobsLeavesAnIndexThatNeverEnds(t *testing.T) {
	t.Parallel()
	r := newIndexRig(t)
	r.batches(migration.IndexOld, false, step(1, "p", 0, r.acme, r.neighbour))
	r.EXPECT().Trim(gomock.Any(), r.acme, false).Return(migration.IndexCounts{Entries: 1, Dropped: 1}, true, nil).MinTimes(2).MaxTimes(1000)
	r.EXPECT().Trim(gomock.Any(), r.neighbour, false).Return(migration.IndexCounts{}, false, nil)
	_, err := r.pass().Do(t.Context(), usecase.IndexJobsInput{Scope: migration.IndexOld}, nil)
	require.NoError(t, err)
}
