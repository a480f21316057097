// Package telemetry tells operators what happened: counters, gauges and histograms in the form that Prometheus scrapes,
// log lines in JSON, and traces. Nothing in it blocks a request or makes one fail.
package telemetry

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/migration"
)

// Metrics holds the registry that the admin listener serves, and what is not counted by workspace.
type Metrics struct {
	registry      *prometheus.Registry
	workspaces    *workspaces
	eventsDropped prometheus.Counter
	requests      *series[request, exemplarObserver]
	commands      *series[string, prometheus.Observer]
}

// Build names the binary that runs.
type Build struct {
	Version, Revision, GoVersion string
}

// request is what requests are told apart by. All three come from closed sets.
type request struct {
	route, method string
	status        int
}

// exemplarObserver is what a histogram is: an observation of it may name a trace.
type exemplarObserver interface {
	prometheus.Observer
	prometheus.ExemplarObserver
}

// unbounded is the limit of series whose keys come from a closed set.
const unbounded = math.MaxInt

// NewMetrics registers everything in a registry of its own. Workspaces seen after the first labelCap are counted
// together under the label "_other".
func NewMetrics(build Build, labelCap int) *Metrics {
	requests := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "relay_http_request_duration_seconds",
		Help: "Time from a request's headers to the end of its answer.",
		Buckets: []float64{
			.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10,
		},
	}, []string{"route", "method", "status"})
	commands := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "relay_redis_command_duration_seconds",
		Help: "Time of one round trip to Redis with the wait for a connection; a pipeline is one.",
		Buckets: []float64{
			.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5,
		},
	}, []string{"command"})
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		eventsDropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "relay_workspace_mismatch_dropped_total",
			Help: "Workspace mismatches that were neither counted nor logged, because too many came at once.",
		}),
		requests: newSeries(unbounded, nil, func(r request) exemplarObserver {
			return requests.WithLabelValues(r.route, r.method, strconv.Itoa(r.status)).(exemplarObserver) //nolint:forcetypeassert // safe for histograms, says the library
		}),
		commands: newSeries(unbounded, nil, func(name string) prometheus.Observer { return commands.WithLabelValues(name) }),
	}
	m.registry.MustRegister(m.eventsDropped, requests, commands,
		info("relay_build_info", "Always 1; the labels tell which build runs.", prometheus.Labels{
			"version": build.Version, "revision": build.Revision, "go_version": build.GoVersion,
		}),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.workspaces = newWorkspaces(m.registry, labelCap, counted())
	return m
}

// InPhase exports what this server writes and reads. It is called once.
func (m *Metrics) InPhase(p migration.Phase) {
	m.registry.MustRegister(info("relay_phase_info", "Always 1; the label tells what this server writes and reads.",
		prometheus.Labels{"phase": p.String()}))
}

// info is a fact about this process.
func info(name, help string, labels prometheus.Labels) prometheus.Collector {
	fact := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels})
	fact.Set(1)
	return fact
}

// Handler serves the registry in the form that Prometheus scrapes. What cannot be gathered is left out and logged.
func (m *Metrics) Handler(log *zap.Logger) http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling:     promhttp.ContinueOnError,
		ErrorLog:          scrapeLog{log},
		EnableOpenMetrics: true,
	})
}

// scrapeLog makes a line of what a scrape lacks. The errors themselves describe metrics in the words of the library.
type scrapeLog struct{ log *zap.Logger }

// Println implements promhttp.Logger.
func (l scrapeLog) Println(said ...any) {
	cause := fault.Internal
	for _, s := range said {
		if several, ok := s.(prometheus.MultiError); ok {
			cause = fault.KindOf(errors.Join(several...))
		} else if err, ok := s.(error); ok {
			cause = fault.KindOf(err)
		}
	}
	l.log.Warn("A scrape lacks metrics", zap.Stringer("cause", cause))
}

// Registry gives what is gathered, to tests and to pushers.
func (m *Metrics) Registry() prometheus.Gatherer { return m.registry }

// RequestServed measures one answered request. Route is a template and method a known one: no label is for callers to
// invent. A traceID that is not empty leads from the histogram to the trace.
func (m *Metrics) RequestServed(route, method string, status int, took time.Duration, traceID string) {
	observer := m.requests.of(request{route, method, status})
	if traceID != "" {
		observer.ObserveWithExemplar(took.Seconds(), prometheus.Labels{"trace_id": traceID})
		return
	}
	observer.Observe(took.Seconds())
}

// WatchRedis measures each round trip of rdb and exports the state of its connection pool. It is called once, before
// rdb is used.
func (m *Metrics) WatchRedis(rdb *redis.Client) {
	rdb.AddHook(commandTimer{took: m.commands})
	m.registry.MustRegister(newPoolCollector(rdb))
}
