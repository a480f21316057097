package httpapi_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.yaml.in/yaml/v3"

	"github.com/relay-jobs/relay/adapters/httpapi"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports/portsmock"
	"github.com/relay-jobs/relay/tests/harness/conformance"
)

func TestRequestID(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sent []string
		kept bool
	}{
		"sane":          {[]string{"Az09._-"}, true},
		"longest":       {[]string{strings.Repeat("a", 128)}, true},
		"too long":      {[]string{strings.Repeat("a", 129)}, false},
		"empty":         {[]string{""}, false},
		"none":          {nil, false},
		"twice":         {[]string{"a", "b"}, false},
		"with a space":  {[]string{"a b"}, false},
		"with a quote":  {[]string{`a"`}, false},
		"not ASCII":     {[]string{"ü"}, false},
		"with controls": {[]string{"a\x1b[31m"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := service("/livez")
			if test.sent != nil {
				a = a.with("X-Request-Id", test.sent...)
			}
			got := newEdge(t).do(a).Header().Get("X-Request-Id")
			if test.kept {
				require.Equal(t, test.sent[0], got)
			} else {
				require.Regexp(t, `^[0-9a-f-]{36}$`, got)
			}
		})
	}
}

// TestAccessLine: one line a request, and nothing in it that a caller chose but a sane request id and trace id.
func TestAccessLine(t *testing.T) {
	t.Parallel()
	const trace = "0af7651916cd43dd8448eb211c80319c"
	a := get("chosen?workspace_id=acme").with("X-Request-Id", "r-1").
		with("traceparent", "00-"+trace+"-b7ad6b7169203331-01")
	for name, test := range map[string]struct {
		asked ask
		want  map[string]any
	}{
		"allowed": {a, map[string]any{
			"method": "GET", "route": "/ai/jobs/{job_id}", "status": int64(200), "workspace": "acme", "request_id": "r-1",
			"trace_id": trace,
		}},
		"scope missing": {a.as("powerless"), map[string]any{
			"method": "GET", "route": "/ai/jobs/{job_id}", "status": int64(403), "workspace": "acme", "request_id": "r-1",
			"trace_id": trace,
		}},
		"unproven": {a.as("chosen").with("traceparent", "chosen"), map[string]any{
			"method": "GET", "route": "/ai/jobs/{job_id}", "status": int64(401), "workspace": "", "request_id": "r-1",
		}},
		"no route": {service("/chosen/%0a?chosen=1").with("X-Request-Id", "r-1"), map[string]any{
			"method": "GET", "route": "unmatched", "status": int64(404), "workspace": "", "request_id": "r-1",
		}},
		"no method": {withMethod(service("/docs").with("X-Request-Id", "r-1"), "CHOSEN"), map[string]any{
			"method": "other", "route": "unmatched", "status": int64(405), "workspace": "", "request_id": "r-1",
		}},
		"no body": {withMethod(service("/livez").with("X-Request-Id", "r-1"), http.MethodHead), map[string]any{
			"method": "HEAD", "route": "/livez", "status": int64(200), "workspace": "", "request_id": "r-1",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEdge(t).serving()
			w := e.do(test.asked)
			lines := e.logs.All()
			require.Len(t, lines, 1)
			require.Equal(t, "request", lines[0].Message)
			got := lines[0].ContextMap()
			require.Contains(t, got, "duration")
			delete(got, "duration")
			require.Equal(t, test.want, got)
			require.Equal(t, []served{{test.want["route"].(string), test.want["method"].(string), w.Code}}, e.served)
		})
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	e := newEdge(t).serving()
	for _, a := range []ask{list(""), get("a"), service("/livez"), service("/docs"), list("?x=1"), get("a").as("")} {
		a = a.with("X-Request-Id", "same")
		full, head := e.do(a), e.do(withMethod(a, http.MethodHead))
		require.Equal(t, full.Code, head.Code)
		require.Equal(t, full.Header(), head.Header())
	}
	for target, allowed := range map[string][]string{
		"/ai/execute": {"POST"}, "/ai/jobs": {"GET", "HEAD"}, "/ai/jobs/a%2Fb": {"GET", "HEAD"}, "/docs": {"GET", "HEAD"},
	} {
		for _, method := range []string{http.MethodOptions, http.MethodDelete, "BREW"} {
			w := e.do(ask{method: method, target: target})
			require.ElementsMatch(t, allowed, strings.Split(w.Header().Get("Allow"), ", "))
			want := http.StatusMethodNotAllowed
			if method == http.MethodOptions {
				want = http.StatusNoContent
				require.Empty(t, w.Body.String())
			}
			require.Equal(t, want, w.Code)
		}
	}
	require.Equal(t, http.StatusNotFound, e.do(withMethod(service("/nowhere"), http.MethodOptions)).Code)
}

// check is a health check that answers what it is told to.
func check(t *testing.T, name string, err error) *portsmock.MockHealthCheck {
	t.Helper()
	m := portsmock.NewMockHealthCheck(gomock.NewController(t))
	m.EXPECT().Name().AnyTimes().Return(name)
	m.EXPECT().Check(gomock.Any()).AnyTimes().DoAndReturn(func(ctx context.Context) error {
		_, bounded := ctx.Deadline()
		require.True(t, bounded)
		return err
	})
	return m
}

func TestReadyz(t *testing.T) {
	t.Parallel()
	ready := newEdge(t, check(t, "redis", nil), check(t, "keys", nil))
	w := ready.do(service("/readyz"))
	require.Equal(t, http.StatusOK, w.Code)
	require.JSONEq(t, `{"status":"ready","checks":[{"name":"redis","ok":true},{"name":"keys","ok":true}]}`, w.Body.String())

	ready.api.Drain()
	w = ready.do(service("/readyz"))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.JSONEq(t, `{"status":"draining","checks":[{"name":"redis","ok":true},{"name":"keys","ok":true}]}`, w.Body.String())
	require.Equal(t, http.StatusOK, ready.serving().do(list("")).Code, "what still comes is served")

	broken := newEdge(t, check(t, "redis", errors.New("dial tcp 10.0.0.1:6379")), check(t, "keys", nil))
	w = broken.do(service("/readyz"))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.JSONEq(t, `{"status":"unavailable","checks":[{"name":"redis","ok":false},{"name":"keys","ok":true}]}`,
		w.Body.String())
	require.Len(t, broken.logs.FilterMessage("not ready").All(), 1)

	w = newEdge(t).do(service("/readyz"))
	require.JSONEq(t, `{"status":"ready","checks":[]}`, w.Body.String())
}

func TestLivezAsksNothing(t *testing.T) {
	t.Parallel()
	unasked := portsmock.NewMockHealthCheck(gomock.NewController(t))
	w := newEdge(t, unasked).do(service("/livez"))
	require.Equal(t, http.StatusOK, w.Code)
	require.JSONEq(t, `{"status":"ok"}`, w.Body.String())
}

// TestDocsPageIsSelfContained: the policy allows the page's own style and script and nothing from elsewhere, and the
// page asks for nothing else.
func TestDocsPageIsSelfContained(t *testing.T) {
	t.Parallel()
	w := newEdge(t).do(service("/docs"))
	require.Equal(t, "text/html; charset=utf-8", w.Header().Get("Content-Type"))
	page, policy := w.Body.String(), w.Header().Get("Content-Security-Policy")
	require.Contains(t, policy, "default-src 'none'")
	require.NotContains(t, policy, "unsafe")
	for _, element := range []string{"style", "script"} {
		inline := regexp.MustCompile(`(?s)<`+element+`[^>]*>(.*?)</`+element+`>`).FindAllStringSubmatch(page, -1)
		require.Len(t, inline, 1)
		sum := sha256.Sum256([]byte(inline[0][1]))
		require.Contains(t, policy, element+"-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
	}
	require.NotRegexp(t, `(?i)https?://|\ssrc=|@import|url\(|\sstyle=|\son\w+=|innerHTML`, page)
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	e := newEdge(t, check(t, "redis", nil))
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "relay_up 1\n") })
	admin := httpapi.NewAdmin(metrics, e.api)
	for target, want := range map[string]string{
		"/metrics": "relay_up 1", "/livez": `"ok"`, "/readyz": `"redis"`, "/debug/pprof/": "goroutine",
		"/debug/pprof/goroutine?debug=1": "goroutine profile", "/debug/pprof/heap?debug=1": "heap profile",
	} {
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
		require.Equal(t, http.StatusOK, w.Code, target)
		require.Contains(t, w.Body.String(), want)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	}
	for target, why := range map[string]string{
		"/ai/jobs": "no jobs on the operators' listener", "/ai/execute": "no jobs", "/ai/jobs/a": "no jobs",
		"/debug/pprof/cmdline": "a flag may hold a secret",
	} {
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
		require.Equal(t, http.StatusNotFound, w.Code, why)
		require.NotContains(t, w.Body.String(), os.Args[0])
	}
}

