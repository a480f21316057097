package harness

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// Operators gives the client for what is no part of the API: operators' pages, and Prometheus.
func Operators() *http.Client { return http.DefaultClient }

// Admin reads a page that operators have, such as metrics.
func Admin(tb testing.TB, url string) string {
	tb.Helper()
	r, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(tb, err)
	resp, err := Operators().Do(r)
	require.NoError(tb, err)
	defer resp.Body.Close() //nolint:errcheck // only read from
	page, err := io.ReadAll(resp.Body)
	require.NoError(tb, err)
	require.Equal(tb, http.StatusOK, resp.StatusCode, "%s", page)
	return string(page)
}
