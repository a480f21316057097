package isolation_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/tests/harness"
)

// requireCleanLog holds a log to one JSON object a line, without a control character and without any of the secrets.
func requireCleanLog(tb testing.TB, log string, secrets []string) {
	tb.Helper()
	require.NotEmpty(tb, log)
	require.True(tb, strings.HasSuffix(log, "\n"))
	for _, c := range []byte(log) {
		if c < ' ' && c != '\n' || c == 0x7f {
			require.FailNow(tb, "a control character in the log", "%q", c)
		}
	}
	for _, secret := range secrets {
		require.NotEmpty(tb, secret)
		if at := strings.Index(log, secret); at >= 0 {
			require.FailNow(tb, "a secret in the log", "%q in %s", secret, log[strings.LastIndex(log[:at], "\n")+1:at+len(secret)])
		}
	}
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
