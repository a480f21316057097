package telemetry_test

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/harness/conformance"
)

// receiver is a collector of traces.
type receiver struct {
	*httptest.Server

	mu       sync.Mutex
	resource map[string]string
	spans    []*trace.Span
	text     strings.Builder // all that came, readable
}

func receive(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{resource: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /base/v1/traces", func(w http.ResponseWriter, req *http.Request) {
		content, err := io.ReadAll(req.Body)
		var sent collector.ExportTraceServiceRequest
		if err != nil || req.Header.Get("Content-Type") != "application/x-protobuf" || proto.Unmarshal(content, &sent) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.text.WriteString(protojson.Format(&sent))
		for _, of := range sent.GetResourceSpans() {
			for _, a := range of.GetResource().GetAttributes() {
				r.resource[a.GetKey()] = a.GetValue().GetStringValue()
			}
			for _, scope := range of.GetScopeSpans() {
				r.spans = append(r.spans, scope.GetSpans()...)
			}
		}
	})
	r.Server = httptest.NewServer(mux)
	t.Cleanup(r.Close)
	return r
}

// environment has a server send its traces here.
func (r *receiver) environment(ratio string) map[string]string {
	return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": r.URL + "/base/", "RELAY_TRACE_RATIO": ratio}
}

// children gives the spans below a span, given by its id in hex.
func (r *receiver) children(parent string) (found []*trace.Span) {
	for _, s := range r.spans {
		if hex.EncodeToString(s.GetParentSpanId()) == parent {
			found = append(found, s)
		}
	}
	return found
}

func attributes(s *trace.Span) map[string]string {
	all := map[string]string{}
	for _, a := range s.GetAttributes() {
		all[a.GetKey()] = a.GetValue().GetStringValue()
		if a.GetValue().GetIntValue() != 0 {
			all[a.GetKey()] = fmt.Sprint(a.GetValue().GetIntValue())
		}
	}
	return all
}

// caller is where a consumer's trace stands.
type caller struct{ trace, span string }

func (c caller) header(flags string) []string {
	return []string{"traceparent", "00-" + c.trace + "-" + c.span + "-" + flags}
}

func callerNamed(n int) caller {
	return caller{trace: fmt.Sprintf("%032x", 0xabc000+n), span: fmt.Sprintf("%016x", 0xdef000+n)}
}

func (s *service) stored(t *testing.T, id string) string {
	t.Helper()
	value, err := s.rdb.HGet(t.Context(), "ai:job:acme:"+id, "traceparent").Result()
	require.NoError(t, err)
	return value
}

func TestTracesGoOnFromTheCallerToTheJob(t *testing.T) {
	t.Parallel()
	r := receive(t)
	s := serve(t, migration.DualWrite, r.environment("0"))
	executing, getting := callerNamed(1), callerNamed(2)
	id := s.execute(t, executing.header("01")...)
	status, _ := s.send(t, http.MethodGet, "/ai/jobs/"+id, "", getting.header("01")...)
	require.Equal(t, http.StatusOK, status)
	parent := s.stored(t, id)

	unsampled := callerNamed(3)
	quiet := s.stored(t, s.execute(t, unsampled.header("00")...))
	require.Regexp(t, "^00-"+unsampled.trace+"-[0-9a-f]{16}-00$", quiet, "who follows keeps to what the caller decided")
	require.NotContains(t, quiet, unsampled.span)
	s.use(t) // of which no caller decides, nor the ratio for
	openMetrics := s.scrape(t, "application/openmetrics-text; version=1.0.0")
	require.Equal(t, 0, s.Stop(t), "the last traces are sent")

	require.Equal(t, "relay", r.resource["service.name"])
	require.NotEmpty(t, r.resource["service.version"])
	require.Len(t, r.children(executing.span), 1)
	execute := r.children(executing.span)[0]
	require.Equal(t, "POST /ai/execute", execute.GetName())
	require.Equal(t, trace.Span_SPAN_KIND_SERVER, execute.GetKind())
	require.Equal(t, map[string]string{
		"http.request.method": "POST", "http.route": "/ai/execute", "http.response.status_code": "200",
		"relay.workspace_id": "acme",
	}, attributes(execute))
	require.Equal(t, "00-"+executing.trace+"-"+hex.EncodeToString(execute.GetSpanId())+"-01", parent,
		"whoever runs the job goes on below the span that made it")
	require.Len(t, r.children(getting.span), 1)
	get := r.children(getting.span)[0]
	require.Equal(t, "GET /ai/jobs/{job_id}", get.GetName())

	for request, of := range map[*trace.Span]caller{execute: executing, get: getting} {
		trips := r.children(hex.EncodeToString(request.GetSpanId()))
		require.NotEmpty(t, trips, request.GetName())
		for _, trip := range append(trips, request) {
			require.Equal(t, of.trace, hex.EncodeToString(trip.GetTraceId()))
			require.LessOrEqual(t, trip.GetStartTimeUnixNano(), trip.GetEndTimeUnixNano())
		}
		for _, trip := range trips {
			require.Equal(t, trace.Span_SPAN_KIND_CLIENT, trip.GetKind())
			require.Contains(t, []string{"EVALSHA", "EVAL", "HMGET", "HGETALL", "PIPELINE"}, trip.GetName())
			require.Equal(t, "redis", attributes(trip)["db.system.name"])
		}
	}
	for _, span := range r.spans {
		require.Contains(t, []string{executing.trace, getting.trace}, hex.EncodeToString(span.GetTraceId()))
	}
	for name, secret := range map[string]string{
		"an API key": s.token["acme"], "params": inParams, "an action": inAction, "a job": id, "a key of Redis": "ai:",
		"a password": "open-sesame", "an address": s.redis.Addr,
	} {
		require.NotContains(t, r.text.String(), secret, name)
	}
	require.Contains(t, openMetrics, `# {trace_id="`+executing.trace+`"}`, "an exemplar leads to the trace")
	for _, exemplar := range regexp.MustCompile(`trace_id="([^"]*)"`).FindAllStringSubmatch(openMetrics, -1) {
		require.Contains(t, []string{executing.trace, getting.trace}, exemplar[1], "no other trace is there to lead to")
	}
	logged := map[string]bool{}
	for _, line := range s.Log.Message(t, "request") {
		if id, ok := line["trace_id"].(string); ok {
			logged[id] = true
		}
	}
	require.Subset(t, logged, map[string]bool{executing.trace: true, getting.trace: true, unsampled.trace: true})
}

