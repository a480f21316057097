package telemetry_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/telemetry"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
)

func copied(t *testing.T, ws string, o migration.CopyOutcome) migration.Copied {
	t.Helper()
	id, err := workspace.Parse(ws)
	require.NoError(t, err)
	return migration.Copied{Job: migration.JobRef{Workspace: id}, Outcome: o}
}

func TestBackfillCountsEveryOutcomeByWorkspace(t *testing.T) {
	t.Parallel()
	b := telemetry.NewBackfill(2)
	for _, o := range migration.CopyOutcomes() {
		b.Count(copied(t, "acme", o))
	}
	b.Count(copied(t, "globex", migration.CopyMade))
	b.Count(copied(t, "initech", migration.CopyMade))
	b.Count(copied(t, "hooli", migration.CopyConflict))
	b.Count(copied(t, "acme", migration.CopyMade))
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	require.Equal(t, http.StatusOK, w.Code)
	for _, want := range []string{
		`backfill_jobs_total{result="succeeded",workspace_id="acme"} 4`, // made twice, repaired, ttl
		`backfill_jobs_total{result="failed",workspace_id="acme"} 4`,    // conflict, foreign, contradiction, wrong-type
		`backfill_jobs_total{result="skipped",workspace_id="acme"} 3`,   // absent, identical, single
		`backfill_jobs_total{result="succeeded",workspace_id="globex"} 1`,
		`backfill_jobs_total{result="failed",workspace_id="globex"} 0`,
		`backfill_jobs_total{result="succeeded",workspace_id="_other"} 1`,
		`backfill_jobs_total{result="failed",workspace_id="_other"} 1`,
	} {
		require.Contains(t, w.Body.String(), want+"\n")
	}
	require.NotContains(t, w.Body.String(), "initech")
}

func TestBackfillIsPushedUnderItsInstance(t *testing.T) {
	t.Parallel()
	var request, body string
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		if err != nil || request != "" {
			w.WriteHeader(http.StatusBadRequest)
		}
		request, body = r.Method+" "+r.URL.Path, string(content)
	}))
	t.Cleanup(gateway.Close)
	b := telemetry.NewBackfill(2)
	b.Count(copied(t, "acme", migration.CopyMade))
	require.NoError(t, b.Push(t.Context(), gateway.URL, "box"))
	require.Equal(t, "PUT /metrics/job/relay_backfill/instance/box", request)
	require.Contains(t, body, `backfill_jobs_total{result="succeeded",workspace_id="acme"} 1`+"\n")
	require.ErrorContains(t, b.Push(t.Context(), gateway.URL, "box"), "400", "a gateway that refuses is told of")
}
