// Package telemetry_test looks at the real binary as its operator does: through metrics, traces and log lines, while
// consumers use it.
package telemetry_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/conformance"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// Texts that jobs and requests hold. No metric, trace or log line may.
const (
	inParams  = "mark-in-params-5d1f"
	inAction  = "mark-in-action-77ab"
	inKey     = "mark-in-key-90ce"
	inRefused = "mark-in-refused-31d0"
)

func TestMain(m *testing.M) {
	harness.Secret(inParams, inAction, inKey, inRefused)
	os.Exit(harness.Main(m))
}

// service is one server on a Redis of its own.
type service struct {
	*harness.Process
	redis *redisserver.Server
	rdb   *redis.Client // of the operator
	token map[string]string
}

func serve(t *testing.T, p migration.Phase, more map[string]string) *service {
	t.Helper()
	s := &service{redis: redisserver.Start(t), token: map[string]string{}}
	s.rdb = s.redis.Client(t)
	keys := harness.NewKeys(t)
	for _, ws := range []string{"acme", "globex"} {
		s.token[ws] = keys.Token(t, ws)
	}
	s.Process = harness.Start(t, harness.Environment(harness.PhaseEnvironment(p), map[string]string{
		"REDIS_URL": s.redis.URL(), "RELAY_API_KEYS_FILE": keys.Path,
	}, more))
	harness.AwaitReady(t, s.URL)
	return s
}

// send sends a request of acme's and gives the answer's status and body.
func (s *service) send(t *testing.T, method, path, body string, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+s.token["acme"])
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return exchange(t, conformance.Client(t), req)
}

func exchange(t *testing.T, client *http.Client, req *http.Request) (int, string) {
	t.Helper()
	resp, err := client.Do(req)
	require.NoError(t, err)
	content, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode, string(content)
}

const execution = `{"action_provider":"google","action_name":"` + inAction + `","params":{"to":"` + inParams + `"}}`

// execute makes a job of acme's and gives its id.
func (s *service) execute(t *testing.T, headers ...string) string {
	t.Helper()
	status, body := s.send(t, http.MethodPost, "/ai/execute", execution, headers...)
	require.Equal(t, http.StatusOK, status, body)
	var made struct {
		JobID string `json:"job_id"`
	}
	require.NoError(t, json.Unmarshal([]byte(body), &made))
	return made.JobID
}

// scrape reads the operators' page in the form that is asked for.
func (s *service) scrape(t *testing.T, accept string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.AdminURL+"/metrics", nil)
	require.NoError(t, err)
	req.Header.Set("Accept", accept)
	status, page := exchange(t, harness.Operators(), req)
	require.Equal(t, http.StatusOK, status)
	return page
}

// use sends a request of each kind, those that fail included, and gives the id of a job.
func (s *service) use(t *testing.T) string {
	t.Helper()
	id := s.execute(t, "Idempotency-Key", inKey)
	require.Equal(t, id, s.execute(t, "Idempotency-Key", inKey))
	for _, want := range []struct {
		method, path, body string
		status             int
	}{
		{http.MethodGet, "/ai/jobs/" + id, "", http.StatusOK},
		{http.MethodGet, "/ai/jobs/" + inRefused, "", http.StatusNotFound},
		{http.MethodGet, "/ai/jobs?status=pending", "", http.StatusOK},
		{http.MethodGet, "/ai/jobs?cursor=" + inRefused, "", http.StatusBadRequest},
		{http.MethodGet, "/ai/jobs?workspace_id=globex", "", http.StatusForbidden},
		{http.MethodPost, "/ai/execute", `{"` + inRefused + `":1}`, http.StatusBadRequest},
		{"BREW", "/ai/jobs", "", http.StatusMethodNotAllowed},
		{http.MethodGet, "/" + inRefused, "", http.StatusNotFound},
		{http.MethodGet, "/livez", "", http.StatusOK},
		{http.MethodGet, "/readyz", "", http.StatusOK},
	} {
		status, body := s.send(t, want.method, want.path, want.body)
		require.Equal(t, want.status, status, "%s %s: %s", want.method, want.path, body)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/ai/jobs/"+id, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+s.token["globex"])
	status, body := exchange(t, conformance.Client(t), req)
	require.Equal(t, http.StatusNotFound, status, body)
	return id
}
