package telemetry_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/adapters/telemetry"
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
