package migration_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/migration"
)

// clock gives a time of the storage on the day of the tests.
func clock(hour, minute int) time.Time { return time.Date(2026, 11, 22, hour, minute, 0, 0, time.UTC) }

const thisProcess = "0123"

// verified is a clean verification of everything that took five minutes and looked for writers since the one before.
func verified(p migration.Phase, started, since time.Time) migration.RecordedPass {
	return migration.RecordedPass{
		Kind: migration.PassVerify, Phase: p, Process: thisProcess, Started: started, Ended: started.Add(5 * time.Minute),
		Whole: true, Jobs: 1000, Clean: true, Since: since,
	}
}

// judgedBy is the phase in which verifications speak for a gate.
func judgedBy(g migration.Gate) migration.Phase {
	return map[migration.Gate]migration.Phase{
		migration.GateFallbackOff: migration.DualWrite, migration.GateNewOnly: migration.StrictNew,
		migration.GateRetire: migration.NewOnly,
	}[g]
}

// openFacts are facts that open g: dual write ran from six to nine, what the gate asks for was recorded from ten on,
// and it is noon.
func openFacts(g migration.Gate) migration.Facts {
	f := migration.Facts{
		Now: clock(12, 0), Process: thisProcess, WorkersKnown: true,
		Seen:         map[migration.Phase]migration.PhaseSeen{migration.DualWrite: {Since: clock(6, 0), Last: clock(9, 0)}},
		FallbackHits: 7, LastFallback: clock(7, 0),
		Queue: migration.Queue{Entries: 5, Looked: 5},
	}
	if g == migration.GateBack {
		f.Passes = []migration.RecordedPass{{
			Kind: migration.PassToOld, Process: thisProcess, Started: clock(10, 0), Ended: clock(10, 5), Whole: true, Clean: true,
		}}
		f.Servers = []migration.Server{{ID: "a", Phase: migration.DualWrite}, {ID: "b", Phase: migration.Canary}}
		return f
	}
	p := judgedBy(g)
	f.Passes = []migration.RecordedPass{
		verified(p, clock(10, 0), clock(8, 0)), verified(p, clock(11, 0), clock(10, 0)),
	}
	f.Servers = []migration.Server{{ID: "a", Phase: p}}
	return f
}

func TestGatesAreOpenWhereAllIsMet(t *testing.T) {
	t.Parallel()
	for _, g := range migration.Gates() {
		state := migration.Decide(g, openFacts(g))
		require.Equal(t, migration.GateState{Gate: g, Open: true}, state)
	}
}

// forward are the gates on the way to new.
func forward() []migration.Gate {
	return []migration.Gate{migration.GateFallbackOff, migration.GateNewOnly, migration.GateRetire}
}

