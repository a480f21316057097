package contract

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// AuthFixture is a provider and credentials for it. The provider's clock stands still or runs; what is valid stays
// valid for the test's time.
type AuthFixture struct {
	Provider ports.AuthProvider

	// Valid and Other prove two principals that differ in all parts, each with workspace, actor and two scopes or more.
	Valid, Other AuthProof

	// Good credentials that the core refuses later.
	NoWorkspace, MalformedWorkspace, NoScopes AuthCase

	// Well-formed credentials that prove nothing: made by somebody else, too old, taken back.
	Unknown, Expired, Revoked AuthCase

	// Refused are further credentials that this adapter alone can have, by what is wrong with them.
	Refused map[string]string
}

// AuthProof is a credential and what it proves.
type AuthProof struct {
	Credential string
	Want       access.Principal
}

// AuthCase is a proof, or the reason why the adapter cannot have such a one. Want is for cases that authenticate.
type AuthCase struct {
	AuthProof
	Impossible string
}

// AuthProvider holds an adapter to ports.AuthProvider. A case that a fixture neither gives nor declares impossible
// fails.
func AuthProvider(t *testing.T, open func(t *testing.T) AuthFixture) {
	t.Helper()

	t.Run("a valid credential proves workspace, actor and scopes", func(t *testing.T) {
		f := open(t)
		for _, proof := range []AuthProof{f.Valid, f.Other} {
			_, err := workspace.Parse(proof.Want.Workspace)
			require.NoError(t, err)
			require.NotEmpty(t, proof.Want.Actor)
			require.GreaterOrEqual(t, len(proof.Want.Scopes), 2)
			requireProof(t, f.Provider, proof)
		}
		require.NotEqual(t, f.Valid.Want.Workspace, f.Other.Want.Workspace)
		require.NotEqual(t, f.Valid.Want.Actor, f.Other.Want.Actor)
		require.NotEqual(t, f.Valid.Want.Scopes, f.Other.Want.Scopes)
	})

	for name, pick := range map[string]func(AuthFixture) (AuthCase, bool){
		"without a workspace": func(f AuthFixture) (AuthCase, bool) {
			return f.NoWorkspace, f.NoWorkspace.Want.Workspace == ""
		},
		"with a malformed workspace": func(f AuthFixture) (AuthCase, bool) {
			_, err := workspace.Parse(f.MalformedWorkspace.Want.Workspace)
			return f.MalformedWorkspace, err != nil && f.MalformedWorkspace.Want.Workspace != ""
		},
		"without scopes": func(f AuthFixture) (AuthCase, bool) {
			return f.NoScopes, len(f.NoScopes.Want.Scopes) == 0
		},
	} {
		t.Run("a credential "+name+" authenticates all the same", func(t *testing.T) {
			f := open(t)
			c, fits := pick(f)
			if possible(t, c) {
				require.True(t, fits, "the fixture's case is not what it should be")
				requireProof(t, f.Provider, c.AuthProof)
			}
		})
	}

	for name, pick := range map[string]func(AuthFixture) AuthCase{
		"unknown": func(f AuthFixture) AuthCase { return f.Unknown },
		"expired": func(f AuthFixture) AuthCase { return f.Expired },
		"revoked": func(f AuthFixture) AuthCase { return f.Revoked },
	} {
		t.Run("a credential that is "+name+" is refused", func(t *testing.T) {
			f := open(t)
			if c := pick(f); possible(t, c) {
				requireRefused(t, f.Provider, c.Credential)
				requireProof(t, f.Provider, f.Valid)
			}
		})
	}

	t.Run("what only this adapter can get wrong is refused", func(t *testing.T) {
		f := open(t)
		for name, credential := range f.Refused {
			t.Run(name, func(t *testing.T) { requireRefused(t, f.Provider, credential) })
		}
		requireProof(t, f.Provider, f.Valid)
	})

	t.Run("what is no credential is refused", func(t *testing.T) {
		f := open(t)
		valid := f.Valid.Credential
		half := len(valid) / 2
		for name, credential := range map[string]string{
			"empty":                 "",
			"blank":                 "                ",
			"garbage":               "qZ3vX0-nothing-that-was-ever-issued_8Yw",
			"dots":                  "..",
			"bytes":                 "\x00\xff\xfe\x01\x80\x00\x00\x00\x00\x00\x00\x00",
			"non-ASCII":             "жетон-доступа-к-чужим-заданиям",
			"huge":                  strings.Repeat("aB3-", 1<<18),
			"huge with a good head": valid + strings.Repeat("A", 1<<20),
			"last byte missing":     valid[:len(valid)-1],
			"first byte missing":    valid[1:],
			"first half":            valid[:half],
			"second half":           valid[half:],
			"twice":                 valid + valid,
			"two in a list":         valid + "," + f.Other.Credential,
			"halves of two":         valid[:half] + f.Other.Credential[min(half, len(f.Other.Credential)):],
			"trailing newline":      valid + "\n",
			"trailing CRLF":         valid + "\r\n",
			"trailing space":        valid + " ",
			"trailing NUL":          valid + "\x00",
			"trailing padding":      valid + "=",
			"leading newline":       "\n" + valid,
			"leading space":         " " + valid,
			"newline inside":        valid[:half] + "\n" + valid[half:],
			"non-ASCII tail":        valid + "é",
			"full-width letters":    fullWidth(valid),
			"other case":            swapCase(valid),
			"with its scheme":       "Bearer " + valid,
			"quoted":                `"` + valid + `"`,
			"percent-encoded":       "%" + valid,
		} {
			t.Run(name, func(t *testing.T) { requireRefused(t, f.Provider, credential) })
		}
		requireProof(t, f.Provider, f.Valid)
	})

	t.Run("a credential with any one byte changed is refused", func(t *testing.T) {
		f := open(t)
		for i := range len(f.Valid.Credential) {
			changed := []byte(f.Valid.Credential)
			changed[i] = map[bool]byte{true: 'B', false: 'A'}[changed[i] == 'A']
			requireRefused(t, f.Provider, string(changed))
		}
		requireProof(t, f.Provider, f.Valid)
	})

	t.Run("a caller that gave up is told so, whatever the credential", func(t *testing.T) {
		f := open(t)
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		late, cancelLate := context.WithDeadline(t.Context(), time.Unix(0, 0))
		defer cancelLate()
		for _, credential := range []string{f.Valid.Credential, "garbage-garbage", ""} {
			p, err := f.Provider.Authenticate(canceled, credential)
			require.Equal(t, fault.Canceled, fault.KindOf(err))
			require.ErrorIs(t, err, context.Canceled)
			require.Zero(t, p)
			_, err = f.Provider.Authenticate(late, credential)
			require.Equal(t, fault.Timeout, fault.KindOf(err))
		}
		requireProof(t, f.Provider, f.Valid)
	})

	t.Run("callers at once don't get each other's principal", func(t *testing.T) {
		f := open(t)
		var callers sync.WaitGroup
		for i := range 16 {
			callers.Go(func() {
				for j := range 50 {
					switch (i + j) % 3 {
					case 0, 1:
						proof := []AuthProof{f.Valid, f.Other}[(i+j)%3]
						got, err := f.Provider.Authenticate(t.Context(), proof.Credential)
						if assert.NoError(t, err) {
							assert.Equal(t, proof.Want, got)
						}
					default:
						_, err := f.Provider.Authenticate(t.Context(), f.Valid.Credential+"x")
						assert.Equal(t, fault.Unauthenticated, fault.KindOf(err))
					}
				}
			})
		}
		callers.Wait()
	})

	t.Run("a caller may change the scopes it got", func(t *testing.T) {
		f := open(t)
		want := f.Valid.Want
		want.Scopes = slices.Clone(want.Scopes)
		got, err := f.Provider.Authenticate(t.Context(), f.Valid.Credential)
		require.NoError(t, err)
		for i := range got.Scopes {
			got.Scopes[i] = "changed"
		}
		_ = append(got.Scopes[:0], "put", "in", "place") // what a careless caller does
		requireProof(t, f.Provider, AuthProof{Credential: f.Valid.Credential, Want: want})
	})
}

