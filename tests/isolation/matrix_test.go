package isolation_test

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/adapters/httpapi"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// TestIsolationMatrix asks every registered route with every kind of credential, naming every workspace in every
// place, for jobs that stand in every schema, under every legal set of flags. Beside each refusal stands the same
// request with the one thing set right, which must succeed. With RELAY_SOAK=full it goes through new only once more, after
// all jobs were moved there.
func TestIsolationMatrix(t *testing.T) {
	t.Parallel()
	issued := newAuthority(t)
	var total totals
	all := phases(t)
	if os.Getenv("RELAY_SOAK") == "full" {
		all = append(all, retired(t))
	}
	t.Run("phases", func(t *testing.T) {
		for i, p := range all {
			level := []string{"debug", "info"}[i%2]
			t.Run(p.name, func(t *testing.T) {
				t.Parallel()
				m := newMatrix(t, issued, p, level, &total)
				if i%4 == 1 || i%4 == 2 { // each set of schemas that is read, in both ways of listing
					m.buildIndex(t)
				}
				m.revoke(t)
				m.everyRoute(t)
				m.unrouted(t)
				m.finish(t)
			})
		}
	})
	t.Logf("%d refusals, %d allowed requests beside them, %d requests in all: %d leaks",
		total.refusals.Load(), total.controls.Load(), total.requests.Load(), total.leaks.Load())
	require.Zero(t, total.leaks.Load())
	require.Positive(t, total.refusals.Load())
}

type totals struct{ requests, refusals, controls, leaks atomic.Int64 }

// matrix is the attack on one server in one phase.
type matrix struct {
	*world
	*authority
	site   *site
	server *harness.Process
	caller *caller
	total  *totals
	level  string
	redis  *redisserver.Server

	sent      int    // requests
	before    string // digest of all job data at the start
	dumped    redisserver.Keyspace
	forbidden map[[2]string]int // 403 for a given workspace: who asked and what was given
	foreign   map[[2]string]int // reads that met another workspace's old copy: who asked and whose it is
	absent    map[string]string // by method, the answer to whoever asks for a job that is none of its own
}

// newMatrix starts a server whose Redis wants a password.
func newMatrix(t *testing.T, issued *authority, p phase, level string, total *totals) *matrix {
	t.Helper()
	m := &matrix{
		authority: issued, total: total, level: level, redis: redisserver.Start(t),
		forbidden: map[[2]string]int{}, foreign: map[[2]string]int{}, absent: map[string]string{},
	}
	m.world = populate(t, m.redis.Client(t), p)
	if p.retired {
		m.retire(t, m.redis)
	}
	site, env := issued.site(t)
	m.site = site
	m.server = harness.Start(t, harness.Environment(p.env, env, map[string]string{
		"REDIS_URL": m.redis.URL(), "RELAY_LOG_LEVEL": level,
	}))
	m.caller = newCaller(t, m.server.URL)
	m.before, m.dumped = m.digest(t), m.dump(t)
	return m
}

// buildIndex has lists go by the index, and takes what there is then for the beginning.
func (m *matrix) buildIndex(t *testing.T) {
	t.Helper()
	buildIndex(t, m.redis.OperatorURL())
	m.before, m.dumped = m.digest(t), m.dump(t)
}

// revoke uses the credentials that are to be revoked, revokes them, and waits until the server knows.
func (m *matrix) revoke(t *testing.T) {
	t.Helper()
	list := request{method: http.MethodGet, path: "/ai/jobs"}
	var revoked []credential
	for _, c := range m.bad {
		if strings.Contains(c.name, "revoked") {
			revoked = append(revoked, c)
		}
	}
	require.Len(t, revoked, 3)
	ask := func(c credential, ws string) answer {
		return m.send(t, list, func(h http.Header) { c.set(h, ws) })
	}
	for _, c := range revoked {
		for _, ws := range tenants() {
			require.Equal(t, http.StatusOK, ask(c, ws).status, "%s, before it is revoked", c.name)
		}
	}
	m.site.revoke(t)
	for _, c := range revoked {
		require.Eventually(t, func() bool { return ask(c, acme).status == http.StatusUnauthorized },
			10*time.Second, 20*time.Millisecond, c.name)
	}
}

func (m *matrix) send(tb testing.TB, r request, credential func(http.Header)) answer {
	tb.Helper()
	m.total.requests.Add(1)
	m.sent++
	return m.caller.send(tb, r, credential)
}