func TestEachConditionClosesItsGateAlone(t *testing.T) {
	t.Parallel()
	behind := []migration.Gate{migration.GateNewOnly, migration.GateRetire}
	fallbackOff, back := forward()[:1], []migration.Gate{migration.GateBack}
	closed := map[migration.Gate]map[migration.Condition]bool{}
	for _, c := range []struct {
		name      string
		gates     []migration.Gate
		condition migration.Condition
		text      string
		change    func(*migration.Facts)
	}{
		{"no passes", forward(), migration.ConditionVerified, "0 of 2 recorded", func(f *migration.Facts) { f.Passes = nil }},
		{"one pass", forward(), migration.ConditionVerified, "1 of 2 recorded", func(f *migration.Facts) { f.Passes = f.Passes[1:] }},
		{
			"the newest is not clean", forward(), migration.ConditionVerified,
			"0 of 2 since the pass of 2026-11-22T11:00:00Z, which left differences: missing 3, stale 1",
			func(f *migration.Facts) {
				f.Passes[1].Clean, f.Passes[1].Counts = false, map[string]int64{"stale": 1, "missing": 3, "ttl": 0}
			},
		},
		{
			"the first is not clean", forward(), migration.ConditionVerified, "1 of 2 since the pass of 2026-11-22T10:00:00Z",
			func(f *migration.Facts) { f.Passes[0].Clean = false },
		},
		{
			"a sample behind both is not clean", forward(), migration.ConditionVerified, "0 of 2 since the pass of 2026-11-22T11:30:00Z",
			func(f *migration.Facts) {
				sample := verified(f.Passes[0].Phase, clock(11, 30), clock(11, 0))
				sample.Whole, sample.Clean = false, false
				f.Passes = append(f.Passes, sample)
			},
		},
		{"a sample", forward(), migration.ConditionVerified, "1 of 2 recorded", func(f *migration.Facts) { f.Passes[1].Whole = false }},
		{
			"two at once", forward(), migration.ConditionVerified, "1 of 2 recorded",
			func(f *migration.Facts) { f.Passes[0].Ended = f.Passes[1].Started.Add(time.Second) },
		},
		{
			"another process meanwhile", forward(), migration.ConditionVerified, "1 of 2 since the server process last changed",
			func(f *migration.Facts) { f.Passes[0].Process = "abcd" },
		},
		{
			"another process now", forward(), migration.ConditionVerified, "0 of 2 since the server process last changed",
			func(f *migration.Facts) { f.Process = "abcd" },
		},
		{
			"a process without name", forward(), migration.ConditionVerified, "the server does not tell which process it is",
			func(f *migration.Facts) {
				f.Process, f.Passes[0].Process, f.Passes[1].Process = "", "", ""
			},
		},
		{
			"a copying pass is no verification", forward(), migration.ConditionVerified, "1 of 2 recorded",
			func(f *migration.Facts) { f.Passes[1].Kind = migration.PassToNew },
		},
		{
			"the newest is judged by legacy", forward(), migration.ConditionVerified, "(the newest was in legacy)",
			func(f *migration.Facts) { f.Passes[1].Phase = migration.Legacy },
		},
		{
			"before dual write", fallbackOff, migration.ConditionVerified,
			"0 of 2 recorded in dual write or strict new (the newest was in read routing)",
			func(f *migration.Facts) {
				f.Passes[0].Phase, f.Passes[1].Phase = migration.ReadRouting, migration.ReadRouting
			},
		},
		{
			"judged by legacy", forward(), migration.ConditionVerified, "1 of 2 recorded",
			func(f *migration.Facts) { f.Passes[0].Phase = migration.Legacy },
		},
		{
			"judged by dual write", behind, migration.ConditionVerified, "1 of 2 recorded in ",
			func(f *migration.Facts) { f.Passes[0].Phase = migration.DualWrite },
		},
		{
			"a pass that nobody can read", forward(), migration.ConditionVerified, "1 recorded passes cannot be read",
			func(f *migration.Facts) { f.Unreadable = 1 },
		},
		{
			"a pass that nobody can read, on the way back", back, migration.ConditionCopiedBack, "1 recorded passes cannot be read",
			func(f *migration.Facts) { f.Unreadable = 1 },
		},
		{
			"old copies removed since", back, migration.ConditionCopiedBack, "old copies were removed until ",
			func(f *migration.Facts) { f.Retired = f.Now },
		},
		{
			"servers elsewhere", migration.Gates(), migration.ConditionServers, `4 of 5 live servers do not fit: "a" in `, nil,
		},
		{
			"a canary", forward(), migration.ConditionServers, `1 of 2 live servers do not fit: "c" in canary`,
			func(f *migration.Facts) {
				f.Servers = append(f.Servers[:1], migration.Server{ID: "c", Phase: migration.Canary})
			},
		},
		{
			"dual write", behind, migration.ConditionServers, `"d" in dual write`,
			func(f *migration.Facts) { f.Servers[0] = migration.Server{ID: "d", Phase: migration.DualWrite} },
		},
		{
			"strict new",
			[]migration.Gate{migration.GateRetire, migration.GateBack},
			migration.ConditionServers, `"d" in strict new`,
			func(f *migration.Facts) { f.Servers[0] = migration.Server{ID: "d", Phase: migration.StrictNew} },
		},
		{
			"new only", append(slices.Clone(fallbackOff), back...), migration.ConditionServers, `"d" in new only`,
			func(f *migration.Facts) { f.Servers[0] = migration.Server{ID: "d", Phase: migration.NewOnly} },
		},
		{
			"one that is gone", forward(), migration.ConditionServers,
			"a server in legacy may have served until 2026-11-22T10:00:31Z, and the pass that counts began at 2026-11-22T10:00:00Z",
			func(f *migration.Facts) {
				f.Seen[migration.Legacy] = migration.PhaseSeen{Last: clock(10, 0).Add(time.Second)}
			},
		},
		{
			"one that wrote behind its last beat", forward(), migration.ConditionServers, "a server in canary may have served until 2026-11-22T10:00:01Z",
			func(f *migration.Facts) {
				f.Seen[migration.Canary] = migration.PhaseSeen{Last: clock(10, 0).Add(time.Second - migration.ServerLife)}
			},
		},
		{
			"one in new only that is gone", back, migration.ConditionServers, "a server in new only may have served until 2026-11-22T10:01:30Z",
			func(f *migration.Facts) { f.Seen[migration.NewOnly] = migration.PhaseSeen{Last: clock(10, 1)} },
		},
		{
			"writers", forward(), migration.ConditionWriters, "4 jobs were written without rev since 2026-11-22T10:00:00Z",
			func(f *migration.Facts) { f.Passes[1].WithoutRev = 4 },
		},
		{
			"writers behind both", forward(), migration.ConditionWriters, "1 jobs were written without rev since 2026-11-22T11:00:00Z",
			func(f *migration.Facts) {
				third := verified(migration.Legacy, clock(11, 30), clock(11, 0))
				third.WithoutRev = 1
				f.Passes = append(f.Passes, third)
			},
		},
		{
			"nobody looked for writers", forward(), migration.ConditionWriters,
			"the pass of 2026-11-22T11:00:00Z did not look for writers since 2026-11-22T10:00:00Z",
			func(f *migration.Facts) { f.Passes[1].Since = time.Time{} },
		},
		{
			"a gap between looks for writers", forward(), migration.ConditionWriters, "did not look for writers since 2026-11-22T10:00:00Z",
			func(f *migration.Facts) { f.Passes[1].Since = clock(10, 1) },
		},
		{
			"a hit not long ago", forward(), migration.ConditionFallback, "59m0s",
			func(f *migration.Facts) {
				f.LastFallback = f.Now.Add(-59 * time.Minute)
				f.Seen[migration.DualWrite] = migration.PhaseSeen{Since: clock(6, 0), Last: f.Now}
				if f.Servers[0].Phase != migration.DualWrite { // it would have spoiled what those gates rely on
					f.Seen[migration.DualWrite] = migration.PhaseSeen{Since: clock(6, 0), Last: clock(9, 0)}
				}
			},
		},
		{
			"a longer quiet is asked for", forward(), migration.ConditionFallback, "without one of the 6h0m0s asked for: the last of 7 at 2026-11-22T07:00:00Z",
			func(f *migration.Facts) { f.Quiet = 6 * time.Hour },
		},
		{
			"nobody counted", fallbackOff, migration.ConditionFallback, "no server in dual write has counted them yet",
			func(f *migration.Facts) { f.Seen = nil },
		},
		{
			"counted not long enough", fallbackOff, migration.ConditionFallback, "59m0s of service in dual write without one of the 1h0m0s asked for: none counted",
			func(f *migration.Facts) {
				f.LastFallback, f.FallbackHits = time.Time{}, 0
				f.Seen[migration.DualWrite] = migration.PhaseSeen{Since: clock(8, 1), Last: clock(9, 0)}
			},
		},
		{
			"a hit behind the last beat", fallbackOff, migration.ConditionFallback, "0s of service",
			func(f *migration.Facts) { f.LastFallback = clock(9, 1) },
		},
		{"bare entries", behind, migration.ConditionQueue, "2 of 5 entries name no workspace", func(f *migration.Facts) { f.Queue.Bare = 2 }},
		{
			"entries not looked at", behind, migration.ConditionQueue, "only 5 of 6 entries were looked at",
			func(f *migration.Facts) { f.Queue.Entries = 6 },
		},
		{
			"bare entries among some", behind, migration.ConditionQueue, "1 of the 5 entries that were looked at name no workspace; 6 are queued",
			func(f *migration.Facts) { f.Queue.Entries, f.Queue.Bare = 6, 1 },
		},
		{
			"workers", behind, migration.ConditionWorkers, "4 connections take from a list: a, b, c, …",
			func(f *migration.Facts) { f.Workers = []string{"a", "b", "c", "d"} },
		},
		{
			"unknown workers", behind, migration.ConditionWorkers, "CLIENT LIST has to be permitted",
			func(f *migration.Facts) { f.WorkersKnown = false },
		},
		{"no pass back", back, migration.ConditionCopiedBack, "no pass of backfill --to old", func(f *migration.Facts) { f.Passes = nil }},
		{
			"a pass the other way", back, migration.ConditionCopiedBack, "no pass of backfill --to old",
			func(f *migration.Facts) { f.Passes[0].Kind = migration.PassToNew },
		},
		{
			"a pass of one workspace", back, migration.ConditionCopiedBack, "no pass of backfill --to old",
			func(f *migration.Facts) { f.Passes[0].Whole = false },
		},
		{
			"a pass back that is not clean", back, migration.ConditionCopiedBack, "the newest pass, of 2026-11-22T10:00:00Z, was not clean: made 9",
			func(f *migration.Facts) { f.Passes[0].Clean, f.Passes[0].Counts = false, map[string]int64{"made": 9} },
		},
		{
			"a pass back elsewhere", back, migration.ConditionCopiedBack, "was made in another server process",
			func(f *migration.Facts) { f.Process = "abcd" },
		},
		{
			"a pass back that nobody can place", back, migration.ConditionCopiedBack, "does not tell which process",
			func(f *migration.Facts) { f.Process, f.Passes[0].Process = "", "" },
		},
	} {
		for _, g := range c.gates {
			t.Run(c.name+"/"+g.String(), func(t *testing.T) {
				f := openFacts(g)
				if c.change == nil {
					f.Servers = elsewhere(g)
				} else {
					c.change(&f)
				}
				state := migration.Decide(g, f)
				require.False(t, state.Open)
				require.Len(t, state.Reasons, 1, "%v", state.Reasons)
				require.Equal(t, c.condition, state.Reasons[0].Condition)
				require.Contains(t, state.Reasons[0].Text, c.text)
				if c.change == nil {
					require.Regexp(t, `: "a" in [a-z ]+, "c" in [a-z ]+, "d" in none, …$`, state.Reasons[0].Text)
				}
			})
			if closed[g] == nil {
				closed[g] = map[migration.Condition]bool{}
			}
			closed[g][c.condition] = true
		}
	}
	for _, g := range migration.Gates() {
		require.Len(t, closed[g], len(g.Conditions()), "each condition of %s closes it", g)
	}
}

