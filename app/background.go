package app

import (
	"context"
	"sync/atomic"
	"time"

	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/core/fault"
)

const (
	// askTimeout bounds one try at the start: a server whose Redis is away starts all the same.
	askTimeout = time.Second
	askPause   = 500 * time.Millisecond
)

// question is what the storage has to answer before the server is ready. It is a ports.HealthCheck.
type question struct {
	name     string
	ask      func(context.Context) error
	log      *zap.Logger
	answered atomic.Bool
	warned   bool
}

// Name implements ports.HealthCheck.
func (q *question) Name() string { return q.name }

// Check implements ports.HealthCheck.
func (q *question) Check(context.Context) error {
	if q.answered.Load() {
		return nil
	}
	return fault.New(fault.Unavailable, fault.CodeStorageUnavailable, "the storage has not answered yet")
}

// try asks once.
func (q *question) try(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	err := q.ask(ctx)
	if err != nil && !q.warned {
		q.warned = true // the same every half second would tell no more
		q.log.Warn("the storage does not answer; asking on", zap.String("check", q.name), reason(err))
	}
	q.answered.Store(err == nil)
}

// inBackground asks q once in the start, and from then on until it is answered; run follows and goes on until the service
// stops, which waits for its end.
func inBackground(lc fx.Lifecycle, q *question, run func(context.Context)) {
	running, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	lc.Append(fx.StartStopHook(
		func(ctx context.Context) {
			q.try(ctx)
			go func() {
				defer close(ended)
				for !q.answered.Load() {
					if (systemclock.Clock{}).Sleep(running, askPause) != nil {
						return
					}
					q.try(running)
				}
				run(running)
			}()
		},
		func(ctx context.Context) error {
			cancel()
			select {
			case <-ended:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	))
}

// reason is what a log line may say of an error of the storage.
func reason(err error) zap.Field { return zap.Stringer("reason", fault.KindOf(err)) }
