package telemetry

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/push"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
)

// Backfill counts what became of the jobs that one run of a backfill met. Counting is for one goroutine; scrapes may
// come meanwhile.
type Backfill struct {
	registry *prometheus.Registry
	jobs     *prometheus.CounterVec
	seen     map[workspace.ID]backfillCounters
	other    backfillCounters
	cap      int
}

// backfillCounters are those of one workspace; they all exist from its first job on.
type backfillCounters struct{ succeeded, failed, skipped prometheus.Counter }

// NewBackfill registers the counter in a registry of its own. Workspaces seen after the first labelCap are counted
// together under the label "_other".
func NewBackfill(labelCap int) *Backfill {
	b := &Backfill{
		registry: prometheus.NewRegistry(),
		jobs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "backfill_jobs_total",
			Help: "Jobs that a backfill met: succeeded had a copy made or repaired, failed had to be left, " +
				"skipped needed nothing.",
		}, []string{"workspace_id", "result"}),
		seen: map[workspace.ID]backfillCounters{},
		cap:  labelCap,
	}
	b.other = b.of(otherWorkspaces)
	b.registry.MustRegister(b.jobs)
	return b
}

func (b *Backfill) of(label string) backfillCounters {
	return backfillCounters{
		succeeded: b.jobs.WithLabelValues(label, "succeeded"),
		failed:    b.jobs.WithLabelValues(label, "failed"),
		skipped:   b.jobs.WithLabelValues(label, "skipped"),
	}
}

// Count counts one job.
func (b *Backfill) Count(c migration.Copied) {
	counters, ok := b.seen[c.Job.Workspace]
	switch {
	case ok:
	case len(b.seen) >= b.cap || c.Job.Workspace.IsZero():
		counters = b.other
	default:
		counters = b.of(c.Job.Workspace.String())
		b.seen[c.Job.Workspace] = counters
	}
	switch {
	case c.Outcome.Changed():
		counters.succeeded.Inc()
	case c.Outcome.Left():
		counters.failed.Inc()
	default:
		counters.skipped.Inc()
	}
}

// Handler serves the counts in the form that Prometheus scrapes.
func (b *Backfill) Handler() http.Handler {
	return promhttp.HandlerFor(b.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// pushTimeout is how long the end of a run waits for a gateway.
const pushTimeout = 5 * time.Second

// Push replaces what a Pushgateway holds of the runs of an instance. The error may hold the URL and what the gateway
// answered, which is untrusted text.
func (b *Backfill) Push(ctx context.Context, url, instance string) error {
	err := push.New(url, "relay_backfill").Grouping("instance", instance).Gatherer(b.registry).
		Client(&http.Client{Timeout: pushTimeout}).
		Format("text/plain; version=0.0.4"). // which others than Prometheus' own gateway read, too
		PushContext(ctx)
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	return nil
}
