package job_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/relay-jobs/relay/core/job"
)

func TestFresher(t *testing.T) {
	v := func(rev int64, s job.Status, times ...int64) job.Version {
		out := job.Version{Rev: rev, Status: s}
		for i, at := range times {
			*[]*int64{&out.Enqueued, &out.Started, &out.Finished}[i] = at
		}
		return out
	}
	for name, c := range map[string]struct {
		old, new job.Version
		want     job.Copy
	}{
		"new has the higher rev":                  {v(1, job.Pending, 1), v(2, job.Running, 1, 2), job.CopyNew},
		"old has the higher rev":                  {v(3, job.Running, 1, 2), v(2, job.Pending, 1), job.CopyOld},
		"rev is above a later time":               {v(1, job.Completed, 1, 2, 9), v(2, job.Running, 1, 2), job.CopyNew},
		"rev is above a further status":           {v(2, job.Pending, 1), v(1, job.Failed, 1), job.CopyOld},
		"a rev against none":                      {v(0, job.Completed, 1, 2, 9), v(1, job.Pending, 1), job.CopyNew},
		"none against a rev":                      {v(1, job.Pending, 1), v(0, job.Completed, 1, 2, 9), job.CopyOld},
		"same rev, same content":                  {v(2, job.Running, 1, 2), v(2, job.Running, 1, 2), job.CopyNew},
		"same rev, another status":                {v(2, job.Completed, 1, 2), v(2, job.Running, 1, 2), job.CopyOld},
		"same rev, old looks older":               {v(2, job.Pending, 1), v(2, job.Running, 1, 2), job.CopyOld},
		"same rev, another time of the same kind": {v(2, job.Running, 1, 2), v(2, job.Running, 1, 3), job.CopyOld},
		"no rev, new is later":                    {v(0, job.Pending, 1), v(0, job.Running, 1, 2), job.CopyNew},
		"no rev, old is later":                    {v(0, job.Running, 1, 2), v(0, job.Pending, 1), job.CopyOld},
		"no rev, time is above status":            {v(0, job.Pending, 5), v(0, job.Completed, 1, 2, 3), job.CopyOld},
		"no rev, the latest of each counts":       {v(0, job.Running, 3, 2), v(0, job.Running, 1, 3), job.CopyNew},
		"same rev, the first one":                 {v(1, job.Running, 1, 2), v(1, job.Pending, 1), job.CopyOld},
		"no rev, the finish counts as well":       {v(0, job.Completed, 1, 2), v(0, job.Running, 1, 2, 3), job.CopyNew},
		"same rev, the first, new went further":   {v(1, job.Pending, 1), v(1, job.Running, 1, 2), job.CopyOld},
		"no rev, old is finished":                 {v(0, job.Completed, 1, 2, 3), v(0, job.Running, 1, 2), job.CopyOld},
		"no rev, times alike, old went further":   {v(0, job.Completed, 1, 2), v(0, job.Running, 1, 2), job.CopyOld},
		"no rev, times alike, new went further":   {v(0, job.Pending, 1), v(0, job.Running, 1), job.CopyNew},
		"no rev, two ends":                        {v(0, job.Failed, 1), v(0, job.Completed, 1), job.CopyNew},
		"no rev, unknown status in old":           {v(0, "paused", 1), v(0, job.Pending, 1), job.CopyNew},
		"no rev, unknown status in new":           {v(0, job.Pending, 1), v(0, "paused", 1), job.CopyOld},
		"no rev, no times, alike":                 {v(0, job.Pending), v(0, job.Pending), job.CopyNew},
		"no rev, only old has times":              {v(0, job.Pending, 1), v(0, job.Running), job.CopyOld},
		"no rev, only new has times":              {v(0, job.Running), v(0, job.Pending, 1), job.CopyNew},
		"nothing at all":                          {job.Version{}, job.Version{}, job.CopyNew},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want.String(), job.Fresher(c.old, c.new).String())
		})
	}
}

