package isolation_test

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// The tests of this file are those that the design documents name.

// authenticated starts a server with credentials of all kinds.
func authenticated(t *testing.T) (*service, *authority) {
	t.Helper()
	issued := newAuthority(t)
	redis := redisserver.Start(t)
	site, env := issued.site(t)
	site.revoke(t)
	server := harness.Start(t, harness.Environment(env, map[string]string{"REDIS_URL": redis.URL()}))
	return &service{
		caller: newCaller(t, server.URL), world: &world{rdb: redis.Client(t)}, server: server, redis: redis,
	}, issued
}

func TestGetAuthenticatedWorkspaceValidToken(t *testing.T) {
	t.Parallel()
	s, issued := authenticated(t)
	for _, k := range kinds() {
		for _, ws := range tenants() {
			good := issued.good[[2]string{string(k), ws}]
			a := s.send(t, execution(), good)
			require.Equal(t, http.StatusOK, a.status, "%s: %s", k, a.body)
			stored := hash(t, s.rdb, oldKey(decode[executed](t, a).JobID))
			require.Equal(t, ws, stored["workspace_id"])
			require.Equal(t, actorOf(ws), stored["actor_id"])

			before := s.everything(t)
			spoilt := func(h http.Header) {
				good(h)
				h["Authorization"][0] += "A"
			}
			requireRefused(t, s.send(t, execution(), spoilt), http.StatusUnauthorized, "invalid_token", "Invalid authentication token")
			require.Equal(t, before, s.everything(t))
		}
	}
}

func TestGetAuthenticatedWorkspaceMissingWorkspace(t *testing.T) {
	t.Parallel()
	s, issued := authenticated(t)
	list := request{method: http.MethodGet, path: "/ai/jobs"}
	before := s.everything(t)
	tried := map[kind]bool{}
	for _, c := range issued.bad {
		if c.code != "workspace_missing" {
			continue
		}
		tried[c.kind] = true
		for _, r := range []request{list, execution(), execution(member("workspace_id", acme))} {
			requireRefused(t, s.send(t, r, func(h http.Header) { c.set(h, acme) }), http.StatusForbidden, "workspace_missing",
				"Workspace not found in authentication token")
		}
		require.Equal(t, http.StatusOK, s.send(t, list, issued.good[[2]string{string(c.kind), acme}]).status)
	}
	require.Len(t, tried, len(kinds()))
	require.Equal(t, before, s.everything(t))
}

// TestGetAuthenticatedWorkspaceInvalidToken has the edge cases of a missing header and a malformed token among others.
func TestGetAuthenticatedWorkspaceInvalidToken(t *testing.T) {
	t.Parallel()
	s, issued := authenticated(t)
	list := request{method: http.MethodGet, path: "/ai/jobs"}
	before := s.everything(t)
	tried := map[kind]int{}
	for _, c := range issued.bad {
		if c.code != "invalid_token" || strings.Contains(c.name, "revoked") {
			continue
		}
		tried[c.kind]++
		a := s.send(t, list, func(h http.Header) { c.set(h, acme) })
		requireRefused(t, a, http.StatusUnauthorized, "invalid_token", "Invalid authentication token")
		require.Equal(t, http.StatusOK, s.send(t, list, issued.good[[2]string{string(c.kind), acme}]).status)
	}
	require.Len(t, tried, len(kinds()))
	require.Equal(t, before, s.everything(t))
}

func TestListJobsEnforcesWorkspaceIsolation(t *testing.T) {
	t.Parallel()
	inEveryPhase(t, func(t *testing.T, s *service) {
		t.Helper()
		made := map[string][]string{}
		for range 4 {
			for _, ws := range tenants() {
				made[ws] = append(made[ws], s.make(t, ws))
			}
		}
		for _, ws := range append(tenants(), stranger) {
			for _, limit := range []int{1, 1000} {
				ids, _ := s.walk(t, ws, limit, "limit="+strconv.Itoa(limit))
				require.ElementsMatch(t, made[ws], ids, ws)
			}
		}
	})
}

