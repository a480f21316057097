// Package client calls Relay. Its types and calls are generated from the API's document, and nothing else of Relay comes
// with it.
//
// Every call gives an answer with one field for each status that the document has for it, such as JSON200, and typed
// headers beside it; ProblemOf gives the refusal or failure of any. Calls are not repeated: an execute may be where it
// has an Idempotency-Key or a client_request_id.
package client

import (
	"context"
	"encoding/json"
	"mime"
	"net/http"
)

//go:generate go tool oapi-codegen -config oapi-codegen.yaml ../openapi.yaml

// WithToken sends a bearer credential, an API key or a JWT, with every request.
func WithToken(token string) ClientOption {
	return WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+token)
		return nil
	})
}

// Answer is what every call gives.
type Answer interface {
	StatusCode() int
	ContentType() string
	GetBody() []byte
}

// ProblemOf gives the refusal or failure that an answer is, nil where it is none. What stands between may give answers
// that are neither what was asked for nor a problem: look at the status, too.
func ProblemOf(a Answer) *Problem {
	if mediaType, _, err := mime.ParseMediaType(a.ContentType()); err != nil || mediaType != "application/problem+json" {
		return nil
	}
	var p Problem
	if err := json.Unmarshal(a.GetBody(), &p); err != nil {
		return nil
	}
	return &p
}
