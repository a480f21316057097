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
	tick     = interval / 4
	turn     = 2 * tick
)

// sweeping is a sweep that ends after so many sleeps, and the errors that it told.
type sweeping struct {
	indexRig

	sweep  usecase.SweepIndex
	scope  migration.IndexScope
	ctx    context.Context //nolint:containedctx // of one test
	failed []error
}

func newSweeping(t *testing.T, p migration.Phase, sleeps int) *sweeping {
	t.Helper()
	s := &sweeping{indexRig: newIndexRig(t), scope: migration.IndexEntries}
	if p.WritesOld() {
		s.scope = migration.IndexOld
	}
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
	return s.EXPECT().TakeSweep(gomock.Any(), s.scope, holder, turn).Return(mine, err)
}

// givenUp is what a server asks for last, when it stops.
func (s *sweeping) givenUp() *gomock.Call {
	return s.EXPECT().TakeSweep(gomock.Any(), s.scope, holder, time.Duration(0)).
		DoAndReturn(func(ctx context.Context, _ migration.IndexScope, _ string, _ time.Duration) (bool, error) {
			return false, ctx.Err()
		})
}

func (s *sweeping) claim() *gomock.Call { return s.EXPECT().ClaimEmpty(gomock.Any()).Return(nil) }

func (s *sweeping) batch(next migration.Position) *gomock.Call {
	return s.EXPECT().Batch(gomock.Any(), s.scope, gomock.Any(), false).Return(step(10, "p", next), nil)
}

func TestSweepLooksAtOldJobsWhereTheyAreWritten(t *testing.T) {
	t.Parallel()
	for _, p := range migration.Phases() {
		s := newSweeping(t, p, 6)
		gomock.InOrder(
			s.turn(true, nil), s.claim(), s.batch(4), s.turn(true, nil), s.batch(0), s.turn(true, nil),
			s.turn(true, nil), s.turn(true, nil), s.turn(true, nil), s.turn(true, nil), // held until the next interval
			s.turn(true, nil), s.claim(), s.batch(0), s.turn(true, nil),
			s.givenUp(),
		)
		s.sweep.Run(s.ctx)
		require.Equal(t, []time.Duration{0, tick, tick, tick, tick, 0}, s.clock.slept, p.String())
		require.Empty(t, s.failed)
	}
}

func TestSweepIsLeftToWhoeversTurnItIs(t *testing.T) {
	t.Parallel()
	s := newSweeping(t, migration.DualWrite, 3)
	gomock.InOrder(
		s.turn(false, nil), s.turn(false, nil),
		s.turn(true, nil), s.claim(), s.batch(0), s.turn(true, nil),
		s.givenUp(),
	)
	s.sweep.Run(s.ctx)
	require.Equal(t, []time.Duration{tick, tick, 0}, s.clock.slept)
	require.Empty(t, s.failed)
}

func TestSweepBeginsAtOnceWhereTheTurnWasAnothers(t *testing.T) {
	t.Parallel()
	s := newSweeping(t, migration.DualWrite, 3)
	gomock.InOrder(
		s.turn(true, nil), s.claim(), s.batch(0), s.turn(true, nil),
		s.turn(false, nil),
		s.turn(true, nil), s.claim(), s.batch(0), s.turn(true, nil),
		s.givenUp(),
	)
	s.sweep.Run(s.ctx)
	require.Equal(t, []time.Duration{0, tick, 0}, s.clock.slept)
}

func TestSweepStopsWhereItsTurnIsLost(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		err  error
		told []error
		wait time.Duration
	}{
		"another took it":         {nil, nil, 0},
		"nobody says whose it is": {broken, []error{broken}, tick},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSweeping(t, migration.DualWrite, 1)
			s.sweep.Rate = 1
			gomock.InOrder(s.turn(true, nil), s.claim(), s.batch(4), s.turn(false, c.err), s.givenUp()) // and no batch at 4
			s.sweep.Run(s.ctx)
			require.Equal(t, c.told, s.failed)
			require.Equal(t, []time.Duration{c.wait}, s.clock.slept, "the rate's pause is not waited for")
		})
	}
}

func TestSweepTellsOfAPassThatFailedAndGoesOn(t *testing.T) {
	t.Parallel()
	s := newSweeping(t, migration.Legacy, 7)
	errs := []error{errors.New("no turn"), errors.New("no claim"), errors.New("no batch")}
	gomock.InOrder(
		s.turn(false, errs[0]),
		s.turn(true, nil), s.EXPECT().ClaimEmpty(gomock.Any()).Return(errs[1]),
		s.turn(true, nil), s.turn(true, nil), s.turn(true, nil),
		s.turn(true, nil), s.claim(),
		s.EXPECT().Batch(gomock.Any(), s.scope, migration.Position(0), false).Return(migration.IndexBatch{}, errs[2]),
		s.turn(true, nil),
		s.givenUp(),
	)
	s.sweep.Run(s.ctx)
	require.Equal(t, errs, s.failed)
}

// The interval counts from the start of a pass. One that took longer is followed by the next at once.
func TestSweepStartsOnceInAnInterval(t *testing.T) {
	t.Parallel()
	s := newSweeping(t, migration.Legacy, 3)
	gomock.InOrder(
		s.turn(true, nil), s.claim(), s.batch(0).Do(
			func(context.Context, migration.IndexScope, migration.Position, bool) {
				s.clock.now = s.clock.now.Add(50 * time.Second)
			}), s.turn(true, nil),
		s.turn(true, nil),
		s.turn(true, nil), s.claim(), s.batch(0), s.turn(true, nil),
		s.givenUp(),
	)
	s.sweep.Run(s.ctx)
	require.Equal(t, []time.Duration{0, 10 * time.Second, 0}, s.clock.slept)
}

func TestSweepEndsInSilence(t *testing.T) {
	t.Parallel()
	s := newSweeping(t, migration.Legacy, 1)
	s.sweep.Rate = 1
	gomock.InOrder(s.turn(true, nil), s.claim(), s.batch(4), s.turn(true, nil), s.givenUp())
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
