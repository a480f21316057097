package telemetry_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// labels are those of a metric, each with what its values may be.
type labels map[string]string

const (
	anyWorkspace = `[a-z0-9_][a-z0-9_-]{0,31}`
	anyVersion   = `.+`
)

// contract is every metric that an operator may rely on, apart from those of the Go runtime and the process. It is
// written out here and not taken from the code under test.
func contract() map[string]labels {
	ofWorkspace := labels{"workspace_id": anyWorkspace}
	return map[string]labels{
		"relay_job_read_path_total":              {"workspace_id": anyWorkspace, "path": `new|old|miss`},
		"relay_job_list_read_path_total":         {"workspace_id": anyWorkspace, "path": `new|old|mixed|miss`},
		"relay_job_list_results_total":           ofWorkspace,
		"relay_dual_write_attempt_total":         {"workspace_id": anyWorkspace, "result": `succeeded|failed`},
		"relay_workspace_mismatch_total":         ofWorkspace,
		"relay_workspace_mismatch_dropped_total": {},
		"relay_isolation_breach_total":           ofWorkspace,
		"relay_stale_copy_total":                 ofWorkspace,
		"relay_job_id_collision_total":           ofWorkspace,
		"relay_wrong_type_total":                 ofWorkspace,
		"relay_record_invalid_total":             ofWorkspace,
		"relay_index_not_mended_total":           ofWorkspace,
		"relay_http_request_duration_seconds": {
			"route":  `/ai/execute|/ai/jobs|/ai/jobs/\{job_id\}|/livez|/readyz|/openapi\.json|/docs|/metrics|/debug/pprof/.*|unmatched`,
			"method": `GET|HEAD|POST|PUT|PATCH|DELETE|CONNECT|OPTIONS|TRACE|other`,
			"status": `[1-5][0-9][0-9]`,
		},
		"relay_redis_command_duration_seconds":     {"command": `[a-z]+`},
		"relay_redis_pool_hits_total":              {},
		"relay_redis_pool_misses_total":            {},
		"relay_redis_pool_timeouts_total":          {},
		"relay_redis_pool_stale_connections_total": {},
		"relay_redis_pool_connections":             {},
		"relay_redis_pool_idle_connections":        {},
		"relay_redis_pool_waiting_requests":        {},
		"relay_redis_pool_wait_seconds_total":      {},
		"relay_redis_up":                           {},
		"relay_redis_memory_used_bytes":            {},
		"relay_redis_memory_max_bytes":             {},
		"relay_queue_depth":                        {},
		"relay_queue_oldest_age_seconds":           {},
		"relay_index_complete":                     {},
		"relay_build_info":                         {"version": anyVersion, "revision": anyVersion, "go_version": anyVersion},
		"relay_phase_info":                         {"phase": `legacy|canary|read routing|dual write|strict new|new only`},
	}
}

// backfillContract is the same for a backfill that serves its metrics.
func backfillContract() map[string]labels {
	return map[string]labels{
		"backfill_jobs_total":                      {"workspace_id": anyWorkspace, "result": `succeeded|failed|skipped`},
		"backfill_progress_ratio":                  {},
		"backfill_last_progress_timestamp_seconds": {},
		"backfill_rate_limit_jobs_per_second":      {},
		"backfill_work_ratio":                      {},
		"backfill_slowed": {
			"reason": `paused by its key|memory|replica lag|latency|save or rewrite running`,
		},
	}
}

const (
	limit = 30 * time.Second
	tick  = 20 * time.Millisecond
)

func parse(t *testing.T, page string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(page))
	require.NoError(t, err)
	return families
}

// requireContract holds a page to the metrics of a contract, all of them and no others, and to the conventions of
// Prometheus.
func requireContract(t *testing.T, page string, want map[string]labels) {
	t.Helper()
	problems, err := promlint.New(strings.NewReader(page)).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
	families := parse(t, page)
	for name, f := range families {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		allowed, ok := want[name]
		require.True(t, ok, "%s is new: add it with its labels", name)
		require.NotEmpty(t, f.GetHelp(), name)
		for _, m := range f.GetMetric() {
			require.Len(t, m.GetLabel(), len(allowed), name)
			for _, l := range m.GetLabel() {
				values, ok := allowed[l.GetName()]
				require.True(t, ok, "%s has a new label %s", name, l.GetName())
				require.Regexp(t, "^("+values+")$", l.GetValue(), "%s, %s", name, l.GetName())
			}
		}
	}
	for name := range want {
		require.Contains(t, families, name)
	}
}

// gauge gives the value of a metric without labels.
func gauge(t *testing.T, page, name string) float64 {
	t.Helper()
	f := parse(t, page)[name]
	require.NotNil(t, f, name)
	require.Len(t, f.GetMetric(), 1)
	return f.GetMetric()[0].GetGauge().GetValue()
}