// showsNothingOf counts and refuses every trace of workspaces in an answer. The name of the one that was answered, if
// any, is taken out first: it may begin with another's.
func (m *matrix) showsNothingOf(tb testing.TB, a answer, answered string, workspaces ...string) {
	tb.Helper()
	text := a.text(tb)
	if answered != "" {
		text = strings.ReplaceAll(text, `"`+answered+`"`, "")
	}
	for _, ws := range workspaces {
		for _, trace := range []string{contentMark(ws), idMark(ws), mark("request", ws), ws} {
			if strings.Contains(text, trace) {
				m.total.leaks.Add(1)
				require.NotContains(tb, text, trace)
			}
		}
	}
	if strings.Contains(text, requestMark()) {
		m.total.leaks.Add(1)
		require.NotContains(tb, text, requestMark())
	}
}

// refused sends a request that must be refused so, without a trace of any workspace.
func (m *matrix) refused(tb testing.TB, r request, set func(http.Header), status int, code string) answer {
	tb.Helper()
	m.total.refusals.Add(1)
	a := m.send(tb, r, set)
	require.Equal(tb, status, a.status, "%s %s: %s", r.method, r.target(), a.body)
	if r.method != http.MethodHead {
		require.Equal(tb, code, a.problem(tb).Code, "%s %s", r.method, r.target())
	}
	m.showsNothingOf(tb, a, "", tenants()...)
	if code == "job_not_found" { // it is the one refusal that Redis is asked for
		m.unchanged(tb)
	}
	return a
}

// early is refused before its work: Redis is not asked for anything.
func (m *matrix) early(tb testing.TB, r request, set func(http.Header), status int, code string) answer {
	tb.Helper()
	commands := m.commands(tb)
	a := m.refused(tb, r, set, status, code)
	require.Equal(tb, commands+1, m.commands(tb), "%s %s reached Redis: %s", r.method, r.target(), a.body)
	return a
}

// unchanged tells that every key of jobs, with the neighbour's and the queue among them, is what it was.
func (m *matrix) unchanged(tb testing.TB) {
	tb.Helper()
	if m.digest(tb) != m.before {
		require.Equal(tb, m.dumped, m.dump(tb))
		require.FailNow(tb, "the digest of the job data changed, and changed back")
	}
}

// plan is how one route is asked.
type plan struct {
	// shots lists what a workspace may ask for.
	shots func(ws string) []shot
	// givens are the places where a request may name a workspace.
	givens []given
	// scope is what the route needs; routes without one need no credential.
	scope string
	// detail is the text of the refusal of another workspace.
	detail string
}

// shot is one thing to ask for, as a workspace.
type shot struct {
	name string
	ask  request
	// granted tells whether the workspace gets it. It is not found otherwise.
	granted bool
	// holder is the other workspace whose old copy a read meets where it is not granted, empty for none.
	holder string
	// beside is the nearest request that this workspace, or the job's own, is granted: the control.
	beside request
	as     string
	verify func(testing.TB, answer)
	// early tells whether bad credentials are tried for it.
	early bool
}

// given names a workspace somewhere in a request.
type given struct {
	name  string
	apply func(r request, ws string) request
	// code of the refusal, empty where the naming must not matter.
	code string
	// names gives the workspace that code other_workspace is about.
	names func(ws string) string
	// early tells whether requests with bad credentials are sent with it, too.
	early bool
}

// everyRoute takes the routes from the code that registers them: a route without a plan fails.
func (m *matrix) everyRoute(t *testing.T) {
	t.Helper()
	routes, plans := registered(t), m.plans(t)
	m.served(t, routes)
	for _, r := range routes {
		p, known := plans[r]
		require.True(t, known, "the matrix does not know %s %s", r.Method, r.Path)
		delete(plans, r)
		if p.scope == "" {
			m.open(t, r)
			continue
		}
		m.badCredentials(t, p)
		m.goodCredentials(t, p)
	}
	require.Empty(t, plans, "routes that are not registered")
}

func registered(tb testing.TB) []httpapi.Route {
	tb.Helper()
	api, err := httpapi.New(httpapi.Config{Log: zap.NewNop()})
	require.NoError(tb, err)
	return api.Routes()
}

// served holds the list of routes to those of the running binary: what it documents, and what it says that it allows.
func (m *matrix) served(t *testing.T, routes []httpapi.Route) {
	t.Helper()
	methods := map[string][]string{}
	for _, r := range routes {
		methods[r.Path] = append(methods[r.Path], r.Method)
	}
	document := decode[struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}](t, m.send(t, request{method: http.MethodGet, path: "/openapi.json"}, nil))
	for path, operations := range document.Paths {
		for method := range operations {
			if method != "parameters" && method != "summary" && method != "description" {
				require.Contains(t, methods[path], strings.ToUpper(method), path)
			}
		}
	}
	for path, here := range methods {
		require.Contains(t, document.Paths, path)
		options := m.send(t, request{method: http.MethodOptions, path: strings.ReplaceAll(path, "{job_id}", "x")}, nil)
		require.Equal(t, http.StatusNoContent, options.status)
		require.ElementsMatch(t, here, strings.Split(options.header.Get("Allow"), ", "), path)
	}
}

