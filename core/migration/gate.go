package migration

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Gate is a step of the migration that is to be taken only where facts show that nothing is lost by it.
type Gate uint8

// The gates.
const (
	// GateFallbackOff leads to strict new: reads no longer look at the old schema.
	GateFallbackOff Gate = iota + 1
	// GateNewOnly leads to new only: the old schema is no longer written.
	GateNewOnly
	// GateRetire leads to the end of the old copies.
	GateRetire
	// GateBack leads back to a phase that reads the old schema alone.
	GateBack
)

// Gates lists them all.
func Gates() []Gate { return []Gate{GateFallbackOff, GateNewOnly, GateRetire, GateBack} }

// String gives the name that operators know g by.
func (g Gate) String() string {
	switch g {
	case GateFallbackOff:
		return "fallback off"
	case GateNewOnly:
		return "new only"
	case GateRetire:
		return "retire"
	case GateBack:
		return "back"
	}
	return "none"
}

// MarshalText gives the same name.
func (g Gate) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// fits tells whether a live server in phase p leaves the gate open. Before a step stand servers of the phase that it
// leaves and of the one that it leads to: neighbours, so that a deploy may roll. Behind the last step forward none writes
// or reads old copies; on the way back all must write them, and none may be blind to them.
func (g Gate) fits(p Phase) bool {
	switch g {
	case GateFallbackOff:
		return p == DualWrite || p == StrictNew
	case GateNewOnly:
		return p == StrictNew || p == NewOnly
	case GateRetire:
		return p == NewOnly
	case GateBack:
		return p.ReadsOld()
	}
	return false
}

// spoils tells whether a server in phase p, though it is gone, has undone what a pass before it showed.
func (g Gate) spoils(p Phase) bool {
	if g == GateBack {
		return !p.WritesOld()
	}
	return !g.fits(p)
}

// judges tells whether a pass that was judged by phase p speaks for the gate. In new only a verification is content with
// what new holds, so that it speaks for the last step alone.
func (g Gate) judges(p Phase) bool {
	switch g {
	case GateFallbackOff:
		return p == DualWrite || p == StrictNew
	case GateNewOnly:
		return p == StrictNew
	case GateRetire:
		return p == NewOnly
	case GateBack:
	}
	return false
}

// Condition is one of the things that keep a gate closed.
type Condition uint8

// The conditions.
const (
	// ConditionVerified asks for two clean recorded verifications in a row, of everything, in the server process that runs.
	ConditionVerified Condition = iota + 1
	// ConditionServers asks for fitting flags of all live servers, and of those that were live since what the gate relies on.
	ConditionServers
	// ConditionWriters asks that nobody has written without rev since the first of the two verifications began.
	ConditionWriters
	// ConditionFallback asks that no read has fallen back to an old copy for a time.
	ConditionFallback
	// ConditionQueue asks for a queue without bare entries, which only an old copy tells the workspace of.
	ConditionQueue
	// ConditionWorkers asks that no worker of the predecessor takes entries.
	ConditionWorkers
	// ConditionCopiedBack asks for a clean recorded pass that copied to the old schema.
	ConditionCopiedBack
)

// String gives the name that reports use.
func (c Condition) String() string {
	switch c {
	case ConditionVerified:
		return "two clean passes"
	case ConditionServers:
		return "servers"
	case ConditionWriters:
		return "writers without rev"
	case ConditionFallback:
		return "fallback hits"
	case ConditionQueue:
		return "bare queue entries"
	case ConditionWorkers:
		return "predecessor's workers"
	case ConditionCopiedBack:
		return "copied back"
	}
	return "none"
}

// MarshalText gives the same name.
func (c Condition) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Conditions lists what g asks for.
func (g Gate) Conditions() []Condition {
	switch g {
	case GateFallbackOff:
		return []Condition{ConditionVerified, ConditionServers, ConditionWriters, ConditionFallback}
	case GateNewOnly, GateRetire:
		return []Condition{
			ConditionVerified, ConditionServers, ConditionWriters, ConditionFallback, ConditionQueue, ConditionWorkers,
		}
	case GateBack:
		return []Condition{ConditionServers, ConditionCopiedBack}
	}
	return nil
}

// GateInto gives the gate that a server passes which starts in p, ok false where it passes none.
func GateInto(p Phase) (g Gate, ok bool) { return GateFallbackOff, p == StrictNew }

