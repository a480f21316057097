package apikey

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/tests/contract"
)

// noon is when all tests of this package happen.
func noon() time.Time { return time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC) }

func newKey(t *testing.T, change func(*Entry)) (string, Entry) {
	t.Helper()
	token, e, err := Generate()
	require.NoError(t, err)
	e.WorkspaceID, e.ActorID, e.Scopes = "acme", "alice", []string{"ai:execute", "ai:jobs:read"}
	change(&e)
	return token, e
}

// fixture has a key of each kind, served by whatever open makes of the entries.
func fixture(t *testing.T, open func(entries ...Entry) *Provider) contract.AuthFixture {
	t.Helper()
	var entries []Entry
	issue := func(change func(*Entry)) contract.AuthProof {
		token, e := newKey(t, change)
		entries = append(entries, e)
		want := access.Principal{Workspace: e.WorkspaceID, Actor: e.ActorID}
		for _, s := range e.Scopes {
			want.Scopes = append(want.Scopes, access.Scope(s))
		}
		return contract.AuthProof{Credential: token, Want: want}
	}
	f := contract.AuthFixture{
		Valid: issue(func(e *Entry) { e.ExpiresAt = "2026-11-21T12:00:01Z" }),
		Other: issue(func(e *Entry) {
			e.WorkspaceID, e.ActorID, e.Scopes = "acme-eu", "bob", []string{"ai:jobs:read", "another"}
		}),
		NoWorkspace:        contract.AuthCase{AuthProof: issue(func(e *Entry) { e.WorkspaceID = "" })},
		MalformedWorkspace: contract.AuthCase{Impossible: "such an entry is refused when it is read"},
		NoScopes:           contract.AuthCase{AuthProof: issue(func(e *Entry) { e.Scopes = nil })},
		Expired:            contract.AuthCase{AuthProof: issue(func(e *Entry) { e.ExpiresAt = "2026-11-21T13:00:00+01:00" })},
		Revoked:            contract.AuthCase{AuthProof: issue(func(e *Entry) { e.Disabled = true })},
	}
	unknown, _ := newKey(t, func(*Entry) {})
	f.Unknown.Credential = unknown
	f.Refused = map[string]string{
		"the hash instead of the token":       entries[0].SHA256,
		"the hash with the token's prefix":    tokenPrefix + entries[0].SHA256,
		"the token without its prefix":        strings.TrimPrefix(f.Valid.Credential, tokenPrefix),
		"the prefix alone":                    tokenPrefix,
		"the prefix in capitals":              strings.Replace(f.Valid.Credential, "relay", "RELAY", 1),
		"a key's id":                          entries[0].ID,
		"another key's tail behind this head": f.Valid.Credential[:20] + f.Other.Credential[20:],
	}
	f.Provider = open(entries...)
	return f
}

func TestContractStatic(t *testing.T) {
	contract.AuthProvider(t, func(t *testing.T) contract.AuthFixture {
		t.Helper()
		return fixture(t, func(entries ...Entry) *Provider {
			p, err := Static(noon, entries...)
			require.NoError(t, err)
			t.Cleanup(p.Close)
			return p
		})
	})
}

func TestContractFile(t *testing.T) {
	contract.AuthProvider(t, func(t *testing.T) contract.AuthFixture {
		t.Helper()
		return fixture(t, func(entries ...Entry) *Provider {
			path := filepath.Join(t.TempDir(), "keys.yaml")
			write(t, path, render(t, entries...))
			p, err := Open(path, zap.NewNop(), noon)
			require.NoError(t, err)
			t.Cleanup(p.Close)
			return p
		})
	})
}

func TestGenerate(t *testing.T) {
	token, e, err := Generate()
	require.NoError(t, err)
	require.Regexp(t, `^relay_sk_[A-Za-z0-9_-]{43}$`, token)
	sum := sha256.Sum256([]byte(token))
	require.Equal(t, hex.EncodeToString(sum[:]), e.SHA256)

	other, otherEntry, err := Generate()
	require.NoError(t, err)
	require.NotEqual(t, token, other)
	require.NotEqual(t, e.ID, otherEntry.ID)

	_, err = e.YAML()
	require.EqualError(t, err, "actor_id is missing")
	e.WorkspaceID, e.ActorID, e.Scopes = "acme", "on: call #1", []string{"ai:execute"}
	e.ExpiresAt = "2027-01-31T00:00:00Z"
	text, err := e.YAML()
	require.NoError(t, err)
	require.NotContains(t, text, token)

	set, err := parseFile([]byte("keys:\n" + text))
	require.NoError(t, err)
	p := &Provider{now: noon}
	p.keys.Store(&set)
	got, err := p.Authenticate(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, access.Principal{
		Workspace: "acme", Actor: "on: call #1", Scopes: []access.Scope{access.ScopeExecute},
	}, got)
}

