package telemetry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/relay-jobs/relay/adapters/telemetry"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

var _ ports.Observer = (*telemetry.Observer)(nil)

func parse(t testing.TB, s string) workspace.ID {
	t.Helper()
	id, err := workspace.Parse(s)
	require.NoError(t, err)
	return id
}

func jobID(t testing.TB, s string) job.ID {
	t.Helper()
	id, err := job.ParseID(s)
	require.NoError(t, err)
	return id
}

// open gives an observer, and what it logged so far, which is whole once the observer is closed.
func open(t testing.TB, labelCap int, level zapcore.Level) (*telemetry.Observer, *telemetry.Metrics, func() []map[string]any) {
	t.Helper()
	var out bytes.Buffer
	log, stop := telemetry.NewLogger(&out, level)
	metrics := telemetry.NewMetrics(telemetry.Build{Version: "v1", Revision: "abc", GoVersion: "go1"}, labelCap)
	o := telemetry.NewObserver(metrics, log)
	t.Cleanup(o.Close)
	return o, metrics, func() []map[string]any {
		o.Close()
		require.NoError(t, stop())
		var lines []map[string]any
		for line := range strings.Lines(out.String()) {
			var fields map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &fields), line)
			lines = append(lines, fields)
		}
		return lines
	}
}

// value gives the value of a counter with exactly these labels, and whether there is one.
func value(t testing.TB, g prometheus.Gatherer, name string, labels map[string]string) (float64, bool) {
	t.Helper()
	families, err := g.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			match := f.GetName() == name && len(m.GetLabel()) == len(labels)
			for _, l := range m.GetLabel() {
				match = match && labels[l.GetName()] == l.GetValue()
			}
			if match {
				return m.GetCounter().GetValue(), true
			}
		}
	}
	return 0, false
}

func TestEventsAreCountedUnderTheNamesThatAlertsUse(t *testing.T) {
	t.Parallel()
	acme := parse(t, "acme")
	o, metrics, log := open(t, 10, zapcore.InfoLevel)

	o.JobRead(acme, jobID(t, "j"), job.CopyNew)
	o.JobRead(acme, jobID(t, "j"), job.CopyOld)
	o.JobRead(acme, jobID(t, "j"), job.CopyOld)
	o.JobRead(acme, jobID(t, "j"), job.CopyNone)
	o.JobsListed(acme, job.ListMixed, 7)
	o.JobsListed(acme, job.ListNew, 2)
	o.JobsListed(acme, job.ListMiss, 0)
	o.DualWritten(acme, true)
	o.DualWritten(acme, false)
	o.StaleCopyRead(acme)
	o.WorkspaceMismatch(acme, parse(t, "other"))
	o.IsolationBreach(acme)
	o.IDCollision(acme)
	o.WrongTypeRead(acme)
	o.IndexNotMended(acme)
	o.RecordInvalid(acme)
	log()

	type labels = map[string]string
	for _, want := range []struct {
		name   string
		labels labels
		n      float64
	}{
		{"relay_job_read_path_total", labels{"path": "new"}, 1},
		{"relay_job_read_path_total", labels{"path": "old"}, 2},
		{"relay_job_read_path_total", labels{"path": "miss"}, 1},
		{"relay_job_list_read_path_total", labels{"path": "mixed"}, 1},
		{"relay_job_list_read_path_total", labels{"path": "new"}, 1},
		{"relay_job_list_read_path_total", labels{"path": "old"}, 0},
		{"relay_job_list_read_path_total", labels{"path": "miss"}, 1},
		{"relay_job_list_results_total", labels{}, 9},
		{"relay_dual_write_attempt_total", labels{"result": "succeeded"}, 1},
		{"relay_dual_write_attempt_total", labels{"result": "failed"}, 1},
		{"relay_workspace_mismatch_total", labels{}, 1},
		{"relay_isolation_breach_total", labels{}, 1},
		{"relay_stale_copy_total", labels{}, 1},
		{"relay_job_id_collision_total", labels{}, 1},
		{"relay_wrong_type_total", labels{}, 1},
		{"relay_record_invalid_total", labels{}, 1},
		{"relay_index_not_mended_total", labels{}, 1},
	} {
		want.labels["workspace_id"] = "acme"
		n, ok := value(t, metrics.Registry(), want.name, want.labels)
		require.True(t, ok, "%s %v", want.name, want.labels)
		require.InDelta(t, want.n, n, 0, "%s %v", want.name, want.labels)
	}
	_, other := value(t, metrics.Registry(), "relay_workspace_mismatch_total", labels{"workspace_id": "other"})
	require.False(t, other, "a mismatch is counted under the workspace that asked")

	problems, err := testutil.GatherAndLint(metrics.Registry())
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestWorkspacesPastTheCapShareOneLabel(t *testing.T) {
	t.Parallel()
	o, metrics, log := open(t, 3, zapcore.InfoLevel)
	var wg sync.WaitGroup
	for i := range 50 {
		ws, id := parse(t, fmt.Sprintf("w%d", i)), jobID(t, "j")
		wg.Go(func() { o.JobRead(ws, id, job.CopyNew) })
	}
	wg.Wait()
	log()

	families, err := metrics.Registry().Gather()
	require.NoError(t, err)
	seen := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "workspace_id" && f.GetName() == "relay_job_read_path_total" {
					seen[l.GetValue()] += m.GetCounter().GetValue()
				}
				require.Contains(t, []string{
					"workspace_id", "path", "result", "route", "method", "status", "command", "version", "revision", "go_version",
				}, l.GetName(), "a label that may hold what no label may")
			}
		}
	}
	require.Len(t, seen, 4)
	require.InDelta(t, 47, seen["_other"], 0)
}

