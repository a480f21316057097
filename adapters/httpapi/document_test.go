package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/httpapi"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
)

// parsed is the document, which takes its time to read and is never changed.
var parsed = sync.OnceValues(func() (*openapi3.T, error) { //nolint:gochecknoglobals // read-only
	return openapi3.NewLoader().LoadFromFile("openapi.yaml")
})

func loadDocument(tb testing.TB) *openapi3.T {
	tb.Helper()
	doc, err := parsed()
	require.NoError(tb, err)
	return doc
}

// TestDocumentIsValid: by the rules of OpenAPI 3.1, with every example fitting its schema.
func TestDocumentIsValid(t *testing.T) {
	t.Parallel()
	doc := loadDocument(t)
	require.NoError(t, doc.Validate(t.Context(), openapi3.EnableExamplesValidation()))
	require.True(t, strings.HasPrefix(doc.OpenAPI, "3.1."))
}

// TestDocumentHasEveryRoute: what is registered is documented and the other way round; HEAD goes with GET.
func TestDocumentHasEveryRoute(t *testing.T) {
	t.Parallel()
	doc := loadDocument(t)
	var documented []httpapi.Route
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			documented = append(documented, httpapi.Route{Method: method, Path: path})
			if method == http.MethodGet {
				documented = append(documented, httpapi.Route{Method: http.MethodHead, Path: path})
			}
		}
	}
	require.ElementsMatch(t, documented, newEdge(t).api.Routes())
}

// codesOf lists the constants of fault.Code in the core's source.
func codesOf(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../core/fault/fault.go", nil, 0)
	require.NoError(t, err)
	var codes []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); ok && name.Name == "Code" {
			code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			require.NoError(t, err)
			codes = append(codes, code)
		}
		return true
	})
	return codes
}

// TestDocumentExplainsEveryCode: the core's codes and HTTP's own, each once, with a text that starts with its status and
// then says what to do, and answers that have it as an example and name it.
func TestDocumentExplainsEveryCode(t *testing.T) {
	t.Parallel()
	doc := loadDocument(t)
	var documented []string
	statuses := map[string]string{}
	for _, code := range doc.Components.Schemas["ErrorCode"].Value.OneOf {
		name := code.Value.Const.(string)
		documented = append(documented, name)
		require.Regexp(t, `(?s)^[1-5][0-9][0-9]\. .+\.\n\n.+\.\n$`, code.Value.Description, name)
		statuses[name] = code.Value.Description[:3]
		require.True(t, httpapi.ErrorCode(name).Valid(), "generated code is up to date")
	}
	https := []string{
		"route_not_found", "method_not_allowed", "unsupported_media_type",
		"invalid_body", "idempotency_keys_differ", "body_too_large", "params_too_large",
	}
	// No route changes a job's state, so that no caller meets job_state.
	core := slices.DeleteFunc(codesOf(t), func(code string) bool { return code == string(fault.CodeJobState) })
	require.ElementsMatch(t, append(core, https...), documented)

	shown := map[string]bool{}
	for name, response := range doc.Components.Responses {
		content := response.Value.Content["application/problem+json"]
		if content == nil {
			continue
		}
		named := regexp.MustCompile("`([a-z]+(?:_[a-z]+)+|internal|canceled)`").FindAllStringSubmatch(*response.Value.Description, -1)
		named = slices.DeleteFunc(named, func(match []string) bool { return statuses[match[1]] == "" })
		codes := map[string]bool{}
		for _, example := range content.Examples {
			value := example.Value.Value.(map[string]any)
			code := value["code"].(string)
			codes[code], shown[code] = true, true
			require.Equal(t, "/docs#code-"+code, value["type"])
			require.Equal(t, statuses[code], strconv.Itoa(int(value["status"].(float64))))
			require.Contains(t, *response.Value.Description, "`"+code+"`")
		}
		require.Len(t, codes, len(named), "%s names codes that it shows no example of", name)
	}
	for _, code := range documented {
		require.True(t, shown[code], code)
	}
	require.Len(t, doc.Components.Examples, len(exampleExchanges()))
}

// TestDocumentShowsEveryAnswer: each body of each operation has an example, each answer the two headers of all, and no
// object that is answered may have a member that its schema does not name.
func TestDocumentShowsEveryAnswer(t *testing.T) {
	t.Parallel()
	doc := loadDocument(t)
	closed := 0
	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			for status, response := range operation.Responses.Map() {
				for _, header := range []string{"X-Request-Id", "Cache-Control"} {
					require.Contains(t, response.Value.Headers, header, "%s %s %s", method, path, status)
				}
				for _, header := range response.Value.Headers {
					require.NotEmpty(t, header.Value.Description)
				}
				for _, content := range response.Value.Content {
					require.NotEmpty(t, content.Examples, "%s %s %s", method, path, status)
					require.NoError(t, content.Schema.WalkSubtree(func(at string, schema *openapi3.SchemaRef) error {
						if len(schema.Value.Properties) > 0 {
							require.NotNil(t, schema.Value.AdditionalProperties.Has, "%s %s %s %s", method, path, status, at)
							require.False(t, *schema.Value.AdditionalProperties.Has)
							closed++
						}
						return nil
					}))
				}
			}
		}
	}
	require.Positive(t, closed)
}

