package job

import "time"

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

// Undecided tells whether two whole copies contradict each other: new has the higher rev and old the later time.
// Somebody who does not know rev changed the old copy after it had fallen behind, and either change would be lost.
//
// A job that waits again has lost the time of its start, which a copy that fell behind still has. That is no contradiction:
// were the start somebody's after all, the job would run once more, and no outcome be lost.
func Undecided(old, new Version) bool { //nolint:revive // as above
	waitsAgain := old.Status == Running && new.Status == Pending && old.Enqueued == new.Enqueued &&
		old.Finished == 0 && new.Started == 0 && new.Finished == 0
	return new.Rev > old.Rev && old.latest() > new.latest() && !waitsAgain
}

// TimeLayout is the form in which times are stored: UTC with six digits and a numeric offset.
const TimeLayout = "2006-01-02T15:04:05.000000-07:00"

// ParseTime reads a stored time; what is none, or is none with a year of four digits in UTC, is the zero time. Parts of
// a microsecond are cut off.
func ParseTime(s string) time.Time {
	if !hasTimeForm(s) {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	t = t.UTC().Truncate(time.Microsecond)
	if err != nil || t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// hasTimeForm tells whether s is YYYY-MM-DDThh:mm:ss, a dot with one to nine digits or nothing, and Z or ±hh:mm with an
// offset that a clock can show. What a month or an hour may be is left to time.Parse, which takes more forms than this.
func hasTimeForm(s string) bool {
	const form = "0000-00-00T00:00:00"
	if len(s) <= len(form) || !hasForm(s[:len(form)], form) {
		return false
	}
	rest := s[len(form):]
	if rest[0] == '.' {
		digits := 0
		for digits < len(rest)-1 && isDigit(rest[1+digits]) {
			digits++
		}
		if digits < 1 || digits > 9 {
			return false
		}
		rest = rest[1+digits:]
	}
	if rest == "Z" {
		return true
	}
	return (hasForm(rest, "+00:00") || hasForm(rest, "-00:00")) && rest[1:3] <= "23" && rest[4] <= '5'
}

// hasForm tells whether s is form with any digits in the place of its zeros.
func hasForm(s, form string) bool {
	if len(s) != len(form) {
		return false
	}
	for i := range len(s) {
		if s[i] != form[i] && (form[i] != '0' || !isDigit(s[i])) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
