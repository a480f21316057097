package migration_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/migration"
)

type row struct {
	new, old, prefers, fallback bool
	phase                       migration.Phase
	refused                     error
	writes, reads, looks        string
}

// rows are all combinations of AI_JOBS_NEW_SCHEMA, AI_JOBS_OLD_SCHEMA, READ_PREFERS_NEW and READ_FALLBACK_OLD.
func rows() []row {
	return []row{
		{false, false, false, false, 0, migration.ErrNothingToWrite, "", "", ""},
		{false, false, false, true, 0, migration.ErrNothingToWrite, "", "", ""},
		{false, false, true, false, 0, migration.ErrNothingToWrite, "", "", ""},
		{false, false, true, true, 0, migration.ErrNothingToWrite, "", "", ""},
		{false, true, false, false, 0, migration.ErrNothingToRead, "", "", ""},
		{false, true, false, true, migration.Legacy, nil, "old", "old", "old"},
		{false, true, true, false, 0, migration.ErrFreshJobs, "", "", ""},
		{false, true, true, true, migration.ReadRouting, nil, "old", "both", "both"},
		{true, false, false, false, 0, migration.ErrNothingToRead, "", "", ""},
		{true, false, false, true, 0, migration.ErrFreshJobs, "", "", ""},
		{true, false, true, false, migration.NewOnly, nil, "new", "new", "new"},
		{true, false, true, true, 0, migration.ErrFrozenJobs, "", "", ""},
		{true, true, false, false, 0, migration.ErrNothingToRead, "", "", ""},
		{true, true, false, true, migration.Canary, nil, "both", "old", "both"},
		{true, true, true, false, migration.StrictNew, nil, "both", "new", "both"},
		{true, true, true, true, migration.DualWrite, nil, "both", "both", "both"},
	}
}

func TestPhaseOf(t *testing.T) {
	seen := make(map[migration.Flags]bool)
	legal := make(map[migration.Phase]bool)
	for _, r := range rows() {
		f := migration.Flags{NewSchema: r.new, OldSchema: r.old, PrefersNew: r.prefers, FallbackOld: r.fallback}
		seen[f] = true
		t.Run(fmt.Sprintf("%+v", f), func(t *testing.T) {
			p, err := migration.PhaseOf(f)
			require.Equal(t, r.phase, p)
			if r.refused != nil {
				require.ErrorIs(t, err, r.refused)
				return
			}
			require.NoError(t, err)
			legal[p] = true
			require.Equal(t, f, p.Flags(), "a phase stands for its row alone")
			require.Equal(t, r.writes != "new", p.WritesOld())
			require.Equal(t, r.writes != "old", p.WritesNew())
			require.Equal(t, r.writes == "both", p.WritesBoth())
			require.Equal(t, r.reads != "new", p.ReadsOld())
			require.Equal(t, r.reads != "old", p.ReadsNew())
			require.Equal(t, r.looks != "new", p.LooksAtOld())
			require.Equal(t, r.looks != "old", p.LooksAtNew())

			// What makes a row legal, said in other words than the table's.
			require.True(t, p.WritesOld() && p.ReadsOld() || p.WritesNew() && p.ReadsNew(), "fresh jobs can be read")
			require.True(t, p.WritesOld() || !p.ReadsOld(), "what only old holds can be changed")
		})
	}
	require.Len(t, seen, 16)
	require.Len(t, legal, len(migration.Phases()))
}

func TestDefaultsAreReadRouting(t *testing.T) {
	p, err := migration.PhaseOf(migration.Flags{OldSchema: true, PrefersNew: true, FallbackOld: true})
	require.NoError(t, err)
	require.Equal(t, migration.ReadRouting, p)
}

func TestPhasesAreInTheOrderOfAMigration(t *testing.T) {
	names := make([]string, 0, 6)
	for _, p := range migration.Phases() {
		names = append(names, p.String())
	}
	require.Equal(t, []string{"legacy", "canary", "read routing", "dual write", "strict new", "new only"}, names)
}

func TestRefusalsSayWhatToSet(t *testing.T) {
	require.ErrorContains(t, migration.ErrNothingToWrite, "AI_JOBS_OLD_SCHEMA or AI_JOBS_NEW_SCHEMA")
	require.ErrorContains(t, migration.ErrNothingToRead, "READ_FALLBACK_OLD or READ_PREFERS_NEW")
	require.ErrorContains(t, migration.ErrFreshJobs, "READ_PREFERS_NEW=on with AI_JOBS_NEW_SCHEMA=on")
	require.ErrorContains(t, migration.ErrFrozenJobs, "AI_JOBS_OLD_SCHEMA=on")
}

func TestNoPhaseDoesNothing(t *testing.T) {
	var none migration.Phase
	require.Equal(t, "none", none.String())
	require.Equal(t, migration.Flags{}, none.Flags())
	require.False(t, none.WritesOld() || none.WritesNew() || none.ReadsOld() || none.ReadsNew())
	require.Equal(t, migration.Flags{}, migration.Phase(99).Flags())
}
