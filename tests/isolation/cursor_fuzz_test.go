package isolation_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/relay-jobs/relay/adapters/httpapi"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/conformance"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// sentCommands counts what the service's own client sends.
type sentCommands struct{ n atomic.Int64 }

func (*sentCommands) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *sentCommands) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmd)
	}
}

func (c *sentCommands) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.n.Add(int64(len(cmds)))
		return next(ctx, cmds)
	}
}

// fuzzed is the service without its socket.
type fuzzed struct {
	api    *httpapi.API
	sent   *sentCommands
	tokens map[string]string
	ids    map[string][]string // of each workspace's jobs
}

// fuzzedService has two workspaces with jobs, of both schemas and in each state; each has jobs with ids of the other's.
// New walks go by the index, and cursors of SCAN go on by SCAN.
func fuzzedService(f *testing.F) *fuzzed {
	f.Helper()
	s := &fuzzed{sent: &sentCommands{}, tokens: map[string]string{}, ids: map[string][]string{}}
	server, keys := redisserver.Start(f), harness.NewKeys(f)
	for _, ws := range tenants() {
		s.tokens[ws] = keys.Token(f, ws)
	}
	var client *redis.Client
	harness.Boot(f, harness.Environment(phaseNamed(f, "dual write").env, map[string]string{
		"REDIS_URL": server.URL(), "RELAY_API_KEYS_FILE": keys.Path, "RELAY_LOG_LEVEL": "error", "RELAY_INDEX_SWEEP": "0",
	}), fx.Populate(&s.api, &client))
	client.AddHook(s.sent)
	rdb := server.Client(f)
	require.Equal(f, "complete", rdb.Get(f.Context(), "ai:index-state").Val())
	for _, ws := range tenants() {
		for range 6 {
			r := httptest.NewRequestWithContext(f.Context(), http.MethodPost, "/ai/execute", strings.NewReader(
				`{"action_provider":"p","action_name":"`+contentMark(ws)+`"}`))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", "Bearer "+s.tokens[ws])
			w := httptest.NewRecorder()
			s.api.Handler().ServeHTTP(w, r)
			require.Equal(f, http.StatusOK, w.Code, w.Body)
			var made executed
			require.NoError(f, json.Unmarshal(w.Body.Bytes(), &made))
			s.ids[ws] = append(s.ids[ws], made.JobID)
		}
		for i, status := range []string{"pending", "running", "completed", "failed"} {
			for _, schema := range []string{oldSchema, newSchema} {
				copied := stored{schema: schema, workspace: ws, id: id(ws, schema+status), changes: map[string]string{"status": status}}
				store(f, rdb, copied)
				s.ids[ws] = append(s.ids[ws], copied.id)
				s.index(f, rdb, ws, copied.id, status[:1])
			}
			if i == 0 { // the neighbour's index names a job that is not its own
				s.index(f, rdb, neighbour(ws), id(ws, newSchema+status), "p")
			}
		}
	}
	store(f, rdb, stored{schema: newSchema, workspace: acme, id: sharedA}, stored{schema: oldSchema, workspace: acmeEU, id: sharedA})
	for _, ws := range tenants() {
		s.index(f, rdb, ws, sharedA, "c")
		s.ids[ws] = append(s.ids[ws], sharedA)
	}
	return s
}

// index writes the entries of a job that store stored.
func (*fuzzed) index(tb testing.TB, rdb *redis.Client, ws, jobID, letter string) {
	tb.Helper()
	const place = "\x00\x6b\x01\xf0\xf6017837\x00" // 2026-11-21T19:28:54.017837
	for _, l := range []string{"z", letter} {
		require.NoError(tb, rdb.ZAdd(tb.Context(), "ai:index:"+ws, redis.Z{Member: l + place + jobID}).Err())
	}
}