// serverConfig gives the bounds that production has where nothing else is set.
func serverConfig() httpapi.ServerConfig {
	return httpapi.ServerConfig{
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 32 << 10, Log: zap.NewNop(),
	}
}

// started serves handler on a free port until the test ends.
func started(t *testing.T, handler http.Handler, cfg httpapi.ServerConfig) (server *httpapi.Server, addr string) {
	t.Helper()
	server, err := httpapi.NewServer(handler, cfg)
	require.NoError(t, err)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx) // ended already where the test did it
		require.NoError(t, <-ended)
	})
	return server, listener.Addr().String()
}

// spoken sends bytes as they are and gives what comes back until the server closes the connection.
func spoken(t *testing.T, addr, request string) string {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // nothing is lost with it
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = io.WriteString(conn, request)
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	return string(answer)
}

// TestServerOnTheWire holds what the package says about what net/http answers by itself, and what it leaves to us.
func TestServerOnTheWire(t *testing.T) {
	t.Parallel()
	e := newEdge(t).serving()
	cfg := serverConfig()
	cfg.ReadTimeout = 300 * time.Millisecond
	_, addr := started(t, e.api.Handler(), cfg)
	const rest = " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer good\r\n"
	body := `{"action_provider":"p","action_name":"n"}`
	for name, test := range map[string]struct{ request, status, has string }{
		"path that cannot be decoded":  {"GET /ai/jobs/%zz" + rest + "\r\n", "400 Bad Request", "text/plain"},
		"query that cannot be decoded": {"GET /ai/jobs?limit=%zz" + rest + "\r\n", "400 Bad Request", "invalid_parameter"},
		"no HTTP":                      {"HELLO\r\n\r\n", "400 Bad Request", "text/plain"},
		"headers too large":            {"GET /livez" + rest + "X: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "431 ", "text/plain"},
		"expects what is not offered":  {"GET /livez" + rest + "Expect: nonsense\r\n\r\n", "417 Expectation Failed", "Content-Length: 0\r\n"},
		"asterisk":                     {"OPTIONS *" + rest + "\r\n", "404 Not Found", "route_not_found"},
		"whole URL":                    {"GET http://x/livez" + rest + "\r\n", "200 OK", `"ok"`},
		"body":                         {fmt.Sprintf("POST /ai/execute%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", rest, len(body), body), "200 OK", newJobID},
		"body in chunks":               {fmt.Sprintf("POST /ai/execute%sContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", rest, len(body), body), "200 OK", newJobID},
		"body that never comes":        {"POST /ai/execute" + rest + "Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{", "400 Bad Request", "did not arrive in full"},
		"no body, of the right length": {"HEAD /ai/jobs/a" + rest + "\r\n", "200 OK", "Content-Length: "},
	} {
		t.Run(name, func(t *testing.T) {
			answer := spoken(t, addr, test.request)
			status, _, _ := strings.Cut(answer, "\r\n")
			require.Contains(t, status, test.status)
			require.Contains(t, answer, test.has)
			if test.has == "text/plain" || test.status == "417 Expectation Failed" {
				require.NotContains(t, answer, "X-Request-Id", "no route was asked")
				return
			}
			x, err := conformance.FromWire(test.request, answer)
			require.NoError(t, err)
			require.NoError(t, x.Check())
		})
	}
}

// TestServerWaitsForTheCredential: a client that asks first sends its body only once the credential has passed.
func TestServerWaitsForTheCredential(t *testing.T) {
	t.Parallel()
	_, addr := started(t, newEdge(t).api.Handler(), serverConfig())
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // nothing is lost with it
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = io.WriteString(conn, "POST /ai/execute HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+
		"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n")
	require.NoError(t, err)
	status, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 401 Unauthorized\r\n", status)
}

// stalled serves reads by id that last until they are let go.
func stalled(t *testing.T) (e *edge, began chan context.Context, release chan struct{}) {
	t.Helper()
	e, began, release = newEdge(t), make(chan context.Context, 1), make(chan struct{})
	e.jobs.EXPECT().Get(gomock.Any(), gomock.Any(), gomock.Any()).DoAndReturn(
		func(ctx context.Context, ws workspace.ID, id job.ID) (job.Job, error) {
			began <- ctx
			select {
			case <-release:
				return job.Job{ID: id, Workspace: ws, Status: job.Pending}, nil
			case <-ctx.Done():
				return job.Job{}, ctx.Err()
			}
		})
	return e, began, release
}

func fetch(t *testing.T, ctx context.Context, addr string) (int, error) { //nolint:revive // a helper's first parameter is t
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/ai/jobs/a", nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer good")
	answer, err := conformance.Client(t).Do(r)
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	return answer.StatusCode, nil
}