// badCredentials sends each bad credential for each shot. The workspaces that it claims and the places that name one
// take turns, so that every two of credential, shot, workspace and place meet.
func (m *matrix) badCredentials(t *testing.T, p plan) {
	t.Helper()
	early := slices.DeleteFunc(slices.Clone(p.givens), func(g given) bool { return !g.early })
	shots := map[string][]shot{}
	for _, ws := range tenants() {
		shots[ws] = slices.DeleteFunc(p.shots(ws), func(s shot) bool { return !s.early })
	}
	for i, c := range m.bad {
		if c.scope != "" && c.scope != p.scope { // which is all that it lacks
			ws := tenants()[i%2]
			s := shots[ws][0]
			s.verify(t, m.send(t, s.beside, func(h http.Header) { c.set(h, s.as) }))
			continue
		}
		var controls []func()
		commands := m.commands(t)
		for j := range shots[acme] {
			ws := tenants()[(i+j)%2]
			s, g := shots[ws][j], early[(i/2+j)%len(early)]
			if s.ask.method == http.MethodHead && (i+j)%3 > 0 {
				continue // GET is the same code
			}
			a := m.refused(t, g.apply(s.ask, ws), func(h http.Header) { c.set(h, ws) }, c.status, c.code)
			m.requireChallenge(t, a, c, p.scope)
			controls = append(controls, func() {
				beside := s.beside
				if g.code == "" {
					beside = g.apply(beside, s.as)
				}
				m.control(t, beside, c.kind, s)
			})
		}
		require.Equal(t, commands+1, m.commands(t), "%s reached Redis", c.name)
		for _, control := range controls {
			control()
		}
		m.unchanged(t)
	}
}

// requireChallenge holds WWW-Authenticate to RFC 6750.
func (m *matrix) requireChallenge(tb testing.TB, a answer, c credential, scope string) {
	tb.Helper()
	want := []string{`Bearer realm="relay"`}
	switch {
	case c.code == "workspace_missing":
		want = nil
	case c.code == "insufficient_scope":
		want[0] += `, error="insufficient_scope", scope="` + scope + `"`
	case c.bearer:
		want[0] += `, error="invalid_token"`
	}
	require.Equal(tb, want, a.header["Www-Authenticate"], c.name)
	if a.method == http.MethodHead {
		return
	}
	require.Equal(tb, map[string]string{
		"invalid_token":      "Invalid authentication token",
		"workspace_missing":  "Workspace not found in authentication token",
		"insufficient_scope": "The credential lacks the scope " + scope,
	}[c.code], a.problem(tb).Detail)
}

// control sends the request that must be allowed.
func (m *matrix) control(tb testing.TB, r request, k kind, s shot) {
	tb.Helper()
	m.total.controls.Add(1)
	a := m.send(tb, r, m.good[[2]string{string(k), s.as}])
	s.verify(tb, a)
	m.showsNothingOf(tb, a, s.as, neighbour(s.as))
}

// goodCredentials names workspaces in every place, for every shot. The kinds of credentials take turns.
func (m *matrix) goodCredentials(t *testing.T, p plan) {
	t.Helper()
	for _, ws := range tenants() {
		for i, s := range p.shots(ws) {
			for j, g := range p.givens {
				if (s.ask.method == http.MethodHead || !s.early) && (i+j)%3 > 0 {
					continue // GET is the same code, and what is not there is the same everywhere
				}
				k := kinds()[(i+j)%len(kinds())]
				good := m.good[[2]string{string(k), ws}]
				r := g.apply(s.ask, ws)
				switch {
				case g.code == "" && s.granted:
					a := m.send(t, r, good)
					s.verify(t, a)
					m.showsNothingOf(t, a, ws, neighbour(ws))
					continue
				case g.code == "":
					a := m.refused(t, r, good, http.StatusNotFound, "job_not_found")
					m.requireLikeAbsent(t, a)
					if s.holder != "" {
						m.foreign[[2]string{ws, s.holder}]++
					}
				case g.code == "other_workspace":
					a := m.early(t, r, good, http.StatusForbidden, g.code)
					m.forbidden[[2]string{ws, g.names(ws)}]++
					if r.method != http.MethodHead {
						require.Equal(t, p.detail, a.problem(t).Detail)
					}
				default:
					m.early(t, r, good, http.StatusBadRequest, g.code)
				}
				m.control(t, s.beside, k, s)
			}
		}
		m.unchanged(t)
	}
}

