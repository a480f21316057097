package isolation_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/tests/harness/conformance"
)

// sentRequestID is the X-Request-Id of every request, so that whole answers can be compared.
const sentRequestID = "isolation-test.1"

// request is one request without its credential. Of it, only copies are changed.
type request struct {
	method, path string
	query        []string // name=value, as sent
	members      []string // of the JSON object that is the body; no body where nil
	header       http.Header
}

func (r request) withQuery(pairs ...string) request {
	r.query = append(slices.Clone(r.query), pairs...)
	return r
}

func (r request) withMembers(members ...string) request {
	r.members = append(slices.Clone(r.members), members...)
	return r
}

func (r request) withHeader(set func(http.Header)) request {
	r.header = r.header.Clone()
	if r.header == nil {
		r.header = http.Header{}
	}
	set(r.header)
	return r
}

func (r request) target() string {
	if len(r.query) == 0 {
		return r.path
	}
	return r.path + "?" + strings.Join(r.query, "&")
}

func (r request) body() string {
	if r.members == nil {
		return ""
	}
	return "{" + strings.Join(r.members, ",") + "}"
}

// member gives one member of a JSON object.
func member(name string, value any) string {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(err) // values are these tests' own
	}
	return `"` + name + `":` + string(raw)
}

type answer struct {
	method string
	status int
	header http.Header
	body   string
}

// text is all that a caller can see, headers in one order and without the time of day.
func (a answer) text(tb testing.TB) string {
	tb.Helper()
	h := maps.Clone(a.header)
	delete(h, "Date")
	var b strings.Builder
	require.NoError(tb, h.Write(&b))
	return http.StatusText(a.status) + "\n" + b.String() + "\n" + a.body
}

// problem is a refusal as RFC 9457 and the API's document have it.
type problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Code      string `json:"code"`
	RequestID string `json:"request_id"`
	Errors    []struct {
		Pointer   *string `json:"pointer"`
		Parameter *string `json:"parameter"`
		Detail    string  `json:"detail"`
	} `json:"errors"`
}

// problem decodes a refusal. The answer to a HEAD has none.
func (a answer) problem(tb testing.TB) problem {
	tb.Helper()
	var p problem
	dec := json.NewDecoder(strings.NewReader(a.body))
	dec.DisallowUnknownFields()
	require.NoError(tb, dec.Decode(&p), a.body)
	return p
}

func decode[T any](tb testing.TB, a answer) T {
	tb.Helper()
	var v T
	require.NoError(tb, json.Unmarshal([]byte(a.body), &v), a.body)
	return v
}

// caller sends requests to one server and holds each answer to what every answer must be.
type caller struct {
	base string
	http *http.Client
}

func newCaller(tb testing.TB, base string) *caller {
	tb.Helper()
	return &caller{base: base, http: conformance.Client(tb)}
}

// send sends r with further headers, which may be nil.
func (c *caller) send(tb testing.TB, r request, credential func(http.Header)) answer {
	tb.Helper()
	body := r.body()
	req, err := http.NewRequestWithContext(tb.Context(), r.method, c.base+r.target(), strings.NewReader(body))
	require.NoError(tb, err)
	maps.Copy(req.Header, r.header)
	if r.members != nil && req.Header["Content-Type"] == nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if req.Header["X-Request-Id"] == nil {
		req.Header.Set("X-Request-Id", sentRequestID)
	}
	if credential != nil {
		credential(req.Header)
	}
	resp, err := c.http.Do(req)
	require.NoError(tb, err, "%s %s", r.method, r.target())
	defer resp.Body.Close() //nolint:errcheck // only read from
	content, err := io.ReadAll(resp.Body)
	require.NoError(tb, err)
	a := answer{method: r.method, status: resp.StatusCode, header: resp.Header, body: string(content)}
	a.requireWellFormed(tb, req.Header.Get("X-Request-Id"))
	return a
}

// requireWellFormed checks what holds for every answer of the API.
func (a answer) requireWellFormed(tb testing.TB, requestID string) {
	tb.Helper()
	require.Equal(tb, []string{"no-store"}, a.header["Cache-Control"])
	require.Len(tb, a.header["X-Request-Id"], 1)
	if requestID == sentRequestID {
		require.Equal(tb, requestID, a.header.Get("X-Request-Id"))
	}
	if a.status < http.StatusBadRequest {
		return
	}
	if a.header.Get("Content-Type") == "application/json" {
		require.Equal(tb, http.StatusServiceUnavailable, a.status, "only /readyz reports without refusing")
		return
	}
	require.Equal(tb, "application/problem+json", a.header.Get("Content-Type"))
	if a.status != http.StatusForbidden { // where a missing scope has a challenge, a missing workspace none
		require.Equal(tb, a.status == http.StatusUnauthorized, a.header["Www-Authenticate"] != nil)
	}
	if a.method == http.MethodHead {
		require.Empty(tb, a.body)
		return
	}
	p := a.problem(tb)
	require.Equal(tb, a.status, p.Status)
	require.Equal(tb, a.header.Get("X-Request-Id"), p.RequestID)
	require.Equal(tb, "/docs#code-"+p.Code, p.Type)
	require.NotEmpty(tb, p.Title)
	require.NotEmpty(tb, p.Detail)
	for _, e := range p.Errors {
		require.NotEqual(tb, e.Pointer == nil, e.Parameter == nil, "exactly one of pointer and parameter")
	}
}