// DefaultQuiet is for how long no read may have fallen back to an old copy, where nothing else is asked for.
const DefaultQuiet = time.Hour

// Queue says what waits for workers, all states together: waiting, delayed and leased.
type Queue struct {
	Entries int64 `json:"entries"`
	Looked  int64 `json:"looked"` // how many of them were looked at
	Bare    int64 `json:"bare"`   // of those, how many name no workspace
}

// Facts are all that gates are decided from. Times are those of the storage's clock.
type Facts struct {
	Now          time.Time
	Process      string // the storage's server process; empty where it does not tell
	Passes       []RecordedPass
	Servers      []Server            // the live ones
	Seen         map[Phase]PhaseSeen // of phases that ever had a live server
	FallbackHits int64               // ever
	LastFallback time.Time           // zero for never
	Unreadable   int                 // recorded passes that this version cannot read
	Retired      time.Time           // when an old copy was last removed; zero for never
	WithoutRev   time.Time           // when it was last seen that somebody had written without rev over a rev; zero for never
	Quiet        time.Duration       // for how long no read may have fallen back; 0 for DefaultQuiet
	Queue        Queue
	Workers      []string // connections that take from a list and are none of Relay's, named for operators
	WorkersKnown bool     // false where the storage would not tell, or was not asked
}

// Reason says why a condition keeps a gate closed.
type Reason struct {
	Condition Condition `json:"condition"`
	Text      string    `json:"text"`
}

// GateState is what was decided about a gate: it is open where nothing keeps it closed.
type GateState struct {
	Gate    Gate     `json:"gate"`
	Open    bool     `json:"open"`
	Reasons []Reason `json:"reasons,omitempty"`
}

// ClosedBy names each condition that keeps the gate closed once.
func (s GateState) ClosedBy() []Condition {
	conditions := make([]Condition, len(s.Reasons))
	for i, r := range s.Reasons {
		conditions[i] = r.Condition
	}
	return slices.Compact(conditions) // reasons of one condition follow each other
}

// Text says whether the gate is open, and if not why.
func (s GateState) Text() string {
	if s.Open {
		return "open"
	}
	texts := make([]string, len(s.Reasons))
	for i, r := range s.Reasons {
		texts[i] = r.Condition.String() + ": " + r.Text
	}
	return "closed: " + strings.Join(texts, "; ")
}

// ClosedError refuses a step because its gate is closed.
type ClosedError struct{ GateState }

// Error names every condition that keeps the gate closed.
func (e *ClosedError) Error() string {
	return fmt.Sprintf("the gate %q is %s", e.Gate, e.Text())
}

// Decide tells whether facts open g, and names every condition that they do not meet: of all of the gate's, or of those
// that are given.
func Decide(g Gate, f Facts, only ...Condition) GateState {
	s := GateState{Gate: g}
	for _, c := range g.Conditions() {
		if len(only) > 0 && !slices.Contains(only, c) {
			continue
		}
		for _, text := range f.unmet(g, c) {
			s.Reasons = append(s.Reasons, Reason{c, text})
		}
	}
	s.Open = len(s.Reasons) == 0
	return s
}

// unmet says what keeps a condition from being met.
func (f Facts) unmet(g Gate, c Condition) []string {
	switch c {
	case ConditionVerified:
		_, why := f.verified(g)
		return why
	case ConditionServers:
		return f.servers(g)
	case ConditionWriters:
		return f.writers(g)
	case ConditionFallback:
		return f.fallback(g)
	case ConditionQueue:
		return f.queue()
	case ConditionWorkers:
		return f.workers()
	case ConditionCopiedBack:
		_, why := f.copiedBack()
		return why
	}
	return nil
}

func texts(format string, args ...any) []string { return []string{fmt.Sprintf(format, args...)} }

