package harness

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Buffer keeps what is written to it. It may be used concurrently.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String gives all that was written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Lines reads what was written as JSON objects, one a line, leaving out a line that is not finished yet.
func (b *Buffer) Lines(tb testing.TB) []map[string]any {
	tb.Helper()
	var lines []map[string]any
	for line := range strings.Lines(b.String()) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		var fields map[string]any
		require.NoError(tb, json.Unmarshal([]byte(line), &fields), line)
		lines = append(lines, fields)
	}
	return lines
}

// Message gives the lines whose msg is the given one.
func (b *Buffer) Message(tb testing.TB, msg string) []map[string]any {
	tb.Helper()
	var found []map[string]any
	for _, line := range b.Lines(tb) {
		if line["msg"] == msg {
			found = append(found, line)
		}
	}
	return found
}