// exampleExchange is how to get an example of the document as an answer: what is asked, and how a read of a job fails.
type exampleExchange struct {
	asked ask
	fails error
}

func exampleExchanges() map[string]exampleExchange {
	const actions = `"action_provider":"google","action_name":"gmail.send"`
	whole := `{` + actions + `}`
	away := fault.New(fault.Unavailable, fault.CodeStorageUnavailable, "dial tcp 10.0.0.1:6379")
	return map[string]exampleExchange{
		"invalid_body":                 {asked: execute(`{"action_provider":"google"}`)},
		"invalid_parameter":            {asked: list("?limit=0")},
		"unknown_parameter":            {asked: get("a?limit=1")},
		"invalid_header":               {asked: execute(whole).with("Idempotency-Key", "")},
		"invalid_cursor":               {asked: list("?cursor=1:2")},
		"invalid_workspace_id":         {asked: list("?workspace_id=ACME")},
		"invalid_workspace_id_in_body": {asked: executeWith(`"workspace_id":""`)},
		"idempotency_keys_differ":      {asked: executeWith(`"client_request_id":"a"`).with("Idempotency-Key", "b")},
		"invalid_token":                {asked: list("").as("unknown")},
		"workspace_missing":            {asked: list("").as("homeless")},
		"insufficient_scope_execute":   {asked: execute(whole).as("reader")},
		"insufficient_scope_read":      {asked: list("").as("executor")},
		"other_workspace_execute":      {asked: executeWith(`"workspace_id":"acme-eu"`)},
		"other_workspace_read":         {asked: list("?workspace_id=acme-eu")},
		"job_not_found":                {asked: get("a"), fails: fault.New(fault.NotFound, fault.CodeJobNotFound, "none")},
		"route_not_found":              {asked: service("/nowhere")},
		"method_not_allowed":           {asked: withMethod(service("/docs"), http.MethodPost)},
		"body_too_large":               {asked: execute(whole + strings.Repeat(" ", 1<<20))},
		"params_too_large":             {asked: executeWith(`"params":{"a":"` + strings.Repeat("a", 256<<10) + `"}`)},
		"unsupported_media_type":       {asked: execute(whole).with("Content-Type", "text/plain")},
		"idempotency_key_reuse":        {asked: executeWith(`"client_request_id":"a"`)},
		"canceled":                     {asked: get("a"), fails: context.Canceled},
		"storage_unavailable":          {asked: get("a"), fails: away},
		"auth_unavailable":             {asked: get("a"), fails: fault.New(fault.Unavailable, fault.CodeAuthUnavailable, "x")},
		"record_invalid":               {asked: get("a"), fails: fault.New(fault.Internal, fault.CodeRecordInvalid, "x")},
		"internal":                     {asked: get("a"), fails: errors.New("x")},
	}
}

// TestExamplesAreAnswered: the document shows refusals as they are given, to the letter.
func TestExamplesAreAnswered(t *testing.T) {
	t.Parallel()
	doc := loadDocument(t)
	for name, exchange := range exampleExchanges() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, doc.Components.Examples, name)
			example := doc.Components.Examples[name].Value.Value.(map[string]any)
			e := newEdge(t)
			e.observer.EXPECT().OtherWorkspaceRequested(gomock.Any(), gomock.Any()).AnyTimes()
			e.jobs.EXPECT().Get(gomock.Any(), gomock.Any(), gomock.Any()).Return(job.Job{}, exchange.fails).AnyTimes()
			e.jobs.EXPECT().Enqueue(gomock.Any(), gomock.Any()).Return(job.Enqueued{Replayed: true, Job: job.Job{
				ID: jobID(t, "a"), Workspace: workspaceID(t, "acme"), Provider: "another",
			}}, nil).AnyTimes()
			w := e.do(exchange.asked.with("X-Request-Id", example["request_id"].(string)))
			want, err := json.Marshal(example)
			require.NoError(t, err)
			require.JSONEq(t, string(want), w.Body.String())
		})
	}
}

// TestDocumentKeepsToItsLines so that it stays readable as a file.
func TestDocumentKeepsToItsLines(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("openapi.yaml")
	require.NoError(t, err)
	for i, line := range strings.Split(string(text), "\n") {
		require.LessOrEqual(t, len([]rune(line)), 120, "line %d", i+1)
		require.NotContains(t, line, "\t")
	}
}
