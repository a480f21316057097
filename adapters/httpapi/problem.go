package httpapi

import (
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/fault"
)

// statusClientClosedRequest is what the field logs for a caller that went away. Nobody reads the answer.
const statusClientClosedRequest = 499

// retryAfter is in seconds.
const retryAfter = "1"

// maxErrors bounds the errors of one problem.
const maxErrors = 32

// httpError is a refusal that only HTTP knows, with no Kind of the core's.
type httpError struct {
	status int
	code   ErrorCode
	detail string
}

func (e *httpError) Error() string { return e.detail }

func errRouteNotFound() error {
	return &httpError{http.StatusNotFound, ErrorCodeRouteNotFound, "No such route"}
}

func errMethodNotAllowed() error {
	return &httpError{http.StatusMethodNotAllowed, ErrorCodeMethodNotAllowed, "The route does not have this method"}
}

func errUnsupportedMediaType() error {
	return &httpError{
		http.StatusUnsupportedMediaType, ErrorCodeUnsupportedMediaType,
		"The body must be application/json in UTF-8, not compressed",
	}
}

// problemOf translates any failure into an answer. Messages of the core are for callers where the caller can do
// something about them; a failure of ours gets a text that says nothing about our insides.
func problemOf(err error) Problem {
	var only *httpError
	if errors.As(err, &only) {
		return problem(only.status, only.code, only.detail)
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		f = fault.New(fault.KindOf(err), fault.CodeInternal, "Internal error")
	}
	given := ErrorCode(f.Code)
	if !given.Valid() { // the document does not have it, so that no caller could act on it
		return unexpected()
	}
	switch fault.KindOf(err) {
	case fault.Invalid:
		return problem(http.StatusBadRequest, given, f.Msg, f.Violations...)
	case fault.Unauthenticated:
		return problem(http.StatusUnauthorized, ErrorCodeInvalidToken, "Invalid authentication token")
	case fault.Forbidden:
		return problem(http.StatusForbidden, given, f.Msg)
	case fault.NotFound:
		return problem(http.StatusNotFound, ErrorCodeJobNotFound, "Job not found")
	case fault.Mismatch:
		return problem(http.StatusUnprocessableEntity, given, f.Msg)
	case fault.TooLarge:
		return problem(http.StatusRequestEntityTooLarge, given, f.Msg, f.Violations...)
	case fault.Canceled:
		return problem(statusClientClosedRequest, ErrorCodeCanceled, "The request was canceled")
	case fault.Unavailable, fault.Timeout:
		if f.Code == fault.CodeAuthUnavailable {
			return problem(http.StatusInternalServerError, ErrorCodeAuthUnavailable,
				"Credentials cannot be checked right now, try again")
		}
		return problem(http.StatusInternalServerError, ErrorCodeStorageUnavailable,
			"The storage is unavailable, try again")
	case fault.Conflict: // no route changes a job's state
	case fault.Internal:
		if f.Code == fault.CodeRecordInvalid {
			return problem(http.StatusInternalServerError, ErrorCodeRecordInvalid,
				"The stored record of this job cannot be read")
		}
	}
	return unexpected()
}

// unexpected is the answer to what nobody foresaw.
func unexpected() Problem {
	return problem(http.StatusInternalServerError, ErrorCodeInternal, "Internal error")
}

func problem(status int, code ErrorCode, detail string, violations ...fault.Violation) Problem {
	title := http.StatusText(status)
	if status == statusClientClosedRequest {
		title = "Client Closed Request"
	}
	p := Problem{Type: "/docs#code-" + string(code), Title: title, Status: status, Detail: detail, Code: code}
	for i := range violations[:min(len(violations), maxErrors)] {
		v := &violations[i]
		e := InputError{Detail: v.Detail}
		if v.Parameter != "" {
			e.Parameter = &v.Parameter
		} else {
			e.Pointer = &v.Pointer
		}
		p.Errors = append(p.Errors, e)
	}
	return p
}

// refuse answers with the problem that err is.
func (a *API) refuse(c *gin.Context, err error) { a.refuseFor(c, "", err) }

// refuseFor is refuse for a route that needs a scope, which a challenge may have to name.
func (a *API) refuseFor(c *gin.Context, need access.Scope, err error) {
	p := problemOf(err)
	if p.Status == http.StatusInternalServerError {
		a.log.Error("request failed", zap.String("request_id", exchangeOf(c.Request.Context()).requestID),
			zap.String("code", string(p.Code)), zap.Stringer("kind", fault.KindOf(err)),
			zap.String("reason", err.Error()))
	}
	a.answerProblem(c, need, p)
}

func (a *API) answerProblem(c *gin.Context, need access.Scope, p Problem) {
	p.RequestID = exchangeOf(c.Request.Context()).requestID
	if p.Code == ErrorCodeInvalidToken {
		challenge := `Bearer realm="relay"`
		if _, sent := bearer(c.Request.Header); sent {
			challenge += `, error="invalid_token"`
		}
		c.Header("WWW-Authenticate", challenge)
	}
	if p.Code == ErrorCodeInsufficientScope {
		c.Header("WWW-Authenticate", `Bearer realm="relay", error="insufficient_scope", scope="`+string(need)+`"`)
	}
	if p.Code == ErrorCodeStorageUnavailable || p.Code == ErrorCodeAuthUnavailable {
		c.Header("Retry-After", retryAfter)
	}
	c.Abort()
	a.answer(c, p.Status, "application/problem+json", p)
}
