package usecase_test

import (
	"context"
	"testing"
	"time"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/ports/portsmock"
)

// retireRig is the storage of a backfillRig whose old copies can be removed.
type retireRig struct {
	*backfillRig
	gates   *gateRig
	old     *portsmock.MockOldCopies
	removed map[string]int
	groups  [][]migration.JobRef
	behind  func() // each batch
	told    func(usecase.RetireProgress)
	held    migration.Held
}

func newRetireRig(t *testing.T, jobs int) *retireRig {
	t.Helper()
	r := &retireRig{
		backfillRig: newBackfillRig(t, jobs), gates: newGateRig(t), removed: map[string]int{},
		old: portsmock.NewMockOldCopies(gomock.NewController(t)), held: migration.Held{Old: true, New: true},
	}
	r.gates.open()
	r.old.EXPECT().Retire(gomock.Any(), gomock.Any(), gomock.Any()).DoAndReturn(
		func(ctx context.Context, refs []migration.JobRef, dry bool) ([]migration.Retired, error) {
			out := make([]migration.Retired, len(refs))
			for i, ref := range refs {
				out[i] = migration.Retired{Job: ref, Outcome: migration.RetireRemoved}
				if !dry {
					r.removed[ref.ID.String()]++
				}
			}
			r.groups = append(r.groups, refs)
			if r.behind != nil {
				r.behind()
			}
			return out, ctx.Err()
		}).AnyTimes()
	r.old.EXPECT().Held(gomock.Any(), gomock.Any()).DoAndReturn(
		func(_ context.Context, refs []migration.JobRef) ([]migration.Held, error) {
			out := make([]migration.Held, len(refs))
			for i := range out {
				out[i] = r.held
			}
			return out, nil
		}).AnyTimes()
	return r
}

func (r *retireRig) do(ctx context.Context, in usecase.RetireInput) (migration.RetireCounts, error) {
	in.Command = operator()
	return usecase.Retire{Keys: r.copies, Old: r.old, Load: r.load, Clock: r.clock, Gates: r.gates.keeper}.Do(ctx, in, r.told)
}

func (r *retireRig) requireEachOnce(t *testing.T) {
	t.Helper()
	require.Len(t, r.removed, len(r.jobs))
	for id, n := range r.removed {
		require.Equal(t, 1, n, id)
	}
}

func (r *gateRig) actions() (out []migration.AuditAction) {
	for _, e := range r.audit {
		out = append(out, e.Action)
	}
	return out
}

func TestRetireGoesThroughEveryKeyAndLeavesATrace(t *testing.T) {
	r := newRetireRig(t, 25)
	counts, err := r.do(t.Context(), usecase.RetireInput{Batch: 10})
	require.NoError(t, err)
	require.Equal(t, migration.RetireCounts{
		Scanned: 26, Jobs: map[migration.RetireOutcome]int64{migration.RetireRemoved: 25},
		Strange: map[migration.KeyClass]int64{migration.KeyInvalidWorkspace: 1},
	}, counts)
	r.requireEachOnce(t)
	require.Equal(t, []migration.AuditAction{migration.AuditExecute}, r.gates.actions())
}

func TestRetireRefusesWhileItsGateIsClosed(t *testing.T) {
	for name, closeGate := range map[string]func(*migration.Facts){
		"passes":   func(f *migration.Facts) { f.Passes = nil },
		"servers":  func(f *migration.Facts) { f.Servers = []migration.Server{{ID: "a", Phase: migration.StrictNew}} },
		"writers":  func(f *migration.Facts) { f.Passes[0].WithoutRev = 1 },
		"fallback": func(f *migration.Facts) { f.LastFallback = f.Now },
		"queue":    func(f *migration.Facts) { f.Queue = migration.Queue{Entries: 1, Looked: 1, Bare: 1} },
		"workers":  func(f *migration.Facts) { f.Workers = []string{"a"} },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRetireRig(t, 5)
			closeGate(&r.gates.now)
			_, err := r.do(t.Context(), usecase.RetireInput{Batch: 10})
			var closed *migration.ClosedError
			require.ErrorAs(t, err, &closed)
			require.Empty(t, r.groups)
			require.Empty(t, r.gates.audit)

			counts, err := r.do(t.Context(), usecase.RetireInput{Batch: 10, DryRun: true})
			require.NoError(t, err, "a dry run shows what would be done")
			require.Equal(t, int64(5), counts.Jobs[migration.RetireRemoved])
			require.Empty(t, r.removed)
			require.Empty(t, r.gates.audit)

			_, err = r.do(t.Context(), usecase.RetireInput{Batch: 10, Force: "they know"})
			require.NoError(t, err)
			r.requireEachOnce(t)
			require.Equal(t, []migration.AuditAction{migration.AuditForce, migration.AuditExecute}, r.gates.actions())
		})
	}
}

