package httpapi_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/httpapi"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/ports"
)

// FuzzExecuteBody: whatever the body, an answer with a known code and no failure of ours; and what is accepted
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
	got := make(chan job.Draft, 1)
	api := instantAPI(f, func(i instant) ports.JobRepository { return drafts{i, got} })
	f.Fuzz(func(t *testing.T, body []byte, contentType, key string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/ai/execute", bytes.NewReader(body))
		r.Header.Set("Authorization", "Bearer good")
		r.Header.Set("Content-Type", contentType)
		if key != "" {
			r.Header.Set("Idempotency-Key", key)
		}
		if !answered(t, api, r, body) {
			require.Empty(t, got)
			return
		}
		d := <-got
		require.True(t, d.Params.Valid())
		require.True(t, strings.HasPrefix(string(d.Params), "{"))
		require.LessOrEqual(t, len(d.Params), 256<<10)
		require.NotEmpty(t, d.Provider)
		require.NotEmpty(t, d.Name)
	})
}

// answered sends r, with a body, and tells whether it was allowed. Anything else must be a problem that is no failure of
// ours.
func answered(t *testing.T, api *httpapi.API, r *http.Request, body []byte) bool {
	t.Helper()
	w := httptest.NewRecorder()
	api.Handler().ServeHTTP(w, r)
	conforms(t, r, string(body), w)
	if w.Code == http.StatusOK {
		return true
	}
	require.Less(t, w.Code, http.StatusInternalServerError)
	require.True(t, problemIn(t, w).Code.Valid())
	return false
}

// drafts shows what was enqueued.
type drafts struct {
	instant
	got chan job.Draft
}

func (d drafts) Enqueue(ctx context.Context, draft job.Draft) (job.Enqueued, error) {
	d.got <- draft
	return d.instant.Enqueue(ctx, draft)
}

// FuzzParameters: whatever the query and the id, an answer with a known code and no failure of ours.
func FuzzParameters(f *testing.F) {
	for _, seed := range []string{
		"", "limit=1", "limit=%zz", "cursor=new:1:old:0:after:a%2520", "status=pending&workspace_id=acme", "&&", "a=1;b=2",
		"workspace_id=", "limit=1&limit=2", "cursor=at:1:a", "cursor=18446744073709551616", "%00=%ff",
	} {
		f.Add(seed, "a%2Fb", "Bearer good")
	}
	f.Add("", "%", "Bearer  good")
	f.Add("", "a/../b", "bearer")
	api := instantAPI(f, func(i instant) ports.JobRepository { return i })
	f.Fuzz(func(t *testing.T, query, id, authorization string) {
		for _, path := range []string{"/ai/jobs", "/ai/jobs/" + id, "/livez", "/" + id} {
			target, err := url.ParseRequestURI(path + "?" + query)
			if err != nil {
				continue // net/http refuses it as well
			}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.URL = target
			r.Header.Set("Authorization", authorization)
			answered(t, api, r, nil)
		}
	})
}