// requireLikeAbsent holds the answers for all jobs that are not the caller's to one text.
func (m *matrix) requireLikeAbsent(tb testing.TB, a answer) {
	tb.Helper()
	if m.absent[a.method] == "" {
		m.absent[a.method] = a.text(tb)
	}
	require.Equal(tb, m.absent[a.method], a.text(tb))
}

// open asks a route that needs no credential with all of them: none changes the answer.
func (m *matrix) open(t *testing.T, r httpapi.Route) {
	t.Helper()
	ask := request{method: r.Method, path: r.Path}
	plain := m.send(t, ask, nil)
	require.Equal(t, http.StatusOK, plain.status)
	var sets []func(http.Header)
	for i, c := range m.bad {
		sets = append(sets, func(h http.Header) { c.set(h, tenants()[i%2]) })
	}
	for _, good := range m.good {
		sets = append(sets, good)
	}
	for i, set := range sets {
		g := ignored()[i%len(ignored())]
		a := m.send(t, g.apply(ask, tenants()[i%2]), set)
		require.Equal(t, plain.text(t), a.text(t))
	}
	for _, ws := range tenants() {
		for _, secret := range []string{contentMark(ws), idMark(ws), requestMark()} {
			require.NotContains(t, plain.text(t), secret)
		}
		m.early(t, ask.withQuery("workspace_id="+ws), m.good[[2]string{string(apiKey), ws}], http.StatusBadRequest,
			"invalid_parameter")
	}
	m.unchanged(t)
}

func (m *matrix) plans(tb testing.TB) map[httpapi.Route]plan {
	tb.Helper()
	plans := map[httpapi.Route]plan{
		{Method: http.MethodPost, Path: "/ai/execute"}: {
			shots: func(ws string) []shot { return m.executes(tb, ws) }, givens: givenInBody(), scope: scopeExecute,
			detail: "Cannot execute actions in other workspaces",
		},
	}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		for _, path := range []string{"/livez", "/readyz", "/openapi.json", "/docs"} {
			plans[httpapi.Route{Method: method, Path: path}] = plan{}
		}
		plans[httpapi.Route{Method: method, Path: "/ai/jobs"}] = plan{
			shots: func(ws string) []shot { return m.lists(method, ws) }, givens: givenInQuery(), scope: scopeRead,
			detail: "Cannot access jobs from other workspaces",
		}
		plans[httpapi.Route{Method: method, Path: "/ai/jobs/{job_id}"}] = plan{
			shots: func(ws string) []shot { return m.gets(method, ws) }, givens: givenInQuery(), scope: scopeRead,
			detail: "Cannot access jobs from other workspaces",
		}
	}
	return plans
}

// ignored are places where a workspace may be named without any meaning.
func ignored() []given {
	header := func(set func(h http.Header, ws string)) func(request, string) request {
		return func(r request, ws string) request {
			return r.withHeader(func(h http.Header) { set(h, neighbour(ws)) })
		}
	}
	return []given{
		{name: "not at all", early: true, apply: func(r request, _ string) request { return r }},
		{name: "the neighbour in headers", early: true, apply: header(func(h http.Header, other string) {
			for _, name := range []string{
				"X-Workspace-Id", "X-Workspace", "Workspace-Id", "Workspace_id", "X-Tenant-Id", "X-Forwarded-User", "X-Actor-Id",
				"X-Forwarded-For", "From",
			} {
				h[name] = []string{other}
			}
		})},
		{name: "the neighbour in a cookie", apply: header(func(h http.Header, other string) {
			h["Cookie"] = []string{"workspace_id=" + other + "; X-Workspace-Id=" + other}
		})},
		{name: "the neighbour in overriding headers", apply: header(func(h http.Header, other string) {
			h["X-Original-Url"] = []string{pathOf(id(other, "both"))}
			h["X-Rewrite-Url"] = []string{pathOf(id(other, "both"))}
			h["X-Http-Method-Override"] = []string{"DELETE"}
			h["X-Forwarded-Host"] = []string{other + ".example"}
			h["X-Forwarded-Prefix"] = []string{"/" + other}
		})},
	}
}

// nobody is a workspace without anything.
func nobody(string) string { return "nobody" }

