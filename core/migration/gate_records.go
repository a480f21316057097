package migration

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MarshalText gives the name of p.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads such a name.
func (p *Phase) UnmarshalText(text []byte) (err error) {
	*p, err = named(Phases(), text)
	return err
}

// Heartbeats: a server beats every ServerBeat, and counts as live for ServerLife after it last did.
const (
	ServerBeat = 10 * time.Second
	ServerLife = 30 * time.Second
)

// Server is what a server says of itself for as long as it lives.
type Server struct {
	ID      string    `json:"id"` // unlike any other's
	Phase   Phase     `json:"phase"`
	Version string    `json:"version"`
	Started time.Time `json:"started_at"` // by its own clock
}

// PhaseSeen says when a phase had live servers.
type PhaseSeen struct {
	Since time.Time // from here on there always was one, but for gaps that no beat outlived
	Last  time.Time // the last beat of any
}

// PassKind says what a recorded pass did.
type PassKind uint8

// The kinds.
const (
	PassVerify PassKind = iota + 1 // compared
	PassToNew                      // copied to the new schema
	PassToOld                      // copied to the old schema
)

// PassKinds lists them all.
func PassKinds() []PassKind { return []PassKind{PassVerify, PassToNew, PassToOld} }

// String gives the name that reports use.
func (k PassKind) String() string {
	switch k {
	case PassVerify:
		return "verify"
	case PassToNew:
		return "to new"
	case PassToOld:
		return "to old"
	}
	return "none"
}

// MarshalText gives the same name.
func (k PassKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads such a name.
func (k *PassKind) UnmarshalText(text []byte) (err error) {
	*k, err = named(PassKinds(), text)
	return err
}

// RecordedPass is what gates know of a pass through all stored jobs. Times are those of the storage's clock.
type RecordedPass struct {
	Kind     PassKind         `json:"kind"`
	Phase    Phase            `json:"phase,omitzero"` // that a verification judged by; of no other pass
	Process  string           `json:"process"`        // the server process that the whole pass went through; as KeyBatch names it
	Started  time.Time        `json:"started_at"`
	Ended    time.Time        `json:"ended_at"`
	Whole    bool             `json:"whole"` // neither a sample nor one workspace
	Jobs     int64            `json:"jobs"`  // that were compared, or copied
	Counts   map[string]int64 `json:"counts"`
	Accepted map[string]int64 `json:"accepted,omitempty"`
	Clean    bool             `json:"clean"` // no difference but those accepted; of a pass that copies, nothing to copy either

	// WithoutRev is how many jobs a verification met with a copy that has no rev and whose latest time lies behind Since:
	// the start of the whole one before it, as Facts.RevSince gave it. Zero Since means that it did not look.
	Since      time.Time `json:"since,omitzero"`
	WithoutRev int64     `json:"without_rev"`
}

// PassOfVerify gives what a verification shows, of which so many differences of each class were accepted.
func PassOfVerify(p Phase, r VerifyReport, accepted map[DifferenceClass]int64) RecordedPass {
	pass := RecordedPass{
		Kind: PassVerify, Phase: p, Process: r.Process, Started: r.Started, Ended: r.Ended, Whole: r.Whole(), Jobs: r.Jobs,
		Counts: map[string]int64{}, Accepted: map[string]int64{}, Clean: r.Clean(accepted), Since: r.RevSince, WithoutRev: r.WithoutRev,
	}
	for class, t := range r.Differences {
		pass.Counts[class.String()] = t.Count
	}
	for class, n := range accepted {
		pass.Accepted[class.String()] = n
	}
	return pass
}

// PassOfBackfill gives what a pass that copied shows: the caller sets when and where it ran, and Whole where it went from
// the first key to the last, for all workspaces and without a checkpoint of another run. Keys that stand for no job keep
// no job from the schema that was copied to.
func PassOfBackfill(to Schema, c BackfillCounts) RecordedPass {
	p := RecordedPass{Kind: PassToNew, Clean: BackfillCounts{Jobs: c.Jobs}.Clean(), Counts: map[string]int64{}}
	if to == Old {
		p.Kind = PassToOld
	}
	for outcome, n := range c.Jobs {
		p.Jobs += n
		if n > 0 && (outcome.Changed() || outcome.Left()) {
			p.Counts[outcome.String()] += n
		}
	}
	return p
}

// ByClass writes counts by class down, those that are not zero. A class is stored text where the counts were: it is quoted
// where it is not a plain name.
func ByClass(counts map[string]int64) string {
	var parts []string
	for _, class := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[class]; n > 0 {
			if strings.Trim(class, "abcdefghijklmnopqrstuvwxyz- ") != "" {
				class = strconv.Quote(class)
			}
			parts = append(parts, fmt.Sprintf("%s %d", class, n))
		}
	}
	if len(parts) == 0 {
		return "nothing by class"
	}
	return strings.Join(parts, ", ")
}

// AuditAction is what an operator did that the migration keeps account of.
type AuditAction uint8

// The actions.
const (
	AuditExecute AuditAction = iota + 1
	AuditForce
	AuditRecord
	AuditAccept
)

// String gives the name that reports use.
func (a AuditAction) String() string {
	switch a {
	case AuditExecute:
		return "execute"
	case AuditForce:
		return "force"
	case AuditRecord:
		return "record"
	case AuditAccept:
		return "accept"
	}
	return "none"
}

// Operator is who runs a command, as the machine that it runs on knows them.
type Operator struct{ User, Host string }

// AuditEntry is one line of the account. The storage sets its time.
type AuditEntry struct {
	Who    Operator
	Action AuditAction
	Detail string // the command, and what was typed to justify it
}

// Held tells which schemas hold a whole record of a job for its workspace.
type Held struct{ Old, New bool }

// JobCounts says where jobs lie, as far as a walk through the keys has come.
type JobCounts struct {
	Old      int64   `json:"old"` // in old alone
	New      int64   `json:"new"` // in new alone
	Both     int64   `json:"both"`
	Strange  int64   `json:"strange"`  // keys that stand for no job
	Fraction float64 `json:"fraction"` // of the keyspace that was looked at; 1 where the numbers are exact
}

// Add counts a step of a walk, and where it has come to.
func (c *JobCounts) Add(held []Held, strange []StrangeKey, next Position) {
	for _, h := range held {
		switch {
		case h.Old && h.New:
			c.Both++
		case h.Old:
			c.Old++
		case h.New:
			c.New++
		}
	}
	c.Strange += int64(len(strange))
	c.Fraction = 1
	if next != 0 {
		c.Fraction = next.Fraction()
	}
}

// Whole gives what the numbers stand for: SCAN meets keys in no order that they could be sorted by, so that a part of the
// keyspace is like any other.
func (c JobCounts) Whole() JobCounts {
	if c.Fraction <= 0 || c.Fraction >= 1 {
		return c
	}
	whole := func(n int64) int64 { return int64(float64(n) / c.Fraction) }
	return JobCounts{
		Old: whole(c.Old), New: whole(c.New), Both: whole(c.Both), Strange: whole(c.Strange), Fraction: c.Fraction,
	}
}