func TestExpiryIsExact(t *testing.T) {
	token, e := newKey(t, func(e *Entry) { e.ExpiresAt = "2026-11-21T12:00:00Z" })
	for at, good := range map[time.Duration]bool{-time.Nanosecond: true, 0: false, time.Nanosecond: false} {
		p, err := Static(func() time.Time { return noon().Add(at) }, e)
		require.NoError(t, err)
		_, err = p.Authenticate(t.Context(), token)
		require.Equal(t, good, err == nil, at)
	}
}

func TestRefusalTellsTheLogWhichKey(t *testing.T) {
	token, e := newKey(t, func(e *Entry) { e.ID, e.Disabled = "ci-2026", true })
	p, err := Static(noon, e)
	require.NoError(t, err)
	_, err = p.Authenticate(t.Context(), token)
	require.EqualError(t, err, "Invalid authentication token: API key ci-2026 is disabled")
}

func TestFileIsReadStrictly(t *testing.T) {
	secret, e := newKey(t, func(e *Entry) { e.ID = "first" })
	_, e2 := newKey(t, func(e *Entry) { e.ID = "second" })
	with := func(change func(*Entry)) string {
		changed := e2
		change(&changed)
		var b strings.Builder
		for _, e := range []Entry{e, changed} {
			fmt.Fprintf(&b, "  - scopes: [\"%s\"]\n", strings.Join(e.Scopes, `", "`))
			for _, field := range [][2]string{
				{"id", e.ID},
				{"sha256", e.SHA256},
				{"workspace_id", e.WorkspaceID},
				{"actor_id", e.ActorID},
				{"expires_at", e.ExpiresAt},
			} {
				if field[1] != "" {
					fmt.Fprintf(&b, "    %s: %q\n", field[0], field[1])
				}
			}
		}
		return "keys:\n" + b.String()
	}

	const second, sameHash = `keys[1] (id "second"): `, `the key (id "first") has the same sha256`
	set, err := parseFile([]byte(with(func(*Entry) {})))
	require.NoError(t, err, "the control: all below differ from it in one thing")
	require.Len(t, set, 2)

	for name, c := range map[string]struct{ content, says string }{
		"empty":               {"", "the file is empty"},
		"only a comment":      {"# nothing yet\n", "the file is empty"},
		"no list":             {"keys:\n", "the file has no list named keys"},
		"null":                {"null\n", "the file has no list named keys"},
		"unknown top field":   {"keys: []\n" + secret + ": 1\n", "an unknown field at line 2"},
		"unknown field":       {with(func(*Entry) {}) + "    scope: x\n", "an unknown field at line "},
		"field given twice":   {with(func(*Entry) {}) + "    id: x\n", "a field given twice at line "},
		"list given twice":    {"keys: []\nkeys: []\n", "a field given twice at line "},
		"no mapping":          {"keys:\n  - " + secret + "\n", "a value of the wrong type at line 2"},
		"no list of scopes":   {"keys:\n  - scopes: " + secret + "\n", "a value of the wrong type at line 2"},
		"disabled is no bool": {with(func(*Entry) {}) + "    disabled: maybe\n", "a value of the wrong type at line "},
		"no YAML":             {"keys: [\x00" + secret, "not valid YAML"},
		"open bracket":        {"keys: [" + secret, "not valid YAML at line 1"},
		"JSON cut short":      {`{"keys": [{"id": "` + secret, "not valid YAML"},
		"unknown anchor":      {"keys: *" + secret, "not valid YAML"},
		"two documents":       {"keys: []\n---\nkeys: []\n", "the file holds more than one YAML document"},
		"document and rubble": {"keys: []\n---\n{", "the file holds more than one YAML document"},

		"no id":             {with(func(e *Entry) { e.ID = "" }), "keys[1]: id must be"},
		"odd id":            {with(func(e *Entry) { e.ID = "a\nb" }), "keys[1]: id must be"},
		"token as id":       {with(func(e *Entry) { e.ID = secret }), "keys[1]: id must be"},
		"same id":           {with(func(e *Entry) { e.ID = "first" }), `keys[1] (id "first"): keys[0] has the same id`},
		"same sha256":       {with(func(x *Entry) { x.SHA256 = e.SHA256 }), second + sameHash},
		"same in capitals":  {with(func(x *Entry) { x.SHA256 = strings.ToUpper(e.SHA256) }), sameHash},
		"token as sha256":   {with(func(e *Entry) { e.SHA256 = secret }), second + `sha256 must be`},
		"no sha256":         {with(func(e *Entry) { e.SHA256 = "" }), second + `sha256 must be`},
		"short sha256":      {with(func(e *Entry) { e.SHA256 = e.SHA256[2:] }), second + `sha256 must be`},
		"odd sha256":        {with(func(e *Entry) { e.SHA256 = e.SHA256[1:] }), second + `sha256 must be`},
		"sha256 not hex":    {with(func(e *Entry) { e.SHA256 = "g" + e.SHA256[1:] }), second + `sha256 must be`},
		"bad workspace":     {with(func(e *Entry) { e.WorkspaceID = "Acme" }), second + `workspace_id is malformed`},
		"workspace newline": {with(func(e *Entry) { e.WorkspaceID = "acme\n" }), second + `workspace_id is malformed`},
		"no actor":          {with(func(e *Entry) { e.ActorID = "" }), second + `actor_id is missing`},
		"empty scope":       {with(func(e *Entry) { e.Scopes = []string{""} }), second + `scopes must be`},
		"two scopes in one": {with(func(e *Entry) { e.Scopes = []string{"a b"} }), second + `scopes must be`},
		"bad time":          {with(func(e *Entry) { e.ExpiresAt = "tomorrow" }), second + `expires_at must be`},
		"date only":         {with(func(e *Entry) { e.ExpiresAt = "2027-01-31" }), second + `expires_at must be`},
		"time without zone": {with(func(e *Entry) { e.ExpiresAt = "2027-01-31T00:00:00" }), second + `expires_at must be`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseFile([]byte(c.content))
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), secret[:16], "the error repeats what the file holds")
		})
	}
}

