package job

import (
	"cmp"
	"encoding/hex"
	"strings"
)

// Place is where a job stands in its workspace's list: a pure function of when it was enqueued and of its id, so that
// an order that was built anew honours the places given from before. Places are comparable.
type Place struct {
	Micros int64 // since 1970; 0 for a missing time and for any before
	ID     ID
}

// Place gives j's place.
func (j Job) Place() Place {
	p := Place{ID: j.ID}
	if !j.EnqueuedAt.IsZero() {
		p.Micros = max(0, j.EnqueuedAt.UnixMicro())
	}
	return p
}

// Compare orders places from the oldest to the newest: by time, then by the ids' SortBytes.
func (p Place) Compare(q Place) int {
	if c := cmp.Compare(p.Micros, q.Micros); c != 0 {
		return c
	}
	return strings.Compare(p.ID.SortBytes(), q.ID.SortBytes())
}

// Newer orders jobs as a page shows them, the newest place first. It returns a negative number where a comes before b.
func Newer(a, b Job) int { return b.Place().Compare(a.Place()) }

const (
	uuidLength = 36 // of the text: 32 digits and four hyphens
	textMark   = 0
)

// SortBytes gives the bytes by which ids are ordered: the sixteen of a UUID that is written in lower case, else a zero
// byte and the id's text, also where a UUID begins with that byte. Different ids have different ones, and ParseSortBytes
// reads them.
func (id ID) SortBytes() string {
	s := id.text
	if len(s) == uuidLength && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' && !strings.ContainsAny(s, "ABCDEF") {
		var u [16]byte
		_, err := hex.Decode(u[:], []byte(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:]))
		if err == nil && u[0] != textMark {
			return string(u[:])
		}
	}
	return string([]byte{textMark}) + s
}

// ParseSortBytes gives the id that b is the SortBytes of; ok is false where it is of none.
func ParseSortBytes(b string) (id ID, ok bool) {
	if b == "" {
		return ID{}, false
	}
	if b[0] == textMark {
		id, err := ParseID(b[1:])
		return id, err == nil && id.SortBytes() == b
	}
	if len(b) != len([16]byte{}) {
		return ID{}, false
	}
	digits := hex.EncodeToString([]byte(b))
	return ID{text: digits[:8] + "-" + digits[8:12] + "-" + digits[12:16] + "-" + digits[16:20] + "-" + digits[20:]}, true
}
