// Package job holds what a job is: its states and legal moves, how two copies of one compare, and how a list of them
// is asked for and continued.
package job

import (
	"time"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/workspace"
)

// maxIDLength is in bytes.
const maxIDLength = 256

// ID is a job's id: any 1 to 256 bytes. The zero ID names no job. IDs are comparable.
type ID struct{ text string }

// ParseID accepts any text of 1 to 256 bytes. What is none names no job: the error is fault.NotFound.
func ParseID(s string) (ID, error) {
	if s == "" || len(s) > maxIDLength {
		return ID{}, ErrNotFound()
	}
	return ID{text: s}, nil
}

// String gives the id's bytes.
func (id ID) String() string { return id.text }

// IsZero tells whether id names no job.
func (id ID) IsZero() bool { return id.text == "" }

// ErrNotFound is the one answer for an absent job and for another workspace's: fault.NotFound.
func ErrNotFound() error {
	return fault.New(fault.NotFound, fault.CodeJobNotFound, "Job not found")
}

// maxClientRequestID is in bytes; every allowed character is one byte.
const maxClientRequestID = 200

// ClientRequestIDLifetime is how long a storage remembers which job a ClientRequestID was used for.
const ClientRequestIDLifetime = 24 * time.Hour

// ClientRequestID is a caller's idempotency key: 1 to 200 printable ASCII characters. The zero value is none.
type ClientRequestID struct{ text string }

// ParseClientRequestID checks the whole of s. The error is fault.Invalid.
func ParseClientRequestID(s string) (ClientRequestID, error) {
	ok := s != "" && len(s) <= maxClientRequestID
	for i := 0; ok && i < len(s); i++ {
		ok = s[i] >= ' ' && s[i] <= '~'
	}
	if !ok {
		return ClientRequestID{}, fault.New(fault.Invalid, fault.CodeInvalidParameter,
			"An idempotency key is 1 to 200 printable ASCII characters")
	}
	return ClientRequestID{text: s}, nil
}

// String gives the key's text, empty for none.
func (c ClientRequestID) String() string { return c.text }

// IsZero tells whether c is none.
func (c ClientRequestID) IsZero() bool { return c.text == "" }

// Job is one action to be executed, or that was, in one workspace. Empty texts and zero times are absent. A Job holds
// no reference that a second holder could change.
type Job struct {
	ID              ID
	Workspace       workspace.ID
	Status          Status
	Provider        string
	Name            string
	Params          JSON
	Result          JSON
	Error           string
	Actor           string
	ClientRequestID string
	TraceParent     string
	EnqueuedAt      time.Time // UTC, whole microseconds, as are the others
	StartedAt       time.Time
	FinishedAt      time.Time
	Rev             int64 // raised by one by every write of Relay; 0 where only the predecessor wrote
}

// Duration is finished minus started, never below 0. ok is false unless both times are there.
func (j Job) Duration() (d time.Duration, ok bool) {
	if j.StartedAt.IsZero() || j.FinishedAt.IsZero() {
		return 0, false
	}
	return max(0, j.FinishedAt.Sub(j.StartedAt)), true
}

// Draft is a job to be made. Params is an object; the storage stamps status, rev and enqueued_at.
type Draft struct {
	ID              ID
	Workspace       workspace.ID
	Provider        string
	Name            string
	Params          JSON
	Actor           string
	ClientRequestID ClientRequestID
	TraceParent     string
}

// Asks tells whether d asks for what j was made for: provider and name equal as bytes, params as JSON values.
func (d Draft) Asks(j Job) bool {
	return d.Provider == j.Provider && d.Name == j.Name && SameJSON(d.Params, j.Params)
}

// Enqueued is what became of a draft. Job is the made job, or the one that the draft's ClientRequestID was used for
// before; of it only what identifies and describes the request is guaranteed: ID, Workspace, Provider, Name, Params.
type Enqueued struct {
	Job      Job
	Replayed bool
}

// Copy names the stored copy that a read served.
type Copy uint8

// CopyNone is a miss.
const (
	CopyNone Copy = iota
	CopyOld
	CopyNew
)

// String gives the label that metrics carry.
func (c Copy) String() string {
	switch c {
	case CopyOld:
		return "old"
	case CopyNew:
		return "new"
	case CopyNone:
	}
	return "miss"
}
