package isolation_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/apikey"
	"github.com/relay-jobs/relay/tests/harness"
)

const (
	issuer   = "https://id.example"
	audience = "relay"

	scopeExecute = "ai:execute"
	scopeRead    = "ai:jobs:read"
)

// kind is a kind of good credential.
type kind string

const (
	apiKey kind = "API key"
	hs256  kind = "HS256"
	rs256  kind = "RS256"
)

func kinds() []kind { return []kind{apiKey, hs256, rs256} }

// credential is one way to prove, or to fail to prove, who asks.
type credential struct {
	name string
	// kind is that of the good credential from which this one differs in one thing.
	kind kind
	// set puts the credential for a workspace on a request.
	set func(h http.Header, workspace string)
	// status and code are what it is refused with.
	status int
	code   string
	// scope is the one that it lacks, where that is all that it lacks.
	scope string
	// bearer tells whether it is sent as a bearer credential at all.
	bearer bool
}

// authority has issued credentials of all kinds, good and bad. Servers may share it; it does not change.
type authority struct {
	good map[[2]string]func(http.Header) // by kind and workspace
	bad  []credential                    // for each of the tenants; revoked ones first

	secret                   string
	signing, rogue, withdraw *rsa.PrivateKey
	tokens                   map[string]string // API keys by what they are and their workspace
	entries, left            []apikey.Entry    // of the key file, before and after the revocations
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	a := &authority{
		good: map[[2]string]func(http.Header){}, secret: randomText(tb), tokens: map[string]string{},
	}
	for _, key := range []**rsa.PrivateKey{&a.signing, &a.rogue, &a.withdraw} {
		var err error
		*key, err = rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(tb, err)
	}
	both := []string{scopeExecute, scopeRead}
	for _, ws := range append(tenants(), stranger) {
		for what, entry := range map[string]apikey.Entry{
			"good":     {WorkspaceID: ws, Scopes: both},
			"expired":  {WorkspaceID: ws, Scopes: both, ExpiresAt: time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)},
			"disabled": {WorkspaceID: ws, Scopes: both},
			"removed":  {WorkspaceID: ws, Scopes: both},
			"no scope": {WorkspaceID: ws},
			"reader":   {WorkspaceID: ws, Scopes: both[1:]},
			"executor": {WorkspaceID: ws, Scopes: both[:1]},
			"homeless": {Scopes: both},
		} {
			token, made, err := apikey.Generate()
			require.NoError(tb, err)
			entry.ID, entry.SHA256, entry.ActorID = made.ID, made.SHA256, actorOf(ws)
			a.tokens[what+" "+ws] = token
			a.keep(token)
			a.entries = append(a.entries, entry)
			switch what {
			case "removed":
				continue
			case "disabled":
				entry.Disabled = true
			}
			a.left = append(a.left, entry)
		}
		for _, k := range kinds() {
			token := a.tokens["good "+ws]
			if k != apiKey {
				token = a.jwt(tb, k, claims(ws, nil))
			}
			a.good[[2]string{string(k), ws}] = bearer(token)
		}
	}
	a.issueBad(tb)
	return a
}

// actorOf is who acts by every credential of a workspace.
func actorOf(workspace string) string { return contentMark(workspace) + "-actor" }

