package app

import (
	"context"
	"crypto/rand"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/adapters/telemetry"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/ports"
)

// presence tells the migration's gates of this server: that it lives and in which phase, and how many of its reads fell
// back to an old copy.
//
// A server is not ready before its first beat, nor once its latest has died: else a gate could open over its head.
type presence struct {
	*question

	beating *beating

	phase migration.Phase
	index *indexKeeper
	gates usecase.GateKeeper
	beat  usecase.Heartbeat
	log   *zap.Logger
	asked bool // whether the gate was
}

// newPresence appends its hooks as newIndexKeeper does: the last request was answered when it ends.
func newPresence(
	lc fx.Lifecycle, c Config, index *indexKeeper, state *redisjobs.MigrationState, counter *usecase.FallbackCounter,
	log *zap.Logger,
) *presence {
	clock := systemclock.Clock{}
	p := &presence{
		beating: &beating{LiveServers: state}, phase: c.Phase, index: index, gates: usecase.GateKeeper{Facts: state, Log: state},
		log: log,
	}
	p.beat = usecase.Heartbeat{
		Servers: p.beating, Clock: clock,
		Server: migration.Server{
			ID: serverID(), Phase: c.Phase, Version: BuildInfo().Version, Started: clock.Now().UTC().Truncate(time.Second),
		},
		Failed: func(err error) { log.Warn("heartbeat failed", reason(err)) },
	}
	p.question = &question{name: "heartbeat", ask: p.announce, log: log}
	hits := usecase.FlushFallbackHits{
		Counter: counter, Hits: state, Clock: clock,
		Failed: func(err error) { log.Warn("fallback hits were not kept", reason(err)) },
	}
	inBackground(lc, p.question, func(ctx context.Context) {
		var ends sync.WaitGroup
		ends.Go(func() { p.beat.Run(ctx) })
		ends.Go(func() { hits.Run(ctx) })
		ends.Wait()
	})
	return p
}

// beating keeps when the latest beat was.
type beating struct {
	ports.LiveServers

	latest atomic.Pointer[time.Time]
}

// Beat implements ports.LiveServers.
func (b *beating) Beat(ctx context.Context, s migration.Server) error {
	now := time.Now()
	err := b.LiveServers.Beat(ctx, s)
	if err == nil {
		b.latest.Store(&now)
	}
	return err //nolint:wrapcheck // already a fault
}

// Check implements ports.HealthCheck.
func (p *presence) Check(ctx context.Context) error {
	if err := p.question.Check(ctx); err != nil {
		return err
	}
	if latest := p.beating.latest.Load(); latest != nil && time.Since(*latest) > migration.ServerLife {
		return fault.New(fault.Unavailable, fault.CodeStorageUnavailable, "the gates take this server for dead")
	}
	return nil
}

// serverID tells operators where a server runs; what is random in it sets apart those of one machine.
func serverID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return host + "/" + rand.Text()
}

// announce warns where the server passes a closed gate, once, and beats for the first time. The claim of an empty storage
// comes before: a beat in the midst of it would make the storage one that is not empty.
func (p *presence) announce(ctx context.Context) error {
	if err := p.index.Check(ctx); err != nil {
		return err
	}
	if !p.asked {
		state, closed, err := p.gates.AtStart(ctx, p.phase)
		if err != nil && fault.KindOf(err) != fault.Internal {
			return err
		}
		p.asked = true
		if err != nil {
			p.log.Warn("serving though it cannot be told whether the gate is open; `relay migrate status` says more", reason(err))
		} else if closed {
			p.log.Warn("serving behind a closed gate; `relay migrate status` says why",
				zap.Stringer("gate", state.Gate), zap.Stringers("closed_by", state.ClosedBy()))
		}
	}
	return p.beat.First(ctx)
}

// fallbackCounter counts in front of everything else that is told of reads. Where a phase reads one schema alone no read
// falls back.
func fallbackCounter(c Config, o *telemetry.Observer) (*usecase.FallbackCounter, ports.Observer) {
	counter := &usecase.FallbackCounter{Observer: o}
	if c.Phase.ReadsOld() && c.Phase.ReadsNew() {
		return counter, counter
	}
	return counter, o
}
