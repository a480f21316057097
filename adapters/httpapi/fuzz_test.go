package httpapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/job"
)

// FuzzExecuteBody: whatever the body, an answer that the document knows and no failure of ours; and what is accepted
// is an object of JSON within the limits.
func FuzzExecuteBody(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `null`, `[]`, `{"action_provider":"p","action_name":"n"}`,
		`{"action_provider":"p","action_name":"n","params":{"a":[1e400,"\u00e9",{"b":null}]},"workspace_id":"acme"}`,
		`{"action_provider":"p","action_name":"n","params":{"a":1,"a":2}}`,
		`{"action_provider":"p","action_name":"n","client_request_id":"k"}`, `{"params":` + strings.Repeat(`{"a":`, 70),
		"\xff", `{"\ud800":1}`, `{"action_provider":1,"action_name":null,"params":[]}`, `{"a":0}{"a":0}`,
	} {
		f.Add([]byte(seed), "application/json", "k")
	}
	f.Fuzz(func(t *testing.T, body []byte, contentType, key string) {
		e := newEdge(t)
		e.observer.EXPECT().OtherWorkspaceRequested(gomock.Any(), gomock.Any()).AnyTimes()
		e.jobs.EXPECT().Enqueue(gomock.Any(), gomock.Any()).AnyTimes().DoAndReturn(
			func(_ context.Context, d job.Draft) (job.Enqueued, error) {
				require.True(t, d.Params.Valid())
				require.True(t, strings.HasPrefix(string(d.Params), "{"))
				require.LessOrEqual(t, len(d.Params), 256<<10)
				require.NotEmpty(t, d.Provider)
				require.NotEmpty(t, d.Name)
				return job.Enqueued{Job: job.Job{ID: d.ID, Workspace: d.Workspace}}, nil
			})
		a := execute(string(body)).with("Content-Type", contentType)
		if key != "" {
			a = a.with("Idempotency-Key", key)
		}
		require.Less(t, e.do(a).Code, http.StatusInternalServerError)
	})
}

// FuzzParameters: whatever the query and the id, an answer that the document knows and no failure of ours.
func FuzzParameters(f *testing.F) {
	for _, seed := range []string{
		"", "limit=1", "limit=%zz", "cursor=new:1:old:0:after:a%2520", "status=pending&workspace_id=acme", "&&", "a=1;b=2",
		"workspace_id=", "limit=1&limit=2", "cursor=at:1:a", "cursor=18446744073709551616", "%00=%ff",
	} {
		f.Add(seed, "a%2Fb", "Bearer good")
	}
	f.Add("", "%", "Bearer  good")
	f.Add("", "a/../b", "bearer")
	f.Fuzz(func(t *testing.T, query, id, authorization string) {
		e := newEdge(t).serving()
		e.observer.EXPECT().OtherWorkspaceRequested(gomock.Any(), gomock.Any()).AnyTimes()
		for _, path := range []string{"/ai/jobs", "/ai/jobs/" + id, "/livez", "/" + id} {
			target, err := url.ParseRequestURI(path + "?" + query)
			if err != nil {
				continue // net/http refuses it as well
			}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.URL = target
			r.Header.Set("Authorization", authorization)
			require.Less(t, e.serve(r).Code, http.StatusInternalServerError)
		}
	})
}