func TestListJobsRejectsCrossWorkspaceQuery(t *testing.T) {
	t.Parallel()
	s := serve(t, "dual write", nil)
	mine, theirs := s.make(t, acme), s.make(t, acmeEU)
	before := s.commands(t)
	requireRefused(t, s.list(t, acme, "workspace_id="+acmeEU), http.StatusForbidden, "other_workspace", noAccess)
	requireRefused(t, s.get(t, acme, theirs, "workspace_id="+acmeEU), http.StatusForbidden, "other_workspace", noAccess)
	requireRefused(t, s.get(t, acme, mine, "workspace_id="+acmeEU), http.StatusForbidden, "other_workspace", noAccess)
	requireRefused(t, s.list(t, acme, "workspace_id="), http.StatusBadRequest, "invalid_workspace_id", "Invalid workspace_id format")
	require.Equal(t, before+1, s.commands(t), "Redis was asked")
	require.Contains(t, s.list(t, acmeEU, "workspace_id="+acmeEU).body, theirs)
	require.Contains(t, s.get(t, acmeEU, theirs, "workspace_id="+acmeEU).body, theirs)

	require.Zero(t, s.server.Stop(t))
	lines := s.server.Log.Message(t, "Workspace mismatch in request")
	require.Len(t, lines, 3)
	for _, line := range lines {
		require.Equal(t, acme, line["request_workspace"])
		require.Equal(t, acmeEU, line["given_workspace"])
		require.Equal(t, "warn", line["level"])
	}
}

func TestListJobsAllowsSameWorkspaceQuery(t *testing.T) {
	t.Parallel()
	s := serve(t, "dual write", nil)
	mine, theirs := s.make(t, acme), s.make(t, acmeEU)
	plain, named := s.list(t, acme), s.list(t, acme, "workspace_id="+acme)
	require.Equal(t, http.StatusOK, named.status)
	require.Contains(t, named.body, mine)
	require.NotContains(t, named.body, theirs)
	require.Equal(t, plain.text(t), named.text(t), "naming the own workspace changes nothing")
	requireRefused(t, s.list(t, acmeEU, "workspace_id="+acme), http.StatusForbidden, "other_workspace", noAccess)
}

func TestExecuteRejectsCrossWorkspaceInjection(t *testing.T) {
	t.Parallel()
	inEveryPhase(t, func(t *testing.T, s *service) {
		t.Helper()
		s.make(t, acmeEU, member("client_request_id", "known"))
		before, commands := s.everything(t), s.commands(t)
		for _, key := range []string{"known", "unknown"} {
			requireRefused(t, s.execute(t, acme, member("workspace_id", acmeEU), member("client_request_id", key)),
				http.StatusForbidden, "other_workspace", noExecute)
		}
		require.Greater(t, s.commands(t), commands)
		require.Equal(t, before, s.everything(t))
		injected := s.execute(t, acme, member("actor_id", "root"))
		require.Equal(t, http.StatusBadRequest, injected.status, "the actor comes from the credential")
		require.Equal(t, before, s.everything(t))

		id := s.make(t, acme, member("workspace_id", acme), member("client_request_id", "known"))
		require.Equal(t, http.StatusOK, s.get(t, acme, id).status)
		require.Equal(t, http.StatusNotFound, s.get(t, acmeEU, id).status)
	})
}

func TestExecuteAllowsSameWorkspace(t *testing.T) {
	t.Parallel()
	s := serve(t, "dual write", nil)
	for _, members := range [][]string{nil, {member("workspace_id", acme)}} {
		id := s.make(t, acme, members...)
		require.Equal(t, acme, hash(t, s.rdb, oldKey(id))["workspace_id"])
		require.Equal(t, acme, hash(t, s.rdb, newKey(acme, id))["workspace_id"])
		require.Equal(t, http.StatusOK, s.get(t, acme, id).status)
	}
	requireRefused(t, s.execute(t, acmeEU, member("workspace_id", acme)), http.StatusForbidden, "other_workspace", noExecute)
}