// possible tells whether the fixture gives the case; it must say why where it does not.
func possible(t *testing.T, c AuthCase) bool {
	t.Helper()
	require.NotEqual(t, c.Credential == "", c.Impossible == "",
		"a case needs a credential, or else the reason why there is none")
	if c.Impossible != "" {
		t.Log("declared impossible: " + c.Impossible)
	}
	return c.Impossible == ""
}

func requireProof(t *testing.T, p ports.AuthProvider, proof AuthProof) {
	t.Helper()
	got, err := p.Authenticate(t.Context(), proof.Credential)
	require.NoError(t, err)
	require.Equal(t, proof.Want.Workspace, got.Workspace)
	require.Equal(t, proof.Want.Actor, got.Actor)
	require.ElementsMatch(t, proof.Want.Scopes, got.Scopes)
}

// requireRefused also checks that the error says the same to every caller and keeps the credential to itself.
func requireRefused(t *testing.T, p ports.AuthProvider, credential string) {
	t.Helper()
	got, err := p.Authenticate(t.Context(), credential)
	require.Error(t, err)
	require.Equal(t, fault.Unauthenticated, fault.KindOf(err))
	require.Equal(t, fault.CodeInvalidToken, fault.CodeOf(err))
	require.Zero(t, got)

	said, ok := errors.AsType[*fault.Error](err)
	require.True(t, ok)
	require.Equal(t, "Invalid authentication token", said.Msg)
	require.Empty(t, said.Violations)
	if telling := repeats(err.Error(), credential); telling != "" {
		require.Failf(t, "the error repeats the credential", "%q", telling)
	}
}

// repeats gives a part of the credential, long enough to be no coincidence, that text holds.
func repeats(text, credential string) string {
	const long = 10
	for i := range max(0, len(text)-long+1) {
		if part := text[i : i+long]; strings.TrimSpace(part) != "" && strings.Contains(credential, part) {
			return part
		}
	}
	return ""
}

func fullWidth(s string) string {
	return strings.Map(func(r rune) rune { return r - '!' + '！' }, s)
}

func swapCase(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}, s)
}
