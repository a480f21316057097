package client_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/httpapi/client"
)

// answering answers every request with the same.
type answering struct{ contentType, body string }

func (a answering) Do(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusInternalServerError, Header: http.Header{"Content-Type": {a.contentType}},
		Body: io.NopCloser(strings.NewReader(a.body)), Request: r,
	}, nil
}

func TestProblemOf(t *testing.T) {
	t.Parallel()
	const body = `{"type":"/docs#code-internal","title":"t","status":500,"detail":"d","code":"internal","request_id":"r"}`
	for contentType, found := range map[string]bool{
		"application/problem+json": true, "application/problem+json; charset=utf-8": true,
		"application/json": false, "text/html": false, "": false,
	} {
		relay, err := client.NewClientWithResponses("http://x", client.WithHTTPClient(answering{contentType: contentType, body: body}))
		require.NoError(t, err)
		answer, err := relay.GetJobWithResponse(t.Context(), "a", nil)
		require.NoError(t, err)
		problem := client.ProblemOf(answer)
		require.Equal(t, found, problem != nil, contentType)
		if found {
			require.Equal(t, client.ErrorCodeInternal, problem.Code)
		}
	}
}