func TestUndecided(t *testing.T) {
	v := func(rev int64, times ...int64) job.Version {
		return job.Version{Rev: rev, Enqueued: times[0], Started: times[1], Finished: times[2]}
	}
	for name, c := range map[string]struct {
		old, new job.Version
		want     bool
	}{
		"new has the higher rev, old the later start":   {v(1, 1, 3, 0), v(2, 1, 2, 0), true},
		"new has the higher rev, old the later finish":  {v(0, 1, 2, 9), v(1, 1, 2, 0), true},
		"new has the higher rev, old another enqueuing": {v(1, 5, 0, 0), v(2, 1, 0, 0), true},
		"new has the higher rev and the later time":     {v(1, 1, 2, 0), v(2, 1, 2, 3), false},
		"new has the higher rev, times alike":           {v(1, 1, 2, 0), v(2, 1, 2, 0), false},
		"the latest of all three counts":                {v(1, 1, 3, 0), v(2, 1, 2, 3), false},
		"an equal rev":                                  {v(2, 1, 2, 9), v(2, 1, 2, 3), false},
		"old has the higher rev, new the later time":    {v(2, 1, 0, 0), v(1, 1, 2, 0), false},
		"no rev at all":                                 {v(0, 1, 2, 9), v(0, 1, 2, 3), false},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, job.Undecided(c.old, c.new)) })
	}
	in := func(s job.Status, v job.Version) job.Version {
		v.Status = s
		return v
	}
	for name, c := range map[string]struct {
		old, new job.Version
		want     bool
	}{
		"new waits again":                        {in(job.Running, v(2, 1, 3, 0)), in(job.Pending, v(3, 1, 0, 0)), false},
		"new waits again, without rev in old":    {in(job.Running, v(0, 1, 3, 0)), in(job.Pending, v(1, 1, 0, 0)), false},
		"new runs, and old started later":        {in(job.Running, v(1, 1, 3, 0)), in(job.Running, v(2, 1, 2, 0)), true},
		"new waits, and old has ended":           {in(job.Completed, v(2, 1, 3, 4)), in(job.Pending, v(3, 1, 0, 0)), true},
		"new waits, and old runs with an end":    {in(job.Running, v(2, 1, 3, 4)), in(job.Pending, v(3, 1, 0, 0)), true},
		"new waits, and old waits with a start":  {in(job.Pending, v(2, 1, 3, 0)), in(job.Pending, v(3, 1, 0, 0)), true},
		"new waits, and was enqueued before old": {in(job.Running, v(2, 2, 3, 0)), in(job.Pending, v(3, 1, 0, 0)), true},
		"new waits with a start":                 {in(job.Running, v(2, 1, 3, 0)), in(job.Pending, v(3, 1, 2, 0)), true},
		"new waits with an end":                  {in(job.Running, v(2, 1, 3, 0)), in(job.Pending, v(3, 1, 0, 2)), true},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, job.Undecided(c.old, c.new)) })
	}
}

func versions() *rapid.Generator[job.Version] {
	at := rapid.Int64Range(0, 3)
	return rapid.Custom(func(t *rapid.T) job.Version {
		return job.Version{
			Rev:      rapid.Int64Range(0, 2).Draw(t, "rev"),
			Status:   rapid.SampledFrom(append(job.Statuses(), "paused", "")).Draw(t, "status"),
			Enqueued: at.Draw(t, "enqueued"), Started: at.Draw(t, "started"), Finished: at.Draw(t, "finished"),
		}
	})
}

func TestFresherProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := versions().Draw(t, "a"), versions().Draw(t, "b")
		require.Equal(t, job.CopyNew, job.Fresher(a, a), "of two alike the new one")
		one, other := job.Fresher(a, b), job.Fresher(b, a)
		require.NotEqual(t, job.CopyNone, one)
		if one == other && a != b {
			// The schema alone decides only where nothing else does: at an equal rev, and there for old; without
			// one where neither the times nor the status tell, and there for new.
			require.Equal(t, a.Rev, b.Rev)
			if a.Rev > 0 {
				require.Equal(t, job.CopyOld, one)
				return
			}
			require.Equal(t, job.CopyNew, one)
			require.Equal(t, max(a.Enqueued, a.Started, a.Finished), max(b.Enqueued, b.Started, b.Finished))
		}
		if a.Rev > b.Rev {
			require.Equal(t, job.CopyOld, one)
			require.Equal(t, job.CopyNew, other)
		}
	})
}

// Every write of Relay leaves a copy that is fresher than the one it started from, in whichever schema it lies.
func TestFresherFollowsWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, after := versions().Draw(t, "before"), versions().Draw(t, "after")
		after.Rev = before.Rev + 1
		require.Equal(t, job.CopyNew, job.Fresher(before, after))
		require.Equal(t, job.CopyOld, job.Fresher(after, before))
	})
}