// elsewhere are five servers of which one fits.
func elsewhere(g migration.Gate) []migration.Server {
	wrong := migration.Legacy
	fits := judgedBy(g)
	if g == migration.GateBack {
		wrong, fits = migration.NewOnly, migration.Legacy
	}
	var out []migration.Server
	for i, p := range []migration.Phase{wrong, fits, wrong, 0, wrong} {
		out = append(out, migration.Server{ID: string(rune('a' + i)), Phase: p})
	}
	return out
}

// TestNeighbouringPhasesRoll: servers on both sides of a step leave its gate as it is.
func TestNeighbouringPhasesRoll(t *testing.T) {
	t.Parallel()
	for g, fit := range map[migration.Gate][]migration.Phase{
		migration.GateFallbackOff: {migration.DualWrite, migration.StrictNew},
		migration.GateNewOnly:     {migration.StrictNew, migration.NewOnly},
		migration.GateRetire:      {migration.NewOnly},
		migration.GateBack:        {migration.Legacy, migration.Canary, migration.ReadRouting, migration.DualWrite},
	} {
		for _, p := range migration.Phases() {
			f := openFacts(g)
			f.Servers = []migration.Server{{ID: "a", Phase: p}}
			require.Equal(t, slices.Contains(fit, p), migration.Decide(g, f).Open, "%s, %s", g, p)
		}
		f := openFacts(g)
		f.Servers = nil
		for _, p := range fit {
			f.Servers = append(f.Servers, migration.Server{ID: "a", Phase: p})
			f.Seen[p] = migration.PhaseSeen{Since: clock(6, 0), Last: clock(12, 0)}
		}
		require.True(t, migration.Decide(g, f).Open, "%s: all of them together, since ever", g)
	}
}