func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// verified gives the first of the newest two verifications in a row that are clean and speak for g, and else why there
// are none. A partial pass cannot show that all is well, but it can show that something is not.
func (f Facts) verified(g Gate) (first RecordedPass, why []string) {
	switch {
	case f.Unreadable > 0:
		return first, f.unreadable()
	case f.Process == "":
		return first, texts("the server does not tell which process it is")
	}
	var second RecordedPass
	for _, p := range f.newestFirst() {
		switch {
		case p.Kind != PassVerify || !g.judges(p.Phase):
		case p.Process != f.Process:
			return first, texts("%d of 2 since the server process last changed", found(second))
		case p.Ended.After(f.Now):
			return first, texts("%d of 2 since the storage's clock was set back", found(second))
		case !p.Clean:
			return first, texts("%d of 2 since the pass of %s, which left differences: %s", found(second), at(p.Started), ByClass(p.Counts))
		case !p.Whole:
		case second.Started.IsZero():
			second = p
		case p.Ended.After(second.Started):
			// Two at once show what one does.
		default:
			return p, f.differedSince(g, p)
		}
	}
	return first, texts("%d of 2 recorded in %s%s", found(second), g.judging(), f.newestElsewhere(g))
}

// unreadable keeps a gate closed: what cannot be read may be the pass that found a difference.
func (f Facts) unreadable() []string {
	return texts("%d recorded passes cannot be read", f.Unreadable)
}

// judging names the phases in which a verification speaks for g.
func (g Gate) judging() string {
	var named []string
	for _, p := range Phases() {
		if g.judges(p) {
			named = append(named, p.String())
		}
	}
	return strings.Join(named, " or ")
}

// newestElsewhere names the phase of the newest verification, where that does not speak for g: else it would seem to be
// lost.
func (f Facts) newestElsewhere(g Gate) string {
	for _, p := range f.newestFirst() {
		if p.Kind != PassVerify {
			continue
		}
		if g.judges(p.Phase) {
			break
		}
		return fmt.Sprintf(" (the newest was in %s)", p.Phase)
	}
	return ""
}

// differedSince tells of passes that were under way when the first of two clean ones began, and found differences.
func (f Facts) differedSince(g Gate, first RecordedPass) []string {
	for _, p := range f.Passes {
		if p.Kind == PassVerify && g.judges(p.Phase) && !p.Clean && p.Ended.After(first.Started) {
			return texts("0 of 2 since the pass that ended at %s, which left differences: %s", at(p.Ended), ByClass(p.Counts))
		}
	}
	return nil
}

func found(second RecordedPass) int {
	if second.Started.IsZero() {
		return 0
	}
	return 1
}

// newestFirst orders the passes by their start.
func (f Facts) newestFirst() []RecordedPass {
	return slices.SortedStableFunc(slices.Values(f.Passes), func(a, b RecordedPass) int { return b.Started.Compare(a.Started) })
}

// copiedBack gives the newest pass that shows the old schema to be whole.
func (f Facts) copiedBack() (RecordedPass, []string) {
	if f.Unreadable > 0 {
		return RecordedPass{}, f.unreadable()
	}
	for _, p := range f.newestFirst() {
		switch {
		case p.Kind != PassToOld || !p.Whole:
		case f.Process == "":
			return RecordedPass{}, texts("the server does not tell which process it is")
		case p.Process != f.Process:
			return RecordedPass{}, texts("the newest pass, of %s, was made in another server process", at(p.Started))
		case p.Ended.After(f.Now):
			return RecordedPass{}, texts("the storage's clock was set back since the newest pass, of %s", at(p.Started))
		case !p.Started.After(f.Retired):
			return RecordedPass{}, texts("old copies were removed until %s, and the newest pass is of %s", at(f.Retired), at(p.Started))
		case !p.Clean:
			return RecordedPass{}, texts("the newest pass, of %s, was not clean: %s", at(p.Started), ByClass(p.Counts))
		default:
			return p, nil
		}
	}
	return RecordedPass{}, texts("no pass of backfill --to old was recorded")
}

// namedServers is how many of the servers that keep a gate closed are named.
const namedServers = 3

func (f Facts) servers(g Gate) (why []string) {
	var elsewhere []string
	for _, s := range f.Servers {
		if !g.fits(s.Phase) {
			elsewhere = append(elsewhere, fmt.Sprintf("%q in %s", s.ID, s.Phase))
		}
	}
	if n := len(elsewhere); n > 0 {
		slices.Sort(elsewhere)
		why = texts("%d of %d live servers do not fit: %s%s", n, len(f.Servers),
			strings.Join(elsewhere[:min(n, namedServers)], ", "), map[bool]string{true: ", …"}[n > namedServers])
	}
	since, none := f.copiedBack()
	if g != GateBack {
		since, none = f.verified(g)
	}
	if none != nil {
		return why // there is no pass that a server could have spoiled
	}
	for _, p := range slices.Sorted(maps.Keys(f.Seen)) {
		// What a server did after its last beat is vouched for by nothing but the life of that beat.
		if until := f.Seen[p].Last.Add(ServerLife); g.spoils(p) && until.After(since.Started) {
			why = append(why, fmt.Sprintf("a server in %s may have served until %s, and the pass that counts began at %s",
				p, at(until), at(since.Started)))
		}
	}
	return why
}

