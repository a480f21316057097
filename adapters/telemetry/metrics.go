// Package telemetry tells operators what happened: counters and histograms in the form that Prometheus scrapes, and
// log lines in JSON. Nothing in it blocks a request or makes one fail.
package telemetry

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// Metrics holds the registry that the admin listener serves, and what is not counted by workspace.
type Metrics struct {
	registry      *prometheus.Registry
	workspaces    *workspaces
	eventsDropped prometheus.Counter
	requests      *prometheus.HistogramVec
	commands      *prometheus.HistogramVec
}

// Build names the binary that runs.
type Build struct {
	Version, Revision, GoVersion string
}

// NewMetrics registers everything in a registry of its own. Workspaces seen after the first labelCap are counted
// together under the label "_other".
func NewMetrics(build Build, labelCap int) *Metrics {
	m := &Metrics{
		registry:   prometheus.NewRegistry(),
		workspaces: newWorkspaces(labelCap),
		eventsDropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "relay_workspace_mismatch_dropped_total",
			Help: "Workspace mismatches that were neither counted nor logged, because too many came at once.",
		}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "relay_http_request_duration_seconds",
			Help: "Time from a request's headers to the end of its answer.",
			Buckets: []float64{
				.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10,
			},
		}, []string{"route", "method", "status"}),
		commands: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "relay_redis_command_duration_seconds",
			Help: "Time of one round trip to Redis with the wait for a connection; a pipeline is one.",
			Buckets: []float64{
				.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5,
			},
		}, []string{"command"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "relay_build_info",
		Help: "Always 1; the labels tell which build runs.",
		ConstLabels: prometheus.Labels{
			"version": build.Version, "revision": build.Revision, "go_version": build.GoVersion,
		},
	})
	info.Set(1)
	m.registry.MustRegister(m.eventsDropped, m.requests, m.commands, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registry.MustRegister(m.workspaces.collectors()...)
	return m
}

// Handler serves the registry in the form that Prometheus scrapes.
func (m *Metrics) Handler(log *zap.Logger) http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling:     promhttp.ContinueOnError,
		ErrorLog:          zap.NewStdLog(log),
		EnableOpenMetrics: true,
	})
}

// Registry gives what is gathered, to tests and to pushers.
func (m *Metrics) Registry() prometheus.Gatherer { return m.registry }

// RequestServed measures one answered request. Route is a template and method a known one: no label is for callers to
// invent.
func (m *Metrics) RequestServed(route, method string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Observe(took.Seconds())
}

// WatchRedis measures each round trip of rdb and exports the state of its connection pool. It is called once, before
// rdb is used.
func (m *Metrics) WatchRedis(rdb *redis.Client) {
	rdb.AddHook(commandTimer{took: m.commands})
	m.registry.MustRegister(newPoolCollector(rdb))
}