func TestMetricsOfAServer(t *testing.T) {
	t.Parallel()
	s := serve(t, migration.DualWrite, nil)
	require.NoError(t, s.rdb.ConfigSet(t.Context(), "maxmemory", "1gb").Err())
	s.use(t)
	s.scrape(t, "")
	var page string // which has the first as a request
	require.Eventually(t, func() bool {
		page = s.scrape(t, "")
		return strings.Contains(page, "relay_redis_up 1\n") && strings.Contains(page, "relay_queue_depth ") &&
			strings.Contains(page, "relay_index_complete ")
	}, limit, tick)
	requireContract(t, page, contract())
	require.Contains(t, page, `relay_phase_info{phase="dual write"} 1`)
	require.Contains(t, page, `relay_http_request_duration_seconds_count{method="other",route="unmatched",status="405"} 1`)
	require.InDelta(t, 1<<30, gauge(t, page, "relay_redis_memory_max_bytes"), 0)
	require.Greater(t, gauge(t, page, "relay_redis_memory_used_bytes"), 500e3)
	require.InDelta(t, 1, gauge(t, page, "relay_queue_depth"), 0)
	require.InDelta(t, 30, gauge(t, page, "relay_queue_oldest_age_seconds"), 30)
	require.InDelta(t, 1, gauge(t, page, "relay_index_complete"), 0)
	for name, hidden := range map[string]string{
		"an API key": s.token["acme"], "params": inParams, "an action": inAction, "an idempotency key": inKey,
		"what was refused": inRefused, "an actor": "tester", "an address": s.redis.Addr,
	} {
		require.NotContains(t, page, hidden, name)
	}

	for range 100 {
		s.scrape(t, "")
	}
	calls := regexp.MustCompile(`cmdstat_lindex:calls=(\d+),`).FindStringSubmatch(s.rdb.Info(t.Context(), "commandstats").Val())
	require.NotNil(t, calls)
	require.LessOrEqual(t, len(calls[1]), 1, "%s questions for 102 scrapes", calls[1])
	denied, err := s.rdb.Do(t.Context(), "ACL", "LOG").Slice()
	require.NoError(t, err)
	require.Empty(t, denied, "the rights that README.md names are enough")

	require.NoError(t, s.redis.Pause())
	t.Cleanup(func() { require.NoError(t, s.redis.Resume()) })
	require.Eventually(t, func() bool { return strings.Contains(s.scrape(t, ""), "relay_redis_up 0\n") },
		limit, tick)
	page = s.scrape(t, "")
	require.Contains(t, page, "relay_build_info", "the scrape goes on without Redis")
	require.NotContains(t, page, "relay_queue_depth ")
	require.NotEmpty(t, s.Log.Message(t, "request"))
}

// backfill runs one on the predecessor's jobs until the test ends, and gives its page of metrics.
func backfill(t *testing.T, server *redisserver.Server) (page func() string) {
	t.Helper()
	redisserver.Load(t, server.Client(t), redisserver.ReadFixture(t, "../migration/testdata/predecessor.jsonl"))
	said := &harness.Buffer{}
	cmd := exec.CommandContext(t.Context(), harness.Binary(t), "migrate", "backfill", "--execute", "--rate=10", "--batch-size=10",
		"--metrics-addr=127.0.0.1:0")
	cmd.Env, cmd.Stderr = []string{"REDIS_URL=" + server.OperatorURL()}, said
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait(), "it was still running")
	})
	at := regexp.MustCompile(`metrics at (http://\S+/metrics)\n`)
	require.Eventually(t, func() bool { return at.MatchString(said.String()) }, limit, tick)
	url := at.FindStringSubmatch(said.String())[1]
	return func() string {
		return harness.Admin(t, url)
	}
}

func TestMetricsOfABackfill(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	rdb := server.Client(t)
	started := rdb.Time(t.Context()).Val()
	scrape := backfill(t, server)
	until := func(holds func(page string) bool) (page string) {
		require.Eventually(t, func() bool { page = scrape(); return holds(page) }, limit, tick)
		return page
	}
	page := until(func(page string) bool { return gauge(t, page, "backfill_progress_ratio") > 0 })
	requireContract(t, page, backfillContract())
	require.Less(t, gauge(t, page, "backfill_progress_ratio"), 1.0)
	require.GreaterOrEqual(t, gauge(t, page, "backfill_last_progress_timestamp_seconds"), float64(started.Unix()))
	require.InDelta(t, 10, gauge(t, page, "backfill_rate_limit_jobs_per_second"), 0)
	require.Contains(t, page, `backfill_slowed{reason="paused by its key"} 0`)

	require.NoError(t, rdb.Set(t.Context(), "ai:backfill-pause", "1", 0).Err())
	held := until(func(page string) bool {
		return gauge(t, page, "backfill_work_ratio") == 0 && strings.Contains(page, `backfill_slowed{reason="paused by its key"} 1`)
	})
	at := gauge(t, held, "backfill_last_progress_timestamp_seconds")
	require.NoError(t, rdb.Set(t.Context(), "ai:backfill-rate", "40", 0).Err())
	held = until(func(page string) bool { return gauge(t, page, "backfill_rate_limit_jobs_per_second") == 40 })
	require.InDelta(t, at, gauge(t, held, "backfill_last_progress_timestamp_seconds"), 0, "what is told while it is held is no progress")

	require.NoError(t, rdb.Del(t.Context(), "ai:backfill-pause").Err())
	until(func(page string) bool { return gauge(t, page, "backfill_last_progress_timestamp_seconds") > at })
	require.Contains(t, scrape(), `backfill_slowed{reason="paused by its key"} 0`)
}
