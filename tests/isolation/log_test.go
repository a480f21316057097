package isolation_test

import (
	"bufio"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// requireWhole holds the log of a server that was asked to stop to whole lines.
func requireWhole(tb testing.TB, log string) {
	tb.Helper()
	require.NotEmpty(tb, log)
	require.True(tb, strings.HasSuffix(log, "\n"))
}

// logged gives the lines with a message.
func logged(lines []map[string]any, msg string) []map[string]any {
	var found []map[string]any
	for _, line := range lines {
		if line["msg"] == msg {
			found = append(found, line)
		}
	}
	return found
}

// metrics reads the operators' page: name and labels to value.
func metrics(tb testing.TB, adminURL string) map[string]float64 {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, adminURL+"/metrics", nil)
	require.NoError(tb, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(tb, err)
	defer resp.Body.Close() //nolint:errcheck // only read from
	values := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		series, value, ok := strings.Cut(lines.Text(), "} ")
		if !ok || strings.HasPrefix(series, "#") {
			continue
		}
		values[series+"}"], err = strconv.ParseFloat(value, 64)
		require.NoError(tb, err)
	}
	require.NoError(tb, lines.Err())
	require.NotEmpty(tb, values)
	return values
}
