package isolation_test

import (
	"bufio"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
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
