package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/httpapi"
)

// verdicts collects what a test was told, in the place of failing it.
type verdicts struct {
	testing.TB
	told []string
}

func (v *verdicts) Errorf(format string, args ...any) {
	v.told = append(v.told, fmt.Sprintf(format, args...))
}

// said is an answer of the fake server.
type said struct {
	status int
	header http.Header
	body   string
}

func (s said) with(name string, values ...string) said {
	s.header = s.header.Clone()
	s.header[name] = values
	return s
}

func (s said) without(name string) said {
	s.header = s.header.Clone()
	delete(s.header, name)
	return s
}

// ask sends a request to a server that answers so, and gives what the test was told.
func ask(t *testing.T, s said, method, target, body string, header http.Header) []string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		maps.Copy(w.Header(), s.header)
		if s.header["Content-Type"] == nil {
			w.Header()["Content-Type"] = nil // net/http would guess one
		}
		w.WriteHeader(s.status)
		_, _ = io.WriteString(w, s.body)
	}))
	defer server.Close()
	told := &verdicts{TB: t}
	r, err := http.NewRequestWithContext(t.Context(), method, server.URL+target, strings.NewReader(body))
	require.NoError(t, err)
	r.Header = header.Clone()
	resp, err := Client(told).Do(r)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // only read from
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	if method != http.MethodHead {
		require.Equal(t, s.body, string(got), "the answer is passed on whatever is found")
	}
	return told.told
}

func requireTold(t *testing.T, told []string, reason string) {
	t.Helper()
	require.Len(t, told, 1, "nothing was found wrong")
	require.Contains(t, told[0], reason)
}

const (
	credential = "Bearer relay_sk_test"
	execution  = `{"action_provider":"p","action_name":"n"}`
	made       = `{"job_id":"a","status":"enqueued"}`
)

func sent() http.Header {
	return http.Header{"Authorization": {credential}, "Content-Type": {"application/json"}}
}

func every(more http.Header) http.Header {
	h := http.Header{"X-Request-Id": {"r-1"}, "Cache-Control": {"no-store"}}
	maps.Copy(h, more)
	return h
}

func executed() said {
	return said{http.StatusOK, every(http.Header{"Content-Type": {"application/json"}, "Location": {"/ai/jobs/a"}}), made}
}

func refused(status int, code string) said {
	title := http.StatusText(status)
	return said{
		status, every(http.Header{"Content-Type": {"application/problem+json"}}),
		fmt.Sprintf(`{"type":"/docs#code-%s","title":%q,"status":%d,"detail":"d","code":%q,"request_id":"r-1"}`, code, title, status, code),
	}
}

// TestExchanges: what is as the document has it passes, and each thing that is not is found.
func TestExchanges(t *testing.T) {
	t.Parallel()
	execute := func(s said) []string { return ask(t, s, http.MethodPost, "/ai/execute", execution, sent()) }
	require.Empty(t, execute(executed()))
	require.Empty(t, execute(executed().with("Idempotency-Replayed", "true")))
	requireTold(t, execute(executed().with("X-Powered-By", "Relay")), "X-Powered-By is not documented")
	requireTold(t, execute(executed().with("Retry-After", "1")), "Retry-After is not documented")
	requireTold(t, execute(executed().with("X-Request-Id", "a", "b")), "more than once")
	requireTold(t, execute(executed().with("X-Request-Id", "a b")), "X-Request-Id")
	requireTold(t, execute(executed().without("X-Request-Id")), "X-Request-Id")
	requireTold(t, execute(executed().without("Location")), "Location")
	requireTold(t, execute(executed().with("Cache-Control", "no-cache")), "Cache-Control")
	requireTold(t, execute(executed().with("Content-Type", "text/html")), "media type")
	requireTold(t, execute(executed().without("Content-Type")), "media type")
	for _, status := range []int{201, 202, 204, 301, 304, 402, 404, 429, 503} {
		s := executed()
		if s.status = status; status == http.StatusNoContent || status == http.StatusNotModified {
			s.body = ""
		}
		requireTold(t, execute(s), "the status is not documented")
	}
	for _, body := range []string{
		`{"job_id":"a","status":"enqueued","workspace_id":"acme"}`, `{"job_id":"a"}`, `{"job_id":1,"status":"enqueued"}`,
		`{"job_id":null,"status":"enqueued"}`, `{"job_id":"a","status":"pending"}`, `[]`, `null`, `a`, ``,
	} {
		s := executed()
		s.body = body
		requireTold(t, execute(s), "answered with 200")
	}

	require.Empty(t, execute(refused(http.StatusBadRequest, "invalid_body")))
	requireTold(t, execute(refused(http.StatusBadRequest, "invalid_cursor")), "the code")
	requireTold(t, execute(refused(http.StatusBadRequest, "nonsense")), "the code")
	requireTold(t, execute(refused(http.StatusInternalServerError, "record_invalid")), "the code")
	other := refused(http.StatusBadRequest, "invalid_body")
	other.body = strings.Replace(other.body, "400", "422", 1)
	requireTold(t, execute(other), "says that its status is 422")
	requireTold(t, execute(refused(http.StatusUnauthorized, "invalid_token")), "WWW-Authenticate")
	require.Empty(t, execute(refused(http.StatusUnauthorized, "invalid_token").with("Www-Authenticate", `Bearer realm="relay"`)))
	requireTold(t, execute(said{http.StatusBadRequest, http.Header{"Content-Type": {"text/plain; charset=utf-8"}}, "400 Bad Request"}), "media type")
}

