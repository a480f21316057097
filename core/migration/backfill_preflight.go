package migration

import (
	"fmt"
	"strconv"
	"strings"
)

// BackfillSample is what a dry run met of the keyspace, to be taken for the whole.
type BackfillSample struct {
	Bytes   int64   // that the copies would take which are to be made, and the entries
	Entries int64   // index entries that would be added or dropped
	From    float64 // the part of the keyspace that lies before the pass, from 0 to 1
	To      float64 // the part that lies before the end of the sample
}

// entryBytes is the memory that an entry of an index takes, measured at a million of them.
const entryBytes = 120

// Sampled adds up what one dry step would make.
func (s *BackfillSample) Sampled(jobs []StoredJob, copied []Copied) {
	bytes := make(map[JobRef]int64, len(jobs))
	for _, j := range jobs {
		bytes[j.JobRef] = j.Bytes
	}
	for _, c := range copied {
		s.Entries += c.Entries
		if c.Outcome == CopyMade {
			s.Bytes += bytes[c.Job]
		}
	}
}

// Projected gives the bytes that the rest of the pass would take, where the rest is like the sample.
func (s BackfillSample) Projected() int64 {
	if s.To <= s.From {
		return 0
	}
	return int64(float64(s.Bytes+entryBytes*s.Entries) * (1 - s.From) / (s.To - s.From))
}

// BackfillRefusal says why a pass must not begin on a server, empty where it may. What a server does not tell is no
// reason.
func BackfillRefusal(l Load, s BackfillSample) string {
	if l.Version != "" && olderThan(l.Version, 6, 2) {
		return "The Redis server is too old: 6.2 or later is needed to copy jobs in one step"
	}
	if l.MaxMemory == 0 {
		return ""
	}
	if l.EvictionPolicy != "" && l.EvictionPolicy != "noeviction" {
		return "The Redis server may evict keys: set maxmemory-policy to noeviction, or copies could push out jobs"
	}
	projected := s.Projected()
	free := max(0, int64(stopMemory*float64(l.MaxMemory))-l.UsedMemory)
	if projected > free {
		return fmt.Sprintf("The copies would take about %s, and only %s may be used: the pass would stand still at %.0f %% of "+
			"maxmemory. Raise maxmemory or go workspace by workspace", mebibytes(projected), mebibytes(free), 100*stopMemory)
	}
	return ""
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// olderThan compares the first two numbers of a version; what is no number is old.
func olderThan(version string, major, minor int) bool {
	first, rest, _ := strings.Cut(version, ".")
	second, _, _ := strings.Cut(rest, ".")
	a, errA := strconv.Atoi(first)
	b, errB := strconv.Atoi(second)
	if errA != nil || errB != nil {
		return true
	}
	return a < major || a == major && b < minor
}
