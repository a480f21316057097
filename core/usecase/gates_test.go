package usecase_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
	"github.com/relay-jobs/relay/ports/portsmock"
)

func TestHeartbeatBeatsAndLeaves(t *testing.T) {
	servers := portsmock.NewMockLiveServers(gomock.NewController(t))
	me := migration.Server{ID: "a", Phase: migration.DualWrite}
	clock, broken := &handClock{}, errors.New("no connection")
	ctx, cancel := context.WithCancel(t.Context())
	clock.woken = func(n int) {
		if n == 4 {
			cancel()
		}
	}
	var beats []time.Duration
	servers.EXPECT().Beat(gomock.Any(), me).DoAndReturn(func(context.Context, migration.Server) error {
		beats = append(beats, clock.total())
		if len(beats) == 3 {
			return broken
		}
		return nil
	}).AnyTimes()
	left := false
	servers.EXPECT().Leave(gomock.Any(), me).DoAndReturn(func(ctx context.Context, _ migration.Server) error {
		left = true
		return ctx.Err()
	})
	var failed []error
	u := usecase.Heartbeat{
		Servers: servers, Clock: clock, Server: me, Failed: func(err error) { failed = append(failed, err) },
	}
	require.NoError(t, u.First(ctx))
	u.Run(ctx)
	require.Equal(t, []time.Duration{0, 10 * time.Second, 20 * time.Second, 30 * time.Second}, beats, "a failed one stops nothing")
	require.Equal(t, []error{broken}, failed)
	require.True(t, left, "also where the context is gone")
	require.Greater(t, migration.ServerLife, 2*migration.ServerBeat, "one lost beat is no death")
}

func TestFirstBeatTellsItsFault(t *testing.T) {
	t.Parallel()
	servers := portsmock.NewMockLiveServers(gomock.NewController(t))
	broken := errors.New("no connection")
	servers.EXPECT().Beat(gomock.Any(), gomock.Any()).Return(broken)
	require.ErrorIs(t, usecase.Heartbeat{Servers: servers}.First(t.Context()), broken)
}

// TestFallbackHitsAreCountedAndPassedOn: what served an old copy counts, everything reaches the observer behind.
func TestFallbackHitsAreCountedAndPassedOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	counter := &usecase.FallbackCounter{Observer: r.observer}
	for _, c := range []job.Copy{job.CopyNone, job.CopyOld, job.CopyNew} {
		r.observer.EXPECT().JobRead(r.acme, r.id, c)
		counter.JobRead(r.acme, r.id, c)
	}
	for _, p := range []job.ListPath{job.ListMiss, job.ListOld, job.ListNew, job.ListMixed} {
		r.observer.EXPECT().JobsListed(r.acme, p, 7)
		counter.JobsListed(r.acme, p, 7)
	}
	r.observer.EXPECT().StaleCopyRead(r.acme)
	counter.StaleCopyRead(r.acme)

	hits := portsmock.NewMockFallbackHits(gomock.NewController(t))
	hits.EXPECT().AddHits(gomock.Any(), int64(3)) // one read, an old list, a mixed one
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	usecase.FlushFallbackHits{Counter: counter, Hits: hits, Clock: &handClock{}}.Run(ended)
}

// TestFallbackHitsGoInBatches: none while there is nothing to tell, none lost where a batch fails, and the rest at the
// end.
func TestFallbackHitsGoInBatches(t *testing.T) {
	r := newRig(t)
	r.observer.EXPECT().JobRead(gomock.Any(), gomock.Any(), gomock.Any()).AnyTimes()
	hits, broken := portsmock.NewMockFallbackHits(gomock.NewController(t)), errors.New("no connection")
	counter, clock := &usecase.FallbackCounter{Observer: r.observer}, &handClock{}
	ctx, cancel := context.WithCancel(t.Context())
	during := map[int]int{3: 2, 4: 1, 8: 4} // hits by sleep
	clock.woken = func(n int) {
		for range during[n] {
			counter.JobRead(r.acme, r.id, job.CopyOld)
		}
		if n == 8 {
			cancel()
		}
	}
	type batch struct {
		after time.Duration
		n     int64
	}
	var batches []batch
	hits.EXPECT().AddHits(gomock.Any(), gomock.Any()).DoAndReturn(func(ctx context.Context, n int64) error {
		batches = append(batches, batch{clock.total(), n})
		if len(batches) == 1 {
			return broken
		}
		return ctx.Err()
	}).AnyTimes()
	var failed []error
	usecase.FlushFallbackHits{
		Counter: counter, Hits: hits, Clock: clock, Failed: func(err error) { failed = append(failed, err) },
	}.Run(ctx)
	require.Equal(t, []batch{{15 * time.Second, 2}, {20 * time.Second, 3}, {40 * time.Second, 4}}, batches)
	require.Equal(t, []error{broken}, failed)
}

