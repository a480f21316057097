package job

import (
	"regexp"
	"time"
)

// Version is what decides which of two copies of a job is fresher, and shows most differences between them without
// reading their bodies. Times are microseconds since 1970, 0 where absent or not parsable.
type Version struct {
	Rev                         int64
	Status                      Status
	Enqueued, Started, Finished int64
}

func (v Version) latest() int64 { return max(v.Enqueued, v.Started, v.Finished) }

// Fresher names the copy to serve and to start a write from, given both whole copies' versions: the higher rev; at an
// equal rev above 0 the old one where they differ, because only a writer that does not know rev makes them differ,
// and it writes the old schema; with no rev at all the later of the copies' times, else the further status, else new.
func Fresher(old, new Version) Copy { //nolint:revive // new and old are the names of the two schemas everywhere
	older := false
	switch {
	case old.Rev != new.Rev:
		older = old.Rev < new.Rev
	case old.Rev > 0:
		older = old == new
	case old.latest() != new.latest():
		older = old.latest() < new.latest()
	default:
		older = old.Status.rank() <= new.Status.rank()
	}
	if older {
		return CopyNew
	}
	return CopyOld
}

// TimeLayout is the form in which times are stored: UTC with six digits and a numeric offset.
const TimeLayout = "2006-01-02T15:04:05.000000-07:00"

var storedTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// ParseTime reads a stored time; what is none, or is none with a year of four digits in UTC, is the zero time. Parts of
// a microsecond are cut off.
func ParseTime(s string) time.Time {
	if !storedTime.MatchString(s) {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	t = t.UTC().Truncate(time.Microsecond)
	if err != nil || t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}
