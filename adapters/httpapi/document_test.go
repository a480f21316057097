package httpapi_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/httpapi"
	"github.com/relay-jobs/relay/core/fault"
)

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

// TestDocumentExplainsEveryCode: the core's codes and HTTP's own, each once, with a text that starts with its status,
// and an answer that has it as an example.
func TestDocumentExplainsEveryCode(t *testing.T) {
	t.Parallel()
	doc := loadDocument(t)
	var documented []string
	statuses := map[string]string{}
	for _, code := range doc.Components.Schemas["ErrorCode"].Value.OneOf {
		name := code.Value.Const.(string)
		documented = append(documented, name)
		require.Regexp(t, `(?s)^[1-5][0-9][0-9]\. .+\.\n?$`, code.Value.Description, name)
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
	for _, response := range doc.Components.Responses {
		for _, example := range response.Value.Content["application/problem+json"].Examples {
			value := example.Value.Value.(map[string]any)
			code := value["code"].(string)
			shown[code] = true
			require.Equal(t, "/docs#code-"+code, value["type"])
			require.Equal(t, statuses[code], strconv.Itoa(int(value["status"].(float64))))
			require.Contains(t, *response.Value.Description, "`"+code+"`")
		}
	}
	for _, code := range documented {
		require.True(t, shown[code], code)
	}
}

// TestDocumentShowsEveryAnswer: each JSON answer of each operation has an example, and each has the two headers of all.
func TestDocumentShowsEveryAnswer(t *testing.T) {
	t.Parallel()
	doc := loadDocument(t)
	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			for status, response := range operation.Responses.Map() {
				for _, header := range []string{"X-Request-Id", "Cache-Control"} {
					require.Contains(t, response.Value.Headers, header, "%s %s %s", method, path, status)
				}
				for mediaType, content := range response.Value.Content {
					if path != "/openapi.json" && mediaType != "text/html" {
						require.NotEmpty(t, content.Examples, "%s %s %s", method, path, status)
					}
				}
			}
		}
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