type fetched struct {
	status int
	err    error
}

func TestShutdownDrains(t *testing.T) {
	t.Parallel()
	e, began, release := stalled(t)
	server, addr := started(t, e.api.Handler(), serverConfig())
	answered, down := make(chan fetched, 1), make(chan error, 1)
	go func() {
		status, err := fetch(t, t.Context(), addr)
		answered <- fetched{status, err}
	}()
	<-began
	go func() { down <- server.Shutdown(context.Background()) }()
	require.Eventually(t, func() bool {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, 5*time.Second, time.Millisecond, "nothing new is accepted")
	require.Empty(t, down, "a request still runs")
	close(release)
	require.Equal(t, fetched{status: http.StatusOK}, <-answered)
	require.NoError(t, <-down)
}

func TestShutdownCutsOffWhatTakesTooLong(t *testing.T) {
	t.Parallel()
	e, began, _ := stalled(t)
	server, addr := started(t, e.api.Handler(), serverConfig())
	answered := make(chan fetched, 1)
	go func() {
		status, err := fetch(t, t.Context(), addr)
		answered <- fetched{status, err}
	}()
	running := <-began
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, server.Shutdown(ctx), context.Canceled)
	<-running.Done()
	require.Error(t, (<-answered).err)
}

func TestCallerThatLeaves(t *testing.T) {
	t.Parallel()
	e, began, _ := stalled(t)
	_, addr := started(t, e.api.Handler(), serverConfig())
	ctx, leave := context.WithCancel(t.Context())
	answered := make(chan fetched, 1)
	go func() {
		status, err := fetch(t, ctx, addr)
		answered <- fetched{status, err}
	}()
	<-began
	leave()
	require.ErrorIs(t, (<-answered).err, context.Canceled)
	require.Eventually(t, func() bool { return e.logs.FilterMessage("request").Len() == 1 }, 5*time.Second, time.Millisecond)
	require.EqualValues(t, 499, e.logs.FilterMessage("request").All()[0].ContextMap()["status"])
	require.Empty(t, e.logs.FilterMessage("request failed").All(), "a caller that leaves is no failure of ours")
}

func TestOpenAPIIsTheDocument(t *testing.T) {
	t.Parallel()
	written, err := os.ReadFile("openapi.yaml")
	require.NoError(t, err)
	var want any
	require.NoError(t, yaml.Unmarshal(written, &want))
	wanted, err := json.Marshal(want)
	require.NoError(t, err)
	w := newEdge(t).do(service("/openapi.json"))
	require.JSONEq(t, string(wanted), w.Body.String())
	require.NotContains(t, w.Body.String(), "x-go-", "consumers are not told about Go")
	require.Regexp(t, `"/ai/execute":.*"/ai/jobs":.*"/ai/jobs/{job_id}":.*"/docs":`, w.Body.String(), "in the order of the file")
}