func TestTracesBeginHereAndHoldNoSecret(t *testing.T) {
	t.Parallel()
	r := receive(t)
	s := serve(t, migration.DualWrite, r.environment("1"))
	id := s.use(t)
	require.NoError(t, s.redis.Kill())
	status, _ := s.send(t, http.MethodGet, "/ai/jobs/"+id, "")
	require.Equal(t, http.StatusInternalServerError, status)
	s.scrape(t, "")
	require.Equal(t, 0, s.Stop(t))

	names, failed := map[string]int{}, 0
	for _, span := range r.children("") {
		names[span.GetName()+" "+attributes(span)["http.response.status_code"]]++
		if span.GetStatus().GetCode() == trace.Status_STATUS_CODE_ERROR {
			require.Equal(t, "500", attributes(span)["error.type"])
			failed++
		}
	}
	require.Equal(t, map[string]int{
		"POST /ai/execute 200": 2, "POST /ai/execute 400": 1, "GET /ai/jobs/{job_id} 200": 1,
		"GET /ai/jobs/{job_id} 404": 2, "GET /ai/jobs/{job_id} 500": 1, "GET /ai/jobs 200": 1, "GET /ai/jobs 400": 1,
		"GET /ai/jobs 403": 1, "other unmatched 405": 1, "GET unmatched 404": 1,
	}, names, "neither probes nor scrapes are traced")
	require.Equal(t, 1, failed)
	for name, secret := range map[string]string{
		"an API key": s.token["acme"], "another": s.token["globex"], "params": inParams, "an action": inAction,
		"an idempotency key": inKey, "what was refused": inRefused, "a job": id, "a key of Redis": "ai:",
		"a password": "open-sesame", "an address": s.redis.Addr,
	} {
		require.NotContains(t, r.text.String(), secret, name)
	}
	for _, span := range r.spans {
		for key := range attributes(span) {
			require.Contains(t, []string{
				"http.request.method", "http.route", "http.response.status_code", "relay.workspace_id", "error.type",
				"db.system.name", "db.operation.name", "db.operation.batch.size",
			}, key)
		}
	}
}

// TestSharedRoundTripsAreTraced: many executes at once share round trips, which belong to no one of them.
func TestSharedRoundTripsAreTraced(t *testing.T) {
	t.Parallel()
	r := receive(t)
	s := serve(t, migration.DualWrite, r.environment("0"))
	const many = 64
	api := conformance.Client(t)
	var executes sync.WaitGroup
	for n := range many {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/ai/execute", strings.NewReader(execution))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+s.token["acme"])
		req.Header.Set("Content-Type", "application/json")
		header := callerNamed(n).header("01")
		req.Header.Set(header[0], header[1])
		executes.Go(func() {
			resp, err := api.Do(req)
			if err != nil || resp.StatusCode != http.StatusOK || resp.Body.Close() != nil {
				t.Errorf("execute %d: %v %v", n, resp, err)
			}
		})
	}
	executes.Wait()
	require.Equal(t, 0, s.Stop(t))
	for n := range many {
		requests := r.children(callerNamed(n).span)
		require.Len(t, requests, 1)
		require.NotEmpty(t, r.children(hex.EncodeToString(requests[0].GetSpanId())))
	}
}

// TestACollectorThatIsAwayDisturbsNobody: it takes no connection, or takes everything and answers nothing.
func TestACollectorThatIsAwayDisturbsNobody(t *testing.T) {
	t.Parallel()
	silent := make(chan struct{})
	mute := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-silent }))
	t.Cleanup(mute.Close)
	t.Cleanup(func() { close(silent) })
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, url := range map[string]string{"gone": gone.URL, "mute": mute.URL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, migration.DualWrite, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": url, "RELAY_SHUTDOWN_GRACE": "1s"})
			s.use(t)
			require.Equal(t, 0, s.Stop(t))
			require.NotEmpty(t, s.Log.Message(t, "traces are lost"), "%s", s.Log)
		})
	}
}