func TestParseTime(t *testing.T) {
	at := func(micros int) time.Time { return time.Date(2026, 11, 21, 19, 28, 54, micros*1000, time.UTC) }
	for text, want := range map[string]time.Time{
		"2026-11-21T19:28:54.017837+00:00":    at(17_837),
		"2026-11-21T19:28:54.017837Z":         at(17_837),
		"2026-11-21T19:28:54.017837-00:00":    at(17_837),
		"2026-11-21T19:28:54+00:00":           at(0),
		"2026-11-21T19:28:54Z":                at(0),
		"2026-11-21T19:28:54.1Z":              at(100_000),
		"2026-11-21T19:28:54.12Z":             at(120_000),
		"2026-11-21T19:28:54.123Z":            at(123_000),
		"2026-11-21T19:28:54.1234Z":           at(123_400),
		"2026-11-21T19:28:54.12345Z":          at(123_450),
		"2026-11-21T19:28:54.1234567Z":        at(123_456),
		"2026-11-21T19:28:54.12345678Z":       at(123_456),
		"2026-11-21T19:28:54.123456999Z":      at(123_456),
		"2026-11-21T21:28:54.017837+02:00":    at(17_837),
		"2026-11-22T00:58:54.017837+05:30":    at(17_837),
		"2026-11-21T09:28:54.017837-10:00":    at(17_837),
		"2026-11-22T19:27:54+23:59":           at(0),
		"2024-02-29T00:00:00Z":                time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC),
		"2000-02-29T23:59:59Z":                time.Date(2000, 2, 29, 23, 59, 59, 0, time.UTC),
		"1969-12-31T23:59:59.999999Z":         time.Date(1969, 12, 31, 23, 59, 59, 999_999_000, time.UTC),
		"9999-12-31T23:59:59.999999Z":         time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC),
		"":                                    {},
		"2025-02-29T00:00:00Z":                {},
		"1900-02-29T00:00:00Z":                {},
		"2026-02-30T00:00:00Z":                {},
		"2026-04-31T00:00:00Z":                {},
		"2026-13-01T00:00:00Z":                {},
		"2026-00-01T00:00:00Z":                {},
		"2026-01-00T00:00:00Z":                {},
		"2026-11-21T24:00:00Z":                {},
		"2026-11-21T19:60:00Z":                {},
		"2026-11-21T19:28:60Z":                {},
		"2026-11-21T19:28:54":                 {}, // of no zone
		"2026-11-21T19:28:54.017837":          {},
		"2026-11-21 19:28:54+00:00":           {},
		"2026-11-21t19:28:54z":                {},
		"2026-11-21T19:28:54.Z":               {},
		"2026-11-21T19:28:54,5Z":              {},
		"2026-11-21T19:28:54.1234567890Z":     {},
		"2026-11-21T19:28:54+24:00":           {},
		"2026-11-21T19:28:54+00:60":           {},
		"2026-11-21T19:28:54+0000":            {},
		"2026-11-21T19:28:54+00":              {},
		"2026-11-21T19:28:54 +00:00":          {},
		"2026-11-21T19:28:54.017837+00:00\n":  {},
		"\n2026-11-21T19:28:54Z":              {},
		" 2026-11-21T19:28:54Z":               {},
		"2026-11-21T19:28:54Z ":               {},
		"2026-11-21T19:28Z":                   {},
		"2026-11-21":                          {},
		"20261121T192854Z":                    {},
		"26-11-21T19:28:54Z":                  {},
		"02026-11-21T19:28:54Z":               {},
		"+2026-11-21T19:28:54Z":               {},
		"２026-11-21T19:28:54Z":                {},
		"1795289334.017837":                   {},
		"1795289334":                          {},
		"now":                                 {},
		"None":                                {},
		"9999-12-31T23:59:59-23:59":           {}, // the year 10000 in UTC
		"0000-01-01T00:00:00+23:59":           {}, // the year before 0 in UTC
		"2026-11-21T19:28:54.017837+00:00:00": {},
	} {
		t.Run(text, func(t *testing.T) {
			got := job.ParseTime(text)
			require.Equal(t, want, got)
			require.Equal(t, time.UTC, got.Location())
		})
	}
}

func TestStoredTimesComeBack(t *testing.T) {
	first := time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC).UnixMicro()
	last := time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC).UnixMicro()
	rapid.Check(t, func(t *rapid.T) {
		at := time.UnixMicro(rapid.Int64Range(first, last).Draw(t, "micros")).UTC()
		text := at.Format(job.TimeLayout)
		require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$`, text)
		require.Equal(t, at, job.ParseTime(text))
	})
}
