package httpapi_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/relay-jobs/relay/adapters/httpapi"
	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
	"github.com/relay-jobs/relay/ports/portsmock"
)

const newJobID = "0198c5b2-7c1e-7f3a-9d55-0c6f3f6f0a11"

// edge is an API whose ports are mocks. A repository call that a test does not expect fails it.
type edge struct {
	t        testing.TB
	api      *httpapi.API
	jobs     *portsmock.MockJobRepository
	observer *portsmock.MockObserver
	logs     *observer.ObservedLogs
	served   []served
	doc      *openapi3.T
}

type served struct {
	route, method string
	status        int
}

func (e *edge) RequestServed(route, method string, status int, _ time.Duration, _ string) {
	e.served = append(e.served, served{route, method, status})
}

// principals are what the credentials of these tests prove; any other proves nothing.
func principals() map[string]access.Principal {
	both := []access.Scope{access.ScopeExecute, access.ScopeJobsRead}
	return map[string]access.Principal{
		"good":       {Workspace: "acme", Actor: "ada", Scopes: both},
		"neighbour":  {Workspace: "acme-eu", Actor: "eve", Scopes: both},
		"reader":     {Workspace: "acme", Actor: "ada", Scopes: both[1:]},
		"executor":   {Workspace: "acme", Actor: "ada", Scopes: both[:1]},
		"homeless":   {Actor: "ada", Scopes: both},
		"misplaced":  {Workspace: "acme\n", Actor: "ada", Scopes: both},
		"powerless":  {Workspace: "acme", Actor: "ada"},
		"nobody":     {},
		"aZ09-._~+/": {Workspace: "acme", Actor: "ada", Scopes: both},
		"padded==":   {Workspace: "acme", Actor: "ada", Scopes: both},
	}
}

func newEdge(tb testing.TB, checks ...ports.HealthCheck) *edge {
	tb.Helper()
	ctrl := gomock.NewController(tb)
	auth := portsmock.NewMockAuthProvider(ctrl)
	auth.EXPECT().Authenticate(gomock.Any(), gomock.Any()).AnyTimes().DoAndReturn(
		func(_ context.Context, credential string) (access.Principal, error) {
			if p, ok := principals()[credential]; ok {
				return p, nil
			}
			return access.Principal{}, fault.New(fault.Unauthenticated, fault.CodeInvalidToken, "unknown key 7")
		})
	ids := portsmock.NewMockJobIDs(ctrl)
	ids.EXPECT().NewJobID().AnyTimes().Return(jobID(tb, newJobID), nil)

	core, logs := observer.New(zapcore.DebugLevel)
	e := &edge{
		t: tb, logs: logs, doc: loadDocument(tb),
		jobs: portsmock.NewMockJobRepository(ctrl), observer: portsmock.NewMockObserver(ctrl),
	}
	e.observer.EXPECT().JobsListed(gomock.Any(), gomock.Any(), gomock.Any()).AnyTimes()
	e.observer.EXPECT().EnqueueFailed(gomock.Any(), gomock.Any()).AnyTimes()
	gate := usecase.Gate{Auth: auth, Observer: e.observer}
	api, err := httpapi.New(httpapi.Config{
		Execute:  usecase.Execute{Gate: gate, Jobs: e.jobs, IDs: ids},
		GetJob:   usecase.GetJob{Gate: gate, Jobs: e.jobs},
		ListJobs: usecase.ListJobs{Gate: gate, Jobs: e.jobs},
		Checks:   checks, Requests: e, Log: zap.New(core),
	})
	require.NoError(tb, err)
	e.api = api
	return e
}

// serving makes every call of the repository succeed.
func (e *edge) serving() *edge {
	e.jobs.EXPECT().Enqueue(gomock.Any(), gomock.Any()).AnyTimes().DoAndReturn(
		func(_ context.Context, d job.Draft) (job.Enqueued, error) {
			return job.Enqueued{Job: job.Job{
				ID: d.ID, Workspace: d.Workspace, Provider: d.Provider, Name: d.Name, Params: d.Params,
			}}, nil
		})
	e.jobs.EXPECT().Get(gomock.Any(), gomock.Any(), gomock.Any()).AnyTimes().DoAndReturn(
		func(_ context.Context, ws workspace.ID, id job.ID) (job.Job, error) {
			return job.Job{ID: id, Workspace: ws, Status: job.Pending}, nil
		})
	e.jobs.EXPECT().List(gomock.Any(), gomock.Any(), gomock.Any()).AnyTimes().DoAndReturn(
		func(_ context.Context, ws workspace.ID, q job.Query) (job.Page, error) {
			status := q.Status
			if status == "" {
				status = job.Pending
			}
			return job.Page{Jobs: []job.Job{{ID: jobID(e.t, "a"), Workspace: ws, Status: status}}}, nil
		})
	return e
}

// ask is one request.
type ask struct {
	method, target, credential string
	header                     http.Header
	body                       string
	reader                     io.Reader // instead of body
}

func list(query string) ask {
	return ask{method: http.MethodGet, target: "/ai/jobs" + query, credential: "good"}
}

