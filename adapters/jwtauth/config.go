package jwtauth

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"
)

// The algorithms that may be configured.
const (
	HS256 = "HS256"
	RS256 = "RS256"
	ES256 = "ES256"
	EdDSA = "EdDSA"
)

const (
	maxLeeway = 5 * time.Minute
	minSecret = 32
)

// Config says which tokens are good. Nothing has a default: the zero Config is invalid.
type Config struct {
	// Algorithms are the accepted ones, at least one; no other is, whatever a key or a token says.
	Algorithms []string
	// Issuer must equal the token's iss.
	Issuer string
	// Audience must be one of the token's aud.
	Audience string
	// Leeway is allowed on exp and nbf, 0 to 5 minutes.
	Leeway time.Duration
	// Secret is the key for HS256 as it stands, not decoded: 32 bytes or more.
	Secret string
	// JWKSURL is where the public keys for RS256, ES256 and EdDSA are fetched from: https, or http on this machine.
	JWKSURL string
	// JWKSFile holds them instead.
	JWKSFile string
}

// ConfigError is one thing that is wrong with a Config. It never repeats a value.
type ConfigError struct {
	Field   string // of Config
	Problem string // without names of fields: an operator knows other ones
}

// Error names the field and its problem.
func (e *ConfigError) Error() string { return "JWT " + e.Field + ": " + e.Problem }

// Validate returns all that is wrong, a *ConfigError each, joined.
func (c Config) Validate() error {
	var errs []error
	wrong := func(bad bool, field, problem string) {
		if bad {
			errs = append(errs, &ConfigError{Field: field, Problem: problem})
		}
	}
	known := []string{HS256, RS256, ES256, EdDSA}
	wrong(len(c.Algorithms) == 0, "Algorithms", "must name at least one of HS256, RS256, ES256, EdDSA")
	wrong(slices.ContainsFunc(c.Algorithms, func(a string) bool { return !slices.Contains(known, a) }),
		"Algorithms", "may only name HS256, RS256, ES256, EdDSA")
	wrong(c.Issuer == "", "Issuer", "must be set")
	wrong(c.Audience == "", "Audience", "must be set")
	wrong(c.Leeway < 0 || c.Leeway > maxLeeway, "Leeway", fmt.Sprintf("must be between 0 and %s", maxLeeway))

	symmetric := slices.Contains(c.Algorithms, HS256)
	wrong(symmetric && len(c.Secret) < minSecret,
		"Secret", fmt.Sprintf("must have at least %d bytes for HS256", minSecret))
	wrong(!symmetric && c.Secret != "", "Secret", "is set, but HS256 is not among the algorithms")

	asymmetric := slices.ContainsFunc(c.Algorithms, func(a string) bool { return a != HS256 })
	none, both := c.JWKSURL == "" && c.JWKSFile == "", c.JWKSURL != "" && c.JWKSFile != ""
	wrong(asymmetric && none, "JWKSURL", "a URL or a file of public keys must be set for RS256, ES256 and EdDSA")
	wrong(both, "JWKSURL", "a URL and a file of public keys must not both be set")
	wrong(!asymmetric && c.JWKSURL != "", "JWKSURL", "is set, but HS256 alone takes no public keys")
	wrong(!asymmetric && c.JWKSFile != "", "JWKSFile", "is set, but HS256 alone takes no public keys")
	if c.JWKSURL != "" {
		u, err := url.Parse(c.JWKSURL)
		wrong(err != nil || !trustworthy(u), "JWKSURL",
			"must be an https URL without user and fragment; http is for this machine only")
	}
	return errors.Join(errs...)
}

// trustworthy tells whether keys that come from u are those of its host: who can change them on their way can sign
// any token.
func trustworthy(u *url.URL) bool {
	if u.User != nil || u.Fragment != "" || u.Hostname() == "" {
		return false
	}
	switch u.Scheme {
	case "https":
		return true
	case "http":
		ip := net.ParseIP(u.Hostname())
		return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	}
	return false
}
