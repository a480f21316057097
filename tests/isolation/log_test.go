package isolation_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/tests/harness"
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
	values := map[string]float64{}
	for line := range strings.Lines(harness.Admin(tb, adminURL+"/metrics")) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if !ok || strings.HasPrefix(series, "#") {
			continue
		}
		var err error
		values[series+"}"], err = strconv.ParseFloat(value, 64)
		require.NoError(tb, err)
	}
	require.NotEmpty(tb, values)
	return values
}