func givenInQuery() []given {
	query := func(pairs func(ws string) []string) func(request, string) request {
		return func(r request, ws string) request { return r.withQuery(pairs(ws)...) }
	}
	one := func(value func(ws string) string) func(request, string) request {
		return query(func(ws string) []string { return []string{"workspace_id=" + value(ws)} })
	}
	return append(ignored(),
		given{name: "own in query", early: true, apply: one(func(ws string) string { return ws })},
		given{name: "own in query, encoded", apply: one(func(ws string) string { return "%61" + ws[1:] })},
		given{name: "the neighbour in the body", apply: func(r request, ws string) request {
			return r.withMembers(member("workspace_id", neighbour(ws)))
		}},
		given{name: "the neighbour in query", early: true, code: "other_workspace", names: neighbour, apply: one(neighbour)},
		given{name: "nobody in query", code: "other_workspace", names: nobody, apply: one(nobody)},
		given{name: "malformed in query", early: true, code: "invalid_workspace_id", apply: one(func(ws string) string {
			return ws + "%0A"
		})},
		given{name: "a glob in query", code: "invalid_workspace_id", apply: one(func(string) string { return "*" })},
		given{name: "empty in query", code: "invalid_workspace_id", apply: one(func(string) string { return "" })},
		given{name: "own and the neighbour in query", code: "invalid_parameter", apply: query(func(ws string) []string {
			return []string{"workspace_id=" + ws, "workspace_id=" + neighbour(ws)}
		})},
		given{name: "own twice in query", code: "invalid_parameter", apply: query(func(ws string) []string {
			return []string{"workspace_id=" + ws, "workspace_id=" + ws}
		})},
		given{name: "in another spelling", code: "invalid_parameter", apply: query(func(ws string) []string {
			return []string{"Workspace_Id=" + neighbour(ws)}
		})},
		given{name: "as a list", code: "invalid_parameter", apply: query(func(ws string) []string {
			return []string{"workspace_id[]=" + neighbour(ws)}
		})},
	)
}

func givenInBody() []given {
	body := func(values func(ws string) []any) func(request, string) request {
		return func(r request, ws string) request {
			for _, value := range values(ws) {
				r = r.withMembers(member("workspace_id", value))
			}
			return r
		}
	}
	one := func(value func(ws string) any) func(request, string) request {
		return body(func(ws string) []any { return []any{value(ws)} })
	}
	query := func(value func(ws string) string) func(request, string) request {
		return func(r request, ws string) request { return r.withQuery("workspace_id=" + value(ws)) }
	}
	own := func(ws string) string { return ws }
	return append(ignored(),
		given{name: "own in the body", early: true, apply: one(func(ws string) any { return ws })},
		given{name: "the neighbour in the body", early: true, code: "other_workspace", names: neighbour, apply: one(func(ws string) any { return neighbour(ws) })},
		given{name: "nobody in the body", code: "other_workspace", names: nobody, apply: one(func(ws string) any { return nobody(ws) })},
		given{name: "malformed in the body", early: true, code: "invalid_workspace_id", apply: one(func(ws string) any { return ws + "\n" })},
		given{name: "empty in the body", code: "invalid_workspace_id", apply: one(func(string) any { return "" })},
		given{name: "null in the body", code: "invalid_body", apply: one(func(string) any { return nil })},
		given{name: "a list in the body", code: "invalid_body", apply: one(func(ws string) any { return []string{ws} })},
		given{name: "own, then the neighbour in the body", code: "invalid_body", apply: body(func(ws string) []any {
			return []any{ws, neighbour(ws)}
		})},
		given{name: "the neighbour, then own in the body", code: "invalid_body", apply: body(func(ws string) []any {
			return []any{neighbour(ws), ws}
		})},
		given{name: "in another spelling", code: "invalid_body", apply: func(r request, ws string) request {
			return r.withMembers(member("Workspace_ID", neighbour(ws)))
		}},
		given{name: "own in query", code: "invalid_parameter", apply: query(own)},
		given{name: "the neighbour in query", code: "invalid_parameter", apply: query(neighbour)},
		given{name: "the neighbour in query, own in the body", code: "invalid_parameter", apply: func(r request, ws string) request {
			return query(neighbour)(r, ws).withMembers(member("workspace_id", ws))
		}},
		given{name: "own in query, the neighbour in the body", code: "invalid_parameter", apply: func(r request, ws string) request {
			return query(own)(r, ws).withMembers(member("workspace_id", neighbour(ws)))
		}},
	)
}

