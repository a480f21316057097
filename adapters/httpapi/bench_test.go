package httpapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/adapters/httpapi"
	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// instant answers everything at once and takes nothing: what is left is the edge itself. Mocks would cost more than it
// does, and cannot outlive one run of a fuzz target.
type instant struct {
	ports.JobRepository
	ports.Observer
	job job.Job // what Get finds
}

func (i instant) Authenticate(_ context.Context, credential string) (access.Principal, error) {
	if p, ok := principals()[credential]; ok {
		return p, nil
	}
	return access.Principal{}, fault.New(fault.Unauthenticated, fault.CodeInvalidToken, "unknown")
}

func (i instant) NewJobID() (job.ID, error) { return i.job.ID, nil }

func (i instant) Enqueue(_ context.Context, d job.Draft) (job.Enqueued, error) {
	return job.Enqueued{Job: job.Job{ID: d.ID, Workspace: d.Workspace, Params: d.Params}}, nil
}

func (i instant) Get(_ context.Context, ws workspace.ID, id job.ID) (job.Job, error) {
	found := i.job
	found.Workspace, found.ID = ws, id
	return found, nil
}

func (i instant) List(context.Context, workspace.ID, job.Query) (job.Page, error) {
	return job.Page{}, nil
}

func (i instant) JobsListed(workspace.ID, job.ListPath, int) {}

func (i instant) EnqueueFailed(workspace.ID, fault.Kind) {}

func (i instant) OtherWorkspaceRequested(workspace.ID, workspace.ID) {}

func (i instant) RequestServed(string, string, int, time.Duration, string) {}

// instantAPI serves a job from nowhere; jobs is what its use cases call.
func instantAPI(tb testing.TB, jobs func(instant) ports.JobRepository) *httpapi.API {
	tb.Helper()
	return tracedAPI(tb, jobs, nil)
}

func tracedAPI(tb testing.TB, jobs func(instant) ports.JobRepository, tracer trace.Tracer) *httpapi.API {
	tb.Helper()
	i := instant{job: job.Job{
		ID: jobID(tb, newJobID), Status: job.Pending, Provider: "google", Name: "gmail.send", Actor: "ada",
		EnqueuedAt: time.Date(2026, 11, 21, 19, 28, 54, 17837000, time.UTC),
		Params:     `{"to":"ada@example.com","subject":"Hello","body":"Some words that make a mail of it."}`,
	}}
	gate := usecase.Gate{Auth: i, Observer: i}
	api, err := httpapi.New(httpapi.Config{
		Execute:  usecase.Execute{Gate: gate, Jobs: jobs(i), IDs: i},
		GetJob:   usecase.GetJob{Gate: gate, Jobs: jobs(i)},
		ListJobs: usecase.ListJobs{Gate: gate, Jobs: jobs(i)},
		Requests: i, Tracer: tracer, Log: zap.NewNop(),
	})
	require.NoError(tb, err)
	return api
}

// BenchmarkGetJob is a request without its network, once without traces and once for each way in which they are on.
func BenchmarkGetJob(b *testing.B) {
	tracer := func(ratio float64) trace.Tracer {
		return sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.TraceIDRatioBased(ratio))).Tracer("")
	}
	for _, c := range []struct {
		name   string
		tracer trace.Tracer
	}{{"traces off", nil}, {"not sampled", tracer(0)}, {"sampled", tracer(1)}} {
		b.Run(c.name, func(b *testing.B) {
			api := tracedAPI(b, func(i instant) ports.JobRepository { return i }, c.tracer)
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/ai/jobs/"+newJobID, nil)
			r.Header.Set("Authorization", "Bearer good")
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				api.Handler().ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					b.Fatal(w.Body)
				}
			}
		})
	}
}
