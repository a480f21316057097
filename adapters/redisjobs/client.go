// Package redisjobs stores jobs in Redis, in the old and the new key schema. What is written and read follows from a
// migration.Phase; the packages below give the repositories their names. It works on one Redis server or a primary
// with replicas, Redis 6.2 or later; the keys carry no hash tags, so that Redis Cluster is no home for them.
package redisjobs

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// ConnectOptions say how to reach Redis. Zero durations and sizes take the defaults below.
type ConnectOptions struct {
	URL          string        // redis://, rediss:// or unix://
	PoolSize     int           // connections; 0 takes the client library's own
	DialTimeout  time.Duration // 2 s
	ReadTimeout  time.Duration // 2 s
	WriteTimeout time.Duration // 2 s
}

const defaultTimeout = 2 * time.Second

// Connect makes a client; it does not touch the network. The error repeats nothing of the URL, which may hold a
// password.
//
// Commands are tried again up to three times after a broken connection. An enqueue is safe to run twice, and so is a move
// as long as nobody else moves the job between the tries.
func Connect(o ConnectOptions) (*redis.Client, error) {
	logging.Disable() // the library's switch for the whole process: it writes text with addresses to standard error
	options, err := redis.ParseURL(o.URL)
	if err != nil {
		return nil, errors.New("not a redis://, rediss:// or unix:// URL") // the cause repeats the URL
	}
	or := func(d time.Duration) time.Duration {
		if d == 0 {
			return defaultTimeout
		}
		return d
	}
	options.DialTimeout = or(o.DialTimeout)
	options.ReadTimeout = or(o.ReadTimeout)
	options.WriteTimeout = or(o.WriteTimeout)
	options.ContextTimeoutEnabled = true
	options.DialerRetries = 1 // commands are retried already; five dials for each try would multiply the timeouts
	options.MaxRetries = 3
	options.MinRetryBackoff = 8 * time.Millisecond
	options.MaxRetryBackoff = 256 * time.Millisecond
	// What the library says of itself and asks of a hosted Redis are commands that older servers do not know, so that
	// no list of rights could name them, and that those count as denied.
	options.DisableIdentity = true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	if o.PoolSize > 0 {
		options.PoolSize = o.PoolSize
	}
	return redis.NewClient(options), nil
}

// HealthCheck asks Redis for a PING.
type HealthCheck struct{ rdb redis.UniversalClient }

// NewHealthCheck makes the check for readiness.
func NewHealthCheck(rdb redis.UniversalClient) HealthCheck { return HealthCheck{rdb: rdb} }

// Name implements ports.HealthCheck.
func (HealthCheck) Name() string { return "redis" }

// Check implements ports.HealthCheck.
func (h HealthCheck) Check(ctx context.Context) error {
	return translate(h.rdb.Ping(ctx).Err())
}
