package telemetry

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// commandTimer is a redis.Hook. Its label values are the names of commands that Relay's own code sends.
type commandTimer struct {
	took *series[string, prometheus.Observer]
}

// DialHook leaves dialling as it is.
func (commandTimer) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook measures a command.
func (t commandTimer) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		start := time.Now()
		err := next(ctx, cmd)
		t.took.of(cmd.Name()).Observe(time.Since(start).Seconds())
		return err
	}
}

// ProcessPipelineHook measures a pipeline as one.
func (t commandTimer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		start := time.Now()
		err := next(ctx, cmds)
		t.took.of("pipeline").Observe(time.Since(start).Seconds())
		return err
	}
}

// poolCollector reads a client's pool when it is scraped.
type poolCollector struct {
	rdb                             *redis.Client
	hits, misses, timeouts, stale   *prometheus.Desc
	total, idle, waiting, waitsTime *prometheus.Desc
}

func newPoolCollector(rdb *redis.Client) poolCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("relay_redis_pool_"+name, help, nil, nil)
	}
	return poolCollector{
		rdb:       rdb,
		hits:      desc("hits_total", "Times a free connection was found in the pool."),
		misses:    desc("misses_total", "Times no free connection was found in the pool."),
		timeouts:  desc("timeouts_total", "Times the wait for a connection ran out."),
		stale:     desc("stale_connections_total", "Connections removed because they had become unusable."),
		total:     desc("connections", "Connections in the pool."),
		idle:      desc("idle_connections", "Connections in the pool that nobody uses."),
		waiting:   desc("waiting_requests", "Callers that wait for a connection."),
		waitsTime: desc("wait_seconds_total", "Time spent waiting for a connection."),
	}
}

// Describe sends the descriptions.
func (c poolCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect sends the values.
func (c poolCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.rdb.PoolStats()
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64) {
		ch <- prometheus.MustNewConstMetric(d, t, v)
	}
	send(c.hits, prometheus.CounterValue, float64(s.Hits))
	send(c.misses, prometheus.CounterValue, float64(s.Misses))
	send(c.timeouts, prometheus.CounterValue, float64(s.Timeouts))
	send(c.stale, prometheus.CounterValue, float64(s.StaleConns))
	send(c.total, prometheus.GaugeValue, float64(s.TotalConns))
	send(c.idle, prometheus.GaugeValue, float64(s.IdleConns))
	send(c.waiting, prometheus.GaugeValue, float64(s.PendingRequests))
	send(c.waitsTime, prometheus.CounterValue, time.Duration(s.WaitDurationNs).Seconds())
}
