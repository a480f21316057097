package httpapi

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
)

// Limits of a body, in bytes and levels.
const (
	maxBody    = 1 << 20
	maxParams  = 256 << 10
	maxDepth   = 64 // the body itself is the first level
	maxName    = 256
	maxPointer = 256 // of a pointer in an answer
)

// The codes of what only a body of HTTP can be.
const (
	codeInvalidBody     = fault.Code(ErrorCodeInvalidBody)
	codeIdempotencyKeys = fault.Code(ErrorCodeIdempotencyKeysDiffer)
	codeBodyTooLarge    = fault.Code(ErrorCodeBodyTooLarge)
	codeParamsTooLarge  = fault.Code(ErrorCodeParamsTooLarge)
)

// readExecute reads a whole request for an action.
func readExecute(w http.ResponseWriter, r *http.Request) (usecase.ExecuteInput, error) {
	if err := checkNoParameters(r); err != nil {
		return usecase.ExecuteInput{}, err
	}
	if !isJSON(r.Header) {
		return usecase.ExecuteInput{}, errUnsupportedMediaType()
	}
	header, err := idempotencyKey(r.Header)
	if err != nil {
		return usecase.ExecuteInput{}, err
	}
	body, err := readBody(w, r)
	if err != nil {
		return usecase.ExecuteInput{}, err
	}
	request, err := decodeExecute(body)
	if err != nil {
		return usecase.ExecuteInput{}, err
	}
	in, err := executeInput(request)
	if err != nil {
		return usecase.ExecuteInput{}, err
	}
	switch {
	case in.ClientRequestID.IsZero():
		in.ClientRequestID = header
	case !header.IsZero() && header != in.ClientRequestID:
		return usecase.ExecuteInput{}, fault.BadInput(codeIdempotencyKeys,
			"Idempotency-Key and client_request_id differ",
			fault.Violation{Parameter: "Idempotency-Key", Detail: "is not equal to client_request_id"})
	}
	in.TraceParent = string(exchangeOf(r.Context()).trace)
	return in, nil
}

// isJSON tells whether the body is declared as JSON in UTF-8, as it stands.
func isJSON(h http.Header) bool {
	if coding := h["Content-Encoding"]; len(coding) > 0 {
		return false
	}
	given := h["Content-Type"]
	if len(given) != 1 {
		return false
	}
	if given[0] == "application/json" {
		return true
	}
	mediaType, params, err := mime.ParseMediaType(given[0])
	if err != nil || mediaType != "application/json" {
		return false
	}
	charset, hasCharset := params["charset"]
	return len(params) == 0 || len(params) == 1 && hasCharset && strings.EqualFold(charset, "utf-8")
}

func idempotencyKey(h http.Header) (job.ClientRequestID, error) {
	given := h["Idempotency-Key"]
	if len(given) == 0 {
		return job.ClientRequestID{}, nil
	}
	key, err := job.ParseClientRequestID(given[0])
	detail := idempotencyRule
	if len(given) > 1 {
		detail = "is given more than once"
	}
	if err != nil || len(given) > 1 {
		return job.ClientRequestID{}, fault.BadInput(fault.CodeInvalidParameter, "Invalid parameter",
			fault.Violation{Parameter: "Idempotency-Key", Detail: detail})
	}
	return key, nil
}

const idempotencyRule = "is not 1 to 200 printable ASCII characters"

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	errTooLarge := fault.New(fault.TooLarge, codeBodyTooLarge, "The body is larger than 1 MiB")
	if r.ContentLength > maxBody {
		return nil, errTooLarge
	}
	var body bytes.Buffer
	body.Grow(int(max(r.ContentLength, 0)) + bytes.MinRead)
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, errTooLarge
	case err != nil && r.Context().Err() != nil && !errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fault.Wrap(err, fault.Canceled, fault.CodeCanceled, "The request was canceled")
	case err != nil: // a caller that is too slow is still there, though net/http has canceled its context
		return nil, badBody("", "did not arrive in full")
	}
	return body.Bytes(), nil
}

func badBody(pointer, detail string) error {
	return fault.BadInput(codeInvalidBody, "Invalid body", fault.Violation{Pointer: pointer, Detail: detail})
}