// TestWhatDoesNotCloseAGate: passes that say nothing about a gate, and what lies before the passes that do.
func TestWhatDoesNotCloseAGate(t *testing.T) {
	t.Parallel()
	for _, g := range forward() {
		f := openFacts(g)
		earlier := verified(judgedBy(g), clock(8, 0), time.Time{})
		earlier.Clean, earlier.WithoutRev = false, 12
		of := verified(migration.Legacy, clock(11, 30), clock(11, 0))
		of.Clean = false // as legacy sees it
		sample := verified(judgedBy(g), clock(10, 30), time.Time{})
		sample.Whole = false
		f.Passes = append([]migration.RecordedPass{of, sample}, append(f.Passes, earlier)...) // in any order
		f.Seen[migration.Legacy] = migration.PhaseSeen{Since: clock(1, 0), Last: clock(9, 59).Add(30 * time.Second)}
		require.Empty(t, migration.Decide(g, f).Reasons, "%s", g)
		require.Equal(t, clock(11, 30), f.RevSince(), "the next one looks for writers from the newest whole one on")

		third := verified(judgedBy(g), clock(11, 40), clock(11, 30))
		f.Passes = append(f.Passes, third)
		require.Empty(t, migration.Decide(g, f).Reasons, "%s: a third pass moves what it relies on", g)
	}
}