func get(rest string) ask {
	return ask{method: http.MethodGet, target: "/ai/jobs/" + rest, credential: "good"}
}

func execute(body string) ask {
	return ask{
		method: http.MethodPost, target: "/ai/execute", credential: "good", body: body,
		header: http.Header{"Content-Type": {"application/json"}},
	}
}

func executeWith(members string) ask {
	return execute(`{"action_provider":"google","action_name":"gmail.send",` + members + `}`)
}

func (a ask) as(credential string) ask {
	a.credential = credential
	return a
}

func (a ask) with(name string, values ...string) ask {
	a.header = a.header.Clone()
	if a.header == nil {
		a.header = http.Header{}
	}
	a.header[http.CanonicalHeaderKey(name)] = values
	return a
}

// do sends a request and holds the answer against the document.
func (e *edge) do(a ask) *httptest.ResponseRecorder {
	e.t.Helper()
	var body io.Reader = strings.NewReader(a.body)
	if a.reader != nil {
		body = a.reader
	}
	r := httptest.NewRequestWithContext(e.t.Context(), a.method, a.target, body)
	if a.header != nil {
		r.Header = a.header.Clone()
	}
	if a.credential != "" && r.Header.Get("Authorization") == "" {
		r.Header.Set("Authorization", "Bearer "+a.credential)
	}
	return e.serve(r)
}

func (e *edge) serve(r *http.Request) *httptest.ResponseRecorder {
	e.t.Helper()
	w := httptest.NewRecorder()
	e.api.Handler().ServeHTTP(w, r)
	conforms(e.t, e.doc, r, w)
	return w
}

// conforms holds an answer against the document: status, headers, media type, and body by its schema.
func conforms(tb testing.TB, doc *openapi3.T, r *http.Request, w *httptest.ResponseRecorder) {
	tb.Helper()
	require.NotEmpty(tb, w.Header().Get("X-Request-Id"))
	require.Equal(tb, "no-store", w.Header().Get("Cache-Control"))
	if r.Method == http.MethodOptions {
		return // has no schema: the document describes it in words
	}
	path := r.URL.EscapedPath()
	if id, ok := strings.CutPrefix(path, "/ai/jobs/"); ok && id != "" && !strings.Contains(id, "/") {
		path = "/ai/jobs/{job_id}"
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	item := doc.Paths.Value(path)
	var operation *openapi3.Operation
	switch {
	case item == nil:
		operation = &openapi3.Operation{Responses: openapi3.NewResponses(
			openapi3.WithStatus(http.StatusNotFound, doc.Components.Responses["RouteNotFound"]))}
	case item.Operations()[method] == nil:
		operation = &openapi3.Operation{Responses: openapi3.NewResponses(
			openapi3.WithStatus(http.StatusMethodNotAllowed, doc.Components.Responses["MethodNotAllowed"]))}
	default:
		operation = item.Operations()[method]
	}
	asked := r.Clone(tb.Context())
	asked.Method = method // the validator would take nothing of an answer to HEAD for wrong
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{
			Request: asked,
			Route:   &routers.Route{Spec: doc, Path: path, PathItem: item, Method: method, Operation: operation},
		},
		Status: w.Code, Header: w.Header(),
		Options: &openapi3filter.Options{
			IncludeResponseStatus: true, MultiError: true,
			ExcludeResponseBody: w.Header().Get("Content-Type") == "text/html; charset=utf-8", // not JSON
		},
	}
	input.SetBodyBytes(w.Body.Bytes())
	require.NoError(tb, openapi3filter.ValidateResponse(tb.Context(), input), "%s %s: %d\n%s", method, path, w.Code, w.Body)
}

// parsed is the document, which takes its time to read and is never changed.
var parsed = sync.OnceValues(func() (*openapi3.T, error) { //nolint:gochecknoglobals // read-only
	return openapi3.NewLoader().LoadFromFile("openapi.yaml")
})

func loadDocument(tb testing.TB) *openapi3.T {
	tb.Helper()
	doc, err := parsed()
	require.NoError(tb, err)
	return doc
}

func jobID(tb testing.TB, s string) job.ID {
	tb.Helper()
	id, err := job.ParseID(s)
	require.NoError(tb, err)
	return id
}

func workspaceID(tb testing.TB, s string) workspace.ID {
	tb.Helper()
	id, err := workspace.Parse(s)
	require.NoError(tb, err)
	return id
}

func problemIn(tb testing.TB, w *httptest.ResponseRecorder) httpapi.Problem {
	tb.Helper()
	var p httpapi.Problem
	require.NoError(tb, json.Unmarshal(w.Body.Bytes(), &p), w.Body)
	require.Equal(tb, "application/problem+json", w.Header().Get("Content-Type"))
	require.Equal(tb, w.Code, p.Status)
	require.Equal(tb, w.Header().Get("X-Request-Id"), p.RequestID)
	require.Equal(tb, "/docs#code-"+string(p.Code), p.Type)
	return p
}

// query escapes parameters.
func query(parameters map[string]string) string {
	values := url.Values{}
	for name, value := range parameters {
		values.Set(name, value)
	}
	return "?" + values.Encode()
}
