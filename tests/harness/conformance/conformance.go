// Package conformance holds what is said over HTTP to the API's document: an answer with a status, a header, a member
// or a code that the document does not have for it is wrong, and so is a request that was let in though the document
// does not allow it.
package conformance

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/relay-jobs/relay/adapters/httpapi"
)

// Exchange is one request and its answer.
type Exchange struct {
	Request *http.Request // without its body
	Sent    []byte        // the request's body
	Status  int
	Header  http.Header
	Body    []byte
}

// FromWire reads an exchange from its bytes. Of a request that was not sent whole it has the body that was sent.
func FromWire(request, answer string) (Exchange, error) {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request)))
	if err != nil {
		return Exchange{}, err
	}
	sent, _ := io.ReadAll(r.Body)
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), r)
	if err != nil {
		return Exchange{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	body, err := io.ReadAll(resp.Body)
	return Exchange{Request: r, Sent: sent, Status: resp.StatusCode, Header: resp.Header, Body: body}, err
}

// Check gives what is wrong with the exchange. An answer of net/http, which no route gave, is always wrong here.
func (x Exchange) Check() error {
	d, err := read()
	if err != nil {
		return err
	}
	if err := d.check(x); err != nil {
		return fmt.Errorf("%s %s was answered with %d, and the document does not have it so: %w\n%v\n%.500s",
			x.Request.Method, x.Request.URL, x.Status, err, x.Header, x.Body)
	}
	return nil
}

// document is the API's document, ready to judge.
type document struct {
	*openapi3.T
	router routers.Router
}

// read reads the document once in a process.
//
//nolint:gochecknoglobals // never changed
var read = sync.OnceValues(func() (*document, error) {
	text, err := httpapi.OpenAPI()
	if err != nil {
		return nil, err
	}
	if text, err = plain(text); err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, err
	}
	router, err := gorillamux.NewRouter(doc)
	return &document{T: doc, router: router}, err
})

// plain writes the document without that which OpenAPI 3.1 alone has, and which is nothing but const, in words of 3.0.
// For a document of 3.1 kin-openapi compiles a schema anew for each value, which takes a hundred times as long.
func plain(text []byte) ([]byte, error) {
	var tree map[string]any
	if err := json.Unmarshal(text, &tree); err != nil {
		return nil, err
	}
	tree["openapi"] = "3.0.3"
	rewrite(tree)
	return json.Marshal(tree)
}

func rewrite(node any) {
	switch node := node.(type) {
	case map[string]any:
		if only, ok := node["const"]; ok {
			node["enum"] = []any{only}
			delete(node, "const")
		}
		for _, child := range node {
			rewrite(child)
		}
		if values, ok := oneOfValues(node["oneOf"]); ok {
			node["enum"] = values
			delete(node, "oneOf")
		}
	case []any:
		for _, child := range node {
			rewrite(child)
		}
	}
}

// oneOfValues gives the values where each alternative is a single one.
func oneOfValues(alternatives any) (values []any, ok bool) {
	list, ok := alternatives.([]any)
	for _, alternative := range list {
		schema, isSchema := alternative.(map[string]any)
		one, isValue := schema["enum"].([]any)
		if !isSchema || !isValue {
			return nil, false
		}
		values = append(values, one...)
	}
	return values, ok
}

// route finds the operation that a request is for. What is asked for beside the routes has the answers that the
// document names for that.
func (d *document) route(r *http.Request) (*routers.Route, map[string]string, error) {
	asked := r.Clone(r.Context())
	if r.Method == http.MethodHead {
		asked.Method = http.MethodGet
	}
	route, parameters, err := d.router.FindRoute(asked)
	beside := func(status int, name string) (*routers.Route, map[string]string, error) {
		responses := openapi3.NewResponses(openapi3.WithStatus(status, d.Components.Responses[name]))
		return &routers.Route{Spec: d.T, PathItem: &openapi3.PathItem{}, Operation: &openapi3.Operation{Responses: responses}}, nil, nil
	}
	switch {
	case errors.Is(err, routers.ErrPathNotFound):
		return beside(http.StatusNotFound, "RouteNotFound")
	case errors.Is(err, routers.ErrMethodNotAllowed) && r.Method == http.MethodOptions:
		return beside(http.StatusNoContent, "Options")
	case errors.Is(err, routers.ErrMethodNotAllowed):
		return beside(http.StatusMethodNotAllowed, "MethodNotAllowed")
	}
	return route, parameters, err
}

