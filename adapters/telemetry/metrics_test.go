package telemetry_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/adapters/telemetry"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
)

func scrape(t *testing.T, m *telemetry.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler(zap.NewNop()).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	require.Equal(t, http.StatusOK, w.Code)
	return w.Body.String()
}

func TestScrapeShowsRequestsBuildAndRuntime(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics(telemetry.Build{Version: "v1.2.3", Revision: "abc", GoVersion: "go1.26"}, 10)
	m.RequestServed("/ai/jobs/{job_id}", "GET", 200, 3*time.Millisecond, "")
	body := scrape(t, m)
	for _, want := range []string{
		`relay_http_request_duration_seconds_count{method="GET",route="/ai/jobs/{job_id}",status="200"} 1`,
		`relay_build_info{go_version="go1.26",revision="abc",version="v1.2.3"} 1`,
		"go_goroutines ", "process_resident_memory_bytes ",
	} {
		require.Contains(t, body, want)
	}
}

func TestScrapeShowsRedisCommandsAndPool(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), DisableIdentity: true})
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	m := telemetry.NewMetrics(telemetry.Build{}, 10)
	m.WatchRedis(rdb)
	require.NoError(t, rdb.Set(t.Context(), "k", "secret", 0).Err())
	_, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		p.Get(t.Context(), "k")
		p.Get(t.Context(), "k")
		return nil
	})
	require.NoError(t, err)
	body := scrape(t, m)
	for _, want := range []string{
		`relay_redis_command_duration_seconds_count{command="set"} 1`,
		`relay_redis_command_duration_seconds_count{command="pipeline"}`,
		"relay_redis_pool_connections 1", "relay_redis_pool_idle_connections 1", "relay_redis_pool_hits_total ",
	} {
		require.Contains(t, body, want)
	}
	require.NotContains(t, body, "secret")
}

func TestTwoSetsOfMetricsLiveSideBySide(t *testing.T) {
	t.Parallel()
	a, b := telemetry.NewMetrics(telemetry.Build{}, 10), telemetry.NewMetrics(telemetry.Build{}, 10)
	a.RequestServed("/livez", "GET", 200, time.Millisecond, "")
	require.Contains(t, scrape(t, a), `route="/livez"`)
	require.NotContains(t, scrape(t, b), `route="/livez"`)
}

// atOnce answers every command without a network.
type atOnce struct{}

func (atOnce) DialHook(next redis.DialHook) redis.DialHook { return next }

func (atOnce) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(context.Context, redis.Cmder) error { return nil }
}

func (atOnce) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(context.Context, []redis.Cmder) error { return nil }
}

// instantRedis is a client whose commands are answered at once, with the hooks of watch before.
func instantRedis(tb testing.TB, watch func(*redis.Client)) *redis.Client {
	tb.Helper()
	rdb := redis.NewClient(&redis.Options{})
	tb.Cleanup(func() { require.NoError(tb, rdb.Close()) })
	watch(rdb)
	rdb.AddHook(atOnce{})
	return rdb
}

func unwatched(*redis.Client) {}

func timed(rdb *redis.Client) { telemetry.NewMetrics(telemetry.Build{}, 10).WatchRedis(rdb) }

func TestTimingACommandAllocatesNothing(t *testing.T) {
	cmd := redis.NewCmd(t.Context(), "evalsha", "0000", "0")
	cost := func(watch func(*redis.Client)) float64 {
		rdb := instantRedis(t, watch)
		return testing.AllocsPerRun(1000, func() { _ = rdb.Process(t.Context(), cmd) })
	}
	off, err := telemetry.NewTracing(telemetry.TraceSettings{}, telemetry.Build{}, zap.NewNop())
	require.NoError(t, err)
	bare := cost(unwatched)
	require.InDelta(t, bare, cost(timed), 0)
	require.InDelta(t, bare, cost(off.WatchRedis), 0, "no traces cost nothing")
	require.Nil(t, off.Tracer())
	off.Close(t.Context())
}

func BenchmarkRedisCommand(b *testing.B) {
	off, err := telemetry.NewTracing(telemetry.TraceSettings{}, telemetry.Build{}, zap.NewNop())
	require.NoError(b, err)
	on, err := telemetry.NewTracing(telemetry.TraceSettings{Endpoint: "http://127.0.0.1:1", Ratio: 1}, telemetry.Build{}, zap.NewNop())
	require.NoError(b, err)
	b.Cleanup(func() { on.Close(context.Background()) })
	traced, span := on.Tracer().Start(b.Context(), "request")
	defer span.End()
	for _, c := range []struct {
		name  string
		ctx   context.Context //nolint:containedctx // of a benchmark
		watch func(*redis.Client)
	}{
		{"unwatched", b.Context(), unwatched},
		{"timed", b.Context(), timed},
		{"traces off", b.Context(), off.WatchRedis},
		{"traces on, request not traced", b.Context(), on.WatchRedis},
		{"traced", traced, on.WatchRedis},
	} {
		b.Run(c.name, func(b *testing.B) {
			rdb := instantRedis(b, c.watch)
			cmd := redis.NewCmd(c.ctx, "evalsha", "0000", "0")
			b.ReportAllocs()
			for b.Loop() {
				_ = rdb.Process(c.ctx, cmd)
			}
		})
	}
}

