package migration_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/conformance"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// server is the service in one phase, with a token for each workspace.
type server struct {
	*harness.Service

	phase  migration.Phase
	tokens map[string]string
	http   *http.Client
}

// serve runs the service in a phase.
func serve(t *testing.T, redis *redisserver.Server, phase migration.Phase, workspaces []string) server {
	t.Helper()
	keys := harness.NewKeys(t)
	s := server{phase: phase, tokens: make(map[string]string), http: conformance.Client(t)}
	for _, ws := range workspaces {
		s.tokens[ws] = keys.Token(t, ws)
	}
	s.Service = harness.Boot(t, harness.Environment(harness.PhaseEnvironment(phase), map[string]string{
		"REDIS_URL": redis.URL(), "RELAY_API_KEYS_FILE": keys.Path,
	}))
	return s
}

// get asks as a workspace and gives the status and the whole answer.
func (s server) get(t *testing.T, ws, path string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+s.tokens[ws])
	resp, err := s.http.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, body
}

// job asks for one job.
func (s server) job(t *testing.T, ws, id string) (int, map[string]any) {
	t.Helper()
	status, body := s.get(t, ws, "/ai/jobs/"+percent(id))
	v, err := decode(strings.NewReader(string(body)))
	require.NoError(t, err, "%s", body)
	return status, v.(map[string]any)
}

// percent encodes every byte of an id that is no letter or digit, so that no part of a URL is made of it.
func percent(id string) string {
	var b strings.Builder
	for i := range len(id) {
		if c := id[i]; c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// page is one answer to a list.
type page struct {
	jobs []map[string]any
	next string // empty at the end
}

const maxPageBytes = 1 << 20

// page asks for one page and checks its form.
func (s server) page(t *testing.T, ws string, limit int, status, cursor string) page {
	t.Helper()
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if status != "" {
		q.Set("status", status)
	}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	code, body := s.get(t, ws, "/ai/jobs?"+q.Encode())
	require.Equal(t, http.StatusOK, code, "%s", body)
	v, err := decode(strings.NewReader(string(body)))
	require.NoError(t, err)
	answer := v.(map[string]any)
	var p page
	last := "9999"
	for _, j := range answer["jobs"].([]any) {
		j := j.(map[string]any)
		at, _ := j["enqueued_at"].(string) // null comes last
		require.LessOrEqual(t, at, last, "a page is newest first")
		last = at
		p.jobs = append(p.jobs, j)
	}
	require.LessOrEqual(t, len(p.jobs), limit)
	require.True(t, len(p.jobs) < 2 || len(body) < maxPageBytes+256, "a page of %d bytes", len(body))
	require.Equal(t, strconv.Itoa(len(p.jobs)), fmt.Sprint(answer["count"]))
	require.Len(t, answer, 3)
	p.next, _ = answer["next_cursor"].(string) // null at the end
	require.Equal(t, answer["next_cursor"] == nil, p.next == "")
	return p
}

const maxPages = 20_000

// walk goes through all pages, each asked of the server that turn names, and hands each job to found.
func walk(t *testing.T, turn func(n int) server, ws string, limit int, status, cursor string, found func(server, map[string]any)) {
	t.Helper()
	for n := range maxPages {
		s := turn(n)
		p := s.page(t, ws, limit, status, cursor)
		for _, j := range p.jobs {
			found(s, j)
		}
		if p.next == "" {
			return
		}
		cursor = p.next
	}
	require.FailNow(t, "the walk does not end")
}

// counters reads the named counters of the admin listener: name{labels} to value.
func (s server) counters(t *testing.T) map[string]float64 {
	t.Helper()
	values := make(map[string]float64)
	for line := range strings.Lines(harness.Admin(t, s.AdminURL+"/metrics")) {
		name, number, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if !ok || !strings.HasPrefix(name, "relay_") {
			continue
		}
		var err error
		values[name+"}"], err = strconv.ParseFloat(number, 64)
		require.NoError(t, err, line)
	}
	return values
}

// requireCounted waits until the counters have grown by as much as is wanted since before: mismatches are counted a
// little later than they are met.
func (s server) requireCounted(t *testing.T, before, want map[string]float64) {
	t.Helper()
	grown := func() map[string]float64 {
		now, out := s.counters(t), make(map[string]float64)
		for name := range want {
			if d := now[name] - before[name]; d != 0 {
				out[name] = d
			}
		}
		return out
	}
	expected := make(map[string]float64)
	for name, d := range want {
		if d != 0 {
			expected[name] = d
		}
	}
	deadline, tick := time.After(5*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		got := grown()
		if maps.Equal(expected, got) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			require.Equal(t, expected, got)
			return
		}
	}
}
