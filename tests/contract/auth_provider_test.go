package contract_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/adapters/apikey"
	"github.com/relay-jobs/relay/adapters/authchain"
	"github.com/relay-jobs/relay/adapters/jwtauth"
	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/tests/contract"
)

// The suite for the chain of the real adapters, in both orders. It is here since adapters don't import each other.
func TestAuthChain(t *testing.T) {
	for name, keysFirst := range map[string]bool{"keys, then tokens": true, "tokens, then keys": false} {
		t.Run(name, func(t *testing.T) {
			contract.AuthProvider(t, func(t *testing.T) contract.AuthFixture {
				t.Helper()
				return chainFixture(t, keysFirst)
			})
		})
	}
}

func chainFixture(t *testing.T, keysFirst bool) contract.AuthFixture {
	t.Helper()
	const issuer, audience = "https://id.example", "relay"
	secret := strings.Repeat("issuer's", 4)
	token := func(key string, change jwt.MapClaims) string {
		claims := jwt.MapClaims{
			"iss": issuer, "aud": audience, "exp": time.Now().Add(time.Hour).Unix(),
			"sub": "bob", "workspace_id": "acme-eu", "scopes": []string{"ai:jobs:read", "another"},
		}
		maps.Copy(claims, change)
		signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(key))
		require.NoError(t, err)
		return signed
	}
	bob := func(ws string, change jwt.MapClaims) contract.AuthProof {
		want := access.Principal{Workspace: ws, Actor: "bob", Scopes: []access.Scope{"ai:jobs:read", "another"}}
		return contract.AuthProof{Credential: token(secret, change), Want: want}
	}

	var entries []apikey.Entry
	key := func(change func(*apikey.Entry)) string {
		text, e, err := apikey.Generate()
		require.NoError(t, err)
		e.WorkspaceID, e.ActorID, e.Scopes = "acme", "alice", []string{"ai:execute", "ai:jobs:read"}
		change(&e)
		entries = append(entries, e)
		return text
	}
	alice := access.Principal{
		Workspace: "acme", Actor: "alice", Scopes: []access.Scope{access.ScopeExecute, access.ScopeJobsRead},
	}
	f := contract.AuthFixture{
		Valid: contract.AuthProof{Credential: key(func(*apikey.Entry) {}), Want: alice},
		Other: bob("acme-eu", nil),
	}
	f.NoWorkspace.AuthProof = bob("", jwt.MapClaims{"workspace_id": nil})
	f.MalformedWorkspace.AuthProof = bob("Acme", jwt.MapClaims{"workspace_id": "Acme"})
	f.NoScopes.Credential = key(func(e *apikey.Entry) { e.Scopes = nil })
	f.NoScopes.Want = access.Principal{Workspace: "acme", Actor: "alice"}
	f.Revoked.Credential = key(func(e *apikey.Entry) { e.Disabled = true })
	f.Expired.Credential = token(secret, jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()})
	unknown, _, err := apikey.Generate()
	require.NoError(t, err)
	f.Unknown.Credential = unknown
	f.Refused = map[string]string{
		"a stranger's token": token("another secret of 32 bytes or more", nil),
		"an expired key":     key(func(e *apikey.Entry) { e.ExpiresAt = "2020-01-01T00:00:00Z" }),
		"a key and a token":  f.Valid.Credential + "." + f.Other.Credential,
		"a key as a secret":  token(f.Valid.Credential, nil),
		"a hash as a secret": token(entries[0].SHA256, nil),
	}

	keys, err := apikey.Static(time.Now, entries...)
	require.NoError(t, err)
	tokens, err := jwtauth.Open(jwtauth.Config{
		Algorithms: []string{jwtauth.HS256}, Issuer: issuer, Audience: audience, Secret: secret,
	}, zap.NewNop(), time.Now)
	require.NoError(t, err)
	t.Cleanup(func() { tokens.Close(); keys.Close() })
	if keysFirst {
		f.Provider, err = authchain.New(keys, tokens)
	} else {
		f.Provider, err = authchain.New(tokens, keys)
	}
	require.NoError(t, err)
	return f
}
