package redisjobs

import (
	"github.com/redis/go-redis/v9"
	"go.uber.org/fx"
)

// Module provides a *redis.Client from ConnectOptions, closed when the application stops, and its HealthCheck. The
// client does not touch the network at the start: a server whose Redis is away starts, and says that it is not ready.
func Module() fx.Option {
	return fx.Module("redisjobs", fx.Provide(
		func(lc fx.Lifecycle, o ConnectOptions) (*redis.Client, error) {
			rdb, err := Connect(o)
			if err != nil {
				return nil, err
			}
			lc.Append(fx.StopHook(rdb.Close))
			return rdb, nil
		},
		func(rdb *redis.Client) HealthCheck { return NewHealthCheck(rdb) },
	))
}
