package isolation_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/conformance"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// canary is in every hostile input that can hold it. No answer and no log line may.
const canary = "canary7f3c"

// exchange sends a request as its bytes and gives the answer, parsed and as its bytes. It is held to the document.
func exchange(t *testing.T, s *service, text string) (a answer, whole string) {
	t.Helper()
	a, whole = speak(t, s, text)
	x, err := conformance.FromWire(text, whole)
	require.NoError(t, err, "%.300s", text)
	require.NoError(t, x.Check(), "%.300s", text)
	return a, whole
}

// speak sends bytes as they are on a connection of its own, and gives one answer, parsed and as its bytes.
func speak(t *testing.T, s *service, text string) (a answer, whole string) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.base, "http://"))
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // only read from
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	go func() { _, _ = io.WriteString(conn, text) }() // the server may answer and close before it read all
	method, _, _ := strings.Cut(text, " ")
	var read strings.Builder
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, &read)), &http.Request{Method: method})
	require.NoError(t, err, "%.200s", text)
	defer resp.Body.Close() //nolint:errcheck // only read from
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NotContains(t, read.String(), canary)
	return answer{method: method, status: resp.StatusCode, header: resp.Header, body: string(body)}, read.String()
}

// raw writes a request with a good credential; headers are whole lines.
func (s *service) raw(method, target, body string, headers ...string) string {
	lines := append([]string{
		method + " " + target + " HTTP/1.1", "Host: relay", "Connection: close", "Authorization: Bearer " + s.tokens[acme],
	}, headers...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

func (s *service) rawGet(target string, headers ...string) string {
	return s.raw(http.MethodGet, target, "", headers...)
}

func (s *service) rawPost(body string, headers ...string) string {
	return s.raw(http.MethodPost, "/ai/execute", body, append([]string{
		"Content-Type: application/json", "Content-Length: " + strconv.Itoa(len(body)),
	}, headers...)...)
}

// anonymous takes the credential out.
func (s *service) anonymous(text string, authorization ...string) string {
	lines := ""
	for _, a := range authorization {
		lines += "Authorization: " + a + "\r\n"
	}
	return strings.Replace(text, "Authorization: Bearer "+s.tokens[acme]+"\r\n", lines, 1)
}

const action = `"action_provider":"google","action_name":"gmail.send"`

type hostile struct {
	name, text string
	status     int
	code       string
	part       string // the pointer or parameter that is named, where the code is about input
}

// hostileInput lists what must be refused before anything is asked of Redis.
func (s *service) hostileInput() []hostile {
	var list []hostile
	add := func(status int, code, part, name, text string) {
		list = append(list, hostile{name: name, text: text, status: status, code: code, part: part})
	}
	body := func(part, name, text string) {
		add(http.StatusBadRequest, "invalid_body", part, "body: "+name, s.rawPost(text))
	}
	body("", "empty", "")
	body("", "no JSON", canary)
	body("", "an array", `["`+canary+`"]`)
	body("", "a string", `"`+canary+`"`)
	body("", "two objects", "{"+action+"}{\"a\":\""+canary+"\"}")
	body("", "ends early", `{"action_provider":"`+canary)
	body("", "a zero byte", "{"+action+"}\x00"+canary)
	body("/params", "not UTF-8", `{`+action+`,"params":"`+canary+"\xff\"}")
	body("", "a control character", "{"+action+",\"client_request_id\":\""+canary+"\n\"}")
	body("/params", "params are a list", `{`+action+`,"params":["`+canary+`"]}`)
	body("/params", "params are text", `{`+action+`,"params":"{\"a\":\"`+canary+`\"}"}`)
	body("/params", "params are null", `{`+action+`,"params":null}`)
	body("/params/a", "a name twice, deep inside", `{`+action+`,"params":{"a":"`+canary+`","a":1}}`)
	body("/action_name", "a name twice", `{`+action+`,"action_name":"`+canary+`"}`)
	body("/actor_id", "an unknown member", `{`+action+`,"actor_id":"`+canary+`"}`)
	body("/job_id", "a job id", `{`+action+`,"job_id":"`+canary+`"}`)
	body("/status", "a status", `{`+action+`,"status":"`+canary+`"}`)
	body("/__proto__", "a prototype", `{`+action+`,"__proto__":{"workspace_id":"`+canary+`"}}`)
	body("/action_name", "a member missing", `{"action_provider":"`+canary+`"}`)
	body("/action_provider", "an empty provider", `{"action_provider":"","action_name":"`+canary+`"}`)
	body("/action_provider", "a control character in the provider", `{"action_provider":"`+canary+`\n","action_name":"n"}`)
	body("/action_name", "a name that is too long", `{"action_provider":"p","action_name":"`+canary+strings.Repeat("x", 256)+`"}`)
	body("/action_name", "a name that is a number", `{"action_provider":"`+canary+`","action_name":7}`)
	body("/client_request_id", "an empty client_request_id", `{`+action+`,"client_request_id":""}`)
	body("/client_request_id", "a client_request_id that is too long", `{`+action+`,"client_request_id":"`+canary+strings.Repeat("x", 200)+`"}`)
	body("/client_request_id", "a client_request_id that is not ASCII", `{`+action+`,"client_request_id":"`+canary+`é"}`)
	body("/client_request_id", "a client_request_id with a newline", `{`+action+`,"client_request_id":"`+canary+`\r\nSET x y"}`)
	body("", "too deep", `{`+action+`,"params":`+strings.Repeat(`{"a":`, 64)+`"`+canary+`"`+strings.Repeat("}", 65))
	body("", "brackets alone", strings.Repeat("[", 100_000))
	body("/params/a", "a number that is none", `{`+action+`,"params":{"a":NaN}}`)
	add(400, "invalid_workspace_id", "/workspace_id", "body: a malformed workspace_id",
		s.rawPost(`{`+action+`,"workspace_id":"`+canary+`*"}`))

	large := strings.Repeat("x", 1<<20)
	add(413, "body_too_large", "", "body: too large", s.rawPost(`{`+action+`,"params":{"`+canary+`":"`+large+`"}}`))
	add(413, "body_too_large", "", "body: announced as too large", s.raw("POST", "/ai/execute", "{",
		"Content-Type: application/json", "Content-Length: 99999999999"))
	add(413, "body_too_large", "", "body: too large in chunks", s.raw("POST", "/ai/execute",
		"100001\r\n{"+large+"\r\n0\r\n\r\n", "Content-Type: application/json", "Transfer-Encoding: chunked"))
	add(413, "params_too_large", "/params", "body: params too large",
		s.rawPost(`{`+action+`,"params":{"a":"`+canary+large[:256<<10]+`"}}`))
	add(400, "invalid_body", "", "body: a broken chunk", s.raw("POST", "/ai/execute",
		"zz\r\n"+canary+"\r\n0\r\n\r\n", "Content-Type: application/json", "Transfer-Encoding: chunked"))

	whole := "{" + action + "}"
	typed := func(name string, headers ...string) {
		add(415, "unsupported_media_type", "", "type: "+name, s.raw("POST", "/ai/execute", whole,
			append(headers, "Content-Length: "+strconv.Itoa(len(whole)))...))
	}
	typed("none")
	typed("text", "Content-Type: text/plain")
	typed("a form", "Content-Type: application/x-www-form-urlencoded")
	typed("another charset", "Content-Type: application/json; charset=utf-16")
	typed("a parameter nobody knows", "Content-Type: application/json; "+canary+"=1")
	typed("twice", "Content-Type: application/json", "Content-Type: application/json")
	typed("malformed", "Content-Type: application/json; ;;"+canary)
	typed("compressed", "Content-Type: application/json", "Content-Encoding: gzip")

	key := func(code, name string, headers ...string) {
		add(400, code, "Idempotency-Key", "key: "+name, s.rawPost(`{`+action+`,"client_request_id":"one"}`, headers...))
	}
	key("invalid_parameter", "empty", "Idempotency-Key:")
	key("invalid_parameter", "too long", "Idempotency-Key: "+canary+strings.Repeat("x", 200))
	key("invalid_parameter", "not ASCII", "Idempotency-Key: "+canary+"é")
	key("invalid_parameter", "a tab inside", "Idempotency-Key: "+canary+"\tb")
	key("invalid_parameter", "twice", "Idempotency-Key: one", "Idempotency-Key: one")
	key("idempotency_keys_differ", "not the body's", "Idempotency-Key: "+canary)

	query := func(code, part, name, text string) {
		add(400, code, part, "query: "+name, s.rawGet("/ai/jobs?"+text))
	}
	for _, limit := range []string{"", "0", "-1", "1001", "1.5", "1e2", "0x10", "%2B1", "01", "99999999999999999999", "%D9%A1", canary, "1%00", "1%0A"} {
		query("invalid_parameter", "limit", "limit "+limit, "limit="+limit)
	}
	for _, status := range []string{"", "done", "PENDING", "pending%20", "pending,failed", canary, "*", "pending%00"} {
		query("invalid_parameter", "status", "status "+status, "status="+status)
	}
	for _, cursor := range append(malformedCursors(), canary, "new:1:old:"+canary) {
		query("invalid_cursor", "cursor", "cursor "+cursor, "cursor="+url.QueryEscape(cursor))
	}
	for _, ws := range []string{"", "%20", "ACME", "-acme", "acme%0A", "acme%00", "acme:x", "a*", "acme/..", strings.Repeat("a", 33), "%D0%B0cme"} {
		query("invalid_workspace_id", "workspace_id", "workspace "+ws, "workspace_id="+ws)
		add(400, "invalid_workspace_id", "workspace_id", "query: a job, workspace "+ws, s.rawGet("/ai/jobs/x?workspace_id="+ws))
	}
	query("invalid_parameter", "query", "malformed encoding", "limit=%zz"+canary)
	query("invalid_parameter", "query", "a semicolon", "limit=1;status="+canary)
	query("invalid_parameter", "query", "no name", "="+canary)
	query("invalid_parameter", "limit", "twice", "limit=1&limit=1")
	query("invalid_parameter", "Limit", "another spelling", "Limit=1")
	query("invalid_parameter", "offset", "unknown", "offset="+canary)
	query("invalid_parameter", "access_token", "a credential", "access_token="+canary)
	for _, target := range []string{"/ai/jobs/x", "/livez", "/readyz", "/openapi.json", "/docs"} {
		add(400, "invalid_parameter", "offset", "query: unknown at "+target, s.rawGet(target+"?offset="+canary))
	}
	add(400, "invalid_parameter", "offset", "query: unknown at execute",
		strings.Replace(s.rawPost(whole), "/ai/execute", "/ai/execute?offset="+canary, 1))

	for name, authorization := range map[string][]string{
		"none": nil, "empty": {""}, "scheme alone": {"Bearer"}, "unknown": {"Bearer " + canary},
		"bytes": {"Bearer \xff\xfe" + canary}, "a tab": {"Bearer\t" + s.tokens[acme]}, "very long": {"Bearer " + strings.Repeat("A", 20_000)},
		"two": {"Bearer " + s.tokens[acme], "Bearer " + s.tokens[acme]}, "a JWT of nothing": {"Bearer .."},
		"like a key": {"Bearer relay_sk_" + strings.Repeat("A", 43)},
	} {
		add(401, "invalid_token", "", "credential: "+name, s.anonymous(s.rawGet("/ai/jobs?limit="+canary), authorization...))
		add(401, "invalid_token", "", "credential, with a broken body: "+name, s.anonymous(s.rawPost(canary), authorization...))
	}
	for _, target := range []string{"/", "/ai/jobs/", "/ai/jobs/a/b", "/ai/jobs/../x", "//ai/jobs", "/" + canary, "/ai/jobs/%2e%2e/x", "/metrics"} {
		add(404, "route_not_found", "", "path "+target, s.rawGet(target))
	}
	add(404, "job_not_found", "", "an id that is too long", s.rawGet("/ai/jobs/"+canary+strings.Repeat("x", 257)))
	for _, method := range []string{"PUT", "DELETE", "PATCH", "TRACE", canary} {
		add(405, "method_not_allowed", "", "method "+method, s.raw(method, "/ai/jobs", ""))
	}
	return list
}

// notHTTP lists what is no HTTP, or more of it than the server takes. net/http answers it, in its own words.
func (s *service) notHTTP() map[string]string {
	return map[string]string{
		"malformed encoding in the path":  s.rawGet("/ai/jobs/%zz" + canary),
		"a zero byte in the path":         s.rawGet("/ai/jobs/\x00" + canary),
		"a space in the path":             s.rawGet("/ai/jobs/a " + canary),
		"a control character in a header": s.rawGet("/ai/jobs", "X-Request-Id: "+canary+"\x01"),
		"a header without a colon":        s.rawGet("/ai/jobs", canary),
		"a space before the colon":        s.rawGet("/ai/jobs", "Authorization : "+canary),
		"headers too large":               s.rawGet("/ai/jobs", "X-Padding: "+canary+strings.Repeat("x", 64<<10)),
		"a target too long":               s.rawGet("/ai/jobs?cursor=" + canary + strings.Repeat("1", 64<<10)),
		"two lengths":                     s.rawPost("{"+action+"}", "Content-Length: 5"),
		"a negative length":               s.raw("POST", "/ai/execute", "", "Content-Length: -1"),
		"two hosts":                       s.rawGet("/ai/jobs", "Host: "+canary),
		"no host":                         strings.Replace(s.rawGet("/ai/jobs"), "Host: relay\r\n", "", 1),
		"no version":                      "GET /ai/jobs\r\n\r\n",
		"another protocol":                "PING " + canary + "\r\n\r\n",
	}
}

// tolerated lists what is malformed and counts as not sent; the request is served.
func (s *service) tolerated() map[string]string {
	list := map[string]string{}
	for name, header := range map[string]string{
		"request id too long":       "X-Request-Id: " + canary + strings.Repeat("x", 200),
		"request id with spaces":    "X-Request-Id: " + canary + " b",
		"request id like a log":     `X-Request-Id: ` + canary + `","level":"error`,
		"request id in two lines":   "X-Request-Id: " + canary + "\r\nX-Request-Id: " + canary,
		"request id folded":         "X-Request-Id: a\r\n " + canary,
		"request id with bytes":     "X-Request-Id: " + canary + "\xff",
		"trace malformed":           "Traceparent: 00-" + canary,
		"trace too long":            "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-" + canary,
		"agent like a log":          `User-Agent: ` + canary + `\n{"level":"error"}`,
		"a workspace in the header": "X-Workspace-Id: " + canary,
	} {
		list[name] = s.rawGet("/ai/jobs", header)
	}
	return list
}

// TestHostileInput sends what is malformed as bytes, and proves by the count of Redis' own commands that nothing of
// it gets there; then it makes the service fail. The log must tell of all that, and hold nothing that was sent.
func TestHostileInput(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"debug", "info"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			redis := redisserver.Start(t)
			keys := harness.NewKeys(t)
			s := &service{redis: redis, tokens: map[string]string{acme: keys.Token(t, acme), acmeEU: keys.Token(t, acmeEU)}}
			s.world = &world{rdb: redis.Client(t)}
			secret := randomText(t)
			s.server = harness.Start(t, harness.Environment(phaseNamed(t, "dual write").env, map[string]string{
				"REDIS_URL": redis.URL(), "RELAY_API_KEYS_FILE": keys.Path,
				"RELAY_LOG_LEVEL": level, "RELAY_JWT_ALGORITHMS": "HS256", "RELAY_JWT_ISSUER": issuer,
				"RELAY_JWT_AUDIENCE": audience, "RELAY_JWT_SECRET": secret, "RELAY_REDIS_DIAL_TIMEOUT": "200ms",
			}))
			s.caller = newCaller(t, s.server.URL)
			for _, ws := range tenants() {
				s.make(t, ws)
			}
			s.refuseHostileInput(t)
			s.failInEveryWay(t)
			require.Zero(t, s.server.Stop(t))
			requireWhole(t, s.server.Log.String())
			require.NotEmpty(t, s.server.Log.Message(t, "request failed"))
			require.Empty(t, s.server.Output.String())
		})
	}
}