// TestRetireStopsWhereItsGateCloses: what takes long to ask for is asked for every ten seconds.
func TestRetireStopsWhereItsGateCloses(t *testing.T) {
	r := newRetireRig(t, 50)
	r.behind = func() {
		r.clock.at = r.clock.at.Add(4 * time.Second)
		if len(r.removed) == 20 {
			r.gates.now.Queue = migration.Queue{Entries: 1, Looked: 1, Bare: 1}
		}
	}
	_, err := r.do(t.Context(), usecase.RetireInput{Batch: 10})
	var closed *migration.ClosedError
	require.ErrorAs(t, err, &closed)
	require.Len(t, r.removed, 30)
	require.Equal(t, []migration.Condition{migration.ConditionQueue}, closed.ClosedBy())

	r.gates.now.Queue = migration.Queue{}
	r.behind, r.removed = nil, map[string]int{}
	_, err = r.do(t.Context(), usecase.RetireInput{Batch: 3})
	require.NoError(t, err)
	r.requireEachOnce(t) // also what lies behind where the first ended: old copies may have been made again
}

// TestRetireStopsBeforeAServerThatWritesOld: one that came between the walk's look at the keys and the removal has made no
// job of them.
func TestRetireStopsBeforeAServerThatWritesOld(t *testing.T) {
	for _, force := range []string{"", "they know"} {
		r := newRetireRig(t, 50)
		r.behind = func() {
			if len(r.removed) == 20 {
				r.gates.now.Servers = []migration.Server{{ID: "a", Phase: migration.StrictNew}}
			}
		}
		_, err := r.do(t.Context(), usecase.RetireInput{Batch: 10, Force: force})
		if force != "" {
			require.NoError(t, err)
			r.requireEachOnce(t)
			continue
		}
		var closed *migration.ClosedError
		require.ErrorAs(t, err, &closed)
		require.Equal(t, []migration.Condition{migration.ConditionServers}, closed.ClosedBy())
		require.Len(t, r.removed, 20, "none of the step in which it was found")
	}
}

// TestRetireStartsOverInAnotherProcess, and not for ever.
func TestRetireStartsOverInAnotherProcess(t *testing.T) {
	r := newRetireRig(t, 25)
	r.behind = func() {
		if len(r.removed) == 10 {
			r.process = "second"
		}
	}
	counts, err := r.do(t.Context(), usecase.RetireInput{Batch: 10, Force: "they know"})
	require.NoError(t, err)
	require.EqualValues(t, 25, counts.Jobs[migration.RetireRemoved])
	require.Equal(t, 2, r.removed["3"])
	require.Equal(t, 1, r.removed["20"])

	r.behind = func() { r.process += "x" }
	_, err = r.do(t.Context(), usecase.RetireInput{Batch: 10, Force: "they know"})
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
}

func TestRetireOfOneWorkspaceAndOfLargeJobs(t *testing.T) {
	r := newRetireRig(t, 6)
	r.jobs[1].Bytes = 2 << 20
	r.jobs[4].Workspace = neighbour(t)
	counts, err := r.do(t.Context(), usecase.RetireInput{Workspace: r.jobs[0].Workspace})
	require.NoError(t, err)
	require.Equal(t, int64(5), counts.Scanned)
	require.NotContains(t, r.removed, "4")
	require.Empty(t, counts.Strange)
	require.Len(t, r.groups, 3)
	require.Equal(t, []migration.JobRef{r.jobs[1].JobRef}, r.groups[1], "a large one goes alone")
}

func TestRetireHoldsItsRateAndStandsStillWherePaused(t *testing.T) {
	r := newRetireRig(t, 100)
	r.pace.Paused = true
	waited := 0
	r.clock.woken = func(n int) {
		if n == 3 {
			r.pace.Paused, waited = false, len(r.removed)
		}
	}
	began := r.clock.at
	_, err := r.do(t.Context(), usecase.RetireInput{Batch: 10, Rate: 10})
	require.NoError(t, err)
	require.Zero(t, waited)
	require.GreaterOrEqual(t, r.clock.at.Sub(began), 9*time.Second)
}

