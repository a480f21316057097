package jwtauth

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/access"
)

func hs256(t *testing.T) (*Provider, signer) {
	t.Helper()
	cfg := config(HS256)
	cfg.Secret = secret
	return openConfig(t, cfg), newSigner(t, HS256, "")
}

func TestSpaceAloneSeparatesScopes(t *testing.T) {
	p, s := hs256(t)
	for sent, want := range map[string][]access.Scope{
		" a  b ":                          {"a", "b"},
		"a\tb":                            {"a\tb"},
		"ai:execute\nai:jobs:read c":      {"ai:execute\nai:jobs:read", "c"},
		"ai:execute\u00a0c\u0085d\u2003e": {"ai:execute\u00a0c\u0085d\u2003e"},
	} {
		got, err := p.Authenticate(t.Context(), s.token(t, map[string]any{"scope": sent}, nil))
		require.NoError(t, err)
		require.Equal(t, want, got.Scopes)
	}
}

func TestSubjectIsShortPlainText(t *testing.T) {
	p, s := hs256(t)
	longest := strings.Repeat("é", maxSubjectBytes/2)
	for _, sub := range []string{"", "alice", "auth0|5f7c8ec7c33c6c004bbafe82", "Zoë <z@x>", longest} {
		got, err := p.Authenticate(t.Context(), s.token(t, map[string]any{"sub": sub}, nil))
		require.NoError(t, err, sub)
		require.Equal(t, sub, got.Actor)
	}
	for _, sub := range []any{
		longest + "a", "alice\nadmin", "alice\x00", "\x7falice", "alice\u0085", "\t", json.RawMessage(`"\ud800"`),
	} {
		refused(t, p, s.token(t, map[string]any{"sub": sub}, nil))
	}
}