// TestRequests: what was let in must be what the document allows, and what was refused may be anything.
func TestRequests(t *testing.T) {
	t.Parallel()
	const execute = "/ai/execute"
	without := func(name string) http.Header {
		h := sent()
		h.Del(name)
		return h
	}
	for name, r := range map[string]struct {
		method, target, body string
		header               http.Header
		reason               string
	}{
		"good":                     {"POST", execute, execution, sent(), ""},
		"in other case":            {"POST", execute, execution, http.Header{"Authorization": {"bearer x"}, "Content-Type": {`Application/JSON;charset="UTF-8"`}}, ""},
		"unknown header":           {"POST", execute, execution, http.Header{"Authorization": {credential}, "Content-Type": {"application/json"}, "X-Other": {"1"}}, ""},
		"unknown member":           {"POST", execute, `{"action_provider":"p","action_name":"n","actor_id":"root"}`, sent(), "actor_id"},
		"member missing":           {"POST", execute, `{"action_provider":"p"}`, sent(), "action_name"},
		"wrong type":               {"POST", execute, `{"action_provider":"p","action_name":"n","params":[]}`, sent(), "params"},
		"null":                     {"POST", execute, `{"action_provider":"p","action_name":"n","params":null}`, sent(), "params"},
		"no JSON":                  {"POST", execute, `action`, sent(), "let in"},
		"no body":                  {"POST", execute, ``, sent(), "let in"},
		"huge numbers":             {"POST", execute, `{"action_provider":"p","action_name":"n","params":{"n":1e400}}`, sent(), ""},
		"another media type":       {"POST", execute, execution, http.Header{"Authorization": {credential}, "Content-Type": {"text/json"}}, "Content-Type"},
		"no media type":            {"POST", execute, execution, without("Content-Type"), "Content-Type"},
		"no credential":            {"POST", execute, execution, without("Authorization"), "security"},
		"another scheme":           {"POST", execute, execution, http.Header{"Authorization": {"Basic eA=="}, "Content-Type": {"application/json"}}, "security"},
		"unknown parameter":        {"POST", execute + "?dry_run=1", execution, sent(), "dry_run is not documented"},
		"key that is none":         {"POST", execute, execution, http.Header{"Authorization": {credential}, "Content-Type": {"application/json"}, "Idempotency-Key": {"ü"}}, "Idempotency-Key"},
		"list":                     {"GET", "/ai/jobs?limit=1000&status=pending&cursor=at:1:a&workspace_id=acme", "", without("Content-Type"), ""},
		"limit too high":           {"GET", "/ai/jobs?limit=1001", "", without("Content-Type"), "limit"},
		"limit that is no number":  {"GET", "/ai/jobs?limit=x", "", without("Content-Type"), "limit"},
		"status that is none":      {"GET", "/ai/jobs?status=done", "", without("Content-Type"), "status"},
		"workspace that is none":   {"GET", "/ai/jobs?workspace_id=ACME", "", without("Content-Type"), "workspace_id"},
		"limit twice":              {"GET", "/ai/jobs?limit=1&limit=2", "", without("Content-Type"), "more than once"},
		"body where there is none": {"GET", "/ai/jobs", `{}`, without("Content-Type"), ""},
		"id with a slash":          {"GET", "/ai/jobs/a%2Fb?workspace_id=acme", "", without("Content-Type"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := executed()
			switch {
			case strings.HasPrefix(r.target, "/ai/jobs/"):
				s = refused(http.StatusNotFound, "job_not_found")
			case strings.HasPrefix(r.target, "/ai/jobs"):
				s = said{http.StatusOK, every(http.Header{"Content-Type": {"application/json"}}), `{"jobs":[],"count":0,"next_cursor":null}`}
			}
			if told := ask(t, s, r.method, r.target, r.body, r.header); r.reason == "" {
				require.Empty(t, told)
			} else {
				requireTold(t, told, r.reason)
			}
			s = refused(http.StatusBadRequest, "invalid_parameter")
			require.Empty(t, ask(t, s, r.method, r.target, r.body, r.header), "what is bad on purpose is refused")
		})
	}
}

