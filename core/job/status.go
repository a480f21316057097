package job

import (
	"slices"

	"github.com/relay-jobs/relay/core/fault"
)

// Status is a job's state as stored. A text that is none of the four below is passed through, matches no filter, and
// its job is never moved.
type Status string

// The states that Relay knows.
const (
	Pending   Status = "pending"
	Running   Status = "running"
	Completed Status = "completed"
	Failed    Status = "failed"
)

// Statuses lists the known states.
func Statuses() []Status { return []Status{Pending, Running, Completed, Failed} }

// Known tells whether s is one of the four.
func (s Status) Known() bool { return slices.Contains(Statuses(), s) }

// Final tells whether no move leaves s.
func (s Status) Final() bool { return s == Completed || s == Failed }

// Sources lists the states from which a job may be moved to s; none where s is unknown.
func (s Status) Sources() []Status {
	switch s {
	case Pending, Completed:
		return []Status{Running}
	case Running:
		return []Status{Pending}
	case Failed:
		return []Status{Running, Pending}
	}
	return nil
}

// Stamp is what a move does to a job's times.
type Stamp uint8

// The stamps. Finished also starts the time that a finished job is kept.
const (
	StampNone     Stamp = iota
	StampStarted        // StartedAt is now
	StampWaiting        // StartedAt goes: the job is as if it had not started
	StampFinished       // FinishedAt is now
)

// Stamp gives what a move to s does to a job's times; nothing where s is unknown.
func (s Status) Stamp() Stamp {
	switch s {
	case Pending:
		return StampWaiting
	case Running:
		return StampStarted
	case Completed, Failed:
		return StampFinished
	}
	return StampNone
}

// rank orders states by how far a job has come; an unknown state is nowhere.
func (s Status) rank() int {
	switch s {
	case Pending:
		return 1
	case Running:
		return 2
	case Completed, Failed:
		return 3
	}
	return 0
}

// Move is a change of state. Result belongs to a completed job, Error to a failed one; To.Stamp is what becomes of its
// times.
type Move struct {
	To     Status
	Result JSON
	Error  string
}

// Validate refuses a move that no job could make. The error is fault.Invalid.
func (m Move) Validate() error {
	switch {
	case !m.To.Known():
		return fault.New(fault.Invalid, fault.CodeInvalidParameter, "The state to move to is unknown")
	case m.Result != "" && (m.To != Completed && m.To != Failed || !m.Result.Valid()):
		return fault.New(fault.Invalid, fault.CodeInvalidParameter, "A result is a JSON value of a finished job")
	case m.Error != "" && m.To != Failed:
		return fault.New(fault.Invalid, fault.CodeInvalidParameter, "An error belongs to a failed job")
	}
	return nil
}

// Decision is what a move means for a job in a given state.
type Decision uint8

// The decisions. Done writes nothing: the job is already where the move would bring it, with the same outcome.
const (
	Refuse Decision = iota
	Apply
	Done
)

// Decide applies the table of legal moves to j as it is stored.
func (m Move) Decide(j Job) Decision {
	switch {
	case j.Status == m.To && j.Result == m.Result && j.Error == m.Error:
		return Done
	case slices.Contains(m.To.Sources(), j.Status):
		return Apply
	}
	return Refuse
}

// ErrState is the answer to a refused move: fault.Conflict.
func ErrState() error {
	return fault.New(fault.Conflict, fault.CodeJobState, "The job's state does not allow this change")
}
