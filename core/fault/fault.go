// Package fault is the closed set of ways in which Relay says no. Adapters translate what goes wrong at their
// edge into a Kind; the edge that answers a caller translates a Kind into that caller's terms.
package fault

import (
	"context"
	"errors"
)

// Kind classifies a failure. Programs act on kinds and codes, never on messages.
type Kind uint8

// The zero Kind is Internal, so that a failure nobody classified is never mistaken for a harmless one.
const (
	Internal        Kind = iota // unexpected, or a stored record that cannot be trusted
	Invalid                     // the input breaks a rule that its sender can read
	Unauthenticated             // no credential, or one that proves nothing
	Forbidden                   // a good credential that does not permit this
	NotFound                    // no such job in this workspace
	Conflict                    // the job's state does not allow the change
	Mismatch                    // a client_request_id used again for something else
	TooLarge                    // over a size limit
	Unavailable                 // a dependency cannot be reached or refuses to work
	Canceled                    // the caller gave up
	Timeout                     // the time allowed ran out
)

// String gives the stable name of k, fit for a log field.
func (k Kind) String() string {
	names := [...]string{
		Internal: "internal", Invalid: "invalid", Unauthenticated: "unauthenticated", Forbidden: "forbidden",
		NotFound: "not_found", Conflict: "conflict", Mismatch: "mismatch", TooLarge: "too_large",
		Unavailable: "unavailable", Canceled: "canceled", Timeout: "timeout",
	}
	if int(k) < len(names) {
		return names[k]
	}
	return names[Internal]
}

// Code is the stable name of one reason, finer than its Kind. Callers of the API may act on it.
type Code string

// The codes that the core raises, or that several adapters share. Adapters that answer callers add those of their
// protocol.
const (
	CodeInternal            Code = "internal"
	CodeInvalidParameter    Code = "invalid_parameter"
	CodeInvalidCursor       Code = "invalid_cursor"
	CodeInvalidWorkspace    Code = "invalid_workspace_id"
	CodeInvalidToken        Code = "invalid_token"
	CodeAuthUnavailable     Code = "auth_unavailable"
	CodeWorkspaceMissing    Code = "workspace_missing"
	CodeInsufficientScope   Code = "insufficient_scope"
	CodeOtherWorkspace      Code = "other_workspace"
	CodeJobNotFound         Code = "job_not_found"
	CodeJobState            Code = "job_state"
	CodeIdempotencyKeyReuse Code = "idempotency_key_reuse"
	CodeStorageUnavailable  Code = "storage_unavailable"
	CodeRecordInvalid       Code = "record_invalid"
	CodeCanceled            Code = "canceled"
)

// Violation names one part of the input that breaks a rule. Exactly one of Pointer and Parameter is set.
type Violation struct {
	Pointer   string // RFC 6901 JSON pointer into the body
	Parameter string // name of a query parameter or header
	Detail    string // safe for the caller; never repeats the input
}

// Error is a classified failure. Msg and Violations hold no internals, but a caller is shown them only for Invalid,
// Forbidden, Conflict, Mismatch and TooLarge: for any other Kind the edge has a text of its own. The cause is for logs
// and errors.Is alone.
type Error struct {
	Kind       Kind
	Code       Code
	Msg        string
	Violations []Violation
	cause      error
}

// New makes an Error without a cause.
func New(kind Kind, code Code, msg string) *Error {
	return &Error{Kind: kind, Code: code, Msg: msg}
}

// Wrap makes an Error that keeps cause for errors.Is and errors.As.
func Wrap(cause error, kind Kind, code Code, msg string) *Error {
	return &Error{Kind: kind, Code: code, Msg: msg, cause: cause}
}

// BadInput makes an Invalid Error that names the offending parts.
func BadInput(code Code, msg string, violations ...Violation) *Error {
	return &Error{Kind: Invalid, Code: code, Msg: msg, Violations: violations}
}

// Error gives the message and, behind it, the cause. It is for logs: only Msg may reach a caller.
func (e *Error) Error() string {
	if e.cause != nil {
		return e.Msg + ": " + e.cause.Error()
	}
	return e.Msg
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.cause }

// KindOf classifies any error. An error that carries no Error is Canceled or Timeout where the context says so,
// else Internal.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	}
	return Internal
}

// CodeOf gives the code of the first Error in err's chain, else CodeInternal.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) && e.Code != "" {
		return e.Code
	}
	return CodeInternal
}