func randomText(tb testing.TB) string {
	tb.Helper()
	var b [32]byte
	_, err := rand.Read(b[:])
	require.NoError(tb, err)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// keep has no log hold a credential, or a part of a JWT.
func (a *authority) keep(token string) string {
	for part := range strings.SplitSeq(token, ".") {
		if len(part) >= 12 {
			harness.Secret(part)
		}
	}
	return token
}

// site is where one server finds its keys.
type site struct {
	authority  *authority
	keys, jwks string
}

// site writes the files for one server, and gives the environment that names them.
func (a *authority) site(tb testing.TB) (*site, map[string]string) {
	tb.Helper()
	dir := tb.TempDir()
	s := &site{authority: a, keys: filepath.Join(dir, "keys.yaml"), jwks: filepath.Join(dir, "jwks.json")}
	s.write(tb, a.entries, a.signing, a.withdraw)
	return s, map[string]string{
		"RELAY_API_KEYS_FILE": s.keys, "RELAY_JWT_JWKS_FILE": s.jwks, "RELAY_JWT_ALGORITHMS": "HS256,RS256",
		"RELAY_JWT_ISSUER": issuer, "RELAY_JWT_AUDIENCE": audience, "RELAY_JWT_SECRET": a.secret,
	}
}

// revoke takes away what some credentials rest on; the server takes seconds to know.
func (s *site) revoke(tb testing.TB) {
	tb.Helper()
	s.write(tb, s.authority.left, s.authority.signing)
}

func (s *site) write(tb testing.TB, entries []apikey.Entry, keys ...*rsa.PrivateKey) {
	tb.Helper()
	var yaml strings.Builder
	yaml.WriteString("keys:\n")
	for _, e := range entries {
		text, err := e.YAML()
		require.NoError(tb, err)
		yaml.WriteString(text)
	}
	require.NoError(tb, os.WriteFile(s.keys, []byte(yaml.String()), 0o600))
	set := map[string][]any{"keys": {}}
	for _, key := range keys {
		jwk, err := jwkset.NewJWKFromKey(key.Public(), jwkset.JWKOptions{
			Metadata: jwkset.JWKMetadataOptions{KID: s.authority.kid(key), USE: jwkset.UseSig, ALG: jwkset.AlgRS256},
		})
		require.NoError(tb, err)
		set["keys"] = append(set["keys"], jwk.Marshal())
	}
	raw, err := json.Marshal(set)
	require.NoError(tb, err)
	require.NoError(tb, os.WriteFile(s.jwks, raw, 0o600))
}

func (a *authority) kid(key *rsa.PrivateKey) string {
	if key == a.withdraw {
		return "withdrawn"
	}
	return "current"
}

type fields = map[string]any

// claims are those of a good token, with some changed or, where nil, left out.
func claims(workspace string, changes fields) fields {
	return changed(fields{
		"iss": issuer, "aud": audience, "exp": time.Now().Add(time.Hour).Unix(), "sub": actorOf(workspace),
		"workspace_id": workspace, "scope": scopeExecute + " " + scopeRead,
	}, changes)
}

func changed(base, changes fields) fields {
	out := maps.Clone(base)
	for name, value := range changes {
		if out[name] = value; value == nil {
			delete(out, name)
		}
	}
	return out
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func segment(tb testing.TB, v any) string {
	tb.Helper()
	if text, ok := v.(string); ok {
		return b64([]byte(text))
	}
	raw, err := json.Marshal(v)
	require.NoError(tb, err)
	return b64(raw)
}

// sign makes a token whose header says alg and that is signed by method, which may be another one.
func (a *authority) sign(tb testing.TB, alg string, method jwt.SigningMethod, key, header, body any) string {
	tb.Helper()
	if header == nil {
		header = fields{"alg": alg, "typ": "JWT", "kid": "current"}
	}
	text := segment(tb, header) + "." + segment(tb, body)
	signature, err := method.Sign(text, key)
	require.NoError(tb, err)
	return a.keep(text + "." + b64(signature))
}

// jwt makes a token that is good but for its claims.
func (a *authority) jwt(tb testing.TB, k kind, body any) string {
	tb.Helper()
	if k == hs256 {
		return a.sign(tb, "HS256", jwt.SigningMethodHS256, []byte(a.secret), nil, body)
	}
	return a.sign(tb, "RS256", jwt.SigningMethodRS256, a.signing, nil, body)
}

func bearer(token string) func(http.Header) {
	return func(h http.Header) { h["Authorization"] = []string{"Bearer " + token} }
}

// issueBad makes the credentials that are refused.
func (a *authority) issueBad(tb testing.TB) {
	tb.Helper()
	add := func(name string, k kind, status int, code, scope string, token func(ws string) string) {
		made := map[string]string{}
		for _, ws := range tenants() {
			made[ws] = a.keep(token(ws))
		}
		a.bad = append(a.bad, credential{
			name: string(k) + ": " + name, kind: k, status: status, code: code, scope: scope, bearer: true,
			set: func(h http.Header, ws string) { bearer(made[ws])(h) },
		})
	}
	unproven := func(name string, k kind, token func(ws string) string) {
		add(name, k, http.StatusUnauthorized, "invalid_token", "", token)
	}
	homeless := func(name string, k kind, token func(ws string) string) {
		add(name, k, http.StatusForbidden, "workspace_missing", "", token)
	}
	powerless := func(name string, k kind, scope string, token func(ws string) string) {
		add(name, k, http.StatusForbidden, "insufficient_scope", scope, token)
	}
	key := func(what string) func(string) string {
		return func(ws string) string { return a.tokens[what+" "+ws] }
	}

	unproven("revoked by disabling it", apiKey, key("disabled"))
	unproven("revoked by removing it from the file", apiKey, key("removed"))
	unproven("revoked by removing its key from the set", rs256, func(ws string) string {
		return a.sign(tb, "RS256", jwt.SigningMethodRS256, a.withdraw,
			fields{"alg": "RS256", "typ": "JWT", "kid": "withdrawn"}, claims(ws, nil))
	})

	a.notBearer()

	good := key("good")
	unproven("malformed: the prefix alone", apiKey, func(string) string { return "relay_sk_" })
	unproven("malformed: cut short", apiKey, func(ws string) string { return good(ws)[:len(good(ws))-1] })
	unproven("malformed: prolonged", apiKey, func(ws string) string { return good(ws) + "A" })
	unproven("malformed: padded", apiKey, func(ws string) string { return good(ws) + "=" })
	unproven("malformed: without its prefix", apiKey, func(ws string) string { return strings.TrimPrefix(good(ws), "relay_sk_") })
	unproven("malformed: very long", apiKey, func(ws string) string { return good(ws) + strings.Repeat("A", 9000) })
	unproven("its hash in its place", apiKey, func(ws string) string {
		sum := sha256.Sum256([]byte(good(ws)))
		return hex.EncodeToString(sum[:])
	})
	unproven("unknown", apiKey, func(string) string {
		token, _, err := apikey.Generate()
		require.NoError(tb, err)
		return token
	})
	unproven("expired", apiKey, key("expired"))
	powerless("scope-less", apiKey, "", key("no scope"))
	powerless("for reading alone", apiKey, scopeExecute, key("reader"))
	powerless("for executing alone", apiKey, scopeRead, key("executor"))
	homeless("workspace-less", apiKey, key("homeless"))

	for _, k := range []kind{hs256, rs256} {
		with := func(changes fields) func(string) string {
			return func(ws string) string { return a.jwt(tb, k, claims(ws, changes)) }
		}
		whole := with(nil)
		parts := func(ws string) []string { return strings.Split(whole(ws), ".") }
		unproven("malformed: two parts", k, func(ws string) string { return strings.Join(parts(ws)[:2], ".") })
		unproven("malformed: four parts", k, func(ws string) string { return whole(ws) + ".AAAA" })
		unproven("malformed: no header", k, func(ws string) string { return "." + strings.Join(parts(ws)[1:], ".") })
		unproven("malformed: without signature", k, func(ws string) string { return strings.Join(parts(ws)[:2], ".") + "." })
		unproven("malformed: claims are no object", k, func(string) string { return a.jwt(tb, k, []string{"acme"}) })
		unproven("malformed: a claim twice", k, func(ws string) string {
			raw, err := json.Marshal(claims(ws, nil))
			require.NoError(tb, err)
			return a.jwt(tb, k, strings.TrimSuffix(string(raw), "}")+`,"workspace_id":"acme"}`)
		})
		unproven("forged: claims of another's token", k, func(ws string) string {
			p := parts(ws)
			return p[0] + "." + segment(tb, claims(ws, fields{"sub": "someone-else"})) + "." + p[2]
		})
		unproven("expired", k, with(fields{"exp": time.Now().Add(-10 * time.Minute).Unix()}))
		unproven("without expiry", k, with(fields{"exp": nil}))
		unproven("not valid yet", k, with(fields{"nbf": time.Now().Add(time.Hour).Unix()}))
		unproven("wrong audience", k, with(fields{"aud": "relay-eu"}))
		unproven("wrong audiences", k, with(fields{"aud": []string{"relay-eu", "rela"}}))
		unproven("without audience", k, with(fields{"aud": nil}))
		unproven("wrong issuer", k, with(fields{"iss": issuer + "/"}))
		powerless("scope-less", k, "", with(fields{"scope": nil}))
		powerless("scope of another spelling", k, "", with(fields{"scope": "ai:* AI:EXECUTE ai:jobs"}))
		powerless("for reading alone", k, scopeExecute, with(fields{"scope": scopeRead}))
		powerless("for executing alone", k, scopeRead, with(fields{"scope": nil, "scopes": []string{scopeExecute}}))
		homeless("workspace-less", k, with(fields{"workspace_id": nil}))
		for name, edit := range map[string]func(ws string) string{
			"empty":               func(string) string { return "" },
			"a newline behind":    func(ws string) string { return ws + "\n" },
			"a space before":      func(ws string) string { return " " + ws },
			"in capitals":         strings.ToUpper,
			"glob":                func(string) string { return "*" },
			"two":                 func(ws string) string { return ws + ",acme" },
			"a key":               func(ws string) string { return "ai:job:" + ws },
			"too long":            func(ws string) string { return ws + strings.Repeat("a", 32) },
			"a zero byte behind":  func(ws string) string { return ws + "\x00" },
			"with a letter alike": func(ws string) string { return strings.Replace(ws, "a", "а", 1) },
		} {
			homeless("malformed workspace, "+name, k, func(ws string) string {
				return a.jwt(tb, k, claims(ws, fields{"workspace_id": edit(ws)}))
			})
		}
		unproven("workspace of another type", k, with(fields{"workspace_id": []string{"acme"}}))
	}

	a.forge(tb, unproven)
}

// notBearer adds what is no bearer credential, although a good one is somewhere in it.
func (a *authority) notBearer() {
	for name, set := range map[string]func(h http.Header, token string){
		"none":                   func(http.Header, string) {},
		"malformed: empty":       func(h http.Header, _ string) { h["Authorization"] = []string{""} },
		"malformed: no scheme":   func(h http.Header, t string) { h["Authorization"] = []string{t} },
		"malformed: another":     func(h http.Header, t string) { h["Authorization"] = []string{"Token " + t} },
		"malformed: Basic":       func(h http.Header, t string) { h["Authorization"] = []string{"Basic " + b64([]byte("relay:"+t))} },
		"malformed: glued":       func(h http.Header, t string) { h["Authorization"] = []string{"Bearer" + t} },
		"as X-API-Key":           func(h http.Header, t string) { h["X-Api-Key"] = []string{t} },
		"as Proxy-Authorization": func(h http.Header, t string) { h["Proxy-Authorization"] = []string{"Bearer " + t} },
		"as X-Forwarded-*":       func(h http.Header, t string) { h["X-Forwarded-Authorization"] = []string{"Bearer " + t} },
		"as a cookie": func(h http.Header, t string) {
			h["Cookie"] = []string{"Authorization=Bearer " + t + "; access_token=" + t}
		},
		"bearer: scheme alone":      func(h http.Header, _ string) { h["Authorization"] = []string{"Bearer"} },
		"bearer: spaces":            func(h http.Header, _ string) { h["Authorization"] = []string{"Bearer    "} },
		"bearer: two in one":        func(h http.Header, t string) { h["Authorization"] = []string{"Bearer " + t + " " + t} },
		"bearer: two, by a comma":   func(h http.Header, t string) { h["Authorization"] = []string{"Bearer " + t + ", Bearer " + t} },
		"bearer: sent twice":        func(h http.Header, t string) { h["Authorization"] = []string{"Bearer " + t, "Bearer " + t} },
		"bearer: quoted":            func(h http.Header, t string) { h["Authorization"] = []string{`Bearer "` + t + `"`} },
		"bearer: in a parameter":    func(h http.Header, t string) { h["Authorization"] = []string{"Bearer token=" + t + "&x"} },
		"bearer: letters elsewhere": func(h http.Header, t string) { h["Authorization"] = []string{"Bearer " + t + "é"} },
	} {
		a.bad = append(a.bad, credential{
			name: name, kind: apiKey, status: http.StatusUnauthorized, code: "invalid_token",
			bearer: strings.HasPrefix(name, "bearer:"),
			set:    func(h http.Header, ws string) { set(h, a.tokens["good "+ws]) },
		})
	}
}

// forge adds tokens with good claims that nobody signed who may.
func (a *authority) forge(tb testing.TB, unproven func(name string, k kind, token func(ws string) string)) {
	tb.Helper()
	for _, alg := range []string{"none", "None", "NONE", "nOnE", ""} {
		head := segment(tb, fields{"alg": alg, "typ": "JWT"})
		unproven("alg "+alg+", unsigned", hs256, func(ws string) string {
			return head + "." + segment(tb, claims(ws, nil)) + "."
		})
		unproven("alg "+alg+", with a good token's signature", rs256, func(ws string) string {
			good := strings.Split(a.jwt(tb, rs256, claims(ws, nil)), ".")
			return head + "." + good[1] + "." + good[2]
		})
	}
	unproven("unknown: signed with another secret", hs256, func(ws string) string {
		return a.sign(tb, "HS256", jwt.SigningMethodHS256, []byte(randomText(tb)), nil, claims(ws, nil))
	})
	unproven("unknown: signed with an empty secret", hs256, func(ws string) string {
		return a.sign(tb, "HS256", jwt.SigningMethodHS256, []byte{}, nil, claims(ws, nil))
	})
	unproven("unknown: signed with another key", rs256, func(ws string) string {
		return a.sign(tb, "RS256", jwt.SigningMethodRS256, a.rogue, nil, claims(ws, nil))
	})
	unproven("unknown: a key id that nobody knows", rs256, func(ws string) string {
		head := fields{"alg": "RS256", "kid": "../../current"}
		return a.sign(tb, "RS256", jwt.SigningMethodRS256, a.signing, head, claims(ws, nil))
	})

	// What is public about the RSA key, taken for a secret.
	pkix, err := x509.MarshalPKIXPublicKey(a.signing.Public())
	require.NoError(tb, err)
	pkcs1 := x509.MarshalPKCS1PublicKey(&a.signing.PublicKey)
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	for name, public := range map[string][]byte{
		"PKIX, PEM": block("PUBLIC KEY", pkix), "PKIX, DER": pkix,
		"PKCS #1, PEM": block("RSA PUBLIC KEY", pkcs1), "PKCS #1, DER": pkcs1,
		"PKIX, PEM without its newline": []byte(strings.TrimSpace(string(block("PUBLIC KEY", pkix)))),
		"modulus":                       a.signing.N.Bytes(), "modulus as text": []byte(b64(a.signing.N.Bytes())),
	} {
		unproven("algorithm-confused: HS256 by the public key, "+name, rs256, func(ws string) string {
			return a.sign(tb, "HS256", jwt.SigningMethodHS256, public, nil, claims(ws, nil))
		})
		unproven("algorithm-confused: RS256 in name, HMAC by the public key, "+name, rs256, func(ws string) string {
			return a.sign(tb, "RS256", jwt.SigningMethodHS256, public, nil, claims(ws, nil))
		})
	}
	unproven("algorithm-confused: HS256 in name, signed with the RSA key", hs256, func(ws string) string {
		return a.sign(tb, "HS256", jwt.SigningMethodRS256, a.signing, nil, claims(ws, nil))
	})
	unproven("algorithm not configured: HS512", hs256, func(ws string) string {
		return a.sign(tb, "HS512", jwt.SigningMethodHS512, []byte(a.secret), nil, claims(ws, nil))
	})
	unproven("algorithm not configured: PS256", rs256, func(ws string) string {
		return a.sign(tb, "PS256", jwt.SigningMethodPS256, a.signing, nil, claims(ws, nil))
	})
	unproven("algorithm not configured: RS512", rs256, func(ws string) string {
		return a.sign(tb, "RS512", jwt.SigningMethodRS512, a.signing, nil, claims(ws, nil))
	})
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(tb, err)
	unproven("algorithm not configured: EdDSA", rs256, func(ws string) string {
		return a.sign(tb, "EdDSA", jwt.SigningMethodEdDSA, edKey, nil, claims(ws, nil))
	})

	// Keys that the token brings itself.
	jwk, err := jwkset.NewJWKFromKey(a.rogue.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: "mine"}})
	require.NoError(tb, err)
	for name, head := range map[string]fields{
		"jwk": {"jwk": jwk.Marshal()},
		"jku": {"jku": "http://127.0.0.1:1/jwks.json"},
		"x5u": {"x5u": "http://127.0.0.1:1/x5u.pem"},
	} {
		unproven("unknown: brings its own key as "+name, rs256, func(ws string) string {
			whole := changed(fields{"alg": "RS256", "kid": "mine"}, head)
			return a.sign(tb, "RS256", jwt.SigningMethodRS256, a.rogue, whole, claims(ws, nil))
		})
	}
	unproven("critical header that nobody knows", hs256, func(ws string) string {
		head := fields{"alg": "HS256", "crit": []string{"b64"}, "b64": false}
		return a.sign(tb, "HS256", jwt.SigningMethodHS256, []byte(a.secret), head, claims(ws, nil))
	})
}
