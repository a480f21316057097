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
// access line and one observation. Neither holds anything that the caller chose but a sane request id and trace id.
func (a *API) exchanged(templates map[string]string) gin.HandlerFunc {
	return func(c *gin.Context) {
		start := time.Now()
		ex := &exchange{requestID: requestID(c.Request.Header), trace: parseTraceParent(c.Request.Header)}
		if ex.requestID == "" {
			ex.requestID = uuid.NewString()
		}
		c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), exchangeKey{}, ex))
		c.Header("X-Request-Id", ex.requestID)
		c.Header("Cache-Control", "no-store")
		route, ok := templates[c.FullPath()]
		if !ok {
			route = unmatched
		}
		defer func() {
			method, status, took := methodLabel(c.Request.Method), c.Writer.Status(), time.Since(start)
			a.requests.RequestServed(route, method, status, took)
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

// field gives the trace id to a log line, nothing where there is none.
func (t traceParent) field() zap.Field {
	if t == "" {
		return zap.Skip()
	}
	return zap.String("trace_id", string(t[3:35]))
}
