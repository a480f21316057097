package jwtauth

import (
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"

	"github.com/relay-jobs/relay/core/access"
)

// claims are those that matter, each of one type. It implements jwt.Claims.
type claims struct {
	Issuer    string           `json:"iss"`
	Audience  jwt.ClaimStrings `json:"aud"`
	Expires   *float64         `json:"exp"`
	NotBefore *float64         `json:"nbf"`
	Subject   string           `json:"sub"`
	Workspace string           `json:"workspace_id"`
	Scope     string           `json:"scope"`
	Scopes    []string         `json:"scopes"`
}

// maxSubjectBytes bounds what every job of a token's bearer keeps.
const maxSubjectBytes = 256

// UnmarshalJSON refuses what the standard library lets pass: names given twice, of which the issuer may have meant
// the other, names in another case, and invalid UTF-8.
func (c *claims) UnmarshalJSON(data []byte) error {
	type plain claims
	return json.Unmarshal(data, (*plain)(c)) //nolint:wrapcheck // golang-jwt wraps it
}

// Validate implements jwt.ClaimsValidator. That the subject is UTF-8 is UnmarshalJSON's.
func (c *claims) Validate() error {
	if len(c.Subject) > maxSubjectBytes || strings.ContainsFunc(c.Subject, unicode.IsControl) {
		return jwt.ErrTokenInvalidSubject
	}
	return nil
}

// principal is what the claims say. An issuer that fills both scope claims means both. In the text a space alone
// separates (RFC 6749, 3.3): with any other white space in it, a name is one that matches nothing.
func (c *claims) principal() access.Principal {
	p := access.Principal{Workspace: c.Workspace, Actor: c.Subject}
	spaced := strings.FieldsFunc(c.Scope, func(r rune) bool { return r == ' ' })
	for _, s := range append(spaced, c.Scopes...) {
		p.Scopes = append(p.Scopes, access.Scope(s))
	}
	return p
}

// maxDate is the last second of the year 9999. Beyond lie the numbers whose conversion overflows.
const maxDate = 253402300799

func date(seconds *float64) (*jwt.NumericDate, error) {
	if seconds == nil {
		return nil, nil //nolint:nilnil // how jwt.Claims says that there is none
	}
	if *seconds < 0 || *seconds > maxDate {
		return nil, jwt.ErrInvalidType
	}
	return jwt.NewNumericDate(time.Unix(int64(*seconds), 0)), nil
}

// GetExpirationTime gives exp.
func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return date(c.Expires) }

// GetNotBefore gives nbf.
func (c *claims) GetNotBefore() (*jwt.NumericDate, error) { return date(c.NotBefore) }

// GetIssuedAt gives none: when a token was made decides nothing here.
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error) { return nil, nil } //nolint:nilnil // as above

// GetIssuer gives iss.
func (c *claims) GetIssuer() (string, error) { return c.Issuer, nil }

// GetSubject gives sub.
func (c *claims) GetSubject() (string, error) { return c.Subject, nil }

// GetAudience gives aud.
func (c *claims) GetAudience() (jwt.ClaimStrings, error) { return c.Audience, nil }
