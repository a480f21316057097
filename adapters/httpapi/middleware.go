package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// exchange is what one request's access line and answers need to know.
type exchange struct {
	requestID string
	trace     traceParent
	workspace workspace.ID // the credential's, once it proved one
}

type exchangeKey struct{}

// exchangeOf gives a request's exchange; a context of another origin has an empty one.
func exchangeOf(ctx context.Context) *exchange {
	if ex, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return ex
	}
	return &exchange{}
}

// witness passes Authenticate on and notes which workspace the credential proved, so that the access line names it
// also where the request is refused later.
type witness struct{ provider ports.AuthProvider }

func (w witness) Authenticate(ctx context.Context, credential string) (access.Principal, error) {
	p, err := w.provider.Authenticate(ctx, credential)
	if err != nil {
		return p, err //nolint:wrapcheck // passed on as it is
	}
	if id, err := workspace.Parse(p.Workspace); err == nil {
		exchangeOf(ctx).workspace = id
	}
	return p, nil
}

// exchanged opens an exchange, sets the headers of every answer, and reports the request once it is answered: one
// access line, one observation and, where there is a tracer, one span. None holds anything that the caller chose but a
// sane request id and trace id.
func (a *API) exchanged(templates map[string]string, tracer trace.Tracer) gin.HandlerFunc {
	return func(c *gin.Context) {
		start := time.Now()
		ex := &exchange{requestID: requestID(c.Request.Header), trace: parseTraceParent(c.Request.Header)}
		if ex.requestID == "" {
			ex.requestID = uuid.NewString()
		}
		route, ok := templates[c.FullPath()]
		if !ok {
			route = unmatched
		}
		method := methodLabel(c.Request.Method)
		ctx := context.WithValue(c.Request.Context(), exchangeKey{}, ex)
		var span trace.Span
		if tracer != nil && !probes(route) {
			ctx, span = startSpan(ctx, tracer, ex, method, route)
		}
		c.Request = c.Request.WithContext(ctx)
		c.Header("X-Request-Id", ex.requestID)
		c.Header("Cache-Control", "no-store")
		defer func() {
			status, took := c.Writer.Status(), time.Since(start)
			a.requests.RequestServed(route, method, status, took, endSpan(span, ex, status))
			line := a.log.Check(zapcore.InfoLevel, "request")
			if line == nil {
				return
			}
			line.Write(
				zap.String("method", method), zap.String("route", route), zap.Int("status", status),
				zap.Duration("duration", took), zap.Stringer("workspace", ex.workspace),
				zap.String("request_id", ex.requestID), ex.trace.field(),
			)
		}()
		c.Next()
	}
}

// recovered turns a panic into an answer, or into a broken connection where one was begun. The caller learns nothing;
// the log gets the stack, and the panic's text only where the runtime wrote it.
func (a *API) recovered(c *gin.Context) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler { //nolint:errorlint // a panic's value, compared as net/http does
			panic(p)
		}
		reason := fmt.Sprintf("%T", p)
		if err, ok := p.(runtime.Error); ok {
			reason = err.Error()
		}
		a.log.Error("panic", zap.String("request_id", exchangeOf(c.Request.Context()).requestID),
			zap.String("reason", reason), zap.String("stack", string(debug.Stack())))
		if c.Writer.Written() {
			panic(http.ErrAbortHandler)
		}
		a.answerProblem(c, "", unexpected())
	}()
	c.Next()
}

// maxRequestID is in characters.
const maxRequestID = 128

// requestID gives the caller's request id if it is sane, else none.
func requestID(h http.Header) string {
	given := h["X-Request-Id"]
	if len(given) != 1 || given[0] == "" || len(given[0]) > maxRequestID {
		return ""
	}
	for _, c := range []byte(given[0]) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return ""
		}
	}
	return given[0]
}

// methodLabel bounds the methods that a label or a log line may hold.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	}
	return "other"
}
