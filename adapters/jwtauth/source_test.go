package jwtauth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/relay-jobs/relay/core/fault"
)

func TestParseKeySet(t *testing.T) {
	rs, es, ed := newSigner(t, RS256, "r"), newSigner(t, ES256, "e"), newSigner(t, EdDSA, "d")
	all := []string{RS256, ES256, EdDSA}
	private, ok := es.key.(*ecdsa.PrivateKey)
	require.True(t, ok)
	d, err := private.Bytes()
	require.NoError(t, err)
	p384 := es
	p384.key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	weak := rs
	weak.key, err = rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	oct := map[string]any{"kty": "oct", "kid": "o", "k": b64([]byte(secret))}

	type m = map[string]any
	with := func(s signer, members m) m { return s.jwk(t, members) }
	rsKey, esKey, edKey := with(rs, nil), with(es, nil), with(ed, nil)
	for name, c := range map[string]struct {
		content    string
		algorithms []string
		want       []string // algorithms that have keys
		says       string
	}{
		"all three":              {jwks(t, rsKey, esKey, edKey), all, all, ""},
		"those configured alone": {jwks(t, rsKey, esKey, edKey), []string{ES256}, []string{ES256}, ""},
		"alg said":               {jwks(t, with(rs, m{"alg": RS256})), all, []string{RS256}, ""},
		"another alg said":       {jwks(t, with(rs, m{"alg": "PS256"}), edKey), all, []string{EdDSA}, ""},
		"alg of another type":    {jwks(t, with(rs, m{"alg": ES256}), edKey), all, []string{EdDSA}, ""},
		"alg HS256":              {jwks(t, with(rs, m{"alg": HS256}), edKey), all, []string{EdDSA}, ""},
		"for encryption":         {jwks(t, with(rs, m{"use": "enc"}), edKey), all, []string{EdDSA}, ""},
		"use not said":           {jwks(t, with(rs, m{"use": nil})), all, []string{RS256}, ""},
		"for signing only":       {jwks(t, with(rs, m{"key_ops": []string{"sign"}}), edKey), all, []string{EdDSA}, ""},
		"for verifying":          {jwks(t, with(rs, m{"key_ops": []string{"verify"}})), all, []string{RS256}, ""},
		"other curve":            {jwks(t, p384.jwk(t, nil), edKey), all, []string{EdDSA}, ""},
		"of the future":          {jwks(t, m{"kty": "AKP", "alg": "ML-DSA-44", "pub": "x"}, edKey), all, []string{EdDSA}, ""},
		"a secret":               {jwks(t, oct, edKey), append(all, HS256), []string{EdDSA}, ""},
		"the private half":       {jwks(t, with(es, m{"d": b64(d)})), all, []string{ES256}, ""},
		"all revoked":            {`{"keys": []}`, all, nil, ""},
		"all but for encryption": {jwks(t, with(rs, m{"use": "enc"})), all, nil, ""},
		"a secret alone":         {jwks(t, oct), all, nil, ""},
		"not configured":         {jwks(t, rsKey), []string{ES256}, nil, ""},

		"weak RSA":          {jwks(t, edKey, weak.jwk(t, nil)), all, nil, "keys[1]: an RSA key needs at least 2048 bits"},
		"off the curve":     {jwks(t, with(es, m{"x": esKey["y"]})), all, nil, "keys[0]: "},
		"no modulus":        {jwks(t, with(rs, m{"n": nil})), all, nil, "keys[0]: "},
		"short Ed25519":     {jwks(t, with(ed, m{"x": "AAAA"})), all, nil, "keys[0]: "},
		"no base64":         {jwks(t, with(ed, m{"x": "*"})), all, nil, "keys[0]: "},
		"no list":           {`{}`, all, nil, "it has no list named keys"},
		"null for a list":   {`{"keys": null}`, all, nil, "it has no list named keys"},
		"null":              {`null`, all, nil, "it has no list named keys"},
		"in other case":     {`{"Keys": []}`, all, nil, "it has no list named keys"},
		"two lists":         {`{"keys": [], "keys": []}`, all, nil, "not a JSON Web Key Set"},
		"empty":             {``, all, nil, "not a JSON Web Key Set"},
		"HTML":              {`<html>`, all, nil, "not a JSON Web Key Set"},
		"cut short":         {jwks(t, rsKey)[:100], all, nil, "not a JSON Web Key Set"},
		"a key, not a list": {`{"keys": {}}`, all, nil, "not a JSON Web Key Set"},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := parseKeySet([]byte(c.content), c.algorithms)
			if c.says != "" {
				require.ErrorContains(t, err, c.says)
				return
			}
			require.NoError(t, err)
			var got []string
			for alg := range set {
				got = append(got, alg)
			}
			require.ElementsMatch(t, c.want, got)
		})
	}
}

