package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/fx"
	"go.uber.org/zap"
)

// adminGrace is short because it comes on top of the consumers' grace, while the hooks behind the listeners wait. What
// it cuts off is an operator's profile.
const adminGrace = time.Second

// Settings are what Module needs besides a Config.
type Settings struct {
	Addr, AdminAddr string // host:port; port 0 takes a free one
	Server, Admin   ServerConfig
	Metrics         http.Handler
	Grace           time.Duration // how long consumers' requests may take to end when the application stops
	FaultCode       int           // what the process exits with where a listener breaks
}

// Addresses are where the listeners really are, known once the application has started.
type Addresses struct{ HTTP, Admin string }

// Module provides the *API and its *Addresses. The listeners are opened when the application starts; when it stops,
// consumers' requests end first, and the admin listener shows that until the end. Stopping takes Settings.Grace and a
// second at most.
func Module() fx.Option {
	return fx.Module("httpapi", fx.Provide(New, newListeners))
}

// listener is one server on one address.
type listener struct {
	name   string
	addr   string
	server *Server
	bound  *string
	grace  time.Duration
}

func newListeners(
	lc fx.Lifecycle, stop fx.Shutdowner, s Settings, api *API, log *zap.Logger,
) (*Addresses, error) {
	consumers, err := NewServer(api.Handler(), s.Server)
	if err != nil {
		return nil, err
	}
	operators, err := NewServer(NewAdmin(s.Metrics, api), s.Admin)
	if err != nil {
		return nil, err
	}
	addresses := &Addresses{}
	listeners := []listener{ // stopped from the last to the first
		{name: "admin", addr: s.AdminAddr, server: operators, bound: &addresses.Admin, grace: adminGrace},
		{name: "API", addr: s.Addr, server: consumers, bound: &addresses.HTTP, grace: s.Grace},
	}
	for _, l := range listeners {
		lc.Append(fx.StartStopHook(
			func(ctx context.Context) error { return l.open(ctx, stop, s.FaultCode, log) },
			func(ctx context.Context) error {
				api.Drain()
				ctx, cancel := context.WithTimeout(ctx, l.grace)
				defer cancel()
				err := l.server.Shutdown(ctx)
				if err != nil && l.server == operators {
					log.Warn("admin listener", zap.Error(err))
					return nil // no consumer lost anything: not worth the exit code of a fault
				}
				return err
			},
		))
	}
	return addresses, nil
}

// open listens, and serves until the server is shut down. A listener that breaks later stops the application.
func (l listener) open(ctx context.Context, stop fx.Shutdowner, faultCode int, log *zap.Logger) error {
	bound, err := new(net.ListenConfig).Listen(ctx, "tcp", l.addr)
	if err != nil {
		return fmt.Errorf("the %s listener cannot be opened: %w", l.name, err)
	}
	*l.bound = bound.Addr().String()
	go func() {
		err := l.server.Serve(bound)
		if err == nil {
			return
		}
		log.Error("listener broke", zap.String("listener", l.name), zap.Error(err))
		if err := stop.Shutdown(fx.ExitCode(faultCode)); err != nil && !errors.Is(err, context.Canceled) {
			log.Error("cannot stop", zap.Error(err))
		}
	}()
	return nil
}
