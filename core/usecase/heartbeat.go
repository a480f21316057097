package usecase

import (
	"context"
	"time"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/ports"
)

// Heartbeat lets the gates of the migration know of this server: which live servers there are, and in which phase.
type Heartbeat struct {
	Servers ports.LiveServers
	Clock   ports.Clock
	Server  migration.Server
	Failed  func(error) // told of a beat that failed; the next one comes
}

// First beats once. A server is not ready before it has: else a gate could open over its head.
func (u Heartbeat) First(ctx context.Context) error {
	return u.Servers.Beat(ctx, u.Server) //nolint:wrapcheck // already a fault
}

// Run goes on until the context ends, and then says that the server lives no longer. It is called behind First, and has
// to end after the last request was answered.
func (u Heartbeat) Run(ctx context.Context) {
	for u.Clock.Sleep(ctx, migration.ServerBeat) == nil {
		if err := u.First(ctx); err != nil && ctx.Err() == nil {
			u.Failed(err)
		}
	}
	ctx, cancel := lastWords(ctx)
	defer cancel()
	if err := u.Servers.Leave(ctx, u.Server); err != nil {
		u.Failed(err)
	}
}

// lastWords is for what is said when ctx has ended: a storage that does not listen holds up nobody's end for long.
func lastWords(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), time.Second)
}