func TestKeysAreFoundByKid(t *testing.T) {
	first, second, bare := newSigner(t, EdDSA, "1"), newSigner(t, EdDSA, "2"), newSigner(t, EdDSA, "")
	es := newSigner(t, ES256, "1") // kids of different types may be equal
	cfg := config(EdDSA, ES256)
	cfg.JWKSFile = fileOf(t, jwks(t, es.jwk(t, nil), first.jwk(t, nil), second.jwk(t, nil), bare.jwk(t, nil)))
	p := openConfig(t, cfg)
	for _, s := range []signer{first, second, es} {
		for _, kid := range []any{s.kid, nil} {
			_, err := p.Authenticate(t.Context(), s.token(t, nil, map[string]any{"kid": kid}))
			require.NoError(t, err)
		}
	}
	_, err := p.Authenticate(t.Context(), bare.token(t, nil, map[string]any{"kid": nil}))
	require.NoError(t, err)
	refused(t, p, first.token(t, nil, map[string]any{"kid": "2"}))
	refused(t, p, bare.token(t, nil, map[string]any{"kid": "1"}))
}

func TestOpenNeedsAGoodFile(t *testing.T) {
	cfg := config(EdDSA)
	cfg.JWKSFile = filepath.Join(t.TempDir(), "missing.json")
	_, err := Open(cfg, zap.NewNop(), noon)
	require.ErrorIs(t, err, os.ErrNotExist)
	cfg.JWKSFile = t.TempDir()
	_, err = Open(cfg, zap.NewNop(), noon)
	require.ErrorContains(t, err, "is not a regular file")
	cfg.JWKSFile = fileOf(t, "{")
	_, err = Open(cfg, zap.NewNop(), noon)
	require.ErrorContains(t, err, "not a JSON Web Key Set")
	cfg.JWKSFile = fileOf(t, strings.Repeat(" ", maxSetBytes+1))
	_, err = Open(cfg, zap.NewNop(), noon)
	require.ErrorContains(t, err, "has more than")
}

// quick is a pace for tests: no rest between reads, on demand once per minute of the test's own clock.
func quick() pace {
	return pace{
		every: time.Millisecond, retry: time.Millisecond, maxRetry: 2 * time.Millisecond,
		onDemand: time.Minute, patience: 5 * time.Second,
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, 5*time.Second, time.Millisecond, what)
}

func TestFileIsFollowed(t *testing.T) {
	before, after := newSigner(t, EdDSA, "1"), newSigner(t, EdDSA, "2")
	cfg := config(EdDSA)
	cfg.JWKSFile = fileOf(t, jwks(t, before.jwk(t, nil)))
	core, logs := observer.New(zapcore.DebugLevel)
	rhythm := quick()
	rhythm.onDemand = 0
	p, err := open(cfg, zap.New(core), noon, rhythm)
	require.NoError(t, err)
	defer p.Close()
	good := func(s signer) bool {
		_, err := p.Authenticate(t.Context(), s.token(t, nil, nil))
		require.Contains(t, []fault.Kind{fault.Internal, fault.Unauthenticated}, fault.KindOf(err)) // the former for nil
		return err == nil
	}
	failures := func(n int) func() bool {
		return func() bool { return logs.FilterMessage("JWT keys cannot be loaded").Len() >= n }
	}
	require.True(t, good(before))
	require.False(t, good(after))

	next := fileOf(t, jwks(t, before.jwk(t, nil), after.jwk(t, nil)))
	require.NoError(t, os.Rename(next, cfg.JWKSFile))
	eventually(t, "added", func() bool { return good(after) })
	require.True(t, good(before))

	require.NoError(t, os.WriteFile(cfg.JWKSFile, []byte("{"), 0o600))
	eventually(t, "refused", failures(1))
	require.True(t, good(after))
	require.NoError(t, os.Remove(cfg.JWKSFile))
	eventually(t, "gone", failures(2))
	require.True(t, good(after))

	require.NoError(t, os.WriteFile(cfg.JWKSFile, []byte(jwks(t, after.jwk(t, nil))), 0o600))
	eventually(t, "taken back", func() bool { return !good(before) })
	require.True(t, good(after))
	p.Close() // keys are taken over before the log says so
	require.Equal(t, 3, logs.FilterMessage("JWT keys taken over").Len(), "unchanged keys are not taken over again")
}

