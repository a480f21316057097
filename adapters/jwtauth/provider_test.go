package jwtauth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/tests/contract"
)

const (
	issuer   = "https://id.example"
	audience = "relay"
	secret   = "0123456789abcdef0123456789abcdef"
	leeway   = 30 * time.Second
)

// noon is when all tests of this package happen.
func noon() time.Time { return time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC) }

func at(d time.Duration) int64 { return noon().Add(d).Unix() }

// signer holds a private key and the form in which a key set publishes it.
type signer struct {
	method jwt.SigningMethod
	key    any
	kid    string
}

func newSigner(tb testing.TB, alg, kid string) signer {
	tb.Helper()
	s := signer{method: jwt.GetSigningMethod(alg), kid: kid}
	var err error
	switch alg {
	case HS256:
		s.key = []byte(secret)
	case RS256:
		s.key, err = rsa.GenerateKey(rand.Reader, 2048)
	case ES256:
		s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case EdDSA:
		_, s.key, err = ed25519.GenerateKey(rand.Reader)
	}
	require.NoError(tb, err)
	return s
}

func (s signer) public(tb testing.TB) any {
	tb.Helper()
	private, ok := s.key.(crypto.Signer)
	require.True(tb, ok)
	return private.Public()
}

// jwk gives the public key as a set publishes it, with members changed or, where nil, left out.
func (s signer) jwk(tb testing.TB, members map[string]any) map[string]any {
	tb.Helper()
	jwk, err := jwkset.NewJWKFromKey(s.public(tb), jwkset.JWKOptions{
		Metadata: jwkset.JWKMetadataOptions{KID: s.kid, USE: jwkset.UseSig},
	})
	require.NoError(tb, err)
	raw, err := json.Marshal(jwk.Marshal())
	require.NoError(tb, err)
	var out map[string]any
	require.NoError(tb, json.Unmarshal(raw, &out))
	return merged(out, members)
}

func merged(base, members map[string]any) map[string]any {
	out := maps.Clone(base)
	for k, v := range members {
		if out[k] = v; v == nil {
			delete(out, k)
		}
	}
	return out
}

func jwks(tb testing.TB, keys ...map[string]any) string {
	tb.Helper()
	raw, err := json.Marshal(map[string]any{"keys": append([]map[string]any{}, keys...)})
	require.NoError(tb, err)
	return string(raw)
}

// usual are the claims of a good token.
func usual() map[string]any {
	return map[string]any{
		"iss": issuer, "aud": audience, "exp": at(time.Minute), "sub": "alice",
		"workspace_id": "acme", "scope": "ai:execute ai:jobs:read",
	}
}

// token signs the usual claims and header, with members changed or, where nil, left out.
func (s signer) token(tb testing.TB, claims, header map[string]any) string {
	tb.Helper()
	head, err := json.Marshal(merged(map[string]any{"alg": s.method.Alg(), "typ": "JWT", "kid": s.kid}, header))
	require.NoError(tb, err)
	body, err := json.Marshal(merged(usual(), claims))
	require.NoError(tb, err)
	return s.signed(tb, string(head), string(body))
}

