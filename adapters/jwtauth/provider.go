// Package jwtauth authenticates signed JSON Web Tokens (RFC 7519) of one issuer.
package jwtauth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/fault"
)

// maxTokenBytes bounds the work that a bogus credential causes.
const maxTokenBytes = 8 << 10

// Provider is a ports.AuthProvider, and a ports.HealthCheck of its keys.
type Provider struct {
	parser *jwt.Parser
	secret []byte  // of HS256
	source *source // of all other algorithms; nil where none is configured
	stop   func()
}

// Open checks cfg and starts to follow the keys until Close. A key file must be there and good. A key URL need not
// answer yet: until it did once, its tokens are fault.Unavailable. Later failures of either leave the last good keys.
func Open(cfg Config, log *zap.Logger, now func() time.Time) (*Provider, error) {
	rhythm := filePace()
	if cfg.JWKSURL != "" {
		rhythm = urlPace()
	}
	return open(cfg, log, now, rhythm)
}

func open(cfg Config, log *zap.Logger, now func() time.Time, rhythm pace) (*Provider, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := &Provider{
		parser: jwt.NewParser(
			jwt.WithValidMethods(slices.Clone(cfg.Algorithms)), jwt.WithStrictDecoding(),
			jwt.WithIssuer(cfg.Issuer), jwt.WithAudience(cfg.Audience),
			jwt.WithExpirationRequired(), jwt.WithLeeway(cfg.Leeway), jwt.WithTimeFunc(now),
		),
		secret: []byte(cfg.Secret),
		stop:   func() {},
	}
	if cfg.JWKSURL == "" && cfg.JWKSFile == "" {
		return p, nil
	}
	algorithms := slices.DeleteFunc(slices.Clone(cfg.Algorithms), func(a string) bool { return a == HS256 })
	p.source = &source{
		parse: func(content []byte) (keySet, error) { return parseKeySet(content, algorithms) },
		log:   log, now: now, pace: rhythm, wake: make(chan struct{}, 1),
	}
	ctx, cancel := context.WithCancel(context.Background())
	first := time.Duration(0)
	if cfg.JWKSURL != "" {
		p.source.read = fromURL(cfg.JWKSURL)
	} else {
		p.source.read = fromFile(cfg.JWKSFile)
		p.source.log = log.With(zap.String("file", cfg.JWKSFile))
		if err := p.source.load(ctx); err != nil {
			cancel()
			return nil, fmt.Errorf("JWKS file %s: %w", cfg.JWKSFile, err)
		}
		first = rhythm.every
	}
	var follower sync.WaitGroup
	p.stop = func() { cancel(); follower.Wait() }
	follower.Go(func() { p.source.run(ctx, first) })
	return p, nil
}

// Close stops following the keys and waits for that. Those at hand stay usable.
func (p *Provider) Close() { p.stop() }

// Name implements ports.HealthCheck.
func (p *Provider) Name() string { return "jwt-keys" }

// Check tells whether the keys were loaded once.
func (p *Provider) Check(context.Context) error {
	if p.source != nil && p.source.keys.Load() == nil {
		return errUnavailable()
	}
	return nil
}

// Authenticate implements ports.AuthProvider. A token under a key that is not known may wait for one read of the key
// URL.
func (p *Provider) Authenticate(ctx context.Context, credential string) (access.Principal, error) {
	var before *keySet
	if p.source != nil {
		before = p.source.keys.Load()
	}
	principal, err := p.authenticate(ctx, credential)
	if errors.Is(err, jwkset.ErrKeyNotFound) { // which means that there is a source
		p.source.refresh(ctx)
		if p.source.keys.Load() != before {
			principal, err = p.authenticate(ctx, credential)
		}
	}
	switch {
	case err == nil:
		return principal, nil
	case ctx.Err() != nil:
		return access.Principal{}, fault.Wrap(ctx.Err(), fault.KindOf(ctx.Err()), fault.CodeCanceled,
			"Authentication was abandoned")
	case errors.Is(err, errNotLoaded):
		return access.Principal{}, errUnavailable()
	}
	return access.Principal{}, access.ErrUnproven(reason(err))
}

var (
	errNotLoaded = errors.New("the keys were never loaded")
	errForm      = errors.New("not a JWT")
	errHeader    = errors.New("JWT header is ambiguous or asks for what is not supported")
)

func errUnavailable() error {
	return fault.Wrap(errNotLoaded, fault.Unavailable, fault.CodeAuthUnavailable,
		"Credentials cannot be checked right now")
}

func (p *Provider) authenticate(ctx context.Context, credential string) (access.Principal, error) {
	if err := ctx.Err(); err != nil {
		return access.Principal{}, err //nolint:wrapcheck // the caller does
	}
	// Base64 decoding skips line breaks even where it is strict.
	if len(credential) > maxTokenBytes || strings.ContainsFunc(credential, notTokenRune) {
		return access.Principal{}, errForm
	}
	var c claims
	_, err := p.parser.ParseWithClaims(credential, &c, func(t *jwt.Token) (any, error) { return p.key(ctx, t) })
	if err != nil {
		return access.Principal{}, err //nolint:wrapcheck // the caller does
	}
	return c.principal(), nil
}

// notTokenRune tells whether r cannot be part of a compact JWS.
func notTokenRune(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
		return false
	}
	return true
}

// key chooses by the algorithm, which the parser has found among the configured ones.
func (p *Provider) key(ctx context.Context, t *jwt.Token) (any, error) {
	raw, _, _ := strings.Cut(t.Raw, ".")
	header, err := base64.RawURLEncoding.DecodeString(raw)
	if err != nil || !jsontext.Value(header).IsValid() { // valid includes that no name is given twice
		return nil, errHeader
	}
	if _, ok := t.Header["crit"]; ok { // RFC 7515, 4.1.11: what is critical and not understood must be refused
		return nil, errHeader
	}
	if t.Method.Alg() == HS256 {
		return p.secret, nil
	}
	set := p.source.keys.Load()
	if set == nil {
		return nil, errNotLoaded
	}
	return set.find(ctx, t)
}

// reason replaces the libraries' errors, which repeat parts of the token, by what a log may hold.
func reason(err error) error {
	for _, r := range []struct {
		is   error
		text string
	}{
		{errForm, errForm.Error()},
		{errHeader, errHeader.Error()},
		{jwkset.ErrKeyNotFound, "JWT was signed with an unknown key"},
		{jwt.ErrTokenMalformed, "JWT is malformed"},
		{jwt.ErrTokenSignatureInvalid, "JWT signature is not valid, or its algorithm not accepted"},
		{jwt.ErrTokenUnverifiable, "JWT cannot be verified"},
		{jwt.ErrTokenExpired, "JWT has expired"},
		{jwt.ErrTokenNotValidYet, "JWT is not valid yet"},
		{jwt.ErrTokenInvalidIssuer, "JWT has another issuer"},
		{jwt.ErrTokenInvalidAudience, "JWT has another audience"},
		{jwt.ErrTokenRequiredClaimMissing, "JWT lacks a claim"},
	} {
		if errors.Is(err, r.is) {
			return errors.New(r.text)
		}
	}
	return errors.New("JWT has invalid claims")
}