// An issuer that publishes no key any more has revoked all: their tokens are bad, and not the service unavailable.
func TestEmptySetRevokesAll(t *testing.T) {
	s := newSigner(t, EdDSA, "1")
	server := newIssuer(t, text(jwks(t, s.jwk(t, nil))))
	fromURL, fromFile := config(EdDSA), config(EdDSA)
	fromURL.JWKSURL = server.URL
	fromFile.JWKSFile = fileOf(t, jwks(t, s.jwk(t, nil)))
	for name, c := range map[string]struct {
		cfg     Config
		publish func(content string)
	}{
		"URL": {fromURL, func(content string) { server.answers(text(content)) }},
		"file": {fromFile, func(content string) {
			require.NoError(t, os.Rename(fileOf(t, content), fromFile.JWKSFile))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := open(c.cfg, zap.NewNop(), noon, quick())
			require.NoError(t, err)
			defer p.Close()
			eventually(t, "loaded", func() bool { return p.Check(t.Context()) == nil })
			_, err = p.Authenticate(t.Context(), s.token(t, nil, nil))
			require.NoError(t, err)

			c.publish(`{"keys": []}`)
			eventually(t, "revoked", func() bool {
				_, err := p.Authenticate(t.Context(), s.token(t, nil, nil))
				return err != nil
			})
			refused(t, p, s.token(t, nil, nil))
			require.NoError(t, p.Check(t.Context()), "the keys are known: there are none")
		})
	}
}

// issuerServer publishes what it is told to, and counts.
type issuerServer struct {
	*httptest.Server
	requests atomic.Int64
	mu       sync.Mutex
	answer   http.HandlerFunc
}

func newIssuer(t *testing.T, answer http.HandlerFunc) *issuerServer {
	t.Helper()
	s := &issuerServer{answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		answer := s.answer
		s.mu.Unlock()
		s.requests.Add(1)
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *issuerServer) answers(h http.HandlerFunc) {
	s.mu.Lock()
	s.answer = h
	s.mu.Unlock()
}

func text(content string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(content)) }
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func TestURLThatAnswersLate(t *testing.T) {
	s := newSigner(t, EdDSA, "1")
	hs := newSigner(t, HS256, "")
	server := newIssuer(t, status(http.StatusServiceUnavailable))
	cfg := config(EdDSA, HS256)
	cfg.JWKSURL, cfg.Secret = server.URL+"/jwks?client=canary-0f3b", secret
	core, logs := observer.New(zapcore.DebugLevel)
	p, err := open(cfg, zap.New(core), noon, quick())
	require.NoError(t, err)
	defer p.Close()

	const failed = "JWT keys cannot be loaded"
	token := s.token(t, nil, nil)
	unavailable := func() {
		t.Helper()
		_, err := p.Authenticate(t.Context(), token)
		require.Equal(t, fault.Unavailable, fault.KindOf(err))
		require.Equal(t, fault.CodeAuthUnavailable, fault.CodeOf(err))
		require.Equal(t, fault.Unavailable, fault.KindOf(p.Check(t.Context())))
		require.NotContains(t, err.Error(), token)
	}
	unavailable()
	eventually(t, "failed", func() bool { return logs.FilterMessage(failed).Len() == 1 })
	refused(t, p, "garbage") // needs no key to be refused
	refused(t, p, s.token(t, nil, map[string]any{"alg": "none"}))
	_, err = p.Authenticate(t.Context(), hs.token(t, nil, nil))
	require.NoError(t, err, "needs none of the keys that are missing")

	for i, answer := range []http.HandlerFunc{
		text("<html>"), text(`{"keys": null}`), status(http.StatusNoContent),
		text(strings.Repeat(" ", maxSetBytes+1)),
		func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://keys.example/jwks", http.StatusFound)
		},
		func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		server.answers(answer)
		eventually(t, "failed", func() bool { return logs.FilterMessage(failed).Len() >= i+2 })
		unavailable()
	}

	server.answers(text(jwks(t, s.jwk(t, nil))))
	eventually(t, "loaded", func() bool { return p.Check(t.Context()) == nil })
	_, err = p.Authenticate(t.Context(), token)
	require.NoError(t, err)

	n := logs.FilterMessage(failed).Len()
	server.answers(status(http.StatusBadGateway))
	eventually(t, "failed again", func() bool { return logs.FilterMessage(failed).Len() > n })
	_, err = p.Authenticate(t.Context(), token)
	require.NoError(t, err, "the last good keys stay")

	server.Close()
	eventually(t, "unreachable", func() bool { return logs.FilterMessage(failed).Len() > n+1 })
	_, err = p.Authenticate(t.Context(), token)
	require.NoError(t, err, "the last good keys stay")

	var said strings.Builder
	for _, line := range logs.All() {
		for _, field := range line.Context {
			if err, ok := field.Interface.(error); ok {
				said.WriteString(err.Error() + "\n")
			}
		}
	}
	require.NotContains(t, said.String(), "canary-0f3b")
	require.Contains(t, said.String(), "to where keys cannot be trusted", "the redirect was not followed")
}