func TestFileTakesPlainYAML(t *testing.T) {
	hash := strings.Repeat("0123456789abcdef", 4)
	digits := strings.Repeat("1234", 16)
	for name, content := range map[string]string{
		"unquoted": "keys:\n- id: 7\n  sha256: " + digits + "\n  workspace_id: 123\n  actor_id: 5\n  scopes: [a]\n" +
			"  expires_at: 2027-01-31T00:00:00Z\n",
		"no scope":      "keys:\n- id: x\n  sha256: " + hash + "\n  actor_id: a\n  scopes: []\n",
		"left out":      "keys:\n- id: x\n  sha256: " + hash + "\n  actor_id: a\n",
		"JSON":          `{"keys": [{"id": "x", "sha256": "` + hash + `", "actor_id": "a", "disabled": false}]}`,
		"CRLF, comment": "# ours\r\nkeys:\r\n  - id: x\r\n    sha256: " + hash + " # of ci\r\n    actor_id: a\r\n",
		"no key at all": "keys: []\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseFile([]byte(content))
			require.NoError(t, err)
		})
	}
}

func TestStaticRefusesWhatAFileWould(t *testing.T) {
	_, e := newKey(t, func(*Entry) {})
	_, err := Static(noon, e, e)
	require.ErrorContains(t, err, "has the same id")
}