func (s signer) signed(tb testing.TB, head, body string) string {
	tb.Helper()
	text := b64([]byte(head)) + "." + b64([]byte(body))
	sig, err := s.method.Sign(text, s.key)
	require.NoError(tb, err)
	return text + "." + b64(sig)
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// hmacToken signs the usual claims as HS256 with whatever bytes.
func hmacToken(tb testing.TB, key []byte, header map[string]any) string {
	tb.Helper()
	return signer{method: jwt.SigningMethodHS256, key: key}.token(tb, nil, merged(map[string]any{"kid": nil}, header))
}

func config(algorithms ...string) Config {
	return Config{Algorithms: algorithms, Issuer: issuer, Audience: audience, Leeway: leeway}
}

func fileOf(tb testing.TB, content string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "jwks.json")
	require.NoError(tb, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func openConfig(tb testing.TB, cfg Config) *Provider {
	tb.Helper()
	p, err := Open(cfg, zap.NewNop(), noon)
	require.NoError(tb, err)
	tb.Cleanup(p.Close)
	return p
}

func proof(credential, ws, actor string, scopes ...access.Scope) contract.AuthProof {
	return contract.AuthProof{
		Credential: credential, Want: access.Principal{Workspace: ws, Actor: actor, Scopes: scopes},
	}
}

func TestContract(t *testing.T) {
	signers, strangers := map[string]func() signer{}, map[string]func() signer{}
	for _, alg := range []string{HS256, RS256, ES256, EdDSA} {
		signers[alg] = sync.OnceValue(func() signer { return newSigner(t, alg, "k-"+alg) })
		strangers[alg] = sync.OnceValue(func() signer { return newSigner(t, alg, "k-"+alg) })
	}
	for alg := range signers {
		t.Run(alg, func(t *testing.T) {
			contract.AuthProvider(t, func(t *testing.T) contract.AuthFixture {
				t.Helper()
				return fixture(t, alg, signers, strangers[alg]())
			})
		})
	}
}

// fixture has a provider that accepts one algorithm alone.
func fixture(t *testing.T, alg string, signers map[string]func() signer, stranger signer) contract.AuthFixture {
	t.Helper()
	good := signers[alg]()
	cfg := config(alg)
	if alg == HS256 {
		cfg.Secret = secret
	} else {
		cfg.JWKSFile = fileOf(t, jwks(t, good.jwk(t, nil)))
	}
	f := contract.AuthFixture{
		Provider: openConfig(t, cfg),
		Valid:    proof(good.token(t, nil, nil), "acme", "alice", access.ScopeExecute, access.ScopeJobsRead),
		Other: proof(good.token(t, map[string]any{
			"workspace_id": "acme-eu", "sub": "bob", "scope": nil, "scopes": []string{"ai:jobs:read", "another"},
			"aud": []string{"else", audience},
		}, nil), "acme-eu", "bob", access.ScopeJobsRead, "another"),
		Revoked: contract.AuthCase{Impossible: "a token is good until it expires or its key goes, which makes it unknown"},
		Refused: map[string]string{},
	}
	f.NoWorkspace.AuthProof = proof(good.token(t, map[string]any{"workspace_id": nil}, nil),
		"", "alice", access.ScopeExecute, access.ScopeJobsRead)
	f.MalformedWorkspace.AuthProof = proof(good.token(t, map[string]any{"workspace_id": "acme\n"}, nil),
		"acme\n", "alice", access.ScopeExecute, access.ScopeJobsRead)
	f.NoScopes.AuthProof = proof(good.token(t, map[string]any{"scope": nil}, nil), "acme", "alice")
	f.Expired.Credential = good.token(t, map[string]any{"exp": at(-leeway)}, nil)

	if alg == HS256 {
		stranger.key = []byte(strings.ToUpper(secret))
	}
	f.Unknown.Credential = stranger.token(t, nil, nil)

	for name, change := range map[string]map[string]any{
		"no exp":                     {"exp": nil},
		"exp null":                   {"exp": json.RawMessage("null")},
		"exp as text":                {"exp": "4102444800"},
		"exp negative":               {"exp": -1},
		"exp that overflows":         {"exp": json.RawMessage("1e300")},
		"exp beyond numbers":         {"exp": json.RawMessage("1e999")},
		"exp zero":                   {"exp": 0},
		"not yet valid":              {"nbf": at(leeway + time.Second)},
		"nbf as text":                {"nbf": "0"},
		"nbf that overflows":         {"nbf": json.RawMessage("1e300")},
		"no issuer":                  {"iss": nil},
		"another issuer":             {"iss": issuer + "/"},
		"issuer in capitals":         {"iss": strings.ToUpper(issuer)},
		"list of issuers":            {"iss": []string{issuer}},
		"no audience":                {"aud": nil},
		"empty audience":             {"aud": ""},
		"no audience in list":        {"aud": []string{}},
		"wrong audience":             {"aud": "relay-eu"},
		"wrong audiences":            {"aud": []string{"relay-eu", "rela"}},
		"audience of another type":   {"aud": 7},
		"audience list with numbers": {"aud": []any{audience, 7}},
		"workspace a number":         {"workspace_id": 7},
		"workspace a list":           {"workspace_id": []string{"acme"}},
		"workspace an object":        {"workspace_id": map[string]string{"id": "acme"}},
		"subject a number":           {"sub": 7},
		"scope a list":               {"scope": []string{"ai:execute"}},
		"scopes a text":              {"scopes": "ai:execute"},
		"scopes with a number":       {"scopes": []any{"ai:execute", 1}},
	} {
		f.Refused[name] = good.token(t, change, nil)
	}

	head := `{"alg":"` + alg + `","kid":"` + good.kid + `"}`
	rest := `"aud":"relay","exp":4102444800,"iss":"https://id.example","scope":"ai:execute"}`
	for name, body := range map[string]string{
		"claim given twice":              `{"workspace_id":"acme","workspace_id":"acme-eu",` + rest,
		"claim given twice with escapes": `{"workspace_id":"acme","workspace\u005fid":"acme-eu",` + rest,
		"same claim given twice":         `{"workspace_id":"acme","workspace_id":"acme",` + rest,
		"name twice in another claim":    `{"x":{"a":1,"a":2},` + rest,
		"two objects":                    `{` + rest + `{}`,
		"list":                           `[{` + rest + `]`,
		"null":                           `null`,
		"no JSON":                        `workspace_id=acme`,
		"empty":                          ``,
		"invalid UTF-8":                  "{\"sub\":\"\xff\"," + rest,
	} {
		f.Refused["claims: "+name] = good.signed(t, head, body)
	}

	body := `{"workspace_id":"acme",` + rest
	for name, head := range map[string]string{
		"no alg":           `{"kid":"` + good.kid + `"}`,
		"alg twice":        `{"alg":"none","alg":"` + alg + `","kid":"` + good.kid + `"}`,
		"alg in lowercase": `{"alg":"` + strings.ToLower(alg) + `","kid":"` + good.kid + `"}`,
		"alg a list":       `{"alg":["` + alg + `"],"kid":"` + good.kid + `"}`,
		"unknown alg":      `{"alg":"XX256","kid":"` + good.kid + `"}`,
		"alg with a tail":  `{"alg":"` + alg + `x","kid":"` + good.kid + `"}`,
		"critical":         `{"alg":"` + alg + `","kid":"` + good.kid + `","crit":["exp"]}`,
		"critical, empty":  `{"alg":"` + alg + `","kid":"` + good.kid + `","crit":[]}`,
		"null":             `null`,
		"no object":        `"` + alg + `"`,
	} {
		f.Refused["header: "+name] = good.signed(t, head, body)
	}

	valid := strings.Split(f.Valid.Credential, ".")
	unsigned := func(alg string) string {
		return b64([]byte(`{"alg":"`+alg+`","kid":"`+good.kid+`"}`)) + "." + valid[1] + "."
	}
	f.Refused["alg none"] = unsigned("none")
	f.Refused["alg None"] = unsigned("None")
	f.Refused["alg NONE"] = unsigned("NONE")
	f.Refused["alg none with a signature"] = unsigned("none") + valid[2]
	f.Refused["no signature"] = valid[0] + "." + valid[1] + "."
	f.Refused["no signature, no dot"] = valid[0] + "." + valid[1]
	f.Refused["a fourth part"] = f.Valid.Credential + "."
	f.Refused["an encrypted token's five parts"] = f.Valid.Credential + "." + valid[0] + "." + valid[2]
	f.Refused["another token's signature"] = valid[0] + "." + valid[1] + "." + strings.Split(f.Other.Credential, ".")[2]
	f.Refused["a signature of zeros"] = valid[0] + "." + valid[1] + "." + b64(make([]byte, 64))
	f.Refused["JSON form"] = `{"protected":"` + valid[0] + `","payload":"` + valid[1] + `","signature":"` + valid[2] + `"}`
	f.Refused["too large"] = good.token(t, map[string]any{"x": strings.Repeat("x", maxTokenBytes)}, nil)

	for other, signer := range signers {
		if other != alg {
			f.Refused["good "+other+" that is not configured"] = signer().token(t, nil, nil)
			f.Refused["another key's "+other+" under the good kid"] = signer().token(t, nil, map[string]any{"kid": good.kid})
			f.Refused[other+" signature under this alg"] = signer().token(t, nil, map[string]any{"alg": alg, "kid": good.kid})
		}
	}
	if alg != HS256 {
		f.Refused["unknown kid"] = good.token(t, nil, map[string]any{"kid": "another"})
		f.Refused["empty kid"] = good.token(t, nil, map[string]any{"kid": ""})
		f.Refused["kid a number"] = good.token(t, nil, map[string]any{"kid": 1})
		f.Refused["kid a path"] = stranger.token(t, nil, map[string]any{"kid": "../../../../dev/null"})
		f.Refused["HS256 with an empty secret"] = hmacToken(t, []byte{}, nil)
		for name, bytes := range publicForms(t, good) {
			f.Refused["HS256 with the public key as "+name] = hmacToken(t, bytes, map[string]any{"kid": good.kid})
		}
		own := stranger.jwk(t, nil)
		f.Refused["key brought along: jwk"] = stranger.token(t, nil, map[string]any{"jwk": own})
		f.Refused["key brought along: jwk, no kid"] = stranger.token(t, nil, map[string]any{"jwk": own, "kid": nil})
		f.Refused["key brought along: jku"] = stranger.token(t, nil, map[string]any{"jku": "https://evil.example/jwks"})
		f.Refused["key brought along: x5u"] = stranger.token(t, nil, map[string]any{"x5u": "https://evil.example/x"})
		f.Refused["key brought along: x5c"] = stranger.token(t, nil, map[string]any{"x5c": []string{"MIIB"}})
	}
	return f
}

// publicForms are the texts of a public key that a confused verifier would take for a secret.
func publicForms(tb testing.TB, s signer) map[string][]byte {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(s.public(tb))
	require.NoError(tb, err)
	jwk, err := json.Marshal(s.jwk(tb, nil))
	require.NoError(tb, err)
	block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	forms := map[string][]byte{
		"PEM": block, "PEM without the last newline": block[:len(block)-1], "DER": der, "JWK": jwk,
		"JWKS": []byte(jwks(tb, s.jwk(tb, nil))),
	}
	switch pub := s.public(tb).(type) {
	case *rsa.PublicKey:
		forms["PKCS #1"] = x509.MarshalPKCS1PublicKey(pub)
		forms["modulus"] = pub.N.Bytes()
	case ed25519.PublicKey:
		forms["bytes"] = pub
	case *ecdsa.PublicKey:
		point, err := pub.Bytes()
		require.NoError(tb, err)
		forms["point"] = point
	}
	return forms
}

// With all algorithms accepted, each key still serves its own alone.
func TestAlgorithmConfusion(t *testing.T) {
	rs, es, ed := newSigner(t, RS256, "r"), newSigner(t, ES256, "e"), newSigner(t, EdDSA, "d")
	hs := newSigner(t, HS256, "h")
	cfg := config(HS256, RS256, ES256, EdDSA)
	cfg.Secret = secret
	cfg.JWKSFile = fileOf(t, jwks(t, rs.jwk(t, nil), es.jwk(t, nil), ed.jwk(t, nil)))
	p := openConfig(t, cfg)

	all := []signer{hs, rs, es, ed}
	for _, s := range all {
		for _, kid := range []any{s.kid, nil} {
			if s.method.Alg() == HS256 {
				kid = "whatever: there is one secret"
			}
			_, err := p.Authenticate(t.Context(), s.token(t, nil, map[string]any{"kid": kid}))
			require.NoError(t, err, "the control")
		}
		for _, o := range all {
			if o.method.Alg() == s.method.Alg() {
				continue
			}
			refused(t, p, s.token(t, nil, map[string]any{"alg": o.method.Alg()}))
			refused(t, p, s.token(t, nil, map[string]any{"alg": o.method.Alg(), "kid": o.kid}))
			refused(t, p, s.token(t, nil, map[string]any{"alg": o.method.Alg(), "kid": nil}))
			if s.method.Alg() != HS256 {
				refused(t, p, s.token(t, nil, map[string]any{"kid": o.kid}))
			}
		}
		if s.method.Alg() != HS256 {
			for _, bytes := range publicForms(t, s) {
				refused(t, p, hmacToken(t, bytes, nil))
				refused(t, p, hmacToken(t, bytes, map[string]any{"kid": s.kid}))
			}
		}
	}
	for _, alg := range []string{"HS384", "HS512"} {
		s := signer{method: jwt.GetSigningMethod(alg), key: []byte(secret)}
		refused(t, p, s.token(t, nil, nil))
	}
	for _, alg := range []string{"RS384", "RS512", "PS256"} {
		s := signer{method: jwt.GetSigningMethod(alg), key: rs.key, kid: rs.kid}
		refused(t, p, s.token(t, nil, nil))
	}
}

func refused(tb testing.TB, p *Provider, credential string) {
	tb.Helper()
	got, err := p.Authenticate(tb.Context(), credential)
	require.Equal(tb, fault.Unauthenticated, fault.KindOf(err))
	require.Zero(tb, got)
}

func TestTimes(t *testing.T) {
	s := newSigner(t, HS256, "")
	for _, c := range []struct {
		name   string
		leeway time.Duration
		claims map[string]any
		good   bool
	}{
		{"just before exp", 0, map[string]any{"exp": at(time.Second)}, true},
		{"at exp", 0, map[string]any{"exp": at(0)}, false},
		{"within leeway after exp", 30 * time.Second, map[string]any{"exp": at(-29 * time.Second)}, true},
		{"at the end of leeway", 30 * time.Second, map[string]any{"exp": at(-30 * time.Second)}, false},
		{"at nbf", 0, map[string]any{"nbf": at(0)}, true},
		{"just before nbf", 0, map[string]any{"nbf": at(time.Second)}, false},
		{"within leeway before nbf", 30 * time.Second, map[string]any{"nbf": at(30 * time.Second)}, true},
		{"before that", 30 * time.Second, map[string]any{"nbf": at(31 * time.Second)}, false},
		{"with a fraction", 0, map[string]any{"exp": float64(at(time.Second)) + 0.5}, true},
		{"as a float", 0, map[string]any{"exp": json.RawMessage("4.1024448e9")}, true},
		{"nbf null is none", 0, map[string]any{"nbf": json.RawMessage("null")}, true},
		{"iat decides nothing", 0, map[string]any{"iat": at(time.Hour)}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(HS256)
			cfg.Secret, cfg.Leeway = secret, c.leeway
			_, err := openConfig(t, cfg).Authenticate(t.Context(), s.token(t, c.claims, nil))
			if c.good {
				require.NoError(t, err)
			} else {
				require.Equal(t, fault.Unauthenticated, fault.KindOf(err))
			}
		})
	}
}

func TestClaims(t *testing.T) {
	s := newSigner(t, HS256, "")
	cfg := config(HS256)
	cfg.Secret = secret
	p := openConfig(t, cfg)
	alice := func(scopes ...access.Scope) access.Principal {
		return access.Principal{Workspace: "acme", Actor: "alice", Scopes: scopes}
	}
	for _, c := range []struct {
		name   string
		claims map[string]any
		want   access.Principal
	}{
		{"no scope at all", map[string]any{"scope": nil}, alice()},
		{"empty scope", map[string]any{"scope": ""}, alice()},
		{"spaces", map[string]any{"scope": "  a   b "}, alice("a", "b")},
		{"list", map[string]any{"scope": nil, "scopes": []string{"a", "b"}}, alice("a", "b")},
		{"both", map[string]any{"scope": "a", "scopes": []string{"b"}}, alice("a", "b")},
		{"a list's item is one scope", map[string]any{"scope": nil, "scopes": []string{"a b"}}, alice("a b")},
		{
			"other case is another claim",
			map[string]any{"scope": nil, "workspace_id": nil, "Workspace_ID": "acme", "SCOPE": "a"},
			access.Principal{Actor: "alice"},
		},
		{"no subject", map[string]any{"scope": nil, "sub": nil}, access.Principal{Workspace: "acme"}},
		{
			"claims of others",
			map[string]any{"scope": nil, "azp": 7, "roles": []any{1, nil, map[string]any{}}},
			alice(),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := p.Authenticate(t.Context(), s.token(t, c.claims, nil))
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

func TestReasonsAreForTheLog(t *testing.T) {
	rs := newSigner(t, RS256, "r")
	cfg := config(RS256)
	cfg.JWKSFile = fileOf(t, jwks(t, rs.jwk(t, nil)))
	p := openConfig(t, cfg)
	for want, credential := range map[string]string{
		"not a JWT":                             "a b",
		"JWT is malformed":                      "abc",
		"JWT has expired":                       rs.token(t, map[string]any{"exp": at(-time.Hour)}, nil),
		"JWT is not valid yet":                  rs.token(t, map[string]any{"nbf": at(time.Hour)}, nil),
		"JWT has another issuer":                rs.token(t, map[string]any{"iss": "x"}, nil),
		"JWT has another audience":              rs.token(t, map[string]any{"aud": "x"}, nil),
		"JWT lacks a claim":                     rs.token(t, map[string]any{"exp": nil}, nil),
		"JWT has invalid claims":                rs.token(t, map[string]any{"exp": -1}, nil),
		"JWT was signed with an unknown key":    rs.token(t, nil, map[string]any{"kid": "x"}),
		"JWT cannot be verified":                rs.token(t, nil, map[string]any{"kid": 1}),
		"JWT signature is not valid, or its al": newSigner(t, RS256, "r").token(t, nil, nil),
		"JWT header is ambiguous or asks for w": rs.token(t, nil, map[string]any{"crit": []string{"x"}}),
	} {
		_, err := p.Authenticate(t.Context(), credential)
		require.ErrorContains(t, err, "Invalid authentication token: "+want)
	}
}

func TestValidate(t *testing.T) {
	good := config(HS256, RS256)
	good.Secret, good.JWKSURL = secret, "https://id.example/jwks"
	require.NoError(t, good.Validate())
	for _, url := range []string{
		"http://localhost:8080/jwks", "http://127.0.0.1/jwks", "http://[::1]:1/", "https://id.example:8443/a?b=c",
	} {
		cfg := good
		cfg.JWKSURL = url
		require.NoError(t, cfg.Validate(), url)
	}

	const canary, notHTTPS = "canary-0f3b", "JWKSURL: must be an https URL"
	for name, c := range map[string]struct {
		change func(*Config)
		says   string
	}{
		"no algorithm":      {func(c *Config) { c.Algorithms = nil }, "Algorithms: must name at least one"},
		"alg none":          {func(c *Config) { c.Algorithms = []string{"none"} }, "Algorithms: may only name"},
		"unknown algorithm": {func(c *Config) { c.Algorithms = []string{HS256, canary} }, "Algorithms: may only name"},
		"no issuer":         {func(c *Config) { c.Issuer = "" }, "Issuer: must be set"},
		"no audience":       {func(c *Config) { c.Audience = "" }, "Audience: must be set"},
		"negative leeway":   {func(c *Config) { c.Leeway = -1 }, "Leeway: must be between"},
		"large leeway":      {func(c *Config) { c.Leeway = maxLeeway + 1 }, "Leeway: must be between"},
		"no secret":         {func(c *Config) { c.Secret = "" }, "Secret: must have at least 32 bytes"},
		"short secret":      {func(c *Config) { c.Secret = (canary + secret)[:31] }, "Secret: must have at least 32 bytes"},
		"idle secret":       {func(c *Config) { c.Algorithms = []string{RS256} }, "Secret: is set, but HS256 is not"},
		"no keys":           {func(c *Config) { c.JWKSURL = "" }, "JWKSURL: a URL or a file of public keys must be set"},
		"two sources":       {func(c *Config) { c.JWKSFile = canary }, "JWKSURL: a URL and a file of public keys must not both"},
		"idle URL":          {func(c *Config) { c.Algorithms = []string{HS256} }, "JWKSURL: is set, but HS256 alone"},
		"idle file": {
			func(c *Config) { c.Algorithms, c.JWKSURL, c.JWKSFile = []string{HS256}, "", canary },
			"JWKSFile: is set, but HS256 alone",
		},
		"http elsewhere":  {func(c *Config) { c.JWKSURL = "http://" + canary + "/jwks" }, notHTTPS},
		"http look-alike": {func(c *Config) { c.JWKSURL = "http://localhost.evil/" }, notHTTPS},
		"other scheme":    {func(c *Config) { c.JWKSURL = "file:///" + canary }, notHTTPS},
		"no scheme":       {func(c *Config) { c.JWKSURL = canary + "/jwks" }, notHTTPS},
		"no host":         {func(c *Config) { c.JWKSURL = "https:///" + canary }, notHTTPS},
		"user":            {func(c *Config) { c.JWKSURL = "https://u:" + canary + "@id.example/" }, notHTTPS},
		"no URL":          {func(c *Config) { c.JWKSURL = "https://\x7f" + canary }, notHTTPS},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			c.change(&cfg)
			err := cfg.Validate()
			require.ErrorContains(t, err, "JWT "+c.says)
			require.NotContains(t, err.Error(), canary)
			var ce *ConfigError
			require.ErrorAs(t, err, &ce)
			require.True(t, strings.HasPrefix(c.says, ce.Field+": "))
			require.NotRegexp(t, `JWKS|Algorithms|Leeway`, ce.Problem, "an operator knows no fields")
			_, err = Open(cfg, zap.NewNop(), noon)
			require.Error(t, err)
		})
	}
	require.Error(t, Config{}.Validate())
}

func FuzzAuthenticate(f *testing.F) {
	hs, es := newSigner(f, HS256, ""), newSigner(f, ES256, "e")
	cfg := config(HS256, ES256)
	cfg.Secret = secret
	cfg.JWKSFile = fileOf(f, jwks(f, es.jwk(f, nil)))
	p := openConfig(f, cfg)
	good := map[string]bool{hs.token(f, nil, nil): true, es.token(f, nil, nil): true}
	for credential := range good {
		f.Add(credential)
		f.Add(credential + "\n")
		f.Add(credential[:len(credential)-1])
		f.Add(strings.ToUpper(credential))
	}
	for _, seed := range []string{
		"", ".", "..", "...", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJIUzI1NiJ9.e30.AAAA",
		strings.Repeat(".", maxTokenBytes+1), "bnVsbA.bnVsbA.bnVsbA", "W10.W10.W10",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, credential string) {
		got, err := p.Authenticate(t.Context(), credential)
		if good[credential] {
			require.NoError(t, err)
			return
		}
		require.Equal(t, fault.Unauthenticated, fault.KindOf(err))
		require.Zero(t, got)
		if len(credential) > 20 {
			require.NotContains(t, err.Error(), credential)
		}
	})
}

// FuzzClaims signs whatever claims, so that they are all that decides, and checks an accepted one by another reading.
func FuzzClaims(f *testing.F) {
	cfg := config(HS256)
	cfg.Secret = secret
	p := openConfig(f, cfg)
	body, err := json.Marshal(usual())
	require.NoError(f, err)
	for _, seed := range []string{
		string(body), "{}", "null", "[]", `{"exp":1e400}`, `{"aud":["relay",{}],"exp":4102444800,"iss":"https://id.example"}`,
		`{"aud":"relay","exp":4102444800,"iss":"https://id.example","workspace_id":"acme","Workspace_id":"b"}`,
		`{"aud":"relay","exp":4102444800,"iss":"https://id.example","workspace_id":"\ud800"}`,
		`{"aud":"relay","exp":253402300799,"nbf":0,"iss":"https://id.example","scope":"a","scopes":[]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		text := b64([]byte(`{"alg":"HS256"}`)) + "." + b64([]byte(body))
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(text))
		got, err := p.Authenticate(t.Context(), text+"."+b64(mac.Sum(nil)))
		if err != nil {
			require.Equal(t, fault.Unauthenticated, fault.KindOf(err))
			require.Zero(t, got)
			return
		}
		var said map[string]any
		require.NoError(t, json.Unmarshal([]byte(body), &said))
		require.Equal(t, issuer, said["iss"])
		exp, ok := said["exp"].(float64)
		require.True(t, ok)
		require.GreaterOrEqual(t, exp, float64(at(-leeway)))
		ws, _ := said["workspace_id"].(string)
		require.Equal(t, ws, got.Workspace)
		sub, _ := said["sub"].(string)
		require.Equal(t, sub, got.Actor)
	})
}