func (s *service) refuseHostileInput(t *testing.T) {
	t.Helper()
	requireServed := func(text string) {
		a, _ := exchange(t, s, text)
		require.Equal(t, http.StatusOK, a.status, a.body)
	}
	requireServed(s.rawGet("/ai/jobs"))
	before := s.digest(t)
	commands := s.commands(t)
	refused := func(text string, send func(*testing.T, *service, string) (answer, string)) answer {
		a, _ := send(t, s, text)
		now := s.commands(t)
		require.Equal(t, commands+1, now, "%.300s reached Redis", text)
		commands = now
		return a
	}
	for _, h := range s.hostileInput() {
		a := refused(h.text, exchange)
		require.Equal(t, h.status, a.status, "%s: %s", h.name, a.body)
		a.requireWellFormed(t, "")
		p := a.problem(t)
		require.Equal(t, h.code, p.Code, h.name)
		if h.status != http.StatusBadRequest && h.part == "" {
			require.Empty(t, p.Errors, h.name)
			continue
		}
		require.NotEmpty(t, p.Errors, "%s: %s", h.name, a.body)
		part := p.Errors[0].Pointer
		if part == nil {
			part = p.Errors[0].Parameter
		}
		require.True(t, h.part == "" || h.part == *part, "%s: %s", h.name, a.body)
	}
	for name, text := range s.notHTTP() {
		a := refused(text, speak)
		require.Contains(t, []int{http.StatusBadRequest, http.StatusRequestHeaderFieldsTooLarge}, a.status, "%s: %s", name, a.body)
		require.Empty(t, a.header["X-Request-Id"], "%s: it came to a route", name)
	}
	require.Equal(t, before, s.digest(t))

	for name, text := range s.tolerated() {
		a, _ := exchange(t, s, text)
		require.Equal(t, http.StatusOK, a.status, name)
		a.requireWellFormed(t, "")
	}
	require.Greater(t, s.commands(t), commands+1, "what is served does reach Redis")

	// The largest that is allowed, beside what is not.
	requireServed(s.rawPost(`{` + action + `,"params":` + strings.Repeat(`{"a":`, 62) + `{}` + strings.Repeat("}", 63)))
	requireServed(s.rawPost(`{` + action + `,"params":{"a":"` + strings.Repeat("x", 256<<10-len(`{"a":""}`)) + `"}}`))
	requireServed(s.rawPost(strings.Repeat(" ", 1<<20-len(`{`+action+`}`)) + `{` + action + `}`))
	requireServed(s.rawPost(`{`+action+`,"client_request_id":"`+strings.Repeat("~", 200)+`"}`, "Idempotency-Key: "+strings.Repeat("~", 200)))
	requireServed(s.rawGet("/ai/jobs?limit=1000&status=pending&cursor=new:0:old:0&workspace_id=acme"))
	requireServed(s.rawGet("/ai/jobs", "X-Request-Id: "+strings.Repeat("a", 128)))
}