func TestCountingAFallbackAllocatesNothing(t *testing.T) {
	counter := &usecase.FallbackCounter{Observer: deaf{}}
	r := newRig(t)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		counter.JobRead(r.acme, r.id, job.CopyOld)
		counter.JobsListed(r.acme, job.ListMixed, 1)
	}))
}

// deaf observes reads and does nothing; nothing else is told.
type deaf struct{ ports.Observer }

func (deaf) JobRead(workspace.ID, job.ID, job.Copy)     {}
func (deaf) JobsListed(workspace.ID, job.ListPath, int) {}

// gateRig is a gate keeper whose facts a test sets.
type gateRig struct {
	facts  *portsmock.MockGateFacts
	log    *portsmock.MockMigrationLog
	keeper usecase.GateKeeper

	now      migration.Facts
	err      error // of asking for facts
	asked    int
	workers  bool // the last time
	auditErr error
	audit    []migration.AuditEntry
	passes   []migration.RecordedPass
}

func newGateRig(t *testing.T) *gateRig {
	t.Helper()
	c := gomock.NewController(t)
	r := &gateRig{facts: portsmock.NewMockGateFacts(c), log: portsmock.NewMockMigrationLog(c)}
	r.keeper = usecase.GateKeeper{Facts: r.facts, Log: r.log}
	r.facts.EXPECT().Facts(gomock.Any(), gomock.Any(), gomock.Any()).DoAndReturn(func(_ context.Context, _ int64, workers bool) (migration.Facts, error) {
		r.asked++
		r.workers = workers
		return r.now, r.err
	}).AnyTimes()
	r.log.EXPECT().Audit(gomock.Any(), gomock.Any()).DoAndReturn(func(_ context.Context, e migration.AuditEntry) error {
		if r.auditErr == nil {
			r.audit = append(r.audit, e)
		}
		return r.auditErr
	}).AnyTimes()
	r.log.EXPECT().RecordPass(gomock.Any(), gomock.Any()).DoAndReturn(func(_ context.Context, p migration.RecordedPass) error {
		r.passes = append(r.passes, p)
		return nil
	}).AnyTimes()
	return r
}

// open sets facts that open the gate of retirement.
func (r *gateRig) open() {
	at := time.Unix(1_000_000, 0)
	p := migration.RecordedPass{
		Kind: migration.PassVerify, Phase: migration.NewOnly, Process: "first", Started: at, Ended: at, Whole: true, Clean: true,
	}
	q := p
	q.Started, q.Ended, q.Since = at.Add(time.Hour), at.Add(time.Hour), at
	r.now = migration.Facts{
		Now: at.Add(3 * time.Hour), Process: "first", Passes: []migration.RecordedPass{q, p}, WorkersKnown: true,
	}
}

func operator() usecase.Command {
	return usecase.Command{Who: migration.Operator{User: "root", Host: "ops"}, Line: "relay migrate retire --execute"}
}

func TestWorkersAreLookedForWhereAGateAsksForThem(t *testing.T) {
	t.Parallel()
	r := newGateRig(t)
	for _, g := range migration.Gates() {
		_, err := r.keeper.State(t.Context(), g)
		require.NoError(t, err)
		require.Equal(t, g == migration.GateNewOnly || g == migration.GateRetire, r.workers, g)
	}
}

func TestGatesLetThroughWhatIsOpenOrForced(t *testing.T) {
	t.Parallel()
	r := newGateRig(t)
	for _, reason := range []string{"", " \t\n"} {
		err := r.keeper.Pass(t.Context(), migration.GateRetire, operator(), reason)
		var closed *migration.ClosedError
		require.ErrorAs(t, err, &closed)
		require.Equal(t, migration.GateRetire, closed.Gate)
		require.NotEmpty(t, closed.Reasons)
	}
	require.Empty(t, r.audit)

	require.NoError(t, r.keeper.Pass(t.Context(), migration.GateRetire, operator(), "the ticket says so"))
	require.Len(t, r.audit, 1)
	require.Equal(t, migration.AuditForce, r.audit[0].Action)
	require.Equal(t, operator().Who, r.audit[0].Who)
	require.Contains(t, r.audit[0].Detail, "relay migrate retire --execute; reason: the ticket says so; the gate \"retire\" is closed: two clean passes: ")

	r.open()
	require.NoError(t, r.keeper.Pass(t.Context(), migration.GateRetire, operator(), "not needed"))
	require.Len(t, r.audit, 1, "nothing was forced")

	r.now, r.err = migration.Facts{}, fault.New(fault.Unavailable, fault.CodeStorageUnavailable, "no")
	err := r.keeper.Pass(t.Context(), migration.GateRetire, operator(), "the ticket says so")
	require.Equal(t, fault.Unavailable, fault.KindOf(err), "nothing is forced past facts that are not known")
	require.Len(t, r.audit, 1)
	r.err, r.auditErr = nil, fault.New(fault.Timeout, fault.CodeStorageUnavailable, "no")
	err = r.keeper.Pass(t.Context(), migration.GateRetire, operator(), "the ticket says so")
	require.Equal(t, fault.Timeout, fault.KindOf(err), "nothing is forced that nobody answers for")
}

