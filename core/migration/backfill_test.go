package migration_test

import (
	"encoding"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
)

func TestBackfillCounts(t *testing.T) {
	var c migration.BackfillCounts
	require.True(t, c.Clean())
	for range 2 {
		c.Add([]migration.Copied{{Outcome: migration.CopyIdentical}, {Outcome: migration.CopySingle}}, nil)
	}
	require.True(t, c.Clean())
	require.EqualValues(t, 4, c.Scanned)
	c.Add([]migration.Copied{{Outcome: migration.CopyMade, Entries: 2}}, []migration.StrangeKey{{Class: migration.KeyNotAJob}})
	require.Equal(t, migration.BackfillCounts{
		Scanned: 6, Entries: 2,
		Jobs: map[migration.CopyOutcome]int64{
			migration.CopyIdentical: 2, migration.CopySingle: 2, migration.CopyMade: 1,
		},
		Strange: map[migration.KeyClass]int64{migration.KeyNotAJob: 1},
	}, c)

	// What was read back from storage may lack either map.
	half := migration.BackfillCounts{Jobs: map[migration.CopyOutcome]int64{}}
	half.Add(nil, []migration.StrangeKey{{Class: migration.KeyOtherID}})
	require.EqualValues(t, 1, half.Strange[migration.KeyOtherID])

	clean := map[migration.CopyOutcome]bool{migration.CopyAbsent: true, migration.CopyIdentical: true, migration.CopySingle: true}
	for _, o := range migration.CopyOutcomes() {
		var c migration.BackfillCounts
		c.Add([]migration.Copied{{Outcome: o}}, nil)
		require.Equal(t, clean[o], c.Clean(), o)
		require.Equal(t, o.Left(), c.Left() == 1, o)
		require.Equal(t, !clean[o], o.Changed() != o.Left(), o)
	}
	for _, k := range migration.KeyClasses() {
		var c migration.BackfillCounts
		c.Add(nil, []migration.StrangeKey{{Class: k}})
		require.False(t, c.Clean(), k)
		require.EqualValues(t, 1, c.Left(), k)
	}
	entries := migration.BackfillCounts{Entries: 1}
	require.False(t, entries.Clean())
	require.Zero(t, entries.Left())
}

func TestNamesComeBack(t *testing.T) {
	requireNamesComeBack(t, migration.CopyOutcomes())
	requireNamesComeBack(t, migration.KeyClasses())
	requireNamesComeBack(t, migration.RetireOutcomes())
	requireNamesComeBack(t, migration.DifferenceClasses())
	requireNamesComeBack(t, migration.PassKinds())
	requireNamesComeBack(t, migration.Phases())
}

// requireNamesComeBack: each has a name of its own, by which it is read again.
func requireNamesComeBack[T interface {
	comparable
	fmt.Stringer
	encoding.TextMarshaler
}, P interface {
	*T
	encoding.TextUnmarshaler
}](t *testing.T, all []T) {
	t.Helper()
	for _, one := range all {
		require.NotContains(t, []string{"", "unknown", "none"}, one.String())
		text, err := one.MarshalText()
		require.NoError(t, err)
		var back T
		require.NoError(t, P(&back).UnmarshalText(text))
		require.Equal(t, one, back)
	}
	for _, none := range []string{"", "unknown", "none"} {
		require.Error(t, P(new(T)).UnmarshalText([]byte(none)))
	}
}

func TestPositionFraction(t *testing.T) {
	require.Zero(t, migration.Position(0).Fraction())
	before := 0.0
	for _, p := range []migration.Position{4, 2, 6, 1, 5, 3, 7} { // as SCAN counts through a table of eight
		require.InDelta(t, before+0.125, p.Fraction(), 1e-9, p)
		before = p.Fraction()
	}
}

func TestBackfillRefusal(t *testing.T) {
	const gib = 1 << 30
	// A tenth of the keyspace would take 10 MiB, the whole 100 MiB.
	sample := migration.BackfillSample{Bytes: 10 << 20, To: 0.1}
	load := func(change func(*migration.Load)) migration.Load {
		l := migration.Load{Version: "7.0.15", EvictionPolicy: "noeviction", MaxMemory: gib}
		change(&l)
		return l
	}
	for name, c := range map[string]struct {
		load   migration.Load
		reason string
	}{
		"a good server":               {load(func(*migration.Load) {}), ""},
		"a server that tells nothing": {migration.Load{}, ""},
		"6.2":                         {load(func(l *migration.Load) { l.Version = "6.2.0" }), ""},
		"10.0":                        {load(func(l *migration.Load) { l.Version = "10.0.1" }), ""},
		"6.0":                         {load(func(l *migration.Load) { l.Version = "6.0.20" }), "too old"},
		"5":                           {load(func(l *migration.Load) { l.Version = "5.9.9" }), "too old"},
		"no version":                  {load(func(l *migration.Load) { l.Version = "latest" }), "too old"},
		"evicts all":                  {load(func(l *migration.Load) { l.EvictionPolicy = "allkeys-lru" }), "evict"},
		"evicts what expires":         {load(func(l *migration.Load) { l.EvictionPolicy = "volatile-ttl" }), "evict"},
		"evicts, but never full": {
			load(func(l *migration.Load) { l.EvictionPolicy, l.MaxMemory = "allkeys-lru", 0 }), "",
		},
		"just room":      {load(func(l *migration.Load) { l.UsedMemory = gib*93/100 - 101<<20 }), ""},
		"just no room":   {load(func(l *migration.Load) { l.UsedMemory = gib*93/100 - 99<<20 }), "about 100.0 MiB, and only 99.0 MiB"},
		"full":           {load(func(l *migration.Load) { l.UsedMemory = gib }), "only 0.0 MiB"},
		"room unbounded": {load(func(l *migration.Load) { l.UsedMemory, l.MaxMemory = gib, 0 }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			reason := migration.BackfillRefusal(c.load, sample)
			if c.reason == "" {
				require.Empty(t, reason)
			}
			require.Contains(t, reason, c.reason)
		})
	}
}

func TestBackfillSample(t *testing.T) {
	ref := func(text string) migration.JobRef {
		id, err := job.ParseID(text)
		require.NoError(t, err)
		return migration.JobRef{ID: id}
	}
	var s migration.BackfillSample
	s.Sampled(
		[]migration.StoredJob{{JobRef: ref("a"), Bytes: 1000}, {JobRef: ref("b"), Bytes: 500}, {JobRef: ref("c"), Bytes: 70}},
		[]migration.Copied{
			{Job: ref("c"), Outcome: migration.CopyMade},
			{Job: ref("a"), Outcome: migration.CopyMade, Entries: 2},
			{Job: ref("b"), Outcome: migration.CopyIdentical},
		})
	require.Equal(t, migration.BackfillSample{Bytes: 1070, Entries: 2}, s)
	require.Zero(t, s.Projected(), "nothing was sampled")
	s.To = 1
	require.EqualValues(t, 1070+2*120, s.Projected())
	s.From, s.To = 0.5, 0.6
	require.InDelta(t, 5*(1070+2*120), s.Projected(), 1, "half of the keyspace is left")
}