// failInEveryWay asks, with marked inputs and for marked jobs, what the service cannot do.
func (s *service) failInEveryWay(t *testing.T) {
	t.Helper()
	marked := execution(member("params", map[string]string{"mark": contentMark(acme)}),
		member("client_request_id", requestMark()))
	id := decode[executed](t, s.send(t, marked, s.as(acme))).JobID
	store(t, s.rdb,
		stored{schema: oldSchema, workspace: acme, id: "no status", changes: map[string]string{"status": ""}},
		stored{schema: newSchema, workspace: acme, id: "contradiction", changes: map[string]string{"workspace_id": acmeEU}},
		stored{schema: oldSchema, workspace: acmeEU, id: "foreign"},
		stored{schema: oldSchema, workspace: acme, id: "line\nfeed \x1b[31m\u2028"})
	require.NoError(t, s.rdb.Set(t.Context(), newKey(acme, "no hash"), contentMark(acme), 0).Err())

	requireRefused(t, s.get(t, acme, "no status"), http.StatusInternalServerError, "record_invalid", "The stored record of this job cannot be read")
	for _, id := range []string{"contradiction", "foreign", "no hash", "absent\r\n{\"level\":\"error\"}\x00"} {
		requireRefused(t, s.get(t, acme, id), http.StatusNotFound, "job_not_found", "Job not found")
	}
	require.Equal(t, http.StatusOK, s.get(t, acme, "line\nfeed \x1b[31m\u2028").status)
	require.Equal(t, http.StatusOK, s.get(t, acme, id).status)
	require.Equal(t, http.StatusOK, s.list(t, acme).status)
	other := s.send(t, marked, func(h http.Header) {
		s.as(acme)(h)
		h.Set("Idempotency-Key", requestMark())
	})
	require.Equal(t, http.StatusOK, other.status, other.body)
	reused := execution(member("client_request_id", requestMark()), member("params", map[string]string{"mark": contentMark(acmeEU)}))
	require.Equal(t, http.StatusUnprocessableEntity, s.send(t, reused, s.as(acme)).status)
	require.NoError(t, s.rdb.Rename(t.Context(), queueKey, "kept").Err())
	require.NoError(t, s.rdb.Set(t.Context(), queueKey, contentMark(acme), 0).Err())
	failing := execution(member("params", map[string]string{"mark": contentMark(acme)}), member("client_request_id", requestMark()+" 2"))
	requireRefused(t, s.send(t, failing, s.as(acme)), http.StatusInternalServerError, "internal", "Internal error")

	require.NoError(t, s.redis.Kill())
	for _, r := range []request{
		failing, {method: http.MethodGet, path: "/ai/jobs"}, {method: http.MethodGet, path: pathOf(id)},
	} {
		a := s.send(t, r, s.as(acme))
		requireRefused(t, a, http.StatusInternalServerError, "storage_unavailable", "The storage is unavailable, try again")
		require.NotEmpty(t, a.header.Get("Retry-After"))
		_, port, err := net.SplitHostPort(s.redis.Addr)
		require.NoError(t, err)
		for _, internal := range []string{port, "127.0.0.1", "ai:job", "dial", "EOF", "WRONGTYPE", ".go:", "goroutine"} {
			require.NotContains(t, a.text(t), internal)
		}
	}
	ready := s.send(t, request{method: http.MethodGet, path: "/readyz"}, nil)
	require.Equal(t, http.StatusServiceUnavailable, ready.status)
	require.NotContains(t, ready.body, "127.0.0.1")
	require.Equal(t, http.StatusOK, s.send(t, request{method: http.MethodGet, path: "/livez"}, nil).status)
}

