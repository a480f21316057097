// Package migration holds the table of phases: what the operator's flags mean for writes and reads while the stored
// jobs move from the old key schema to the new one. Code asks predicates of a Phase and never looks at a flag.
package migration

import "errors"

// Flags are the four switches that an operator sets.
type Flags struct {
	NewSchema   bool // AI_JOBS_NEW_SCHEMA: write the new schema
	OldSchema   bool // AI_JOBS_OLD_SCHEMA: write the old schema
	PrefersNew  bool // READ_PREFERS_NEW: read the new schema
	FallbackOld bool // READ_FALLBACK_OLD: read the old schema
}

// Phase is one legal row of the table. The zero Phase is none: it writes and reads nothing.
type Phase uint8

// The legal phases, in the order in which a migration goes through them.
const (
	Legacy Phase = iota + 1
	Canary
	ReadRouting
	DualWrite
	StrictNew
	NewOnly
)

// The reasons for which a combination of flags is refused. Each names what to set instead.
var (
	ErrNothingToWrite = errors.New("neither schema is written: set AI_JOBS_OLD_SCHEMA or AI_JOBS_NEW_SCHEMA to on")
	ErrNothingToRead  = errors.New("neither schema is read: set READ_FALLBACK_OLD or READ_PREFERS_NEW to on")
	ErrFreshJobs      = errors.New("fresh jobs could not be read: " +
		"set READ_FALLBACK_OLD=on with AI_JOBS_OLD_SCHEMA=on, or READ_PREFERS_NEW=on with AI_JOBS_NEW_SCHEMA=on")
	ErrFrozenJobs = errors.New("a job that only the old schema holds could be read but not changed: " +
		"READ_FALLBACK_OLD=on needs AI_JOBS_OLD_SCHEMA=on")
)

// Phases lists every legal phase in order.
func Phases() []Phase {
	return []Phase{Legacy, Canary, ReadRouting, DualWrite, StrictNew, NewOnly}
}

// PhaseOf finds the row that f stands for, or the reason why there is none.
func PhaseOf(f Flags) (Phase, error) {
	for _, p := range Phases() {
		if p.Flags() == f {
			return p, nil
		}
	}
	switch {
	case !f.OldSchema && !f.NewSchema:
		return 0, ErrNothingToWrite
	case !f.FallbackOld && !f.PrefersNew:
		return 0, ErrNothingToRead
	case f.OldSchema && f.FallbackOld || f.NewSchema && f.PrefersNew:
		return 0, ErrFrozenJobs
	}
	return 0, ErrFreshJobs
}

// Flags gives the row of p: the flags that stand for it.
func (p Phase) Flags() Flags {
	switch p {
	case Legacy:
		return Flags{OldSchema: true, FallbackOld: true}
	case Canary:
		return Flags{OldSchema: true, NewSchema: true, FallbackOld: true}
	case ReadRouting:
		return Flags{OldSchema: true, PrefersNew: true, FallbackOld: true}
	case DualWrite:
		return Flags{OldSchema: true, NewSchema: true, PrefersNew: true, FallbackOld: true}
	case StrictNew:
		return Flags{OldSchema: true, NewSchema: true, PrefersNew: true}
	case NewOnly:
		return Flags{NewSchema: true, PrefersNew: true}
	}
	return Flags{}
}

// WritesOld tells whether writes go to the old schema. While they do, queue entries are bare job ids, as workers that
// know only that schema expect; afterwards entries carry their workspace.
func (p Phase) WritesOld() bool { return p.Flags().OldSchema }

// WritesNew tells whether writes go to the new schema.
func (p Phase) WritesNew() bool { return p.Flags().NewSchema }

// WritesBoth tells whether each write leaves a copy in both schemas.
func (p Phase) WritesBoth() bool { return p.WritesOld() && p.WritesNew() }

// ReadsOld tells whether reads look at the old schema.
func (p Phase) ReadsOld() bool { return p.Flags().FallbackOld }

// ReadsNew tells whether reads look at the new schema.
func (p Phase) ReadsNew() bool { return p.Flags().PrefersNew }

// LooksAtOld tells whether a write looks at the old schema before it changes anything: at whatever is read or written.
func (p Phase) LooksAtOld() bool { return p.WritesOld() || p.ReadsOld() }

// LooksAtNew is LooksAtOld for the new schema.
func (p Phase) LooksAtNew() bool { return p.WritesNew() || p.ReadsNew() }

// String gives the name that operators know p by.
func (p Phase) String() string {
	switch p {
	case Legacy:
		return "legacy"
	case Canary:
		return "canary"
	case ReadRouting:
		return "read routing"
	case DualWrite:
		return "dual write"
	case StrictNew:
		return "strict new"
	case NewOnly:
		return "new only"
	}
	return "none"
}
