package job_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/relay-jobs/relay/core/job"
)

func TestPlaceOrder(t *testing.T) {
	place := func(micros int64, id string) job.Place { return job.Place{Micros: micros, ID: parseID(t, id)} }
	oldestFirst := []job.Place{
		place(0, "0190a000-0000-7000-8000-000000000001"), // a missing time comes before every other
		place(1, "z"),
		place(2, "a"),
		place(2, "a\x00"),
		place(2, "z"),
		place(2, "0190A000-0000-7000-8000-000000000001"), // capitals stand for another id
		place(2, "0190a000-0000-7000-8000-000000000001"),
		place(2, "0190a000-0000-7000-8000-000000000002"),
		place(3, "a"),
	}
	slices.SortFunc(oldestFirst[2:6], job.Place.Compare)
	for i, p := range oldestFirst {
		for j, q := range oldestFirst {
			require.Equal(t, direction(i-j), direction(p.Compare(q)), "%v %v", p, q)
		}
	}
}

func direction(n int) int { return min(1, max(-1, n)) }

func TestJobsStandNewestFirst(t *testing.T) {
	at := time.UnixMicro(1_795_289_334_017_837)
	newer := job.Job{ID: parseID(t, "a"), EnqueuedAt: at.Add(time.Microsecond)}
	older := job.Job{ID: parseID(t, "b"), EnqueuedAt: at}
	undated := job.Job{ID: parseID(t, "c")}
	jobs := []job.Job{undated, older, newer}
	slices.SortFunc(jobs, job.Newer)
	require.Equal(t, []job.Job{newer, older, undated}, jobs)
}

func TestSortBytesComeBack(t *testing.T) {
	texts := []string{
		"a", "0190a000-0000-7000-8000-00000000000", "0190A000-0000-7000-8000-000000000001",
		"0190a000-0000-7000-8000-00000000000g", "0190a000x0000-7000-8000-000000000001",
		"{190a000-0000-7000-8000-000000000001", "0190a00000-00-7000-8000-000000000001", "sixteen bytes id",
		"fifteen byte id", "0090a000-0000-7000-8000-000000000001",
	}
	for _, text := range texts {
		require.Equal(t, "\x00"+text, parseID(t, text).SortBytes())
	}
	require.Equal(t, "\x01\x90\xa0\x00\x00\x00\x70\x00\x80\x00\x00\x00\x00\x00\x00\x0f",
		parseID(t, "0190a000-0000-7000-8000-00000000000f").SortBytes())
	rapid.Check(t, func(t *rapid.T) {
		b := string(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes"))
		if id, ok := job.ParseSortBytes(b); ok {
			require.Equal(t, b, id.SortBytes())
		}
		u := string(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "UUID"))
		if id, ok := job.ParseSortBytes(u); u[0] != 0 {
			require.True(t, ok)
			require.Equal(t, u, id.SortBytes())
		}
		text := rapid.StringN(1, -1, 256).Filter(func(s string) bool { return len(s) <= 256 })
		id, err := job.ParseID(rapid.OneOf(rapid.SampledFrom(texts), text).Draw(t, "text"))
		require.NoError(t, err)
		again, ok := job.ParseSortBytes(id.SortBytes())
		require.True(t, ok)
		require.Equal(t, id, again)
	})
}
