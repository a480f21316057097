package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// TraceSettings say where traces go.
type TraceSettings struct {
	Endpoint string  // base URL of a collector that takes OTLP over HTTP; empty for no traces
	Ratio    float64 // of the traces that begin here, 0 to 1; a caller's decision is kept
}

// ValidTraceEndpoint tells whether traces could be sent to a base URL. One that may hold a password is refused: errors
// of the exporter repeat it.
func ValidTraceEndpoint(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil &&
		u.RawQuery == "" && u.Fragment == ""
}

// Tracing makes spans and exports them in the background. What a collector does not take in time is dropped. The zero
// value makes none.
type Tracing struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	log      *zap.Logger
}

// flushTimeout is how long the end of the process waits for the collector.
const flushTimeout = 2 * time.Second

// NewTracing starts to trace, where there is an endpoint. Of the environment the exporter reads the standard's variables about headers,
// certificates, compression and time, and nothing that the settings say.
func NewTracing(s TraceSettings, build Build, log *zap.Logger) (*Tracing, error) {
	if s.Endpoint == "" {
		return &Tracing{}, nil
	}
	// The library's switches for the whole process: else it writes text to standard error.
	otel.SetLogger(logr.Discard())
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces are lost", zap.Error(err)) }))
	exporter, err := otlptracehttp.New(context.Background(),
		otlptracehttp.WithEndpointURL(strings.TrimRight(s.Endpoint, "/")+"/v1/traces"))
	if err != nil {
		return nil, fmt.Errorf("exporter of traces: %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(s.Ratio))),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "relay"), attribute.String("service.version", build.Version))),
	)
	return &Tracing{provider: provider, tracer: provider.Tracer("github.com/relay-jobs/relay"), log: log}, nil
}

// Tracer makes the spans of requests; it is nil where none are made.
func (t *Tracing) Tracer() trace.Tracer { return t.tracer }

// Close exports what is left, for a while. A collector that is away is no fault of the service.
func (t *Tracing) Close(ctx context.Context) {
	if t.provider == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.log.Warn("traces are lost", zap.Error(err))
	}
}

// WatchRedis makes a span of each round trip of rdb that a traced request waits for. Of commands it holds the name alone:
// keys name workspaces and jobs, and arguments are what the jobs hold. It
// is called once, before rdb is used.
func (t *Tracing) WatchRedis(rdb *redis.Client) {
	if t.tracer != nil {
		rdb.AddHook(commandTracer{t.tracer})
	}
}

type commandTracer struct{ tracer trace.Tracer }

// DialHook leaves dialling as it is.
func (commandTracer) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook traces a command.
func (t commandTracer) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !trace.SpanFromContext(ctx).IsRecording() {
			return next(ctx, cmd)
		}
		ctx, span := t.start(ctx, strings.ToUpper(cmd.Name()))
		defer span.End()
		return ended(span, next(ctx, cmd))
	}
}

// ProcessPipelineHook traces a pipeline as one.
func (t commandTracer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if !trace.SpanFromContext(ctx).IsRecording() {
			return next(ctx, cmds)
		}
		ctx, span := t.start(ctx, "PIPELINE", attribute.Int("db.operation.batch.size", len(cmds)))
		defer span.End()
		return ended(span, next(ctx, cmds))
	}
}

func (t commandTracer) start(ctx context.Context, name string, more ...attribute.KeyValue) (context.Context, trace.Span) {
	return t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		append(more, attribute.String("db.system.name", "redis"), attribute.String("db.operation.name", name))...))
}

// ended notes an error by its kind: its text may hold what was stored.
func ended(span trace.Span, err error) error {
	if err == nil || errors.Is(err, redis.Nil) {
		return err
	}
	kind := "_OTHER"
	var answered redis.Error
	if errors.As(err, &answered) {
		kind, _, _ = strings.Cut(answered.Error(), " ")
	}
	span.SetAttributes(attribute.String("error.type", kind))
	span.SetStatus(codes.Error, "")
	return err
}
