package httpapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/adapters/httpapi"
	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// instant answers at once and takes nothing: what is left is the edge's own cost.
type instant struct {
	ports.JobRepository
	ports.Observer
	job job.Job
}

func (i instant) Authenticate(context.Context, string) (access.Principal, error) {
	return access.Principal{
		Workspace: "acme", Actor: "ada", Scopes: []access.Scope{access.ScopeExecute, access.ScopeJobsRead},
	}, nil
}

func (i instant) Get(context.Context, workspace.ID, job.ID) (job.Job, error) { return i.job, nil }

func (i instant) RequestServed(string, string, int, time.Duration) {}

func BenchmarkGetJob(b *testing.B) {
	id, err := job.ParseID(newJobID)
	require.NoError(b, err)
	ws, err := workspace.Parse("acme")
	require.NoError(b, err)
	at := time.Date(2026, 11, 21, 19, 28, 54, 17837000, time.UTC)
	i := instant{job: job.Job{
		ID: id, Workspace: ws, Status: job.Pending, Provider: "google", Name: "gmail.send", Actor: "ada", EnqueuedAt: at,
		Params: `{"to":"ada@example.com","subject":"Hello","body":"Some words that make a mail of it."}`,
	}}
	gate := usecase.Gate{Auth: i, Observer: i}
	api, err := httpapi.New(httpapi.Config{
		Execute: usecase.Execute{Gate: gate}, GetJob: usecase.GetJob{Gate: gate, Jobs: i},
		ListJobs: usecase.ListJobs{Gate: gate}, Requests: i, Log: zap.NewNop(),
	})
	require.NoError(b, err)
	r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/ai/jobs/"+newJobID, nil)
	r.Header.Set("Authorization", "Bearer relay_sk_token")
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		api.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}