// decodeExecute reads exactly one JSON object in UTF-8 with no name given twice at any depth, and nothing in it but
// the members of an ExecuteRequest with values of their types; null is the wrong type for each.
func decodeExecute(body []byte) (ExecuteRequest, error) {
	var request ExecuteRequest
	if deeperThan(body, maxDepth) {
		return request, badBody("", "is nested too deep")
	}
	refused := refusals{general: codeInvalidBody}
	dec := jsontext.NewDecoder(bytes.NewBuffer(body))
	if kind := dec.PeekKind(); kind != '{' {
		if err := dec.SkipValue(); err != nil {
			return request, malformed(err)
		}
		return request, badBody("", "is not an object")
	}
	if _, err := dec.ReadToken(); err != nil {
		return request, malformed(err)
	}
	var provider, name *string
	for dec.PeekKind() != '}' {
		member, err := dec.ReadToken()
		if err != nil {
			return request, malformed(err)
		}
		switch member.String() {
		case "workspace_id":
			request.WorkspaceID, err = readString(dec, &refused)
		case "action_provider":
			provider, err = readString(dec, &refused)
		case "action_name":
			name, err = readString(dec, &refused)
		case "client_request_id":
			request.ClientRequestID, err = readString(dec, &refused)
		case "params":
			request.Params, err = readObject(dec, &refused)
		default:
			pointer := dec.StackPointer()
			err = dec.SkipValue()
			refused.add(codeInvalidBody, at(pointer, "is not a member of this request"))
		}
		if err != nil {
			return request, malformed(err)
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return request, malformed(err)
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return request, badBody("", "is followed by something else")
	}
	if provider != nil {
		request.ActionProvider = *provider
	} else if !refused.names("/action_provider") {
		refused.add(codeInvalidBody, at("/action_provider", "is missing"))
	}
	if name != nil {
		request.ActionName = *name
	} else if !refused.names("/action_name") {
		refused.add(codeInvalidBody, at("/action_name", "is missing"))
	}
	return request, refused.err()
}

// names tells whether the part at pointer is refused already.
func (r *refusals) names(pointer string) bool {
	for _, v := range r.violations {
		if v.Pointer == pointer {
			return true
		}
	}
	return false
}

// readString reads the next value, nil where it is no string.
func readString(dec *jsontext.Decoder, refused *refusals) (*string, error) {
	if kind := dec.PeekKind(); kind != '"' {
		refused.add(codeInvalidBody, at(dec.StackPointer(), "is not a string"))
		return nil, dec.SkipValue() //nolint:wrapcheck // malformed makes a fault of it
	}
	token, err := dec.ReadToken()
	if err != nil {
		return nil, err //nolint:wrapcheck // malformed makes a fault of it
	}
	s := token.String()
	return &s, nil
}

// readObject reads the next value, empty where it is no object, and strips its whitespace.
func readObject(dec *jsontext.Decoder, refused *refusals) (job.JSON, error) {
	if kind := dec.PeekKind(); kind != '{' {
		refused.add(codeInvalidBody, at(dec.StackPointer(), "is not an object"))
		return "", dec.SkipValue() //nolint:wrapcheck // malformed makes a fault of it
	}
	value, err := dec.ReadValue()
	if err != nil {
		return "", err //nolint:wrapcheck // malformed makes a fault of it
	}
	value = bytes.Clone(value) // the decoder's own buffer must stay as it is
	if err := value.Compact(); err != nil {
		return "", err //nolint:wrapcheck // malformed makes a fault of it
	}
	return job.JSON(value), nil
}

// at makes a violation; the pointer of a part with a long name is that of what holds it.
func at(pointer jsontext.Pointer, detail string) fault.Violation {
	for len(pointer) > maxPointer {
		pointer = pointer.Parent()
	}
	return fault.Violation{Pointer: string(pointer), Detail: detail}
}

// malformed makes a fault of what the decoder found, in words that repeat nothing of the input.
func malformed(err error) error {
	var syntactic *jsontext.SyntacticError
	v := fault.Violation{Detail: "is not one JSON value in UTF-8"}
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntactic):
		v = at(syntactic.JSONPointer, "is given more than once")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		v.Detail = "ends before its JSON value does"
	case errors.As(err, &syntactic):
		v = at(syntactic.JSONPointer, "is not JSON in UTF-8")
	}
	f := fault.Wrap(err, fault.Invalid, codeInvalidBody, "Invalid body")
	f.Violations = []fault.Violation{v}
	return f
}

// deeperThan tells whether text nests objects and arrays beyond limit. It is exact where text is JSON; elsewhere it
// need not be, because the decoder refuses that anyway.
func deeperThan(text []byte, limit int) bool {
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString:
			if c == '\\' {
				i++
			}
			inString = c != '"'
		case c == '"':
			inString = true
		case c == '{', c == '[':
			if depth++; depth > limit {
				return true
			}
		case c == '}', c == ']':
			depth--
		}
	}
	return false
}

// executeInput checks the values of a decoded request.
func executeInput(request ExecuteRequest) (usecase.ExecuteInput, error) {
	refused := refusals{general: codeInvalidBody}
	in := usecase.ExecuteInput{Provider: request.ActionProvider, Name: request.ActionName, Params: request.Params}
	if in.Params == "" {
		in.Params = "{}"
	}
	if len(in.Params) > maxParams {
		f := fault.New(fault.TooLarge, codeParamsTooLarge, "params is larger than 256 KiB")
		f.Violations = []fault.Violation{{Pointer: "/params", Detail: "is larger than 256 KiB"}}
		return in, f
	}
	for _, text := range []struct{ pointer, value string }{
		{"/action_provider", in.Provider}, {"/action_name", in.Name},
	} {
		if !isName(text.value) {
			refused.add(codeInvalidBody, fault.Violation{
				Pointer: text.pointer, Detail: "is not 1 to 256 bytes of UTF-8 without control characters",
			})
		}
	}
	if request.ClientRequestID != nil {
		key, err := job.ParseClientRequestID(*request.ClientRequestID)
		if err != nil {
			refused.add(codeInvalidBody, fault.Violation{Pointer: "/client_request_id", Detail: idempotencyRule})
		}
		in.ClientRequestID = key
	}
	if request.WorkspaceID != nil {
		id, err := workspace.Parse(*request.WorkspaceID)
		if err != nil {
			refused.add(fault.CodeInvalidWorkspace, fault.Violation{Pointer: "/workspace_id", Detail: workspaceRule})
		}
		in.Given = &id
	}
	return in, refused.err()
}

func isName(s string) bool {
	return s != "" && len(s) <= maxName && utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}