// TestExecuteRejectsMismatchedBodyWorkspace has the edge cases of an empty workspace_id, and of different ones in query
// and body, among others.
func TestExecuteRejectsMismatchedBodyWorkspace(t *testing.T) {
	t.Parallel()
	s := serve(t, "dual write", nil)
	for name, c := range map[string]struct {
		request request
		status  int
		code    string
	}{
		"neighbour":            {execution(member("workspace_id", acmeEU)), http.StatusForbidden, "other_workspace"},
		"nobody's":             {execution(member("workspace_id", "acm")), http.StatusForbidden, "other_workspace"},
		"empty":                {execution(member("workspace_id", "")), http.StatusBadRequest, "invalid_workspace_id"},
		"own with a newline":   {execution(member("workspace_id", acme+"\n")), http.StatusBadRequest, "invalid_workspace_id"},
		"own in capitals":      {execution(member("workspace_id", "ACME")), http.StatusBadRequest, "invalid_workspace_id"},
		"no text":              {execution(member("workspace_id", 1)), http.StatusBadRequest, "invalid_body"},
		"null":                 {execution(member("workspace_id", nil)), http.StatusBadRequest, "invalid_body"},
		"own, then neighbour":  {execution(member("workspace_id", acme), member("workspace_id", acmeEU)), http.StatusBadRequest, "invalid_body"},
		"query alone":          {execution().withQuery("workspace_id=" + acmeEU), http.StatusBadRequest, "invalid_parameter"},
		"query own, body not":  {execution(member("workspace_id", acmeEU)).withQuery("workspace_id=" + acme), http.StatusBadRequest, "invalid_parameter"},
		"body own, query not":  {execution(member("workspace_id", acme)).withQuery("workspace_id=" + acmeEU), http.StatusBadRequest, "invalid_parameter"},
		"body and query alike": {execution(member("workspace_id", acme)).withQuery("workspace_id=" + acme), http.StatusBadRequest, "invalid_parameter"},
	} {
		commands := s.commands(t)
		a := s.send(t, c.request, s.as(acme))
		require.Equal(t, c.status, a.status, "%s: %s", name, a.body)
		require.Equal(t, c.code, a.problem(t).Code, name)
		require.Equal(t, commands+1, s.commands(t), "%s reached Redis", name)
		require.Equal(t, http.StatusOK, s.execute(t, acme, member("workspace_id", acme)).status)
	}
}

// TestWorkspaceIsolationAcrossAllEndpoints is the matrix in short, for jobs that the service itself made.
func TestWorkspaceIsolationAcrossAllEndpoints(t *testing.T) {
	t.Parallel()
	inEveryPhase(t, func(t *testing.T, s *service) {
		t.Helper()
		secret := member("params", map[string]string{"mark": contentMark(acmeEU)})
		theirs := s.make(t, acmeEU, secret, member("client_request_id", "one"))
		before := s.everything(t)
		absent := s.get(t, acme, strings.Repeat("0", len(theirs)))
		for _, a := range []answer{
			s.get(t, acme, theirs), s.get(t, acme, theirs, "workspace_id="+acme), s.get(t, stranger, theirs),
		} {
			requireRefused(t, a, http.StatusNotFound, "job_not_found", "Job not found")
			require.Equal(t, absent.text(t), a.text(t))
		}
		for _, a := range []answer{
			s.get(t, acme, theirs, "workspace_id="+acmeEU), s.list(t, acme, "workspace_id="+acmeEU),
		} {
			requireRefused(t, a, http.StatusForbidden, "other_workspace", noAccess)
		}
		requireRefused(t, s.execute(t, acme, secret, member("workspace_id", acmeEU), member("client_request_id", "one")),
			http.StatusForbidden, "other_workspace", noExecute)
		require.Empty(t, decode[wirePage](t, s.list(t, acme)).Jobs)
		for _, route := range registered(t) {
			r := request{method: route.Method, path: strings.ReplaceAll(route.Path, "{job_id}", theirs)}
			for _, set := range []func(http.Header){nil, bearer("relay_sk_" + strings.Repeat("A", 43))} {
				require.NotContains(t, s.send(t, r, set).text(t), contentMark(acmeEU))
			}
			require.NotContains(t, s.send(t, r, s.as(acme)).text(t), contentMark(acmeEU))
		}
		require.Equal(t, before, s.everything(t))

		mine := s.make(t, acme, secret, member("client_request_id", "one"))
		require.NotEqual(t, theirs, mine, "a key counts in its workspace alone")
		require.Contains(t, s.get(t, acmeEU, theirs).body, contentMark(acmeEU))
		require.Contains(t, s.list(t, acmeEU).body, theirs)
		require.Equal(t, theirs, s.make(t, acmeEU, secret, member("client_request_id", "one")))
	})
}