// TestLogOfARefusedRedisPassword starts a server with the wrong one.
func TestLogOfARefusedRedisPassword(t *testing.T) {
	t.Parallel()
	password := randomText(t)
	redis := redisserver.Start(t)
	redis.DeniesOnPurpose()
	s := serve(t, "dual write", map[string]string{
		"REDIS_URL": "redis://" + redisserver.ServerUser + ":" + password + "@" + redis.Addr + "/0", "RELAY_LOG_LEVEL": "debug",
	})
	requireRefused(t, s.list(t, acme), http.StatusInternalServerError, "storage_unavailable", "The storage is unavailable, try again")
	require.Equal(t, http.StatusServiceUnavailable, s.send(t, request{method: http.MethodGet, path: "/readyz"}, nil).status)
	require.Zero(t, s.server.Stop(t))
	require.NotEmpty(t, s.server.Log.Message(t, "request failed"))
}

// TestAnotherWorkspacesJobIsAnsweredLikeNone compares bytes as they come from the wire.
func TestAnotherWorkspacesJobIsAnsweredLikeNone(t *testing.T) {
	t.Parallel()
	inEveryPhase(t, func(t *testing.T, s *service) {
		t.Helper()
		store(t, s.rdb,
			stored{schema: oldSchema, workspace: acmeEU, id: "old-"}, stored{schema: newSchema, workspace: acmeEU, id: "new-"},
			stored{schema: oldSchema, workspace: acmeEU, id: "both"}, stored{schema: newSchema, workspace: acmeEU, id: "both"},
			stored{schema: oldSchema, workspace: acmeEU, id: "huge", changes: map[string]string{
				"params": `{"a":"` + strings.Repeat("x", 100<<10) + `"}`,
			}})
		withoutDate := func(text string) string {
			head, rest, ok := strings.Cut(text, "Date: ")
			require.True(t, ok)
			_, rest, ok = strings.Cut(rest, "\r\n")
			require.True(t, ok)
			return head + rest
		}
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			ask := func(id string) string {
				_, whole := exchange(t, s, s.raw(method, "/ai/jobs/"+id, "", "X-Request-Id: same"))
				return withoutDate(whole)
			}
			absent := ask("none")
			require.Contains(t, absent, "404 Not Found\r\n")
			for _, id := range []string{"old-", "new-", "both", "huge"} {
				require.Equal(t, absent, ask(id), id)
			}
		}
		raw, err := json.Marshal(decode[wireJob](t, s.get(t, acmeEU, "both")))
		require.NoError(t, err)
		require.Contains(t, string(raw), contentMark(acmeEU), "its own workspace gets it")
	})
}
