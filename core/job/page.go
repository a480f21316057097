package job

import (
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/relay-jobs/relay/core/fault"
)

// Limits of a page.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
	// MaxPageBytes bounds the encoded jobs of a page. A page ends before the job that would take it past this; its
	// first job is always given.
	MaxPageBytes = 1 << 20
)

// Query asks for one page of a workspace's jobs.
type Query struct {
	Status Status // empty for every state
	Limit  int    // 1 to MaxLimit
	Cursor Cursor // the zero Cursor starts
}

// Matches tells whether j passes the filter.
func (q Query) Matches(j Job) bool { return q.Status == "" || j.Status == q.Status }

// Page is one answer to a Query. It may hold fewer jobs than the limit, or none, and still have a next one: only a
// zero Next is the end. ReadPath says which copies were served.
type Page struct {
	Jobs     []Job
	Next     Cursor
	ReadPath ListPath
}

// ListPath names the schemas that a page was served from.
type ListPath uint8

// The list paths; ListMiss is a page without jobs.
const (
	ListMiss ListPath = iota
	ListOld
	ListNew
	ListMixed
)

// With adds one served copy to what a page has so far.
func (p ListPath) With(c Copy) ListPath {
	switch {
	case c == CopyOld && (p == ListMiss || p == ListOld):
		return ListOld
	case c == CopyNew && (p == ListMiss || p == ListNew):
		return ListNew
	case c == CopyNone:
		return p
	}
	return ListMixed
}

// String gives the label that metrics carry.
func (p ListPath) String() string {
	switch p {
	case ListOld:
		return "old"
	case ListNew:
		return "new"
	case ListMixed:
		return "mixed"
	case ListMiss:
	}
	return "miss"
}

// Size is an upper bound of the bytes that j takes in a page, near enough to measure pages by.
func (j Job) Size() int {
	const names = 290 // member names, punctuation, the nulls of what is absent, the three times and the duration
	n := names + len(j.Params) + len(j.Result)
	for _, s := range []string{j.ID.text, j.Workspace.String(), string(j.Status), j.Provider, j.Name, j.Error, j.Actor} {
		n += quotedSize(s)
	}
	return n
}

// quotedSize bounds the length of s as a JSON string.
func quotedSize(s string) int {
	n := 2
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r < ' ', r == utf8.RuneError, r == '\u2028', r == '\u2029':
			n += 6
		case r == '"', r == '\\':
			n += 2
		default:
			n += size
		}
		i += size
	}
	return n
}

// Cursor is a place in a walk through a workspace's jobs. It is stateless, not secret, and holds no workspace, so
// that it is useless to another one. The zero Cursor is the start of a walk and, as a Page's Next, its end. Its text
// is one of
//
//	new:{pos}:old:{pos}                 SCAN positions of the walks of the two schemas
//	new:{pos}:old:{pos}:after:{job_id}  the same; of the current position only jobs behind job_id in byte order
//	{pos}                               the same as new:{pos}:old:0
//	at:{µs}:{job_id}                    behind this job in the order of enqueued_at and id, newest first
//
// with job_id percent-encoded and pos and µs in decimal digits without leading zeros.
type Cursor struct {
	kind     cursorKind
	new, old uint64
	place    Place // of ScanCursor only the id
}

type cursorKind uint8

const (
	cursorStart cursorKind = iota
	cursorScan
	cursorOrder
)

// ScanCursor is a place in a walk by SCAN. after is the zero ID unless the position was given in part.
func ScanCursor(newPos, oldPos uint64, after ID) Cursor {
	return Cursor{kind: cursorScan, new: newPos, old: oldPos, place: Place{ID: after}}
}

// OrderCursor is the place behind p in the order of enqueued_at and id, newest first.
func OrderCursor(p Place) Cursor { return Cursor{kind: cursorOrder, place: p} }

// IsZero tells whether c is the start, or as a Page's Next the end.
func (c Cursor) IsZero() bool { return c.kind == cursorStart }

// Scan gives the positions of a walk by SCAN, all zero at the start. ok is false for a place in an order.
func (c Cursor) Scan() (newPos, oldPos uint64, after ID, ok bool) {
	return c.new, c.old, c.place.ID, c.kind != cursorOrder
}

// Order gives the place behind which an ordered walk goes on. ok is false for the start and for a walk by SCAN.
func (c Cursor) Order() (p Place, ok bool) { return c.place, c.kind == cursorOrder }

// String gives the text that ParseCursor reads, empty for the zero Cursor.
func (c Cursor) String() string {
	switch c.kind {
	case cursorScan:
		s := "new:" + strconv.FormatUint(c.new, 10) + ":old:" + strconv.FormatUint(c.old, 10)
		if !c.place.ID.IsZero() {
			s += ":after:" + escapeID(c.place.ID)
		}
		return s
	case cursorOrder:
		return "at:" + strconv.FormatInt(c.place.Micros, 10) + ":" + escapeID(c.place.ID)
	case cursorStart:
	}
	return ""
}

// MarshalJSON gives the cursor's text, null for the zero Cursor.
func (c Cursor) MarshalJSON() ([]byte, error) {
	if c.IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(c.String()) //nolint:wrapcheck // a string always encodes
}

// ParseCursor reads a cursor strictly: each text it accepts is one that String writes, or the predecessor's {pos}.
// The error is fault.Invalid and does not repeat s.
func ParseCursor(s string) (Cursor, error) {
	if pos, ok := parsePosition(s); ok {
		return ScanCursor(pos, 0, ID{}), nil
	}
	c, ok := parseOrder(s)
	if !ok {
		c, ok = parseScan(s)
	}
	if !ok || c.String() != s {
		return Cursor{}, fault.BadInput(fault.CodeInvalidCursor, "Invalid cursor",
			fault.Violation{Parameter: "cursor", Detail: "is none that this API gave"})
	}
	return c, nil
}

func parseScan(s string) (Cursor, bool) {
	parts := strings.Split(s, ":")
	if len(parts) != 4 && len(parts) != 6 || parts[0] != "new" || parts[2] != "old" {
		return Cursor{}, false
	}
	newPos, okNew := parsePosition(parts[1])
	oldPos, okOld := parsePosition(parts[3])
	var after ID
	if len(parts) == 6 {
		id, ok := parseEscapedID(parts[5])
		if !ok || parts[4] != "after" {
			return Cursor{}, false
		}
		after = id
	}
	return ScanCursor(newPos, oldPos, after), okNew && okOld
}

func parseOrder(s string) (Cursor, bool) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 || parts[0] != "at" {
		return Cursor{}, false
	}
	micros, err := strconv.ParseInt(parts[1], 10, 64)
	id, ok := parseEscapedID(parts[2])
	return OrderCursor(Place{Micros: micros, ID: id}), err == nil && micros >= 0 && ok
}

func parsePosition(s string) (uint64, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	pos, err := strconv.ParseUint(s, 10, 64)
	return pos, err == nil
}

// escapeID percent-encodes everything but letters, digits and -._~ so that an id never holds the cursor's colon.
func escapeID(id ID) string {
	return strings.ReplaceAll(url.QueryEscape(id.text), "+", "%20")
}

func parseEscapedID(s string) (ID, bool) {
	text, err := url.PathUnescape(s)
	if err != nil {
		return ID{}, false
	}
	id, err := ParseID(text)
	return id, err == nil
}