// twoCopies gives the copies of one job, of which the one with the higher rev is fresher. Results tell them apart.
func twoCopies(id string, oldRev, newRev int) (inOld, inNew stored) {
	copyOf := func(schema string, rev int) stored {
		return stored{schema: schema, workspace: acme, id: id, changes: map[string]string{
			"rev": strconv.Itoa(rev), "result": `"` + schema + `"`,
			"finished_at": fmt.Sprintf("2026-11-21T19:28:%02d.000000+00:00", 56+rev),
		}}
	}
	return copyOf(oldSchema, oldRev), copyOf(newSchema, newRev)
}

func TestGetJobPrefersNewSchemaWhenAvailable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		phase          string
		oldRev, newRev int
		served         string
	}{
		{"read routing", 2, 2, newSchema},
		{"read routing", 1, 2, newSchema},
		{"read routing", 2, 1, oldSchema}, // the flag was off for a while: preferring new would serve it stale
		{"dual write", 2, 2, newSchema},
		{"dual write", 2, 1, oldSchema},
		{"strict new", 2, 1, newSchema},
		{"new only", 2, 1, newSchema},
		{"canary", 1, 2, oldSchema},
		{"legacy", 1, 2, oldSchema},
	} {
		t.Run(fmt.Sprintf("%s, old %d, new %d", c.phase, c.oldRev, c.newRev), func(t *testing.T) {
			t.Parallel()
			s := serve(t, c.phase, nil)
			inOld, inNew := twoCopies("j", c.oldRev, c.newRev)
			if c.oldRev == c.newRev {
				inOld.changes["result"] = inNew.changes["result"]
			}
			store(t, s.rdb, inOld, inNew)
			a := s.get(t, acme, "j")
			require.Equal(t, http.StatusOK, a.status, a.body)
			require.Contains(t, a.body, `"result":"`+c.served+`"`)
			require.InDelta(t, 1, s.counter(t, "relay_job_read_path_total", `workspace_id="acme"`, `path="`+c.served+`"`), 0)
			require.Equal(t, http.StatusNotFound, s.get(t, acmeEU, "j").status)
		})
	}
}

func TestGetJobFallsBackToOldSchemaWhenNewMissing(t *testing.T) {
	t.Parallel()
	inEveryPhase(t, func(t *testing.T, s *service) {
		t.Helper()
		store(t, s.rdb, stored{schema: oldSchema, workspace: acme, id: "old"},
			stored{schema: oldSchema, workspace: acme, id: "stub"})
		require.NoError(t, s.rdb.HSet(t.Context(), newKey(acme, "stub"), "status", "running").Err())
		for _, id := range []string{"old", "stub"} {
			a := s.get(t, acme, id)
			if s.phase.readsOld {
				require.Equal(t, http.StatusOK, a.status, a.body)
				requireOwn(t, decode[wireJob](t, a), acme, id)
			} else {
				requireRefused(t, a, http.StatusNotFound, "job_not_found", "Job not found")
			}
			requireRefused(t, s.get(t, acmeEU, id), http.StatusNotFound, "job_not_found", "Job not found")
		}
		served := map[bool]float64{true: 2}[s.phase.readsOld]
		require.InDelta(t, served, s.counter(t, "relay_job_read_path_total", `workspace_id="acme"`, `path="old"`), 0)
	})
}

func TestGetJobRejectsCrossWorkspaceAccess(t *testing.T) {
	t.Parallel()
	inEveryPhase(t, func(t *testing.T, s *service) {
		t.Helper()
		store(t, s.rdb, stored{schema: oldSchema, workspace: acmeEU, id: "both"},
			stored{schema: newSchema, workspace: acmeEU, id: "both"},
			stored{schema: newSchema, workspace: acmeEU, id: "new"})
		before := s.digest(t)
		for _, id := range []string{"both", "new"} {
			requireRefused(t, s.get(t, acme, id), http.StatusNotFound, "job_not_found", "Job not found")
			require.Equal(t, before, s.digest(t))
		}
		a := s.get(t, acmeEU, "both")
		require.Equal(t, http.StatusOK, a.status)
		requireOwn(t, decode[wireJob](t, a), acmeEU, "both")

		warnings := map[bool]int{true: 1}[s.phase.readsOld]
		if warnings > 0 {
			require.Eventually(t, func() bool {
				return s.counter(t, "relay_workspace_mismatch_total", `workspace_id="acme"`) == float64(warnings)
			}, 5*time.Second, 20*time.Millisecond)
		}
		require.Zero(t, s.server.Stop(t))
		lines := s.server.Log.Message(t, "Workspace mismatch during fallback")
		require.Len(t, lines, warnings)
		for _, line := range lines {
			require.Equal(t, acme, line["request_workspace"])
			require.Equal(t, acmeEU, line["stored_workspace"])
			require.Equal(t, "warn", line["level"])
		}
	})
}

