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
)

// Backfill counts what became of the jobs that one run of a backfill met, and tells how far it is. Scrapes may come
// meanwhile.
type Backfill struct {
	registry   *prometheus.Registry
	workspaces *workspaces
	progress   prometheus.Gauge
	progressed prometheus.Gauge
	rate       prometheus.Gauge
	share      prometheus.Gauge
	slowed     *prometheus.GaugeVec
}

// The one event of a backfill is a job, and this is what became of it.
const (
	jobFailed = iota
	jobSkipped
	jobSucceeded
)

// NewBackfill registers everything in a registry of its own. Workspaces seen after the first labelCap are counted
// together under the label "_other".
func NewBackfill(labelCap int) *Backfill {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	b := &Backfill{
		registry: prometheus.NewRegistry(),
		progress: gauge("backfill_progress_ratio",
			"Part of the keyspace that is behind the pass; it falls where the pass starts over."),
		progressed: gauge("backfill_last_progress_timestamp_seconds",
			"When the last step ended, or the run began."),
		rate: gauge("backfill_rate_limit_jobs_per_second",
			"Jobs a second that the pass may look at; 0 is unlimited."),
		share: gauge("backfill_work_ratio",
			"Part of the time in which the pass may work; 0 where it has to stand still."),
		slowed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "backfill_slowed",
			Help: "1 for what slows the pass most, or holds it; all are 0 where only its rate does.",
		}, []string{"reason"}),
	}
	b.registry.MustRegister(b.progress, b.progressed, b.rate, b.share, b.slowed)
	b.workspaces = newWorkspaces(b.registry, labelCap, []counter{{
		name: "backfill_jobs_total",
		help: "Jobs that a backfill met: succeeded had a copy made or repaired, failed had to be left, " +
			"skipped needed nothing.",
		label: "result", values: []string{jobFailed: "failed", jobSkipped: "skipped", jobSucceeded: "succeeded"},
	}})
	b.Paced(migration.Pace{Share: 1})
	b.progressed.SetToCurrentTime()
	return b
}

// Count counts one job.
func (b *Backfill) Count(c migration.Copied) {
	result := jobSkipped
	switch {
	case c.Outcome.Changed():
		result = jobSucceeded
	case c.Outcome.Left():
		result = jobFailed
	}
	b.workspaces.add(c.Job.Workspace, 0, result, 1)
}

// Progressed tells that a step ended, with the part of the keyspace that is behind it.
func (b *Backfill) Progressed(fraction float64) {
	b.progress.Set(fraction)
	b.progressed.SetToCurrentTime()
}

// Paced tells how fast the pass may go on.
func (b *Backfill) Paced(p migration.Pace) {
	b.rate.Set(float64(p.Rate))
	b.share.Set(p.Share)
	for _, r := range migration.SlowReasons() {
		slowed := 0.0
		if r == p.Reason {
			slowed = 1
		}
		b.slowed.WithLabelValues(string(r)).Set(slowed)
	}
}

// Handler serves all of it in the form that Prometheus scrapes.
func (b *Backfill) Handler() http.Handler {
	return promhttp.HandlerFor(b.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// pushTimeout is how long the end of a run waits for a gateway.
const pushTimeout = 5 * time.Second

// Push replaces the counts that a Pushgateway holds of the runs of an instance. How far a run is, it is not told: it
// would go on saying so after the end. The error may hold the URL and what the gateway answered, which is untrusted text.
func (b *Backfill) Push(ctx context.Context, url, instance string) error {
	err := push.New(url, "relay_backfill").Grouping("instance", instance).Collector(b.workspaces.vecs[0]).
		Client(&http.Client{Timeout: pushTimeout}).
		Format("text/plain; version=0.0.4"). // which others than Prometheus' own gateway read, too
		PushContext(ctx)
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	return nil
}
