// Package harness runs the whole service for tests: in this process, or as the real binary.
package harness

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/apikey"
	"github.com/relay-jobs/relay/core/access"
)

// Keys is a file of API keys.
type Keys struct {
	Path string

	mu      sync.Mutex
	entries []string
}

// NewKeys makes an empty file.
func NewKeys(tb testing.TB) *Keys {
	tb.Helper()
	k := &Keys{Path: filepath.Join(tb.TempDir(), "keys.yaml")}
	require.NoError(tb, os.WriteFile(k.Path, []byte("keys: []\n"), 0o600))
	return k
}

// Token adds a key with both scopes for a workspace, and returns its token. A server that runs already takes a second
// or two to know it.
func (k *Keys) Token(tb testing.TB, workspace string) string {
	tb.Helper()
	return k.Add(tb, apikey.Entry{
		WorkspaceID: workspace, ActorID: "tester", Scopes: []string{string(access.ScopeExecute), string(access.ScopeJobsRead)},
	})
}

// Add adds an entry, whose id and hash it fills in, and returns the token.
func (k *Keys) Add(tb testing.TB, e apikey.Entry) string {
	tb.Helper()
	token, made, err := apikey.Generate()
	require.NoError(tb, err)
	Secret(strings.TrimPrefix(token, tokenPrefix))
	e.ID, e.SHA256 = made.ID, made.SHA256
	text, err := e.YAML()
	require.NoError(tb, err)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.entries = append(k.entries, text)
	content := "keys:\n" + strings.Join(k.entries, "")
	require.NoError(tb, os.WriteFile(k.Path, []byte(content), 0o600))
	return token
}