// wireJob is a job as consumers get it.
type wireJob struct {
	JobID       string          `json:"job_id"`
	WorkspaceID string          `json:"workspace_id"`
	Status      string          `json:"status"`
	Provider    string          `json:"action_provider"`
	Params      json.RawMessage `json:"params"`
	ActorID     string          `json:"actor_id"`
}

type wirePage struct {
	Jobs       []wireJob `json:"jobs"`
	Count      int       `json:"count"`
	NextCursor *string   `json:"next_cursor"`
}

// requireOwn checks that a job is ws's and holds what was stored.
func requireOwn(tb testing.TB, j wireJob, ws, id string) {
	tb.Helper()
	require.Equal(tb, id, j.JobID)
	require.Equal(tb, ws, j.WorkspaceID)
	require.Equal(tb, provider(ws), j.Provider)
	require.Equal(tb, actorOf(ws), j.ActorID)
	require.JSONEq(tb, paramsText(tb, ws, id), string(j.Params))
}

// gets asks for every job that there is, and for some that there are not.
func (m *matrix) gets(method, ws string) []shot {
	ask := func(id string) request { return request{method: method, path: pathOf(id)} }
	serves := func(as, id string) func(testing.TB, answer) {
		return func(tb testing.TB, a answer) {
			tb.Helper()
			require.Equal(tb, http.StatusOK, a.status, a.body)
			if method == http.MethodHead {
				require.Empty(tb, a.body)
				return
			}
			requireOwn(tb, decode[wireJob](tb, a), as, id)
		}
	}
	other := neighbour(ws)
	absent := []string{
		id(ws, "absent"), other + ":" + id(other, "both"), other + "/" + id(other, "both"),
		newKey(other, id(other, "both")), oldKey(id(other, "both")), id(other, "both") + "\n", id(other, "both") + "*",
		idMark(other) + "*", "*", "../" + id(other, "both"), ".", "..", strings.Repeat("x", 256), strings.Repeat("x", 257),
	}
	var shots []shot
	for _, jobID := range append(m.ids(), absent...) {
		s := shot{name: jobID, ask: ask(jobID), granted: m.visible(ws, jobID)}
		s.early = jobID == absent[0] || jobID == id(other, "both") || m.holds(ws, jobID)
		s.as, s.beside, s.verify = ws, ask(id(ws, "both")), serves(ws, id(ws, "both"))
		switch {
		case s.granted:
			s.beside, s.verify = s.ask, serves(ws, jobID)
		case m.visible(other, jobID):
			s.as, s.beside, s.verify = other, s.ask, serves(other, jobID)
		}
		if holder := m.oldHolder(jobID); !s.granted && m.phase.readsOld && holder == other {
			s.holder = other
		}
		shots = append(shots, s)
	}
	return shots
}

// lists asks for pages, also by the neighbour's cursors.
func (m *matrix) lists(method, ws string) []shot {
	verify := func(whole bool, status string) func(testing.TB, answer) {
		return func(tb testing.TB, a answer) {
			tb.Helper()
			require.Equal(tb, http.StatusOK, a.status, a.body)
			if method == http.MethodHead {
				require.Empty(tb, a.body)
				return
			}
			page := decode[wirePage](tb, a)
			require.Len(tb, page.Jobs, page.Count)
			var got []string
			for _, j := range page.Jobs {
				require.True(tb, m.visible(ws, j.JobID), "%q is not %s's to see", j.JobID, ws)
				requireOwn(tb, j, ws, j.JobID)
				require.True(tb, status == "" || status == j.Status)
				got = append(got, j.JobID)
			}
			if whole {
				require.Nil(tb, page.NextCursor)
				require.ElementsMatch(tb, m.visibleIDs(ws), got)
			}
		}
	}
	var shots []shot
	for query, check := range map[string]func(testing.TB, answer){
		"":                   verify(true, ""),
		"limit=1000":         verify(true, ""),
		"limit=1":            verify(false, ""),
		"status=pending":     verify(false, "pending"),
		"cursor=new:0:old:0": verify(true, ""),
		"cursor=0":           verify(true, ""),
		"cursor=new:0:old:8": verify(false, ""),
		"cursor=new:0:old:0:after:" + id(neighbour(ws), "both"): verify(false, ""),
	} {
		r := request{method: method, path: "/ai/jobs"}
		if query != "" {
			r = r.withQuery(query)
		}
		shots = append(shots, shot{
			name: query, ask: r, granted: true, beside: r, as: ws, verify: check,
			early: query == "" || query == "limit=1" || query == "status=pending",
		})
	}
	return shots
}

