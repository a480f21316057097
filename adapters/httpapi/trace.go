package httpapi

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// probes tells whether a route is asked again and again by machines: a trace of it tells nobody anything.
func probes(route string) bool { return route == "/livez" || route == "/readyz" }

// startSpan begins the span of a request, below the caller's where it sent one. From then on it is what the exchange's
// trace names: a job that the request makes goes on below it.
func startSpan(ctx context.Context, tracer trace.Tracer, ex *exchange, method, route string) (context.Context, trace.Span) {
	ctx, span := tracer.Start(trace.ContextWithSpanContext(ctx, ex.trace.spanContext()), method+" "+route,
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("http.request.method", method), attribute.String("http.route", route)))
	ex.trace = traceParentOf(span.SpanContext())
	return ctx, span
}

// endSpan ends it and gives the id of its trace, if that is kept. There is none where span is nil.
func endSpan(span trace.Span, ex *exchange, status int) (traceID string) {
	if span == nil {
		return ""
	}
	defer span.End()
	if !span.IsRecording() {
		return ""
	}
	span.SetAttributes(attribute.Int("http.response.status_code", status))
	if !ex.workspace.IsZero() {
		span.SetAttributes(attribute.String("relay.workspace_id", ex.workspace.String()))
	}
	if status >= http.StatusInternalServerError {
		span.SetAttributes(attribute.String("error.type", strconv.Itoa(status)))
		span.SetStatus(codes.Error, "")
	}
	return span.SpanContext().TraceID().String()
}

// traceParent is a valid traceparent of W3C Trace Context in the form of version 00, or empty.
type traceParent string

// traceParentLength is that of version 00, of which a higher version is a prolongation.
const traceParentLength = 55

// parseTraceParent reads the header strictly; what is invalid counts as not sent, as the recommendation has it.
func parseTraceParent(h http.Header) traceParent {
	given := h["Traceparent"]
	if len(given) != 1 || len(given[0]) < traceParentLength {
		return ""
	}
	s, rest := given[0][:traceParentLength], given[0][traceParentLength:]
	zeroTrace, zeroParent := true, true
	for i, c := range []byte(s) {
		switch {
		case i == 2 || i == 35 || i == 52:
			if c != '-' {
				return ""
			}
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f':
			zeroTrace = zeroTrace && (i < 3 || i > 34 || c == '0')
			zeroParent = zeroParent && (i < 36 || i > 51 || c == '0')
		default:
			return ""
		}
	}
	version := s[:2]
	if zeroTrace || zeroParent || version == "ff" || version == "00" && rest != "" || rest != "" && rest[0] != '-' {
		return ""
	}
	return traceParent("00" + s[2:])
}

// spanContext gives the same as the library has it.
func (t traceParent) spanContext() trace.SpanContext {
	if t == "" {
		return trace.SpanContext{}
	}
	var flags [1]byte
	traceID, errTrace := trace.TraceIDFromHex(string(t[3:35]))
	spanID, errSpan := trace.SpanIDFromHex(string(t[36:52]))
	_, errFlags := hex.Decode(flags[:], []byte(t[53:]))
	if errors.Join(errTrace, errSpan, errFlags) != nil {
		return trace.SpanContext{} // never: the form was checked
	}
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, SpanID: spanID, TraceFlags: trace.TraceFlags(flags[0]), Remote: true,
	})
}

// traceParentOf gives the traceparent of what goes on below a span.
func traceParentOf(s trace.SpanContext) traceParent {
	return traceParent("00-" + s.TraceID().String() + "-" + s.SpanID().String() + "-" + s.TraceFlags().String())
}

// field gives the trace id to a log line, nothing where there is none.
func (t traceParent) field() zap.Field {
	if t == "" {
		return zap.Skip()
	}
	return zap.String("trace_id", string(t[3:35]))
}