func TestWritersAreNamedThoughNoTwoPassesAreClean(t *testing.T) {
	t.Parallel()
	f := openFacts(migration.GateNewOnly)
	f.Passes[1].Clean, f.Passes[1].WithoutRev = false, 3
	var named []migration.Condition
	for _, r := range migration.Decide(migration.GateNewOnly, f).Reasons {
		named = append(named, r.Condition)
	}
	require.Equal(t, []migration.Condition{migration.ConditionVerified, migration.ConditionWriters}, named)
}

func TestRevSinceIsOfThisProcess(t *testing.T) {
	t.Parallel()
	f := openFacts(migration.GateNewOnly)
	require.Equal(t, clock(11, 0), f.RevSince())
	f.Process = "abcd"
	require.True(t, f.RevSince().IsZero())
}

func TestClosedGatesSayWhy(t *testing.T) {
	t.Parallel()
	f := openFacts(migration.GateRetire)
	f.Queue.Bare, f.Workers = 2, []string{"127.0.0.1:4"}
	err := &migration.ClosedError{GateState: migration.Decide(migration.GateRetire, f)}
	require.EqualError(t, err, `the gate "retire" is closed: bare queue entries: 2 of 5 entries name no workspace; `+
		`predecessor's workers: 1 connection takes from a list: 127.0.0.1:4`)
	text, jsonErr := json.Marshal(err.GateState)
	require.NoError(t, jsonErr)
	require.JSONEq(t, `{"gate": "retire", "open": false, "reasons": [
		{"condition": "bare queue entries", "text": "2 of 5 entries name no workspace"},
		{"condition": "predecessor's workers", "text": "1 connection takes from a list: 127.0.0.1:4"}]}`, string(text))
}

func TestClosedGatesNameAConditionOnce(t *testing.T) {
	t.Parallel()
	f := openFacts(migration.GateRetire)
	require.Equal(t, "open", migration.Decide(migration.GateRetire, f).Text())
	require.Empty(t, migration.Decide(migration.GateRetire, f).ClosedBy())
	f.Seen[migration.Legacy] = migration.PhaseSeen{Last: clock(11, 0)}
	f.Seen[migration.Canary] = migration.PhaseSeen{Last: clock(11, 0)}
	f.WorkersKnown = false
	state := migration.Decide(migration.GateRetire, f)
	require.Len(t, state.Reasons, 3)
	require.Equal(t, []migration.Condition{migration.ConditionServers, migration.ConditionWorkers}, state.ClosedBy())
}

func TestOnlyStrictNewIsWarnedOf(t *testing.T) {
	t.Parallel()
	for _, p := range migration.Phases() {
		g, ok := migration.GateInto(p)
		require.Equal(t, p == migration.StrictNew, ok)
		if ok {
			require.Equal(t, migration.GateFallbackOff, g)
		}
	}
}