// executes asks for new jobs, and for those that client_request_ids are known for, here or at the neighbour's.
func (m *matrix) executes(tb testing.TB, ws string) []shot {
	tb.Helper()
	execute := func(jobID, key string) request {
		r := request{method: http.MethodPost, path: "/ai/execute"}.withMembers(
			member("action_provider", provider(ws)), member("action_name", actionName(ws)),
			member("params", params(ws, jobID)))
		if key != "" {
			r = r.withMembers(member("client_request_id", key))
		}
		return r
	}
	type made struct {
		JobID  string `json:"job_id"`
		Status string `json:"status"`
	}
	shots := []shot{}
	add := func(name string, r request, early bool, verify func(testing.TB, answer, made)) {
		shots = append(shots, shot{
			name: name, ask: r, granted: true, beside: r, as: ws, early: early,
			verify: func(tb testing.TB, a answer) {
				tb.Helper()
				require.Equal(tb, http.StatusOK, a.status, a.body)
				got := decode[made](tb, a)
				require.Equal(tb, "enqueued", got.Status)
				require.Equal(tb, pathOf(got.JobID), a.header.Get("Location"))
				verify(tb, a, got)
			},
		})
	}
	fresh := func(key string) func(testing.TB, answer, made) {
		return func(tb testing.TB, a answer, got made) {
			tb.Helper()
			require.Empty(tb, a.header.Get("Idempotency-Replayed"))
			m.takeBack(tb, ws, got.JobID, key)
		}
	}
	add("a new job", execute(newJob, ""), true, fresh(""))
	add("a new key", execute(newJob, requestMark()+" new"), true, fresh(requestMark()+" new"))
	for _, known := range m.knownKeys(ws) {
		if !known.held {
			add("own key "+known.key, execute(newJob, known.key), false, fresh(known.key))
			continue
		}
		both := known.job == id(ws, "both")
		add("own key "+known.key, execute(known.job, known.key), both, func(tb testing.TB, a answer, got made) {
			tb.Helper()
			require.Equal(tb, "true", a.header.Get("Idempotency-Replayed"))
			require.Equal(tb, known.job, got.JobID)
		})
	}
	for _, known := range m.knownKeys(neighbour(ws)) {
		both := known.job == id(neighbour(ws), "both")
		add("the neighbour's key "+known.key, execute(newJob, known.key), both, fresh(known.key))
	}
	return shots
}

// newJob stands for the job in its params.
const newJob = "a new one"

// uuidBytes gives the sixteen bytes of a UUID.
func uuidBytes(tb testing.TB, id string) string {
	tb.Helper()
	raw, err := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	require.NoError(tb, err)
	require.Len(tb, raw, 16)
	return string(raw)
}

// takeBack checks that a job was made as the phase has it, in this workspace alone, and removes it.
func (m *matrix) takeBack(tb testing.TB, ws, made, key string) {
	tb.Helper()
	ctx := tb.Context()
	entries, err := m.rdb.ZRange(ctx, indexKey(ws), 0, -1).Result()
	require.NoError(tb, err)
	entries = slices.DeleteFunc(entries, func(e string) bool { return !strings.HasSuffix(e, uuidBytes(tb, made)) })
	require.Len(tb, entries, 2, "one among all jobs, one among those of its state")
	pipe := m.rdb.Pipeline()
	pipe.ZRem(ctx, indexKey(ws), entries[0], entries[1])
	inOld, inNew := pipe.HGetAll(ctx, oldKey(made)), pipe.HGetAll(ctx, newKey(ws, made))
	entry := pipe.RPop(ctx, queueKey)
	pipe.Del(ctx, oldKey(made), newKey(ws, made))
	if key != "" {
		pipe.Del(ctx, idempotencyKey(ws, key))
		for _, known := range m.knownKeys(ws) { // it may have named another job before
			if known.key == key {
				m.remember(ctx, pipe, ws, known)
			}
		}
	}
	_, err = pipe.Exec(ctx)
	require.NoError(tb, err)

	if m.phase.writesOld {
		require.Equal(tb, made, entry.Val())
	} else {
		require.Equal(tb, ws+":"+made, entry.Val())
	}
	for _, c := range []struct {
		written bool
		hash    map[string]string
	}{{m.phase.writesOld, inOld.Val()}, {m.phase.writesNew, inNew.Val()}} {
		if !c.written {
			require.Empty(tb, c.hash)
			continue
		}
		require.Equal(tb, made, c.hash["job_id"])
		require.Equal(tb, ws, c.hash["workspace_id"])
		require.Equal(tb, "pending", c.hash["status"])
		require.Equal(tb, provider(ws), c.hash["action_provider"])
		require.Equal(tb, actorOf(ws), c.hash["actor_id"])
		require.Equal(tb, key, c.hash["client_request_id"])
		require.JSONEq(tb, paramsText(tb, ws, newJob), c.hash["params"])
	}
}