// list asks for a page and gives its ids and the next cursor. What holds of every answer is checked here.
func (s *fuzzed) list(tb testing.TB, ws string, query url.Values) (ids []string, next string) {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), http.MethodGet, "/", nil)
	r.URL = &url.URL{Path: "/ai/jobs", RawQuery: query.Encode()}
	r.Header.Set("Authorization", "Bearer "+s.tokens[ws])
	w, before := httptest.NewRecorder(), s.sent.n.Load()
	s.api.Handler().ServeHTTP(w, r)
	require.NoError(tb, conformance.Exchange{Request: r, Status: w.Code, Header: w.Header(), Body: w.Body.Bytes()}.Check())
	require.Less(tb, s.sent.n.Load()-before, int64(500), "commands")
	require.NotContains(tb, w.Body.String(), contentMark(neighbour(ws)))
	require.NotContains(tb, w.Body.String(), idMark(neighbour(ws)))
	if w.Code != http.StatusOK {
		require.Equal(tb, http.StatusBadRequest, w.Code, "%s", w.Body)
		return nil, ""
	}
	var page struct {
		Jobs []struct {
			JobID       string `json:"job_id"`
			WorkspaceID string `json:"workspace_id"`
			Status      string `json:"status"`
		} `json:"jobs"`
		Count int     `json:"count"`
		Next  *string `json:"next_cursor"`
	}
	require.NoError(tb, json.Unmarshal(w.Body.Bytes(), &page))
	require.Len(tb, page.Jobs, page.Count)
	for _, j := range page.Jobs {
		require.Equal(tb, ws, j.WorkspaceID)
		require.True(tb, slices.Contains(s.ids[ws], j.JobID), "%q is none of the workspace's", j.JobID)
		require.True(tb, !query.Has("status") || query.Get("status") == j.Status)
		require.False(tb, slices.Contains(ids, j.JobID), "%q twice in a page", j.JobID)
		ids = append(ids, j.JobID)
	}
	limit := 100
	if query.Has("limit") {
		var err error
		limit, err = strconv.Atoi(query.Get("limit"))
		require.NoError(tb, err)
	}
	require.LessOrEqual(tb, len(ids), limit)
	if page.Next != nil {
		next = *page.Next
	}
	return ids, next
}

// FuzzCursor: whatever the cursor, the status and the limit, an answer that is no failure of ours, shows nothing of another
// workspace, costs a bounded number of commands, and whose own cursor goes on to an end.
func FuzzCursor(f *testing.F) {
	s := fuzzedService(f)
	for _, ws := range tenants() {
		ids, next := s.list(f, ws, url.Values{})
		require.Len(f, ids, len(s.ids[ws]), "the world is all there")
		require.Empty(f, next)
		_, next = s.list(f, ws, url.Values{"limit": {"2"}})
		require.True(f, strings.HasPrefix(next, "at:"), next)
		f.Add(next, "", "1", true)
		ids, _ = s.list(f, ws, url.Values{"cursor": {"0"}})
		require.NotEmpty(f, ids, "a cursor of SCAN goes on by SCAN")
	}
	for _, cursor := range []string{
		"", "0", "5", "18446744073709551615", "9223372036854775808", "new:0:old:0", "new:3:old:0", "new:0:old:3", "new:3:old:5",
		"new:0:old:9223372036854775808", "new:1:old:18446744073709551615", "new:0:old:1:after:a", "new:2:old:0:after:a%20b",
		"new:4398046511104:old:0:after:" + idMark(acme), "at:0:a", "at:1795289334017837:" + sharedA, "at:9223372036854775807:x",
		"at:1795289334017837:0192e4a1-7c3d-7e21-9f00-0123456789ab", "at:1099511627776000000:%FF", "at:1:%00", "at:-1:a", "at:01:a",
		"at::", "new:1", "x", "new:1:old:1:after:", "at:1:" + strings.Repeat("a", 256), "at:1:" + strings.Repeat("a", 257), "%", "\xff\x00",
	} {
		for _, status := range []string{"", "pending", "failed", "done"} {
			f.Add(cursor, status, "", true)
			f.Add(cursor, status, "3", false)
		}
	}
	f.Add("at:1795289334017837:a", "completed", "1000", true)
	f.Add("1", "running", "1001", true)
	f.Fuzz(func(t *testing.T, cursor, status, limit string, first bool) {
		ws := map[bool]string{true: acme, false: acmeEU}[first]
		query := url.Values{}
		for name, value := range map[string]string{"cursor": cursor, "status": status, "limit": limit} {
			if value != "" {
				query.Set(name, value)
			}
		}
		_, next := s.list(t, ws, query)
		if next == "" {
			return
		}
		for range 100 { // the walk goes on, faster, to its end
			query.Set("cursor", next)
			query.Set("limit", "1000")
			if _, next = s.list(t, ws, query); next == "" {
				return
			}
		}
		require.FailNow(t, "the walk does not end")
	})
}