func TestListJobsScansNewSchemaWhenWorkspaceProvided(t *testing.T) {
	t.Parallel()
	inEveryPhase(t, func(t *testing.T, s *service) {
		t.Helper()
		for _, ws := range tenants() {
			store(t, s.rdb, stored{schema: newSchema, workspace: ws, id: "1-" + ws}, stored{schema: newSchema, workspace: ws, id: "2-" + ws})
		}
		for _, ws := range tenants() {
			want, path := []string{"1-" + ws, "2-" + ws}, "new"
			if !s.phase.readsNew {
				want, path = nil, "miss"
			}
			ids, _ := s.walk(t, ws, 100, "workspace_id="+ws)
			require.ElementsMatch(t, want, ids)
			require.InDelta(t, 1, s.counter(t, "relay_job_list_read_path_total", `workspace_id="`+ws+`"`, `path="`+path+`"`), 0)
			requireRefused(t, s.list(t, ws, "workspace_id="+neighbour(ws)), http.StatusForbidden, "other_workspace", noAccess)
		}
	})
}

func TestListJobsFiltersByWorkspaceCorrectly(t *testing.T) {
	t.Parallel()
	inEveryPhase(t, func(t *testing.T, s *service) {
		t.Helper()
		want := map[string][]string{}
		for _, ws := range []string{acme, acmeEU, "acm", "acme_", "a", "acme-e", "acme-eu2"} {
			for i := range 5 {
				inOld := stored{schema: oldSchema, workspace: ws, id: fmt.Sprintf("%s:old:%d", ws, i)}
				inNew := stored{schema: newSchema, workspace: ws, id: fmt.Sprintf("%s:new:%d", neighbour(ws), i)}
				store(t, s.rdb, inOld, inNew)
				if s.phase.readsOld {
					want[ws] = append(want[ws], inOld.id)
				}
				if s.phase.readsNew {
					want[ws] = append(want[ws], inNew.id)
				}
			}
		}
		// Records that are nobody's, and one whose fields contradict its key.
		store(t, s.rdb,
			stored{schema: oldSchema, workspace: acme, id: "homeless", changes: map[string]string{"workspace_id": ""}},
			stored{schema: oldSchema, workspace: acme, id: "malformed", changes: map[string]string{"workspace_id": "acme\n"}},
			stored{schema: oldSchema, workspace: acme, id: "renamed", changes: map[string]string{"job_id": "another"}},
			stored{schema: newSchema, workspace: acme, id: "foreign", changes: map[string]string{"workspace_id": acmeEU}})
		for _, ws := range tenants() {
			ids, _ := s.walk(t, ws, 3, "limit=3")
			require.ElementsMatch(t, want[ws], ids, ws)
			for _, id := range []string{"homeless", "malformed", "renamed", "another", "foreign"} {
				require.Equal(t, http.StatusNotFound, s.get(t, ws, id).status, id)
			}
		}
	})
}

func TestListJobsCompositeCursorParsing(t *testing.T) {
	t.Parallel()
	s := serve(t, "dual write", nil)
	for i := range 40 {
		store(t, s.rdb, stored{schema: []string{oldSchema, newSchema}[i%2], workspace: acme, id: strconv.Itoa(i)})
	}
	_, cursors := s.walk(t, acme, 3, "limit=3")
	require.NotEmpty(t, cursors)
	for _, cursor := range cursors {
		require.Regexp(t, `^new:\d+:old:\d+(:after:[0-9a-zA-Z%._~-]+)?$`, cursor)
	}
	for _, cursor := range []string{"new:0:old:0", "new:10:old:5", "new:10:old:0", "new:0:old:3", "10", "0", "new:0:old:18446744073709551615"} {
		require.Equal(t, http.StatusOK, s.list(t, acme, "cursor="+cursor).status, cursor)
	}
	require.Equal(t, s.list(t, acme, "cursor=new:10:old:0").text(t), s.list(t, acme, "cursor=10").text(t))
	commands := s.commands(t)
	for _, cursor := range malformedCursors() {
		requireRefused(t, s.list(t, acme, "cursor="+url.QueryEscape(cursor)), http.StatusBadRequest, "invalid_cursor", "Invalid cursor")
	}
	require.Equal(t, commands+1, s.commands(t), "Redis was asked")
}