func TestPassOfBackfill(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		jobs  map[migration.CopyOutcome]int64
		clean bool
	}{
		"nothing":                  {nil, true},
		"equal and nothing to do":  {map[migration.CopyOutcome]int64{migration.CopyIdentical: 4, migration.CopySingle: 3, migration.CopyAbsent: 1}, true},
		"made":                     {map[migration.CopyOutcome]int64{migration.CopyMade: 1}, false},
		"ttl":                      {map[migration.CopyOutcome]int64{migration.CopyTTL: 1}, false},
		"conflict":                 {map[migration.CopyOutcome]int64{migration.CopyConflict: 1}, false},
		"foreign":                  {map[migration.CopyOutcome]int64{migration.CopyForeign: 1}, false},
		"a count of none is clean": {map[migration.CopyOutcome]int64{migration.CopyMade: 0}, true},
	} {
		p := migration.PassOfBackfill(migration.Old, migration.BackfillCounts{
			Jobs: c.jobs, Strange: map[migration.KeyClass]int64{migration.KeyNotAJob: 5},
		})
		require.Equal(t, c.clean, p.Clean, name)
		require.Equal(t, c.clean, len(p.Counts) == 0, name)
		require.Equal(t, migration.PassToOld, p.Kind)
		require.False(t, p.Whole, "that is for who ran it to say")
		var jobs int64
		for _, n := range c.jobs {
			jobs += n
		}
		require.Equal(t, jobs, p.Jobs, name)
	}
	require.Equal(t, migration.PassToNew, migration.PassOfBackfill(migration.New, migration.BackfillCounts{}).Kind)
}

func TestPassOfVerify(t *testing.T) {
	t.Parallel()
	r := migration.VerifyReport{
		Process: "one", Sample: 1, Started: clock(9, 0), Ended: clock(9, 30), Jobs: 7, RevSince: clock(8, 0), WithoutRev: 2,
		Differences: map[migration.DifferenceClass]migration.DifferenceTally{migration.DifferenceGhost: {Count: 3}},
	}
	want := migration.RecordedPass{
		Kind: migration.PassVerify, Phase: migration.StrictNew, Process: "one", Started: clock(9, 0), Ended: clock(9, 30),
		Whole: true, Jobs: 7, Counts: map[string]int64{"ghost": 3}, Accepted: map[string]int64{}, Since: clock(8, 0), WithoutRev: 2,
	}
	require.Equal(t, want, migration.PassOfVerify(migration.StrictNew, r, nil))
	want.Accepted, want.Clean = map[string]int64{"ghost": 4}, true
	accepted := map[migration.DifferenceClass]int64{migration.DifferenceGhost: 4}
	require.Equal(t, want, migration.PassOfVerify(migration.StrictNew, r, accepted))
	r.Sample, want.Whole = 2, false
	require.Equal(t, want, migration.PassOfVerify(migration.StrictNew, r, accepted))
	r.Sample, r.Workspace = 1, "acme"
	require.Equal(t, want, migration.PassOfVerify(migration.StrictNew, r, accepted))
}

func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	p := verified(migration.StrictNew, clock(10, 0), clock(9, 0))
	p.Counts, p.Accepted, p.WithoutRev = map[string]int64{"foreign": 2}, map[string]int64{"foreign": 2}, 1
	text, err := json.Marshal(p)
	require.NoError(t, err)
	require.Contains(t, string(text), `"kind":"verify","phase":"strict new"`)
	p.Since = time.Time{}
	text, err = json.Marshal(p)
	require.NoError(t, err)
	require.NotContains(t, string(text), "0001-01-01")
	for _, p := range []migration.RecordedPass{p, migration.PassOfBackfill(migration.Old, migration.BackfillCounts{})} {
		text, err := json.Marshal(p)
		require.NoError(t, err)
		var back migration.RecordedPass
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, p, back, "no pass but a verification has a phase")
	}
	for _, unknown := range []interface{ UnmarshalText([]byte) error }{
		new(migration.Phase), new(migration.PassKind), new(migration.RetireOutcome),
	} {
		require.Error(t, unknown.UnmarshalText([]byte("none")))
	}
}

func names[T fmt.Stringer](of []T) (out []string) {
	for _, one := range of {
		out = append(out, one.String())
	}
	return out
}