func TestAnExemplarLeadsToTheTrace(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics(telemetry.Build{}, 10)
	m.RequestServed("/ai/jobs", "GET", 200, 3*time.Millisecond, "0af7651916cd43dd8448eb211c80319c")
	m.RequestServed("/ai/jobs", "GET", 200, time.Second, "")
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	m.Handler(zap.NewNop()).ServeHTTP(w, r)
	require.Regexp(t, `le="0.005"} 1 # {trace_id="0af7651916cd43dd8448eb211c80319c"} 0.003 `, w.Body.String())
	require.Equal(t, 1, strings.Count(w.Body.String(), "trace_id"))
}

// storage answers as it is told, and counts how often it was asked.
type storage struct {
	asked    atomic.Int64
	load     error
	backlog  job.Backlog
	complete error
}

func (s *storage) Load(context.Context) (migration.Load, error) {
	s.asked.Add(1)
	return migration.Load{UsedMemory: 5, MaxMemory: 9}, s.load
}

func (s *storage) Backlog(context.Context) (job.Backlog, error) { return s.backlog, nil }

func (s *storage) Complete(context.Context) (bool, error) { return true, s.complete }

func TestScrapeShowsWhatTheStorageAnswers(t *testing.T) {
	t.Parallel()
	away := fault.New(fault.Unavailable, fault.CodeStorageUnavailable, "secret")
	for name, c := range map[string]struct {
		storage *storage
		shown   string
	}{
		"all": {&storage{backlog: job.Backlog{Entries: 3, Waited: 1500 * time.Millisecond, Known: true}}, `
			relay_index_complete 1
			relay_queue_depth 3
			relay_queue_oldest_age_seconds 1.5
			relay_redis_memory_max_bytes 9
			relay_redis_memory_used_bytes 5
			relay_redis_up 1`},
		"nobody knows how long": {&storage{backlog: job.Backlog{Entries: 3}}, `
			relay_index_complete 1
			relay_queue_depth 3
			relay_redis_memory_max_bytes 9
			relay_redis_memory_used_bytes 5
			relay_redis_up 1`},
		"no load": {&storage{load: away, backlog: job.Backlog{Known: true}}, `
			relay_index_complete 1
			relay_queue_depth 0
			relay_queue_oldest_age_seconds 0
			relay_redis_up 0`},
		"no load, no index": {&storage{load: away, complete: away, backlog: job.Backlog{Known: true}}, `
			relay_queue_depth 0
			relay_queue_oldest_age_seconds 0
			relay_redis_up 0`},
		"no index": {&storage{complete: away, backlog: job.Backlog{Known: true}}, `
			relay_queue_depth 0
			relay_queue_oldest_age_seconds 0
			relay_redis_memory_max_bytes 9
			relay_redis_memory_used_bytes 5
			relay_redis_up 1`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := telemetry.NewMetrics(telemetry.Build{}, 10)
			m.WatchStorage(telemetry.Storage{Load: c.storage, Backlog: c.storage, Index: c.storage})
			var out bytes.Buffer
			log, stop := telemetry.NewLogger(&out, zap.InfoLevel)
			w := httptest.NewRecorder()
			m.Handler(log).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
			require.Equal(t, http.StatusOK, w.Code)
			shown := regexp.MustCompile(`(?m)^relay_(?:redis|queue|index_complete).*$`).FindAllString(w.Body.String(), -1)
			slices.Sort(shown)
			require.Equal(t, strings.Fields(c.shown), strings.Fields(strings.Join(shown, "\n")))
			require.NoError(t, stop())
			require.Equal(t, strings.HasPrefix(name, "no "), out.Len() > 0, "what is missing is told to the log: %s", &out)
			require.NotContains(t, out.String(), "secret")
			if out.Len() > 0 {
				require.Regexp(t, `^\{"level":"warn",[^\n]*"msg":"A scrape lacks metrics","cause":"unavailable"\}\n$`, out.String())
			}
		})
	}
}

func TestManyScrapesAskTheStorageOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &storage{}
		m := telemetry.NewMetrics(telemetry.Build{}, 10)
		m.WatchStorage(telemetry.Storage{Load: s, Backlog: s, Index: s})
		var scrapes sync.WaitGroup
		for range 50 {
			scrapes.Go(func() { _, _ = m.Registry().Gather() })
		}
		scrapes.Wait()
		require.EqualValues(t, 1, s.asked.Load())
		time.Sleep(time.Minute) // of the bubble's clock
		scrape(t, m)
		require.EqualValues(t, 2, s.asked.Load())
	})
}