// unrouted asks for what is no route, with and without a good credential.
func (m *matrix) unrouted(t *testing.T) {
	t.Helper()
	for _, ws := range tenants() {
		other := neighbour(ws)
		good := m.good[[2]string{string(rs256), ws}]
		for _, path := range []string{
			"/", "/ai", "/ai/jobs/", "//ai/jobs", "/ai//jobs", "/ai/jobs/" + other + "/" + id(other, "both"),
			"/" + other + "/ai/jobs", "/ai/" + other + "/jobs", "/ai/jobs/../jobs/" + id(other, "both"), "/ai/./jobs", "/AI/jobs",
			"/ai/jobs;workspace_id=" + other, "/ai/execute/", "/metrics", "/debug/pprof/", "/debug/pprof/heap", "/admin",
		} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				for _, set := range []func(http.Header){nil, good} {
					m.early(t, request{method: method, path: path}, set, http.StatusNotFound, "route_not_found")
				}
			}
		}
		for _, r := range registered(t) {
			for _, method := range []string{"PUT", "DELETE", "PATCH", "TRACE", "GET", "POST", "SEARCH"} {
				if !slices.Contains(registered(t), httpapi.Route{Method: method, Path: r.Path}) {
					a := m.early(t, request{method: method, path: strings.ReplaceAll(r.Path, "{job_id}", id(other, "both"))}, good,
						http.StatusMethodNotAllowed, "method_not_allowed")
					require.NotEmpty(t, a.header.Get("Allow"))
				}
			}
		}
		beside := request{method: http.MethodGet, path: pathOf(id(ws, "both"))}
		a := m.send(t, beside, good)
		require.Equal(t, http.StatusOK, a.status)
		requireOwn(t, decode[wireJob](t, a), ws, id(ws, "both"))
	}
	nothing := m.good[[2]string{string(hs256), stranger}]
	for _, jobID := range m.ids() {
		a := m.refused(t, request{method: http.MethodGet, path: pathOf(jobID)}, nothing, http.StatusNotFound, "job_not_found")
		m.requireLikeAbsent(t, a)
		if holder := m.oldHolder(jobID); m.phase.readsOld && holder != "" {
			m.foreign[[2]string{stranger, holder}]++
		}
	}
	page := decode[wirePage](t, m.send(t, request{method: http.MethodGet, path: "/ai/jobs"}, nothing))
	require.Empty(t, page.Jobs)
	require.Nil(t, page.NextCursor)
	m.unchanged(t)
}

// finish stops the server and reads its log.
func (m *matrix) finish(t *testing.T) {
	t.Helper()
	counters := metrics(t, m.server.AdminURL)
	for series, value := range counters {
		if strings.HasPrefix(series, "relay_isolation_breach_total") {
			require.Zero(t, value, series)
		}
	}
	require.Zero(t, m.server.Stop(t))
	require.Empty(t, m.server.Output.String())

	lines := m.server.Log.Lines(t)
	count := func(msg, asked, named string) map[[2]string]int {
		found := map[[2]string]int{}
		for _, line := range logged(lines, msg) {
			require.Equal(t, "warn", line["level"])
			found[[2]string{line[asked].(string), line[named].(string)}]++ // fails either way
		}
		return found
	}
	require.NotEmpty(t, m.forbidden)
	require.Equal(t, m.forbidden, count("Workspace mismatch in request", "request_workspace", "given_workspace"))
	require.Equal(t, m.phase.readsOld, len(m.foreign) > 0)
	require.Equal(t, m.foreign, count("Workspace mismatch during fallback", "request_workspace", "stored_workspace"))
	served := logged(lines, "request")                                          // the page of metrics is one of them
	require.Equal(t, m.sent+1, len(served), "one access line for each request") //nolint:testifylint // Len prints them all
	require.Equal(t, m.level == "debug", len(logged(lines, "Job read")) > 0)

	requireWhole(t, m.server.Log.String())
	if m.level != "debug" {
		harness.RequireCleanLog(t, m.server.Log.String(), idMark(acme), idMark(acmeEU))
	}
}

// holds tells whether a workspace has a copy of a job, whether or not the phase reads it.
func (w *world) holds(ws, id string) bool {
	return slices.ContainsFunc(w.copies, func(s stored) bool { return s.workspace == ws && s.id == id })
}