// TestGateKeepersAskForTheirQuiet: what status was asked about is what a command passes.
func TestGateKeepersAskForTheirQuiet(t *testing.T) {
	t.Parallel()
	r := newGateRig(t)
	r.open()
	r.now.LastFallback = r.now.Now.Add(-time.Minute)
	for quiet, open := range map[time.Duration]bool{0: false, 2 * time.Minute: false, time.Second: true} {
		r.keeper.Quiet = quiet
		s, err := r.keeper.State(t.Context(), migration.GateRetire)
		require.NoError(t, err)
		require.Equal(t, open, s.Open, "%s: %v", quiet, s.Reasons)
		require.Equal(t, open, r.keeper.Pass(t.Context(), migration.GateRetire, operator(), "") == nil)
	}
}

func TestServersAreWarnedOfAClosedGateAndServe(t *testing.T) {
	t.Parallel()
	r := newGateRig(t)
	for _, p := range migration.Phases() {
		r.asked = 0
		s, warn, err := r.keeper.AtStart(t.Context(), p)
		require.NoError(t, err)
		require.Equal(t, p == migration.StrictNew, warn)
		require.Equal(t, warn, len(s.Reasons) > 0)
		require.Equal(t, warn, r.asked == 1)
	}
	r.err = fault.New(fault.Unavailable, fault.CodeStorageUnavailable, "no")
	_, warn, err := r.keeper.AtStart(t.Context(), migration.StrictNew)
	require.Error(t, err)
	require.False(t, warn)

	r.open()
	r.err = nil
	for i := range r.now.Passes {
		r.now.Passes[i].Phase = migration.DualWrite
	}
	r.now.Seen = map[migration.Phase]migration.PhaseSeen{
		migration.DualWrite: {Since: r.now.Now.Add(-2 * time.Hour), Last: r.now.Now},
	}
	s, warn, err := r.keeper.AtStart(t.Context(), migration.StrictNew)
	require.NoError(t, err)
	require.False(t, warn)
	require.True(t, s.Open)
}

func TestRecordedPassesLeaveTheirTraceFirst(t *testing.T) {
	t.Parallel()
	r := newGateRig(t)
	at := time.Unix(1_000_000, 0)
	p := migration.RecordedPass{
		Kind: migration.PassVerify, Started: at, Ended: at.Add(time.Second), Counts: map[string]int64{"foreign": 2, "ttl": 1},
	}
	require.NoError(t, r.keeper.Record(t.Context(), operator(), p))
	p.Accepted = map[string]int64{"foreign": 2}
	require.NoError(t, r.keeper.Record(t.Context(), operator(), p))
	require.Len(t, r.passes, 2)
	var actions []migration.AuditAction
	for _, e := range r.audit {
		actions = append(actions, e.Action)
		require.Equal(t, operator().Who, e.Who)
	}
	require.Equal(t, []migration.AuditAction{migration.AuditRecord, migration.AuditAccept, migration.AuditRecord}, actions)
	require.Equal(t, "relay migrate retire --execute; verify: foreign 2, ttl 1", r.audit[0].Detail)
	require.Equal(t, "relay migrate retire --execute; foreign 2", r.audit[1].Detail)

	r.auditErr = fault.New(fault.Unavailable, fault.CodeStorageUnavailable, "no")
	require.Error(t, r.keeper.Record(t.Context(), operator(), p))
	require.Len(t, r.passes, 2, "what nobody answers for does not count")
	r.auditErr = nil
	for _, odd := range []migration.RecordedPass{
		{}, {Kind: migration.PassVerify}, {Started: at, Ended: at}, {Kind: migration.PassVerify, Started: at},
	} {
		require.Equal(t, fault.Invalid, fault.KindOf(r.keeper.Record(t.Context(), operator(), odd)))
	}
	require.Len(t, r.passes, 2)
}