func TestNames(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"fallback off", "new only", "retire", "back"}, names(migration.Gates()))
	require.Equal(t, []string{"verify", "to new", "to old"}, names(migration.PassKinds()))
	require.Equal(t, []string{"execute", "force", "record", "accept"}, names([]migration.AuditAction{
		migration.AuditExecute, migration.AuditForce, migration.AuditRecord, migration.AuditAccept,
	}))
	require.Equal(t, []string{
		"absent", "removed", "alone", "fresher", "unlike", "ttl", "conflict", "foreign", "contradiction", "wrong-type",
	}, names(migration.RetireOutcomes()))
	seen := map[string]bool{"none": true}
	for c := migration.ConditionVerified; c <= migration.ConditionCopiedBack; c++ {
		require.False(t, seen[c.String()])
		seen[c.String()] = true
	}
	for _, none := range []fmt.Stringer{migration.Gate(0), migration.Condition(99), migration.PassKind(0), migration.AuditAction(0)} {
		require.Equal(t, "none", none.String())
	}
	require.Empty(t, migration.Gate(0).Conditions())
	for _, o := range migration.RetireOutcomes() {
		var back migration.RetireOutcome
		require.NoError(t, back.UnmarshalText([]byte(o.String())))
		require.Equal(t, o, back)
		require.Equal(t, o > migration.RetireRemoved, o.Kept())
	}
}

func TestJobCountsStandForTheWhole(t *testing.T) {
	t.Parallel()
	var c migration.JobCounts
	c.Add([]migration.Held{{Old: true}, {New: true}, {Old: true, New: true}, {Old: true, New: true}, {}},
		[]migration.StrangeKey{{Key: "ai:jobs:"}}, 0b10)
	require.Equal(t, int64(1), c.Old)
	require.Equal(t, int64(1), c.New)
	require.Equal(t, int64(2), c.Both)
	require.Equal(t, int64(1), c.Strange)
	require.InDelta(t, 0.25, c.Fraction, 1e-9)
	require.Equal(t, migration.JobCounts{Old: 4, New: 4, Both: 8, Strange: 4, Fraction: 0.25}, c.Whole())
	c.Add([]migration.Held{{Old: true}}, nil, 0)
	require.Equal(t, migration.JobCounts{Old: 2, New: 1, Both: 2, Strange: 1, Fraction: 1}, c)
	require.Equal(t, c, c.Whole())
}

func TestRetireCountsKeepAccountOfWhatStays(t *testing.T) {
	t.Parallel()
	var c migration.RetireCounts
	require.Zero(t, c.Kept())
	c.Add([]migration.Retired{
		{Outcome: migration.RetireRemoved, Entries: 2}, {Outcome: migration.RetireAbsent}, {Outcome: migration.RetireForeign},
	}, []migration.StrangeKey{{Class: migration.KeyWrongType}})
	require.Equal(t, int64(4), c.Scanned)
	require.Equal(t, int64(2), c.Entries)
	require.Equal(t, int64(2), c.Kept())
}

// TestGatesSeeWhatOverlapsThePassesThatCount: neither what a longer pass found meanwhile, nor a writer whose trace a copy
// has mended, nor a clock that was set back is forgotten.
func TestGatesSeeWhatOverlapsThePassesThatCount(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(*migration.Facts)
		says  string
	}{
		"a longer pass that found differences": {
			func(f *migration.Facts) {
				first := f.Passes[len(f.Passes)-1]
				longer := first
				longer.Started, longer.Ended = first.Started.Add(-2*time.Hour), first.Started.Add(time.Second)
				longer.Clean, longer.Counts = false, map[string]int64{"missing": 3}
				f.Passes = append(f.Passes, longer)
			},
			"0 of 2 since the pass that ended at .*, which left differences: missing 3",
		},
		"a writer whose change was copied since": {
			func(f *migration.Facts) { f.WithoutRev = f.Now.Add(-time.Second) },
			"a job that was written without rev was found at",
		},
		"a clock that was set back": {
			func(f *migration.Facts) { f.Now = f.Passes[len(f.Passes)-1].Started.Add(-time.Minute) },
			"0 of 2 since the storage's clock was set back",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := openFacts(migration.GateFallbackOff)
			require.True(t, migration.Decide(migration.GateFallbackOff, f).Open)
			c.spoil(&f)
			s := migration.Decide(migration.GateFallbackOff, f)
			require.False(t, s.Open)
			var told []string
			for _, r := range s.Reasons {
				told = append(told, r.Text)
			}
			require.Regexp(t, c.says, strings.Join(told, "\n"))
		})
	}
}
