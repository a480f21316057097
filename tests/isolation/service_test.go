package isolation_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// service is one server in one phase, with an API key for each workspace.
type service struct {
	*caller
	*world
	server *harness.Process
	redis  *redisserver.Server
	tokens map[string]string
}

// serve starts a server on a Redis without jobs, until the test ends. What it logged is looked through then. Another
// application's key is there, so that lists go by SCAN until buildIndex: tests store jobs as a predecessor does.
func serve(t *testing.T, phaseName string, more map[string]string) *service {
	t.Helper()
	s := &service{redis: redisserver.Start(t), tokens: map[string]string{}}
	s.world = &world{rdb: s.redis.Client(t), phase: phaseNamed(t, phaseName)}
	require.NoError(t, s.rdb.Set(t.Context(), "another:application", "x", 0).Err())
	keys := harness.NewKeys(t)
	for _, ws := range append(tenants(), stranger) {
		s.tokens[ws] = keys.Token(t, ws)
	}
	s.server = harness.Start(t, harness.Environment(s.phase.env, map[string]string{
		"REDIS_URL": s.redis.URL(), "RELAY_API_KEYS_FILE": keys.Path,
	}, more))
	s.caller = newCaller(t, s.server.URL)
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		require.Zero(t, s.server.Stop(t))
		requireWhole(t, s.server.Log.String())
	})
	return s
}

// buildIndex has lists go by the index from now on.
func buildIndex(t *testing.T, redisURL string) {
	t.Helper()
	code, _, stderr := harness.Run(t, map[string]string{"REDIS_URL": redisURL}, "migrate", "index", "--execute", "--rate=0")
	require.Equal(t, app.ExitOK, code, stderr)
}

// inEveryPhase runs a test six times.
func inEveryPhase(t *testing.T, test func(t *testing.T, s *service)) {
	t.Helper()
	for _, p := range phases(t) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			test(t, serve(t, p.name, nil))
		})
	}
}

func (s *service) as(ws string) func(http.Header) { return bearer(s.tokens[ws]) }

// get, list and execute are requests of a workspace.
func (s *service) get(t *testing.T, ws, jobID string, query ...string) answer {
	t.Helper()
	return s.send(t, request{method: http.MethodGet, path: pathOf(jobID)}.withQuery(query...), s.as(ws))
}

func (s *service) list(t *testing.T, ws string, query ...string) answer {
	t.Helper()
	return s.send(t, request{method: http.MethodGet, path: "/ai/jobs"}.withQuery(query...), s.as(ws))
}

func (s *service) execute(t *testing.T, ws string, members ...string) answer {
	t.Helper()
	return s.send(t, execution(members...), s.as(ws))
}

// execution asks for an action, with further members of the body.
func execution(members ...string) request {
	return request{method: http.MethodPost, path: "/ai/execute"}.withMembers(append([]string{
		member("action_provider", "google"), member("action_name", "gmail.send"),
	}, members...)...)
}

type executed struct {
	JobID  string `json:"job_id"`
	Status string `json:"status"`
}

// make executes an action and gives the id of its job.
func (s *service) make(t *testing.T, ws string, members ...string) string {
	t.Helper()
	a := s.execute(t, ws, members...)
	require.Equal(t, http.StatusOK, a.status, a.body)
	return decode[executed](t, a).JobID
}

// requireRefused holds a refusal to its status, code and detail.
func requireRefused(t *testing.T, a answer, status int, code, detail string) {
	t.Helper()
	require.Equal(t, status, a.status, a.body)
	p := a.problem(t)
	require.Equal(t, code, p.Code)
	require.Equal(t, detail, p.Detail)
}

const (
	noAccess  = "Cannot access jobs from other workspaces"
	noExecute = "Cannot execute actions in other workspaces"
)

// walk follows the cursors to the end, and gives the ids in their order and the cursors. Each page must keep its limit.
func (s *service) walk(t *testing.T, ws string, limit int, query ...string) (ids, cursors []string) {
	t.Helper()
	next := ""
	for range 1000 {
		q := slices.Clone(query)
		if next != "" {
			q = append(q, "cursor="+next)
		}
		a := s.list(t, ws, q...)
		require.Equal(t, http.StatusOK, a.status, a.body)
		page := decode[wirePage](t, a)
		require.Len(t, page.Jobs, page.Count)
		require.LessOrEqual(t, page.Count, limit)
		for _, j := range page.Jobs {
			require.Equal(t, ws, j.WorkspaceID)
			ids = append(ids, j.JobID)
		}
		if page.NextCursor == nil {
			return ids, cursors
		}
		next = *page.NextCursor
		cursors = append(cursors, next)
	}
	require.FailNow(t, "the walk does not end")
	return nil, nil
}

// everything is all that Redis holds.
func (s *service) everything(t *testing.T) redisserver.Keyspace {
	t.Helper()
	return redisserver.Dump(t, s.rdb, "*")
}

// hash gives the fields of a copy, none where it is absent.
func hash(t *testing.T, rdb *redis.Client, key string) map[string]string {
	t.Helper()
	fields, err := rdb.HGetAll(t.Context(), key).Result()
	require.NoError(t, err)
	return fields
}

// counter reads one series of the operators' page, 0 where it is not there.
func (s *service) counter(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	for series, value := range metrics(t, s.server.AdminURL) {
		got, rest, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
		if got == name && !slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(strings.Split(rest, ","), l) }) {
			return value
		}
	}
	return 0
}