func TestStatusTellsWhatThereIs(t *testing.T) {
	r := newRetireRig(t, 2500)
	index := portsmock.NewMockJobIndex(gomock.NewController(t))
	index.EXPECT().Complete(gomock.Any()).Return(true, nil).AnyTimes()
	a, b := migration.Server{ID: "a", Phase: migration.NewOnly}, migration.Server{ID: "b", Phase: migration.NewOnly}
	r.gates.now.Servers = []migration.Server{a, b}
	r.gates.now.FallbackHits, r.gates.now.LastFallback = 3, r.gates.now.Now.Add(-2*time.Hour)
	u := usecase.MigrationStatus{Facts: r.gates.facts, Keys: r.copies, Old: r.old, Index: index, Clock: r.clock}
	report, err := u.Do(t.Context(), usecase.StatusInput{Phase: migration.NewOnly}, nil)
	require.NoError(t, err)
	require.Equal(t, migration.JobCounts{Both: 2500, Strange: 1, Fraction: 1}, report.Jobs, "the whole took no second")
	require.True(t, report.Indexed)
	require.False(t, report.Differ)
	require.Equal(t, r.gates.now.Servers, report.Servers)
	require.Equal(t, r.gates.now.Passes, report.Passes)
	require.Equal(t, int64(3), report.Hits)
	require.Equal(t, r.gates.now.LastFallback, report.LastHit)
	var open []migration.Gate
	for _, g := range report.Gates {
		if g.Open {
			open = append(open, g.Gate)
		}
	}
	require.Len(t, report.Gates, 4)
	require.Equal(t, []migration.Gate{migration.GateRetire}, open)

	report, err = u.Do(t.Context(), usecase.StatusInput{Phase: migration.NewOnly, Quiet: 3 * time.Hour}, nil)
	require.NoError(t, err)
	require.False(t, report.Gates[2].Open)
	for _, c := range []struct {
		phase  migration.Phase
		second migration.Phase
	}{{migration.StrictNew, migration.NewOnly}, {migration.NewOnly, migration.StrictNew}} {
		r.gates.now.Servers[1].Phase = c.second
		report, err = u.Do(t.Context(), usecase.StatusInput{Phase: c.phase}, nil)
		require.NoError(t, err)
		require.True(t, report.Differ)
	}
}

func TestStatusCountsForASecondOrAll(t *testing.T) {
	r := newRetireRig(t, 5000)
	index := portsmock.NewMockJobIndex(gomock.NewController(t))
	index.EXPECT().Complete(gomock.Any()).Return(false, nil).AnyTimes()
	u := usecase.MigrationStatus{Facts: r.gates.facts, Keys: r.copies, Old: r.old, Index: index, Clock: r.clock}
	var steps []migration.JobCounts
	each := func(c migration.JobCounts) {
		steps = append(steps, c)
		r.clock.at = r.clock.at.Add(400 * time.Millisecond)
	}
	report, err := u.Do(t.Context(), usecase.StatusInput{}, each)
	require.NoError(t, err)
	require.Equal(t, int64(3000), report.Jobs.Both)
	require.Less(t, report.Jobs.Fraction, 1.0)
	require.Len(t, steps, 3)
	require.Equal(t, report.Jobs, steps[2])

	report, err = u.Do(t.Context(), usecase.StatusInput{Exact: true}, each)
	require.NoError(t, err)
	require.Equal(t, int64(5000), report.Jobs.Both)
	require.Len(t, steps, 8)

	steps = nil
	report, err = u.Do(t.Context(), usecase.StatusInput{Exact: true}, func(c migration.JobCounts) {
		steps = append(steps, c)
		if len(steps) == 2 {
			r.process = "second"
		}
	})
	require.NoError(t, err)
	require.Equal(t, int64(5000), report.Jobs.Both, "it starts over in another process")
	require.Len(t, steps, 7)
}

func TestStatusAndRetireGiveFaults(t *testing.T) {
	r := newRetireRig(t, 5)
	r.gates.err = fault.New(fault.Unavailable, fault.CodeStorageUnavailable, "no")
	u := usecase.MigrationStatus{Facts: r.gates.facts, Keys: r.copies, Old: r.old, Clock: r.clock}
	_, err := u.Do(t.Context(), usecase.StatusInput{}, nil)
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	_, err = r.do(t.Context(), usecase.RetireInput{Force: "they know"})
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.Empty(t, r.groups)
}
