// Package workspace holds the tenant's identifier. It is parsed once, at the edge where it enters; everything behind
// takes an ID, so that no key, pattern or label can be built from an unchecked text.
package workspace

import (
	"github.com/relay-jobs/relay/core/fault"
)

// maxLength is in bytes; every allowed character is one byte.
const maxLength = 32

// ID is a workspace id that matches ^[a-z0-9][a-z0-9_-]{0,31}$ as a whole. The zero ID names no workspace.
// IDs are comparable and may be map keys.
type ID struct{ text string }

// Parse checks the whole of s; a trailing newline fails. The error is fault.Invalid and does not repeat s.
func Parse(s string) (ID, error) {
	if s == "" || len(s) > maxLength {
		return ID{}, errFormat()
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case i > 0 && (c == '_' || c == '-'):
		default:
			return ID{}, errFormat()
		}
	}
	return ID{text: s}, nil
}

// errFormat makes a fault for each caller, who may add to it.
func errFormat() error {
	return fault.New(fault.Invalid, fault.CodeInvalidWorkspace, "Invalid workspace_id format")
}

// String gives the id's text, empty for the zero ID.
func (id ID) String() string { return id.text }

// IsZero tells whether id names no workspace.
func (id ID) IsZero() bool { return id.text == "" }
