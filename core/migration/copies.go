package migration

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

// named gives the one of all that has a name.
func named[T fmt.Stringer](all []T, name []byte) (T, error) {
	for _, known := range all {
		if known.String() == string(name) {
			return known, nil
		}
	}
	var none T
	return none, errors.New("an unknown name")
}

// Schema names one of the two key schemas.
type Schema uint8

// The schemas.
const (
	Old Schema = iota + 1
	New
)

// String gives the name that operators know s by.
func (s Schema) String() string {
	switch s {
	case Old:
		return "old"
	case New:
		return "new"
	}
	return "none"
}

// JobRef names a job that a stored key stands for, whatever that key holds.
type JobRef struct {
	Workspace workspace.ID
	ID        job.ID
}

// CopyOutcome is what became of one job's copies, or would in a dry run.
type CopyOutcome uint8

// The outcomes of copying one job.
const (
	CopyAbsent        CopyOutcome = iota // neither schema holds the job for this workspace
	CopyIdentical                        // both copies are equal, in expiry too
	CopySingle                           // one schema holds the job, and the other need not
	CopyMade                             // the missing copy was made
	CopyRepaired                         // of two that differed the fresher took the other's place
	CopyTTL                              // equal copies expire together now, at the sooner time
	CopyConflict                         // which copy is the fresher and whole one cannot be decided: left as it is
	CopyForeign                          // another's record holds the old key: new stands alone
	CopyContradiction                    // the new record contradicts its key: left as it is
	CopyWrongType                        // a key holds something else than a hash: left as it is
)

// CopyOutcomes lists them all.
func CopyOutcomes() []CopyOutcome {
	return []CopyOutcome{
		CopyAbsent, CopyIdentical, CopySingle, CopyMade, CopyRepaired, CopyTTL, CopyConflict, CopyForeign, CopyContradiction,
		CopyWrongType,
	}
}

// String gives the name that reports use.
func (o CopyOutcome) String() string {
	switch o {
	case CopyAbsent:
		return "absent"
	case CopyIdentical:
		return "identical"
	case CopySingle:
		return "single"
	case CopyMade:
		return "made"
	case CopyRepaired:
		return "repaired"
	case CopyTTL:
		return "ttl"
	case CopyConflict:
		return "conflict"
	case CopyForeign:
		return "foreign"
	case CopyContradiction:
		return "contradiction"
	case CopyWrongType:
		return "wrong-type"
	}
	return "unknown"
}

// MarshalText gives the same name.
func (o CopyOutcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads such a name.
func (o *CopyOutcome) UnmarshalText(text []byte) (err error) {
	*o, err = named(CopyOutcomes(), text)
	return err
}

// Changed tells whether copies were written.
func (o CopyOutcome) Changed() bool { return o == CopyMade || o == CopyRepaired || o == CopyTTL }

// Left tells whether the job is one that cannot be mended by copying.
func (o CopyOutcome) Left() bool {
	return o == CopyConflict || o == CopyForeign || o == CopyContradiction || o == CopyWrongType
}

// Copied says what became of one job.
type Copied struct {
	Job     JobRef
	Outcome CopyOutcome
	Entries int64 // index entries that were added or dropped
}

// Position is a place in a walk through the stored keys by SCAN. It belongs to the server process that gave it. The zero
// Position is the start.
type Position uint64

// Fraction tells how much of the keyspace lies before p, from 0 to 1: SCAN counts in reversed bits.
func (p Position) Fraction() float64 {
	return float64(bits.Reverse64(uint64(p))) / (1 << 64)
}

// KeyClass says why a stored key stands for no job of any workspace.
type KeyClass uint8

// The classes of such keys.
const (
	KeyNotAJob          KeyClass = iota // it begins like a job's key and is none
	KeyWrongType                        // it holds something else than a hash
	KeyInvalidWorkspace                 // its workspace, or that of its record, is missing or none
	KeyOtherID                          // its record names another job
)

// KeyClasses lists them all.
func KeyClasses() []KeyClass {
	return []KeyClass{KeyNotAJob, KeyWrongType, KeyInvalidWorkspace, KeyOtherID}
}

// String gives the name of its difference.
func (c KeyClass) String() string { return c.Difference().String() }

// MarshalText gives the same name.
func (c KeyClass) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads such a name.
func (c *KeyClass) UnmarshalText(text []byte) (err error) {
	*c, err = named(KeyClasses(), text)
	return err
}

// StrangeKey is a stored key that stands for no job. Key is untrusted text.
type StrangeKey struct {
	Key   string
	Class KeyClass
}

// StoredJob is a job that a walk through the keys met.
type StoredJob struct {
	JobRef

	Bytes int64 // memory that the key takes which it was met under
}

// KeyBatch is one step of a walk through the stored keys. Each job is met under its old key where that is its own, else
// under its new one.
type KeyBatch struct {
	Process string // names the server process that gave Next; unlike any other where the server does not tell
	Jobs    []StoredJob
	Strange []StrangeKey
	Next    Position // zero at the end
}
