package workspace_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/workspace"
)

// documented is the pattern that operators and callers are told. \z, because $ may stand before a last newline in
// the dialects that they know.
var documented = regexp.MustCompile(`\A[a-z0-9][a-z0-9_-]{0,31}\z`)

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"one letter":          {"a", true},
		"one digit":           {"0", true},
		"neighbour":           {"acme", true},
		"neighbour by dash":   {"acme-eu", true},
		"neighbour by line":   {"acme_labs", true},
		"ends in signs":       {"a-_", true},
		"32 characters":       {strings.Repeat("a", 32), true},
		"33 characters":       {strings.Repeat("a", 33), false},
		"empty":               {"", false},
		"first a dash":        {"-acme", false},
		"first a line":        {"_acme", false},
		"capital":             {"Acme", false},
		"trailing newline":    {"acme\n", false},
		"only a newline":      {"\n", false},
		"second line":         {"acme\nother", false},
		"leading space":       {" acme", false},
		"trailing space":      {"acme ", false},
		"zero byte":           {"acme\x00", false},
		"colon":               {"acme:other", false},
		"glob":                {"acme*", false},
		"one of any":          {"acm?", false},
		"set":                 {"[a]cme", false},
		"braces":              {"{acme}", false},
		"slash":               {"acme/other", false},
		"dot":                 {"acme.eu", false},
		"letter of another":   {"аcme", false}, // Cyrillic а
		"letter with accent":  {"acmé", false},
		"full-width digit":    {"１", false},
		"Arabic digit":        {"٣", false},
		"not UTF-8":           {"acme\xff", false},
		"zero-width joiner":   {"ac\u200dme", false},
		"32 of several bytes": {strings.Repeat("é", 32), false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.ok, documented.MatchString(c.text), "the documented pattern")
			id, err := workspace.Parse(c.text)
			if c.ok {
				require.NoError(t, err)
				require.Equal(t, c.text, id.String())
				require.False(t, id.IsZero())
				return
			}
			requireRefused(t, id, err)
		})
	}
}

func requireRefused(t require.TestingT, id workspace.ID, err error) {
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	require.Equal(t, fault.CodeInvalidWorkspace, fault.CodeOf(err))
	require.Equal(t, "Invalid workspace_id format", err.Error(), "the text is not repeated")
	require.True(t, id.IsZero())
}

func TestParseIsTheDocumentedPattern(t *testing.T) {
	near := rapid.StringMatching(`[a-z0-9_:A-Z\n é-]{0,2}[a-z0-9_-]{0,33}[a-z0-9\n ]?`)
	rapid.Check(t, func(t *rapid.T) {
		requireLikePattern(t, rapid.OneOf(near, rapid.String()).Draw(t, "text"))
	})
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"acme", "acme-eu", "acme\n", "", "-", "аcme", strings.Repeat("z", 33)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) { requireLikePattern(t, text) })
}

func requireLikePattern(t require.TestingT, text string) {
	id, err := workspace.Parse(text)
	if !documented.MatchString(text) {
		requireRefused(t, id, err)
		return
	}
	require.NoError(t, err)
	require.Equal(t, text, id.String())
}

func TestRefusalsAreNotShared(t *testing.T) {
	_, first := workspace.Parse("-")
	_, second := workspace.Parse("-")
	require.NotSame(t, first, second)
}

func TestIDsAreComparable(t *testing.T) {
	acme, err := workspace.Parse("acme")
	require.NoError(t, err)
	again, err := workspace.Parse("acme")
	require.NoError(t, err)
	neighbour, err := workspace.Parse("acme-eu")
	require.NoError(t, err)
	require.True(t, acme == again) //nolint:testifylint // it is the operator that is tested
	require.NotEqual(t, acme, neighbour)
	require.Empty(t, workspace.ID{}.String())
	require.True(t, workspace.ID{}.IsZero())
}
