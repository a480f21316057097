package app

import (
	"cmp"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/fx"
	"go.uber.org/fx/fxevent"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/adapters/httpapi"
	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/redisjobs/router"
	"github.com/relay-jobs/relay/adapters/telemetry"
	"github.com/relay-jobs/relay/adapters/uuidv7"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/ports"
)

// Exit codes of the process.
const (
	ExitOK      = 0
	ExitDiffers = 1 // a check found what is not in step
	ExitRefused = 2 // the configuration or the command line cannot be meant
	ExitFault   = 3
)

const (
	maxHeaderBytes    = 32 << 10
	adminWriteTimeout = 5 * time.Minute // a CPU profile takes as long as its caller asks for
	stopMargin        = 5 * time.Second // beyond the grace for requests: a second for operators', closing Redis, two for traces, flushing the log
)

// Streams are where the process writes.
type Streams struct {
	Log      io.Writer // JSON lines
	Terminal io.Writer // for the person who started it
}

// Options is the service: the one graph that production, the demo and the tests run. It provides *httpapi.Addresses.
// Adapters are bound to ports in this package and nowhere else: here, and for ports.AuthProvider in auth.go.
func Options(c Config, s Streams) fx.Option {
	return fx.Options(
		fx.WithLogger(func() fxevent.Logger { return fxevent.NopLogger }), // failures come back from Start and Stop
		fx.StopTimeout(c.ShutdownGrace+stopMargin),
		fx.Supply(c, s),
		telemetry.Module(), redisjobs.Module(), httpapi.Module(),
		fx.Provide(
			newDemo, authenticate, telemetrySettings, redisOptions, httpSettings, apiConfig, newIndexKeeper,
			newPresence, fallbackCounter,
			func(rdb *redis.Client) *redisjobs.MigrationState { return redisjobs.NewMigrationState(rdb) },
			func() ports.JobIDs { return uuidv7.JobIDs{} },
			func(
				rdb *redis.Client, m *telemetry.Metrics, t *telemetry.Tracing, o ports.Observer,
			) (ports.JobRepository, ports.JobIndex) {
				m.WatchRedis(rdb)
				t.WatchRedis(rdb)
				r := router.New(rdb, c.Phase, redisjobs.Options{Retention: c.Retention, Observer: o})
				m.WatchStorage(telemetry.Storage{
					Load: redisjobs.NewCopies(rdb), Backlog: redisjobs.NewBacklog(rdb), Index: r,
				})
				return r, r
			},
			func(auth ports.AuthProvider, o ports.Observer) usecase.Gate {
				return usecase.Gate{Auth: auth, Observer: o}
			},
		),
		fx.Invoke(announce, showDemo),
	)
}

// The linker sets these (-X) where the sources come without their repository, as in the Dockerfile.
var version, revision string //nolint:gochecknoglobals // the linker knows no other place

// BuildInfo names this binary as the linker was told to, and else as the Go toolchain stamped it.
func BuildInfo() telemetry.Build {
	b := telemetry.Build{Version: "unknown", Revision: "unknown", GoVersion: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Revision = s.Value
		}
	}
	b.Version, b.Revision = cmp.Or(version, b.Version), cmp.Or(revision, b.Revision)
	return b
}

func telemetrySettings(c Config, s Streams) telemetry.Settings {
	return telemetry.Settings{
		Output: s.Log, Level: c.LogLevel, Build: BuildInfo(), Phase: c.Phase, WorkspaceLabels: c.WorkspaceLabels,
		Traces: telemetry.TraceSettings{Endpoint: c.TraceEndpoint, Ratio: c.TraceRatio},
	}
}

func redisOptions(c Config, d *demo) redisjobs.ConnectOptions {
	url := c.RedisURL
	if d != nil {
		url = "redis://" + d.redis.Addr() + "/0"
	}
	return redisjobs.ConnectOptions{
		URL: url, PoolSize: c.RedisPoolSize,
		DialTimeout: c.RedisDialTimeout, ReadTimeout: c.RedisReadTimeout, WriteTimeout: c.RedisWriteTimeout,
	}
}

func httpSettings(c Config, m *telemetry.Metrics, log *zap.Logger) httpapi.Settings {
	server := httpapi.ServerConfig{
		ReadHeaderTimeout: c.ReadHeaderTimeout, ReadTimeout: c.ReadTimeout, WriteTimeout: c.WriteTimeout,
		IdleTimeout: c.IdleTimeout, MaxHeaderBytes: maxHeaderBytes, Log: log,
	}
	admin := server
	admin.WriteTimeout = adminWriteTimeout
	return httpapi.Settings{
		Addr: c.HTTPAddr, AdminAddr: c.AdminAddr, Server: server, Admin: admin, Metrics: m.Handler(log),
		Grace: c.ShutdownGrace, FaultCode: ExitFault,
	}
}

// needs are what the API is made of.
type needs struct {
	fx.In

	Gate     usecase.Gate
	Jobs     ports.JobRepository
	IDs      ports.JobIDs
	Redis    redisjobs.HealthCheck
	Index    *indexKeeper
	Presence *presence
	Checks   []ports.HealthCheck
	Served   *telemetry.Metrics
	Traced   *telemetry.Tracing
	Log      *zap.Logger
}

func apiConfig(n needs) httpapi.Config {
	return httpapi.Config{
		Execute:  usecase.Execute{Gate: n.Gate, Jobs: n.Jobs, IDs: n.IDs},
		GetJob:   usecase.GetJob{Gate: n.Gate, Jobs: n.Jobs},
		ListJobs: usecase.ListJobs{Gate: n.Gate, Jobs: n.Jobs},
		Checks:   append([]ports.HealthCheck{n.Redis, n.Index, n.Presence}, n.Checks...),
		Requests: n.Served,
		Tracer:   n.Traced.Tracer(),
		Log:      n.Log,
	}
}

// announce tells the log where the service is, once that is known.
func announce(lc fx.Lifecycle, c Config, at *httpapi.Addresses, log *zap.Logger) {
	lc.Append(fx.StartHook(func() error {
		b := BuildInfo()
		log.Info("serving", zap.String("http_addr", at.HTTP), zap.String("admin_addr", at.Admin),
			zap.Stringer("phase", c.Phase), zap.String("version", b.Version), zap.String("revision", b.Revision))
		return log.Sync()
	}))
}