// malformedCursors are texts that are like a cursor and none.
func malformedCursors() []string {
	return []string{
		"", " ", "new", "new:", "new:1", "new:1:old", "new:1:old:", "new::old:1", "new:1:old:1:", "new:1:old:1:after", "new:1:old:1:after:",
		"new:01:old:1", "new:+1:old:1", "new:-1:old:1", "new:1.0:old:1", "new:1e3:old:1", "new:0x1:old:1", "new:١:old:1",
		"new:1:old:18446744073709551616", "18446744073709551616", "-1", "+1", "01", "1 ", " 1", "1\n", "1\x00", "NEW:1:OLD:1",
		"old:1:new:1", "new:1:old:1:old:1", "new:1:old:1:after:%", "new:1:old:1:after:%zz", "new:1:old:1:after:a:b",
		"new:1:old:1:after:%61", "new:1:old:1:after:" + strings.Repeat("a", 257), "new:*:old:*", "at:1", "at::a", "at:-1:a", "at:01:a",
		"at:9223372036854775808:a", "at:1:", "at:1:%zz", "acme:1", "*", "null", "\"new:1:old:1\"", strings.Repeat("9", 4000),
	}
}

// mixed stores jobs that stand in old, in new, and in both, among the neighbour's.
func mixed(t *testing.T, s *service, n int) {
	t.Helper()
	for i := range n {
		for _, ws := range tenants() {
			job := stored{workspace: ws, id: fmt.Sprintf("%s-%03d", ws, i), changes: map[string]string{
				"enqueued_at": fmt.Sprintf("2026-11-21T19:%02d:00.000000+00:00", (i*7)%60),
			}}
			for _, schema := range [][]string{{oldSchema}, {newSchema}, {oldSchema, newSchema}}[i%3] {
				job.schema = schema
				store(t, s.rdb, job)
				s.copies = append(s.copies, job)
			}
		}
	}
}

// walkInPages holds walks of every page size to each job once, by cursors of one kind.
func (s *service) walkInPages(t *testing.T, kind *regexp.Regexp) {
	t.Helper()
	for _, ws := range tenants() {
		for _, limit := range []int{1, 7, 1000} {
			ids, cursors := s.walk(t, ws, limit, "limit="+strconv.Itoa(limit))
			require.ElementsMatch(t, s.visibleIDs(ws), ids)
			for _, cursor := range cursors[:min(len(cursors), 5)] { // another workspace's cursor shows what is its bearer's
				require.Regexp(t, kind, cursor)
				page := decode[wirePage](t, s.list(t, neighbour(ws), "cursor="+cursor))
				for _, j := range page.Jobs {
					require.Equal(t, neighbour(ws), j.WorkspaceID)
				}
			}
		}
	}
}

func TestListJobsMixedModePagination(t *testing.T) {
	t.Parallel()
	inEveryPhase(t, func(t *testing.T, s *service) {
		t.Helper()
		mixed(t, s, 60)
		s.walkInPages(t, regexp.MustCompile(`^new:`))
		buildIndex(t, s.redis.OperatorURL())
		s.walkInPages(t, regexp.MustCompile(`^at:`))
		page := decode[struct {
			Jobs []struct {
				EnqueuedAt string `json:"enqueued_at"`
				JobID      string `json:"job_id"`
			} `json:"jobs"`
		}](t, s.list(t, acme, "limit=1000"))
		require.True(t, slices.IsSortedFunc(page.Jobs, func(a, b struct {
			EnqueuedAt string `json:"enqueued_at"`
			JobID      string `json:"job_id"`
		},
		) int {
			return strings.Compare(b.EnqueuedAt+b.JobID, a.EnqueuedAt+a.JobID)
		}), "a page is newest first in itself")
	})
}

func TestListJobsNoDuplicateResults(t *testing.T) {
	t.Parallel()
	inEveryPhase(t, func(t *testing.T, s *service) {
		t.Helper()
		var made []string
		for range 12 {
			made = append(made, s.make(t, acme))
			s.make(t, acmeEU)
		}
		for limit := 1; limit <= 13; limit += 4 {
			ids, _ := s.walk(t, acme, limit, "limit="+strconv.Itoa(limit))
			require.ElementsMatch(t, made, ids)
		}
	})
}