// A field that is there and empty was meant to say something: without a value a key would never expire.
func TestBlankFieldsAreRefused(t *testing.T) {
	_, e := newKey(t, func(*Entry) {})
	whole := render(t, e)
	_, err := parseFile([]byte(whole + "    expires_at: 2027-01-31T00:00:00Z\n    disabled: false\n"))
	require.NoError(t, err, "the control")

	line := strings.Count(whole, "\n") + 1
	for _, field := range []string{"expires_at", "disabled"} {
		for _, blank := range []string{"", " ", " ~", " null", " NULL", " # soon", " !!null", " &x"} {
			_, err := parseFile([]byte(whole + "    " + field + ":" + blank + "\n"))
			require.EqualError(t, err, fmt.Sprintf("%s has no value at line %d", field, line), blank)
		}
	}
	for _, blank := range []string{`""`, `''`, "!!str", "|\n", ">-\n"} {
		_, err := parseFile([]byte(whole + "    expires_at: " + blank + "\n"))
		require.ErrorContains(t, err, "expires_at has no value at line ", blank)
	}
	for _, field := range []string{"id", "sha256", "workspace_id", "actor_id", "scopes"} {
		content := regexp.MustCompile(field+`:.*\n(      +- .*\n)*`).ReplaceAllString(whole, field+":\n")
		_, err := parseFile([]byte(content))
		require.ErrorContains(t, err, field+" has no value at line ")
	}
	for name, content := range map[string]string{
		"by merging": whole + "    <<: {expires_at: ~}\n",
		"by an alias": strings.Replace(whole, `scopes:`, `scopes: &none`, 1) +
			"    expires_at: &none\n  - expires_at: *none\n",
		"in JSON": `{"keys": [{"sha256": "` + e.SHA256 + `", "id": "a", "actor_id": "b", "expires_at": null}]}`,
	} {
		_, err := parseFile([]byte(content))
		require.ErrorContains(t, err, "expires_at has no value at line ", name)
	}
}

func TestOpenNeedsAGoodFile(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.yaml")
	_, err := Open(missing, zap.NewNop(), noon)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, missing)

	_, err = Open(dir, zap.NewNop(), noon)
	require.ErrorContains(t, err, "is not a regular file")

	broken := filepath.Join(dir, "broken.yaml")
	write(t, broken, "keys:\n  - idd: x\n")
	_, err = Open(broken, zap.NewNop(), noon)
	require.EqualError(t, err, "API key file "+broken+": an unknown field at line 2")

	huge := filepath.Join(dir, "huge.yaml")
	write(t, huge, "keys: []\n")
	require.NoError(t, os.Truncate(huge, maxFileBytes+1))
	_, err = Open(huge, zap.NewNop(), noon)
	require.ErrorContains(t, err, "has more than")
}

func TestFileIsFollowed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.yaml")
	oldToken, oldEntry := newKey(t, func(*Entry) {})
	newToken, newEntry := newKey(t, func(*Entry) {})
	write(t, path, render(t, oldEntry))
	core, logs := observer.New(zapcore.DebugLevel)
	p, err := open(path, zap.New(core), noon, 2*time.Millisecond)
	require.NoError(t, err)
	defer p.Close()

	good := func(token string) bool {
		_, err := p.Authenticate(t.Context(), token)
		return err == nil
	}
	eventually := func(what string, is func() bool) {
		t.Helper()
		require.Eventually(t, is, 5*time.Second, time.Millisecond, what)
	}
	logged := func(message string, n int) func() bool {
		return func() bool { return logs.FilterMessage(message).Len() == n }
	}
	require.True(t, good(oldToken))
	require.False(t, good(newToken))

	write(t, path, render(t, oldEntry, newEntry))
	eventually("added in place", func() bool { return good(newToken) })

	replace(t, path, render(t, newEntry))
	eventually("removed by a rename", func() bool { return !good(oldToken) })
	require.True(t, good(newToken))

	disabled := newEntry
	disabled.Disabled = true
	replace(t, path, render(t, oldEntry, disabled))
	eventually("disabled", func() bool { return !good(newToken) })
	require.True(t, good(oldToken))

	const (
		refused = "API key file refused, the last good keys stay"
		lost    = "API key file cannot be read, the last good keys stay"
	)
	before := logs.FilterMessage(refused).Len() // a slow write in place may have been met empty
	replace(t, path, "keys: [{id: "+oldToken)
	eventually("refused", logged(refused, before+1))
	require.True(t, good(oldToken))

	replace(t, path, "")
	eventually("refused when empty", logged(refused, before+2))
	require.True(t, good(oldToken))

	require.NoError(t, os.Remove(path))
	eventually("gone", logged(lost, 1))
	require.True(t, good(oldToken))

	replace(t, path, render(t, newEntry))
	eventually("back", func() bool { return good(newToken) })
	require.False(t, good(oldToken))
	require.Equal(t, before+2, logs.FilterMessage(refused).Len(), "the same broken file is logged once")
	require.Equal(t, 1, logs.FilterMessage(lost).Len(), "a missing file is logged once")

	for _, line := range logs.All() {
		for _, field := range line.Context {
			for _, secret := range []string{oldToken, newToken, oldEntry.SHA256, newEntry.SHA256} {
				require.NotContains(t, field.String, secret[:16])
				if err, ok := field.Interface.(error); ok {
					require.NotContains(t, err.Error(), secret[:16])
				}
			}
		}
	}
}