// TestBesideTheRoutes: paths, methods and OPTIONS have answers of their own, and HEAD those of GET.
func TestBesideTheRoutes(t *testing.T) {
	t.Parallel()
	live := said{http.StatusOK, every(http.Header{"Content-Type": {"application/json"}}), `{"status":"ok"}`}
	options := said{http.StatusNoContent, every(http.Header{"Allow": {"GET, HEAD"}}), ""}
	unmatched, method := refused(http.StatusNotFound, "route_not_found"), refused(http.StatusMethodNotAllowed, "method_not_allowed")
	for name, c := range map[string]struct {
		method, target string
		said           said
		reason         string
	}{
		"no route":                     {"GET", "/nowhere", unmatched, ""},
		"no route, for OPTIONS":        {"OPTIONS", "/nowhere", unmatched, ""},
		"no route, but served":         {"GET", "/metrics", live, "the status is not documented"},
		"no route, as a job":           {"GET", "/nowhere", refused(http.StatusNotFound, "job_not_found"), "the code"},
		"a job as no route":            {"GET", "/ai/jobs/a", unmatched, "the code"},
		"a slash more":                 {"GET", "/ai/jobs/", unmatched, ""},
		"an id with a raw slash":       {"GET", "/ai/jobs/a/b", unmatched, ""},
		"no method":                    {"PUT", "/livez", method.with("Allow", "GET, HEAD"), ""},
		"no method, and none named":    {"PUT", "/livez", method, "Allow"},
		"no method, but served":        {"DELETE", "/livez", live, "the status is not documented"},
		"OPTIONS":                      {"OPTIONS", "/livez", options, ""},
		"OPTIONS without methods":      {"OPTIONS", "/livez", options.without("Allow"), "Allow"},
		"OPTIONS with a type":          {"OPTIONS", "/livez", options.with("Content-Type", "text/plain"), "no body"},
		"OPTIONS with more":            {"OPTIONS", "/livez", options.with("Access-Control-Allow-Origin", "*"), "Access-Control-Allow-Origin"},
		"HEAD":                         {"HEAD", "/livez", live, ""},
		"HEAD with another media type": {"HEAD", "/livez", live.with("Content-Type", "text/plain"), "media type"},
		"HEAD with more":               {"HEAD", "/livez", live.with("Etag", "1"), "Etag"},
		"HEAD of what is only posted":  {"HEAD", "/ai/execute", live, "the status is not documented"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if told := ask(t, c.said, c.method, c.target, "", http.Header{}); c.reason == "" {
				require.Empty(t, told)
			} else {
				requireTold(t, told, c.reason)
			}
		})
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodHead, "/livez", nil)
	require.ErrorContains(t, Exchange{Request: r, Status: live.status, Header: live.header, Body: []byte(live.body)}.Check(), "HEAD")
}

// TestBrokenAnswersAreNotJudged: what did not arrive whole says nothing about the service.
func TestBrokenAnswersAreNotJudged(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer server.Close()
	told := &verdicts{TB: t}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/livez", nil)
	require.NoError(t, err)
	resp, err := Client(told).Do(r)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // only read from
	got, err := io.ReadAll(resp.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, "half", string(got))
	require.Empty(t, told.told)

	r, err = http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/ai/execute", struct{ io.Reader }{strings.NewReader("{}")})
	require.NoError(t, err)
	_, err = Client(told).Do(r) //nolint:bodyclose // there is none
	require.ErrorContains(t, err, "cannot be held to the document")
}

// examples gives every example of an answer in JSON, with what it is an example of.
func examples(t *testing.T, doc *openapi3.T, each func(path, method, status string, response *openapi3.Response, mediaType string, value any)) {
	t.Helper()
	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			for status, response := range operation.Responses.Map() {
				for mediaType, content := range response.Value.Content {
					for _, example := range content.Examples {
						each(path, method, status, response.Value, mediaType, example.Value.Value)
					}
				}
			}
		}
	}
}