func TestDualWriteAtomicity(t *testing.T) {
	t.Parallel()
	s := serve(t, "dual write", nil)
	key := member("client_request_id", "once")
	id := s.make(t, acme, key)
	require.NotEmpty(t, hash(t, s.rdb, oldKey(id)))
	require.Equal(t, hash(t, s.rdb, oldKey(id)), hash(t, s.rdb, newKey(acme, id)))
	queue, err := s.rdb.LRange(t.Context(), queueKey, 0, -1).Result()
	require.NoError(t, err)
	require.Equal(t, []string{id}, queue)

	// A queue that is no list, and a Redis without memory, fail the write in its middle if anywhere.
	require.NoError(t, s.rdb.Rename(t.Context(), queueKey, "kept").Err())
	require.NoError(t, s.rdb.Set(t.Context(), queueKey, "no list", 0).Err())
	before := s.everything(t)
	requireRefused(t, s.execute(t, acme, member("client_request_id", "never")), http.StatusInternalServerError, "internal", "Internal error")
	require.Equal(t, before, s.everything(t))
	require.NoError(t, s.rdb.Rename(t.Context(), "kept", queueKey).Err())

	require.NoError(t, s.rdb.ConfigSet(t.Context(), "maxmemory", "1").Err())
	before = s.everything(t)
	a := s.execute(t, acme, member("client_request_id", "never"))
	requireRefused(t, a, http.StatusInternalServerError, "storage_unavailable", "The storage is unavailable, try again")
	require.NotEmpty(t, a.header.Get("Retry-After"))
	require.Equal(t, before, s.everything(t))
	require.NoError(t, s.rdb.ConfigSet(t.Context(), "maxmemory", "0").Err())

	require.Equal(t, id, s.make(t, acme, key), "a retry finds what was made")
	later := s.make(t, acme, member("client_request_id", "never"))
	require.NotEqual(t, id, later)
	require.Equal(t, hash(t, s.rdb, oldKey(later)), hash(t, s.rdb, newKey(acme, later)))
}

func TestIdempotencyEnforcement(t *testing.T) {
	t.Parallel()
	inEveryPhase(t, func(t *testing.T, s *service) {
		t.Helper()
		key, params := member("client_request_id", "order 1"), member("params", map[string]any{"n": 1, "of": "x"})
		first := s.execute(t, acme, key, params)
		require.Equal(t, http.StatusOK, first.status, first.body)
		require.Empty(t, first.header.Get("Idempotency-Replayed"))
		id := decode[executed](t, first).JobID
		ttl, err := s.rdb.TTL(t.Context(), idempotencyKey(acme, "order 1")).Result()
		require.NoError(t, err)
		require.InDelta(t, 86400, ttl.Seconds(), 60)

		before := s.everything(t)
		inHeader := execution(`"params":{"of":"x","n":1.0}`).withHeader(func(h http.Header) { h.Set("Idempotency-Key", "order 1") })
		for _, r := range []request{execution(key, params), inHeader} {
			again := s.send(t, r, s.as(acme))
			require.Equal(t, id, decode[executed](t, again).JobID, again.body)
			require.Equal(t, "true", again.header.Get("Idempotency-Replayed"))
		}
		requireRefused(t, s.execute(t, acme, key, member("params", map[string]any{"n": 2})), http.StatusUnprocessableEntity,
			"idempotency_key_reuse", "The idempotency key was used for a different action or params")
		differ := execution(key).withHeader(func(h http.Header) { h.Set("Idempotency-Key", "order 2") })
		requireRefused(t, s.send(t, differ, s.as(acme)), http.StatusBadRequest, "idempotency_keys_differ",
			"Idempotency-Key and client_request_id differ")
		require.Equal(t, before, s.everything(t))

		theirs := s.execute(t, acmeEU, key, params)
		require.Equal(t, http.StatusOK, theirs.status)
		require.NotEqual(t, id, decode[executed](t, theirs).JobID)

		const atOnce = 16
		made := make([]string, atOnce)
		var running sync.WaitGroup
		for i := range made {
			running.Go(func() {
				a := s.execute(t, acme, member("client_request_id", "at once"))
				if a.status == http.StatusOK {
					made[i] = decode[executed](t, a).JobID
				}
			})
		}
		running.Wait()
		require.NotEmpty(t, made[0])
		require.Len(t, slices.Compact(made), 1)
	})
}
