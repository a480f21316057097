package httpapi

import (
	"net/http"
	"strings"
)

// bearer gives the credential of RFC 6750, empty where there is none that could be one. sent tells whether the caller
// tried. Two credentials are none: nothing says which of them is meant.
func bearer(h http.Header) (credential string, sent bool) {
	given := h["Authorization"]
	for _, value := range given {
		scheme, rest, _ := strings.Cut(value, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			continue
		}
		sent = true
		if token := strings.TrimLeft(rest, " "); len(given) == 1 && isToken68(token) {
			credential = token
		}
	}
	return credential, sent
}

// isToken68 tells whether s has the alphabet of a bearer token.
func isToken68(s string) bool {
	body := strings.TrimRight(s, "=")
	for _, c := range []byte(body) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~+/", c) >= 0:
		default:
			return false
		}
	}
	return body != ""
}
