package usecase_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
)

const (
	holder   = "this server"
	interval = time.Minute
	turn     = 2 * time.Minute
)

// sweeping is a sweep that ends after so many sleeps, and the errors that it told.
type sweeping struct {
	indexRig

	sweep  usecase.SweepIndex
	ctx    context.Context //nolint:containedctx // of one test
	failed []error
}

func newSweeping(t *testing.T, p migration.Phase, sleeps int) *sweeping {
	t.Helper()
	s := &sweeping{indexRig: newIndexRig(t)}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	s.ctx = ctx
	s.clock.woken = func() {
		if len(s.clock.slept) == sleeps {
			cancel()
		}
	}
	s.sweep = usecase.SweepIndex{
		Jobs: s.pass(), Phase: p, Holder: holder, Interval: interval,
		Failed: func(err error) { s.failed = append(s.failed, err) },
	}
	return s
}

func (s *sweeping) turn(mine bool, err error) *gomock.Call {
	return s.EXPECT().TakeSweep(gomock.Any(), holder, turn).Return(mine, err)
}

func (s *sweeping) batch(scope migration.IndexScope, next migration.IndexPosition) *gomock.Call {
	return s.EXPECT().Batch(gomock.Any(), scope, gomock.Any(), false).Return(step(10, "p", next), nil)
}

func TestSweepLooksAtOldJobsWhereTheyAreWritten(t *testing.T) {
	t.Parallel()
	for _, p := range migration.Phases() {
		s := newSweeping(t, p, 2)
		scope := migration.IndexOld
		if p == migration.NewOnly {
			scope = migration.IndexEntries
		}
		gomock.InOrder(
			s.turn(true, nil), s.batch(scope, 4), s.turn(true, nil), s.batch(scope, 0), s.turn(true, nil),
			s.turn(true, nil), s.batch(scope, 0), s.turn(true, nil),
		)
		s.sweep.Run(s.ctx)
		require.Equal(t, []time.Duration{interval, interval}, s.clock.slept, p.String())
		require.Empty(t, s.failed)
	}
}

func TestSweepIsLeftToWhoeversTurnItIs(t *testing.T) {
	t.Parallel()
	s := newSweeping(t, migration.DualWrite, 3)
	gomock.InOrder(
		s.turn(false, nil), s.turn(false, nil),
		s.turn(true, nil), s.batch(migration.IndexOld, 0), s.turn(true, nil),
	)
	s.sweep.Run(s.ctx)
	require.Empty(t, s.failed)
}

func TestSweepStopsWhereItsTurnIsLost(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		err  error
		told []error
	}{
		"another took it":         {nil, nil},
		"nobody says whose it is": {broken, []error{broken}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSweeping(t, migration.DualWrite, 1)
			s.sweep.Rate = 1
			gomock.InOrder(s.turn(true, nil), s.batch(migration.IndexOld, 4), s.turn(false, c.err)) // and no batch at 4
			s.sweep.Run(s.ctx)
			require.Equal(t, c.told, s.failed)
			require.Equal(t, []time.Duration{interval}, s.clock.slept, "the rate's pause is not waited for")
		})
	}
}

func TestSweepTellsOfAPassThatFailedAndGoesOn(t *testing.T) {
	t.Parallel()
	s := newSweeping(t, migration.Legacy, 3)
	first, second := errors.New("first"), errors.New("second")
	gomock.InOrder(
		s.turn(false, first),
		s.turn(true, nil),
		s.EXPECT().Batch(gomock.Any(), migration.IndexOld, migration.IndexPosition(0), false).Return(migration.IndexBatch{}, second),
		s.turn(true, nil), s.batch(migration.IndexOld, 0), s.turn(true, nil),
	)
	s.sweep.Run(s.ctx)
	require.Equal(t, []error{first, second}, s.failed)
}

// The interval counts from the start of a pass. One that took longer is followed by the next at once.
func TestSweepStartsOnceInAnInterval(t *testing.T) {
	t.Parallel()
	s := newSweeping(t, migration.Legacy, 5)
	s.sweep.Rate = 1 // ten jobs a batch, ten seconds
	gomock.InOrder(
		s.turn(true, nil), s.batch(migration.IndexOld, 0), s.turn(true, nil),
		s.turn(true, nil), s.batch(migration.IndexOld, 0).Do(
			func(context.Context, migration.IndexScope, migration.IndexPosition, bool) {
				s.clock.now = s.clock.now.Add(time.Hour)
			}), s.turn(true, nil),
		s.turn(true, nil), s.batch(migration.IndexOld, 0), s.turn(true, nil),
	)
	s.sweep.Run(s.ctx)
	require.Equal(t, []time.Duration{10 * time.Second, 50 * time.Second, 0, 10 * time.Second, 50 * time.Second}, s.clock.slept)
}

func TestSweepEndsInSilence(t *testing.T) {
	t.Parallel()
	s := newSweeping(t, migration.Legacy, 1)
	s.sweep.Rate = 1
	gomock.InOrder(s.turn(true, nil), s.batch(migration.IndexOld, 4), s.turn(true, nil))
	s.sweep.Run(s.ctx) // its context ends in the pause behind the first batch
	require.Empty(t, s.failed)
	require.Len(t, s.clock.slept, 1)
}

func TestSweepThatIsOffAsksNothing(t *testing.T) {
	t.Parallel()
	s := newSweeping(t, migration.Legacy, 1)
	s.sweep.Interval = 0
	s.sweep.Run(s.ctx)
	require.Empty(t, s.clock.slept)
}
