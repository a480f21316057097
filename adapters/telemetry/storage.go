package telemetry

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/ports"
)

const (
	// storageTimeout bounds what one scrape waits for the storage.
	storageTimeout = time.Second
	// storageInterval is how long an answer serves: many scrapes ask the storage no more often than one.
	storageInterval = 5 * time.Second
)

// Storage is what is asked when somebody scrapes.
type Storage struct {
	Load    ports.StorageLoad
	Backlog ports.Backlog
	Index   interface {
		Complete(ctx context.Context) (bool, error)
	}
}

// WatchStorage exports the state of the storage. What the storage does not answer is left out of a scrape, and nothing
// else. It is called once.
func (m *Metrics) WatchStorage(s Storage) {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc("relay_"+name, help, nil, nil) }
	m.registry.MustRegister(&storageCollector{
		storage:  s,
		up:       desc("redis_up", "Whether Redis answered this server, 1 or 0."),
		used:     desc("redis_memory_used_bytes", "Memory that Redis uses."),
		maximum:  desc("redis_memory_max_bytes", "Memory that Redis may use; 0 is unlimited."),
		depth:    desc("queue_depth", "Entries of the queue."),
		oldest:   desc("queue_oldest_age_seconds", "Time since the job was enqueued that is to be taken next; 0 where none waits."),
		complete: desc("index_complete", "Whether lists go by the index, 1, or by SCAN, 0."),
	})
}

// storageCollector asks the storage when it is scraped, unless it did so just before.
type storageCollector struct {
	storage                                    Storage
	up, used, maximum, depth, oldest, complete *prometheus.Desc

	mu       sync.Mutex // held while the storage is asked: others wait for the same answer
	asked    time.Time
	answered []prometheus.Metric
}

// Describe sends the descriptions.
func (c *storageCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.up, c.used, c.maximum, c.depth, c.oldest, c.complete} {
		ch <- d
	}
}

// Collect sends the values.
func (c *storageCollector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked.IsZero() || time.Since(c.asked) >= storageInterval {
		c.answered = c.ask()
		c.asked = time.Now()
	}
	for _, m := range c.answered {
		ch <- m
	}
}

func (c *storageCollector) ask() (all []prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), storageTimeout)
	defer cancel()
	var load migration.Load
	var backlog job.Backlog
	var complete bool
	var errs [3]error
	var asking sync.WaitGroup
	asking.Go(func() { load, errs[0] = c.storage.Load.Load(ctx) })
	asking.Go(func() { backlog, errs[1] = c.storage.Backlog.Backlog(ctx) })
	asking.Go(func() { complete, errs[2] = c.storage.Index.Complete(ctx) })
	asking.Wait()

	gauge := func(d *prometheus.Desc, value float64) {
		all = append(all, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value))
	}
	gauge(c.up, number(errs[0] == nil))
	if errs[0] == nil {
		gauge(c.used, float64(load.UsedMemory))
		gauge(c.maximum, float64(load.MaxMemory))
	}
	if errs[1] == nil {
		gauge(c.depth, float64(backlog.Entries))
	}
	if errs[1] == nil && backlog.Known {
		gauge(c.oldest, backlog.Waited.Seconds())
	}
	if errs[2] == nil {
		gauge(c.complete, number(complete))
	}
	for i, d := range []*prometheus.Desc{c.used, c.depth, c.complete} {
		if errs[i] != nil { // of which the log is to hear
			all = append(all, prometheus.NewInvalidMetric(d, withoutText(errs[i])))
		}
	}
	return all
}

// withoutText gives the kind of a fault alone: an answer to a scrape may show it.
func withoutText(err error) error {
	kind := fault.KindOf(err)
	return fault.New(kind, fault.CodeOf(err), kind.String())
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