// A file that is being written may parse at each line's end. A tick that meets such a state must not serve it.
func TestHalfWrittenFileRevokesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	first, e1 := newKey(t, func(*Entry) {})
	second, e2 := newKey(t, func(*Entry) {})
	whole := render(t, e1, e2)
	half := render(t, e1)
	require.True(t, strings.HasPrefix(whole, half))

	write(t, path, whole)
	set, err := parseFile([]byte(whole))
	require.NoError(t, err)
	p := &Provider{now: noon}
	p.keys.Store(&set)
	f := &follower{path: path, log: zap.NewNop(), serve: p.keys.Store, seen: sha256.Sum256([]byte(whole))}
	f.judged = f.seen

	states := []string{whole}
	for n := 0; n <= len(whole); n++ {
		states = append(states, whole[:n])
	}
	for _, state := range states {
		write(t, path, state)
		f.tick()
		for _, token := range []string{first, second} {
			_, err := p.Authenticate(t.Context(), token)
			require.NoError(t, err)
		}
	}

	write(t, path, half)
	f.tick()
	f.tick()
	_, err = p.Authenticate(t.Context(), second)
	require.Equal(t, fault.Unauthenticated, fault.KindOf(err), "the control: what stays is served")
	_, err = p.Authenticate(t.Context(), first)
	require.NoError(t, err)
}

func TestCloseTwiceKeepsTheKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	token, e := newKey(t, func(*Entry) {})
	write(t, path, render(t, e))
	core, logs := observer.New(zapcore.DebugLevel)
	p, err := open(path, zap.New(core), noon, time.Millisecond)
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	require.Eventually(t, func() bool { return logs.Len() == 1 }, 5*time.Second, time.Millisecond)
	p.Close()
	p.Close()
	_, err = p.Authenticate(t.Context(), token)
	require.NoError(t, err, "the keys stay usable")
}

func FuzzAuthenticate(f *testing.F) {
	token, e, err := Generate()
	require.NoError(f, err)
	e.WorkspaceID, e.ActorID = "acme", "alice"
	p, err := Static(noon, e)
	require.NoError(f, err)
	for _, seed := range []string{
		"", token, token + "\n", token[:51], tokenPrefix, e.SHA256, tokenPrefix + e.SHA256, e.ID, "Bearer " + token,
		strings.ToUpper(token), "\x00", strings.Repeat("a", 300), tokenPrefix + strings.Repeat("é", 20),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, credential string) {
		got, err := p.Authenticate(t.Context(), credential)
		if credential == token {
			require.NoError(t, err)
			require.Equal(t, "acme", got.Workspace)
			return
		}
		require.Equal(t, fault.Unauthenticated, fault.KindOf(err))
		require.Zero(t, got)
		if len(credential) > 12 {
			require.NotContains(t, err.Error(), credential)
		}
	})
}

// FuzzKeyFile holds the reader to: no panic, and nothing of the content in errors.
func FuzzKeyFile(f *testing.F) {
	hash := strings.Repeat("0123456789abcdef", 4)
	for _, seed := range []string{
		"", "keys: []", "keys:\n- id: x\n  sha256: " + hash + "\n  actor_id: a\n", "keys: [{", "- a", "a: &a [*a]",
		"<<: {keys: []}", "keys: !!binary x", "\t", "---\n---\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		const canary = "Canary 7f3" // no id, which errors may name
		_, err := parseFile([]byte(strings.ReplaceAll(string(content), "a", canary)))
		if err != nil {
			assert.NotContains(t, err.Error(), canary)
		}
	})
}

func render(t *testing.T, entries ...Entry) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("keys:\n")
	for _, e := range entries {
		text, err := e.YAML()
		require.NoError(t, err)
		b.WriteString(text)
	}
	return b.String()
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

func replace(t *testing.T, path, content string) {
	t.Helper()
	write(t, path+".new", content)
	require.NoError(t, os.Rename(path+".new", path))
}