func TestURLThatHangsDoesNotBlock(t *testing.T) {
	release := make(chan struct{})
	server := newIssuer(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	cfg := config(EdDSA)
	cfg.JWKSURL = server.URL
	p, err := Open(cfg, zap.NewNop(), noon)
	require.NoError(t, err)
	_, err = p.Authenticate(t.Context(), newSigner(t, EdDSA, "1").token(t, nil, nil))
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	p.Close() // ends the request under way
}

func TestUnknownKidRefreshesAtMostOnceAnInterval(t *testing.T) {
	before, after, stranger := newSigner(t, EdDSA, "1"), newSigner(t, EdDSA, "2"), newSigner(t, EdDSA, "3")
	server := newIssuer(t, text(jwks(t, before.jwk(t, nil))))
	cfg := config(EdDSA)
	cfg.JWKSURL = server.URL
	var passed atomic.Int64
	rhythm := quick()
	rhythm.every = time.Hour
	p, err := open(cfg, zap.NewNop(), func() time.Time { return noon().Add(time.Duration(passed.Load())) }, rhythm)
	require.NoError(t, err)
	defer p.Close()
	eventually(t, "loaded", func() bool { return p.Check(t.Context()) == nil })
	require.EqualValues(t, 1, server.requests.Load())

	// The issuer starts to use a new key: its first tokens, all at once, wait for it.
	server.answers(text(jwks(t, before.jwk(t, nil), after.jwk(t, nil))))
	token := after.token(t, nil, nil)
	errs := make(chan error, 32)
	for range cap(errs) {
		go func() {
			_, err := p.Authenticate(t.Context(), token)
			errs <- err
		}()
	}
	for range cap(errs) {
		require.NoError(t, <-errs)
	}
	require.EqualValues(t, 2, server.requests.Load())

	for range 100 {
		refused(t, p, stranger.token(t, nil, nil))
	}
	require.EqualValues(t, 2, server.requests.Load(), "a stranger's tokens within the interval ask for nothing")

	passed.Store(int64(2 * time.Second))
	longer := map[string]any{"exp": at(time.Hour)}
	for range 100 {
		refused(t, p, stranger.token(t, longer, nil))
	}
	require.EqualValues(t, 2, server.requests.Load())
	passed.Store(int64(61 * time.Second))
	for range 100 {
		refused(t, p, stranger.token(t, longer, nil))
	}
	require.EqualValues(t, 3, server.requests.Load())
	_, err = p.Authenticate(t.Context(), after.token(t, longer, nil))
	require.NoError(t, err, "the control")
}

// TestUnknownKidDuringARead: the read that is under way began before the key was published; the caller waits for the next.
func TestUnknownKidDuringARead(t *testing.T) {
	before, after := newSigner(t, EdDSA, "1"), newSigner(t, EdDSA, "2")
	old, current := text(jwks(t, before.jwk(t, nil))), text(jwks(t, before.jwk(t, nil), after.jwk(t, nil)))
	server := newIssuer(t, old)
	cfg := config(EdDSA)
	cfg.JWKSURL = server.URL
	rhythm := quick()
	rhythm.patience = time.Minute
	p, err := open(cfg, zap.NewNop(), noon, rhythm)
	require.NoError(t, err)
	defer p.Close()
	eventually(t, "loaded", func() bool { return p.Check(t.Context()) == nil })

	reading, release := make(chan struct{}), make(chan struct{})
	server.answers(func(w http.ResponseWriter, r *http.Request) {
		server.answers(current)
		close(reading)
		select {
		case <-release:
		case <-r.Context().Done():
		}
		old(w, r)
	})
	<-reading
	token := after.token(t, nil, nil)
	answered := make(chan error)
	go func() {
		_, err := p.Authenticate(t.Context(), token)
		answered <- err
	}()
	eventually(t, "asked", func() bool {
		p.source.mu.Lock()
		defer p.source.mu.Unlock()
		return p.source.round != nil
	})
	close(release)
	require.NoError(t, <-answered)
}

func TestWaitingForAKeyEndsWithTheCaller(t *testing.T) {
	known, stranger := newSigner(t, EdDSA, "1"), newSigner(t, EdDSA, "2")
	server := newIssuer(t, text(jwks(t, known.jwk(t, nil))))
	cfg := config(EdDSA)
	cfg.JWKSURL = server.URL
	rhythm := quick()
	rhythm.every, rhythm.patience = time.Hour, time.Hour
	p, err := open(cfg, zap.NewNop(), noon, rhythm)
	require.NoError(t, err)
	defer p.Close()
	eventually(t, "loaded", func() bool { return p.Check(t.Context()) == nil })

	asked := make(chan struct{})
	server.answers(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-asked; cancel(errors.New("gone")) }()
	_, err = p.Authenticate(ctx, stranger.token(t, nil, nil))
	require.Equal(t, fault.Canceled, fault.KindOf(err))
	_, err = p.Authenticate(t.Context(), known.token(t, nil, nil))
	require.NoError(t, err, "known keys need no read")
}