// writers looks at all whole verifications since the first of the two that count: between them they must have looked
// for writers all the time.
func (f Facts) writers(g Gate) []string {
	first, none := f.verified(g)
	if none != nil {
		if p := f.newestWhole(); p.WithoutRev > 0 {
			return texts("%d jobs were written without rev since %s", p.WithoutRev, at(p.Since))
		}
		return nil // nothing is known of writers, and nothing opens the gate either
	}
	covered := first.Started
	for _, p := range slices.Backward(f.newestFirst()) {
		switch {
		case p.Kind != PassVerify || !p.Whole || p.Process != f.Process || !p.Started.After(first.Started):
		case p.WithoutRev > 0:
			return texts("%d jobs were written without rev since %s", p.WithoutRev, at(p.Since))
		case p.Since.IsZero() || p.Since.After(covered):
			return texts("the pass of %s did not look for writers since %s", at(p.Started), at(covered))
		default:
			covered = p.Started
		}
	}
	if f.WithoutRev.After(first.Started) {
		return texts("a job that was written without rev was found at %s", at(f.WithoutRev))
	}
	return nil
}

// newestWhole gives the newest whole verification of the process that runs, the zero pass where there is none.
func (f Facts) newestWhole() RecordedPass {
	for _, p := range f.newestFirst() {
		if p.Kind == PassVerify && p.Whole && p.Process == f.Process {
			return p
		}
	}
	return RecordedPass{}
}

// RevSince gives the time since which a new verification has to look for writers without rev: the start of the newest
// whole one, the zero time where there is none in this process.
func (f Facts) RevSince() time.Time { return f.newestWhole().Started }

// fallback asks, before the fallback goes, that servers which have one ran for the whole quiet time; a counter that
// nobody counts in shows nothing. Later it asks for the quiet time alone.
func (f Facts) fallback(g Gate) []string {
	quiet := f.Quiet
	if quiet == 0 {
		quiet = DefaultQuiet
	}
	hits := "none counted"
	if !f.LastFallback.IsZero() {
		hits = fmt.Sprintf("the last of %d at %s", f.FallbackHits, at(f.LastFallback))
	}
	if g != GateFallbackOff {
		if gone := f.Now.Sub(f.LastFallback); !f.LastFallback.IsZero() && gone < quiet {
			return texts("%s without one of the %s asked for: %s", gone.Round(time.Second), quiet, hits)
		}
		return nil
	}
	watched, ok := f.Seen[DualWrite]
	if !ok {
		return texts("no server in %s has counted them yet", DualWrite)
	}
	from, until := watched.Since, watched.Last
	if f.LastFallback.After(from) {
		from = f.LastFallback
	}
	if gone := max(0, until.Sub(from)); gone < quiet {
		return texts("%s of service in %s without one of the %s asked for: %s", gone.Round(time.Second), DualWrite, quiet, hits)
	}
	return nil
}

func (f Facts) queue() []string {
	q := f.Queue
	switch {
	case q.Bare > 0 && q.Looked < q.Entries:
		return texts("%d of the %d entries that were looked at name no workspace; %d are queued", q.Bare, q.Looked, q.Entries)
	case q.Bare > 0:
		return texts("%d of %d entries name no workspace", q.Bare, q.Entries)
	case q.Looked < q.Entries:
		return texts("only %d of %d entries were looked at", q.Looked, q.Entries)
	}
	return nil
}

func (f Facts) workers() []string {
	switch n := len(f.Workers); {
	case !f.WorkersKnown:
		return texts("the server does not tell its connections: CLIENT LIST has to be permitted")
	case n > 0:
		return texts("%s from a list: %s%s", map[bool]string{true: "1 connection takes", false: fmt.Sprintf("%d connections take", n)}[n == 1],
			strings.Join(f.Workers[:min(n, namedServers)], ", "), map[bool]string{true: ", …"}[n > namedServers])
	}
	return nil
}