func (d *document) check(x Exchange) error {
	route, parameters, err := d.route(x.Request)
	if err != nil {
		return err
	}
	documented := route.Operation.Responses.Status(x.Status)
	if documented == nil {
		return errors.New("the status is not documented")
	}
	response := documented.Value
	if err := checkHeaders(response, x.Header); err != nil {
		return err
	}
	code, err := x.checkProblem(response)
	if err != nil {
		return err
	}

	asked := x.Request.Clone(context.Background())
	asked.Method = http.MethodGet // of an answer to HEAD the validator looks at nothing
	input := &openapi3filter.RequestValidationInput{Request: asked, PathParams: parameters, Route: route}
	answer := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: x.Status, Header: x.Header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true, ExcludeResponseBody: !x.hasJSON()},
	}
	if err := openapi3filter.ValidateResponse(context.Background(), answer.SetBodyBytes(x.Body)); err != nil {
		return err
	}
	if x.Status >= http.StatusBadRequest && !slices.Contains(behindTheInput(), code) {
		return nil // it may be anything
	}
	return x.checkRequest(input)
}

// ofHTTP are the headers that an answer of any server may have.
func ofHTTP() []string {
	return []string{"Connection", "Content-Length", "Content-Type", "Date", "Transfer-Encoding"}
}

// checkHeaders allows each documented header once, and no other.
func checkHeaders(response *openapi3.Response, header http.Header) error {
	for name, values := range header {
		if slices.Contains(ofHTTP(), name) {
			continue
		}
		documented := false
		for known := range response.Headers {
			documented = documented || http.CanonicalHeaderKey(known) == name
		}
		switch {
		case !documented:
			return fmt.Errorf("the header %s is not documented", name)
		case len(values) != 1:
			return fmt.Errorf("the header %s is given more than once", name)
		}
	}
	return nil
}

// checkProblem checks what the schema of the answer cannot say: whether there is a body at all, and whether a problem
// has a code that the document shows for this answer. It gives the code.
func (x Exchange) checkProblem(response *openapi3.Response) (string, error) {
	contentType := x.Header.Get("Content-Type")
	switch {
	case len(response.Content) == 0 && (contentType != "" || len(x.Body) > 0):
		return "", errors.New("no body is documented")
	case len(response.Content) > 0 && response.Content.Get(contentType) == nil:
		return "", errors.New("the media type is not documented")
	case x.Request.Method == http.MethodHead && len(x.Body) > 0:
		return "", errors.New("an answer to HEAD has no body")
	case contentType != "application/problem+json" || len(x.Body) == 0:
		return "", nil
	}
	var problem httpapi.Problem
	if err := json.Unmarshal(x.Body, &problem); err != nil {
		return "", err
	}
	code := string(problem.Code)
	for _, shown := range response.Content[contentType].Examples {
		if example, ok := shown.Value.Value.(map[string]any); ok && example["code"] == code {
			if problem.Status != x.Status {
				return "", fmt.Errorf("the problem says that its status is %d", problem.Status)
			}
			return code, nil
		}
	}
	return "", fmt.Errorf("the code %q is not documented", code)
}

// hasJSON tells whether the answer has a body that a schema can be about.
func (x Exchange) hasJSON() bool {
	return x.Request.Method != http.MethodHead && strings.HasSuffix(x.Header.Get("Content-Type"), "json")
}

// behindTheInput are the refusals and failures of requests whose input was found to be good.
func behindTheInput() []string {
	return []string{"other_workspace", "job_not_found", "idempotency_key_reuse", "storage_unavailable", "record_invalid"}
}

// checkRequest checks a request that was let in. Its headers are the caller's business but for those that the document
// names: that one is unknown refuses nothing.
func (x Exchange) checkRequest(input *openapi3filter.RequestValidationInput) error {
	r := input.Request
	for name, values := range r.URL.Query() {
		switch {
		case input.Route.Operation.Parameters.GetByInAndName(openapi3.ParameterInQuery, name) == nil:
			return fmt.Errorf("the parameter %s is not documented, and was let in", name)
		case len(values) != 1:
			return fmt.Errorf("the parameter %s was let in more than once", name)
		}
	}
	if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil {
		r.Header.Set("Content-Type", mediaType) // the validator compares case
	}
	r.Body, r.ContentLength = http.NoBody, 0
	if len(x.Sent) > 0 {
		r.Body, r.ContentLength = reread(x.Sent), int64(len(x.Sent))
	}
	input.Options = &openapi3filter.Options{SkipSettingDefaults: true, AuthenticationFunc: authenticated}
	if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil {
		return fmt.Errorf("the request was let in: %w", err)
	}
	return nil
}

// authenticated tells whether a request has a bearer credential; which are good is not the document's to say.
func authenticated(_ context.Context, input *openapi3filter.AuthenticationInput) error {
	given := input.RequestValidationInput.Request.Header["Authorization"]
	if len(given) != 1 || !strings.HasPrefix(strings.ToLower(given[0]), "bearer ") {
		return errors.New("it has no bearer credential")
	}
	return nil
}