// spoilt gives copies of a value of JSON, each of which has one thing more, less or different somewhere.
func spoilt(value any) []any {
	copies := []any{nil, "x", -1.0, map[string]any{}}
	switch value := value.(type) {
	case map[string]any:
		more := maps.Clone(value)
		more["undocumented"] = "x"
		copies = append(copies, more)
		for name, member := range value {
			less := maps.Clone(value)
			delete(less, name)
			copies = append(copies, less)
			for _, other := range spoilt(member) {
				changed := maps.Clone(value)
				changed[name] = other
				copies = append(copies, changed)
			}
		}
	case []any:
		for i, item := range value {
			for _, other := range spoilt(item) {
				changed := slices.Clone(value)
				changed[i] = other
				copies = append(copies, changed)
			}
		}
	}
	return copies
}

// TestPlainJudgesAsTheDocumentDoes: the document is written anew to be judged by quickly. Both judge every example, and
// all that becomes of it by one change, alike.
func TestPlainJudgesAsTheDocumentDoes(t *testing.T) {
	t.Parallel()
	text, err := httpapi.OpenAPI()
	require.NoError(t, err)
	whole, err := openapi3.NewLoader().LoadFromData(text)
	require.NoError(t, err)
	require.True(t, whole.IsOpenAPI31OrLater())
	quick, err := read()
	require.NoError(t, err)

	judged, wrong, seen := 0, 0, map[string]int{}
	examples(t, whole, func(path, method, status string, response *openapi3.Response, mediaType string, value any) {
		schema := response.Content[mediaType].Schema
		if seen[schema.Ref]++; seen[schema.Ref] > 3 || mediaType == "text/html" {
			return // the slow one takes milliseconds
		}
		fast := quick.Paths.Value(path).GetOperation(method).Responses.Value(status).Value.Content[mediaType].Schema.Value
		for _, v := range append(spoilt(value), value) {
			want := schema.Value.VisitJSON(v, openapi3.EnableJSONSchema2020(), openapi3.VisitAsResponse())
			got := fast.VisitJSON(v, openapi3.VisitAsResponse())
			require.Equal(t, want == nil, got == nil, "%v: %v, %v", v, want, got)
			judged++
			if want != nil {
				wrong++
			}
		}
	})
	require.Greater(t, wrong, 100)
	require.Greater(t, judged, wrong)
	t.Logf("%d judged, %d of them wrong", judged, wrong)
}

// TestEveryExampleCanBeAnswered: the whole check takes each example of the document as an answer, and takes it with no
// member more.
func TestEveryExampleCanBeAnswered(t *testing.T) {
	t.Parallel()
	d, err := read()
	require.NoError(t, err)
	asked := 0
	examples(t, d.T, func(path, method, status string, response *openapi3.Response, mediaType string, value any) {
		target := strings.ReplaceAll(path, "{job_id}", "a")
		r := httptest.NewRequestWithContext(t.Context(), method, target, nil)
		r.Header = sent()
		x := Exchange{Request: r, Header: http.Header{"Content-Type": {mediaType}}}
		if method == http.MethodPost {
			x.Sent = []byte(execution)
		}
		_, err := fmt.Sscan(status, &x.Status)
		require.NoError(t, err)
		given := map[string]string{
			"X-Request-Id": "r-1", "Cache-Control": "no-store", "Location": "/ai/jobs/a", "WWW-Authenticate": `Bearer realm="relay"`,
			"Content-Security-Policy": "default-src 'none'; ", "X-Content-Type-Options": "nosniff",
		}
		for name, header := range response.Headers {
			if header.Value.Required {
				require.Contains(t, given, name)
				x.Header.Set(name, given[name])
			}
		}
		if text, ok := value.(string); ok {
			x.Body = []byte(text)
			require.NoError(t, x.Check())
			return
		}
		asked++
		x.Body, err = json.Marshal(value)
		require.NoError(t, err)
		require.NoError(t, x.Check())
		x.Body = append(bytes.TrimSuffix(x.Body, []byte("}")), []byte(`,"undocumented":1}`)...)
		require.ErrorContains(t, x.Check(), "undocumented")
	})
	require.Greater(t, asked, 50)
}

func BenchmarkCheck(b *testing.B) {
	for name, c := range map[string]struct {
		x      Exchange
		method string
		target string
	}{
		"execute":   {Exchange{Sent: []byte(execution), Status: 200, Header: executed().header, Body: []byte(made)}, "POST", "/ai/execute"},
		"not found": {Exchange{Status: 404, Header: refused(404, "job_not_found").header, Body: []byte(refused(404, "job_not_found").body)}, "GET", "/ai/jobs/a"},
	} {
		b.Run(name, func(b *testing.B) {
			c.x.Request = httptest.NewRequestWithContext(b.Context(), c.method, c.target, nil)
			c.x.Request.Header = sent()
			for b.Loop() {
				if err := c.x.Check(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