func TestLogHasTheAuditTrail(t *testing.T) {
	t.Parallel()
	acme, globex := parse(t, "acme"), parse(t, "globex")
	o, _, log := open(t, 10, zapcore.InfoLevel)
	o.JobRead(acme, jobID(t, "quiet"), job.CopyNew)
	o.OtherWorkspaceRequested(acme, globex)
	o.WorkspaceMismatch(acme, globex)
	o.WorkspaceMismatch(acme, workspace.ID{}) // a miss that met nobody's record
	o.EnqueueFailed(acme, fault.Unavailable)

	lines := log()
	for _, line := range lines {
		require.NotEmpty(t, line["time"])
		require.NotContains(t, line, "stacktrace")
		delete(line, "time")
	}
	require.ElementsMatch(t, []map[string]any{
		{"level": "warn", "msg": "Workspace mismatch in request", "request_workspace": "acme", "given_workspace": "globex"},
		{
			"level": "warn", "msg": "Workspace mismatch during fallback",
			"request_workspace": "acme", "stored_workspace": "globex",
		},
		{
			"level": "error", "msg": "Failed to enqueue job for workspace (job_id logged internally)",
			"workspace_id": "acme", "reason": "unavailable",
		},
	}, lines)
}

func TestReadsAreLoggedAtDebugAndHostileIDsStayOnTheirLine(t *testing.T) {
	t.Parallel()
	o, _, log := open(t, 10, zapcore.DebugLevel)
	o.JobRead(parse(t, "acme"), jobID(t, "x\n{\"level\":\"error\"}\xff"), job.CopyNone)
	lines := log()
	require.Len(t, lines, 1)
	require.Equal(t, "debug", lines[0]["level"])
	require.Equal(t, "acme", lines[0]["workspace_id"])
	require.Equal(t, "x\n{\"level\":\"error\"}\uFFFD", lines[0]["job_id"])
	require.Equal(t, "miss", lines[0]["path"])
}

func TestMismatchesReachTheLogWithoutAClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		metrics := telemetry.NewMetrics(telemetry.Build{}, 10)
		o := telemetry.NewObserver(metrics, zap.NewNop())
		defer o.Close()
		count := func() float64 {
			n, _ := value(t, metrics.Registry(), "relay_workspace_mismatch_total", map[string]string{"workspace_id": "acme"})
			return n
		}
		o.WorkspaceMismatch(parse(t, "acme"), parse(t, "globex"))
		require.Zero(t, count(), "nothing happens on the request's path")
		time.Sleep(time.Second) // of the bubble's clock
		synctest.Wait()
		require.InDelta(t, 1, count(), 0)
	})
}

func TestMismatchesPastTheBufferAreCountedAsDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		metrics := telemetry.NewMetrics(telemetry.Build{}, 10)
		o := telemetry.NewObserver(metrics, zap.NewNop())
		const many = 50_000
		for range many {
			o.WorkspaceMismatch(parse(t, "acme"), parse(t, "globex"))
		}
		o.Close()
		kept, _ := value(t, metrics.Registry(), "relay_workspace_mismatch_total", map[string]string{"workspace_id": "acme"})
		dropped, _ := value(t, metrics.Registry(), "relay_workspace_mismatch_dropped_total", nil)
		require.Positive(t, kept)
		require.Positive(t, dropped)
		require.InDelta(t, many, kept+dropped, 0)
	})
}

func TestObservingAllocatesNothing(t *testing.T) {
	o, metrics, _ := open(t, 10, zapcore.InfoLevel)
	acme, globex, id := parse(t, "acme"), parse(t, "globex"), jobID(t, "j")
	o.JobRead(acme, id, job.CopyNew)
	o.Close() // what it logs in between would count, too
	for name, f := range map[string]func(){
		"JobRead":           func() { o.JobRead(acme, id, job.CopyNew) },
		"a miss":            func() { o.JobRead(acme, id, job.CopyNone) },
		"WorkspaceMismatch": func() { o.WorkspaceMismatch(acme, globex) },
		"JobsListed":        func() { o.JobsListed(acme, job.ListNew, 3) },
		"DualWritten":       func() { o.DualWritten(acme, true) },
		"RequestServed":     func() { metrics.RequestServed("/ai/jobs", "GET", 200, time.Millisecond, "") },
	} {
		require.LessOrEqual(t, testing.AllocsPerRun(1000, f), 0.0, name)
	}
}

// BenchmarkRequest is all that is observed of one request, whose access line is not part of it.
func BenchmarkRequest(b *testing.B) {
	o, m, _ := open(b, 1000, zapcore.InfoLevel)
	id, globex := jobID(b, "j"), parse(b, "globex")
	ids := make([]workspace.ID, 1000)
	for i := range ids {
		ids[i] = parse(b, fmt.Sprintf("workspace-%d", i))
		o.JobRead(ids[i], id, job.CopyNew)
	}
	for _, c := range []struct {
		name, route, method string
		observe             func(ws workspace.ID)
	}{
		{"execute", "/ai/execute", "POST", func(ws workspace.ID) { o.DualWritten(ws, true) }},
		{"get", "/ai/jobs/{job_id}", "GET", func(ws workspace.ID) { o.JobRead(ws, id, job.CopyNew) }},
		{"get of a stale copy", "/ai/jobs/{job_id}", "GET", func(ws workspace.ID) {
			o.StaleCopyRead(ws)
			o.JobRead(ws, id, job.CopyOld)
		}},
		{"get of another workspace's", "/ai/jobs/{job_id}", "GET", func(ws workspace.ID) {
			o.WorkspaceMismatch(ws, globex)
			o.JobRead(ws, id, job.CopyNone)
		}},
		{"list", "/ai/jobs", "GET", func(ws workspace.ID) { o.JobsListed(ws, job.ListMixed, 50) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c.observe(ids[i%len(ids)])
				m.RequestServed(c.route, c.method, 200, time.Millisecond, "")
			}
		})
	}
}
