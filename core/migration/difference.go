package migration

import (
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

// DifferenceClass says what is wrong with a job's copies, with what names a job, or with a key that should hold one.
type DifferenceClass uint8

// The classes. The zero class is none.
const (
	DifferenceMissing            DifferenceClass = iota + 1 // only old holds the job, and new is written or read
	DifferenceGhost                                         // only new holds the job, and old is written
	DifferenceStale                                         // one copy is fresher than another that is written or read
	DifferenceConflict                                      // new has the higher rev and old the later time
	DifferencePartial                                       // new is a stub, or lacks fields that old has at an equal version
	DifferenceExtraField                                    // new has fields that old lacks, and they are equal otherwise
	DifferenceTTL                                           // equal copies expire more than a second apart, or only one does
	DifferenceWrongType                                     // a key holds something else than it should
	DifferenceTwoWorkspaces                                 // two workspaces have a job of one id
	DifferenceContradiction                                 // a record in new contradicts its key
	DifferenceInvalidWorkspace                              // the workspace of a key, or of its record, is missing or none
	DifferenceNotAJob                                       // a key begins like a job's and is none
	DifferenceOtherID                                       // a record in old names another job than its key
	DifferenceIndexMissing                                  // a job lacks an entry of the index
	DifferenceIndexExtra                                    // an entry of the index names no job, one that was not to go, or stands beside the job's own
	DifferenceIndexMisplaced                                // a job stands under another state or time than its own
	DifferenceIndexGone                                     // an entry of the index names a finished job that is gone
	DifferenceIdempotency                                   // an idempotency key names a job that is gone
	DifferenceIdempotencyForeign                            // an idempotency key is no workspace's, or names no job or another workspace's
	DifferenceQueue                                         // a queue entry names a job that neither schema holds
)

// DifferenceClasses lists them all.
func DifferenceClasses() []DifferenceClass {
	var all []DifferenceClass
	for c := DifferenceMissing; c <= DifferenceQueue; c++ {
		all = append(all, c)
	}
	return all
}

// String gives the name that reports use, and an operator who accepts a class.
func (c DifferenceClass) String() string {
	switch c {
	case DifferenceMissing:
		return "missing"
	case DifferenceGhost:
		return "ghost"
	case DifferenceStale:
		return "stale"
	case DifferenceConflict:
		return "conflict"
	case DifferencePartial:
		return "partial"
	case DifferenceExtraField:
		return "extra-field"
	case DifferenceTTL:
		return "ttl"
	case DifferenceWrongType:
		return "wrong-type"
	case DifferenceTwoWorkspaces:
		return "two-workspaces"
	case DifferenceContradiction:
		return "contradiction"
	case DifferenceInvalidWorkspace:
		return "invalid-workspace"
	case DifferenceNotAJob:
		return "not-a-job"
	case DifferenceOtherID:
		return "other-id"
	case DifferenceIndexMissing:
		return "index-missing"
	case DifferenceIndexExtra:
		return "index-extra"
	case DifferenceIndexMisplaced:
		return "index-misplaced"
	case DifferenceIndexGone:
		return "index-gone"
	case DifferenceIdempotency:
		return "idempotency"
	case DifferenceIdempotencyForeign:
		return "idempotency-foreign"
	case DifferenceQueue:
		return "queue"
	}
	return "none"
}

// MarshalText gives the same name.
func (c DifferenceClass) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads such a name.
func (c *DifferenceClass) UnmarshalText(text []byte) (err error) {
	*c, err = named(DifferenceClasses(), text)
	return err
}

// Harmless tells whether c is told and is no fault, since finished jobs expire while a pass looks: an idempotency key whose job
// is gone makes a new job, and expires itself; an index entry is shown by no list, and sweeps take it out by and by.
func (c DifferenceClass) Harmless() bool {
	return c == DifferenceIdempotency || c == DifferenceIndexGone
}

// OfIndex tells whether c is about entries of the index that a sweep, or a list, brings in step with a stored job.
func (c DifferenceClass) OfIndex() bool {
	return c == DifferenceIndexMissing || c == DifferenceIndexExtra || c == DifferenceIndexMisplaced
}

// Mendable tells whether a pass brings what is of class c in step: then it need not be accepted.
func (c DifferenceClass) Mendable() bool {
	return c.OfIndex() || slices.Contains([]DifferenceClass{
		DifferenceMissing, DifferenceGhost, DifferenceStale, DifferencePartial, DifferenceExtraField, DifferenceTTL,
		DifferenceIndexGone,
	}, c)
}

// Difference gives the class of c.
func (c KeyClass) Difference() DifferenceClass {
	switch c {
	case KeyNotAJob:
		return DifferenceNotAJob
	case KeyWrongType:
		return DifferenceWrongType
	case KeyInvalidWorkspace:
		return DifferenceInvalidWorkspace
	case KeyOtherID:
		return DifferenceOtherID
	}
	return 0
}

// Holding is what a key that may hold a copy of a job holds.
type Holding uint8

// What a key may hold.
const (
	HoldsNothing  Holding = iota
	HoldsStub             // a record that says neither whose nor which job's it is
	HoldsWhole            // the copy
	HoldsForeign          // a record of another workspace or job, or nobody's
	HoldsOther            // something else than a hash
	HoldsUnwieldy         // the job's, with far more fields than any: no pass goes through them
)

// StoredCopy is what one schema holds of a job.
type StoredCopy struct {
	Key     string // untrusted text
	Holds   Holding
	Version job.Version
	Fields  map[string]string // of two whole copies that differ, else nil
	Left    time.Duration     // until the copy expires; below 0 where it does not
}

// JobFacts is what was found of one job in one step.
type JobFacts struct {
	Job            JobRef
	Old, New       StoredCopy
	Equal          bool     // both are whole and hold the same fields
	Index          string   // the key of the index
	MissingEntries []string // of the index, for the places of the whole copies
	ExtraEntries   []string // at these places, of states that no copy has
	WithoutRev     int64    // the latest time of the whole copies that have no rev, as Latest gives it
}

// Held tells whether a schema holds the job for its workspace.
func (f JobFacts) Held() bool { return f.Old.Holds == HoldsWhole || f.New.Holds == HoldsWhole }

// Latest gives the latest time of the whole copies in microseconds since 1970, 0 where there is none.
func (f JobFacts) Latest() int64 {
	var at int64
	for _, c := range []StoredCopy{f.Old, f.New} {
		if c.Holds == HoldsWhole {
			at = max(at, c.Version.Enqueued, c.Version.Started, c.Version.Finished)
		}
	}
	return at
}

// Difference is one thing that is wrong. Key and Entry are untrusted text.
type Difference struct {
	Class  DifferenceClass
	Job    JobRef // zero where no job is meant
	Key    string // of the copy that is behind, or of what names the job
	Entry  string // what the list or the index at Key holds, for a job's own index entry the job's id
	Latest int64  // the latest time of the job in microseconds since 1970, 0 for none
	// Mark stays the same while the same difference lasts: of a copy that is behind and moves on, each is a new one.
	Mark uint64
}

// expiryTolerance is how far apart equal copies may expire: a writer without scripts sets both one after the other.
const expiryTolerance = time.Second

// Judge says what is wrong with a job in a phase: with its copies one thing at most, and with its index entries one.
func Judge(p Phase, f JobFacts) []Difference {
	var found []Difference
	if class, behind, mark := judgeCopies(p, f); class != 0 {
		found = append(found, Difference{Class: class, Job: f.Job, Key: behind.Key, Latest: f.Latest(), Mark: mark})
	}
	if class := judgeEntries(f); class != 0 {
		found = append(found, Difference{
			Class: class, Job: f.Job, Key: f.Index, Entry: f.Job.ID.String(), Latest: f.Latest(),
			Mark: markOf(append(append(slices.Clone(f.MissingEntries), ""), f.ExtraEntries...)),
		})
	}
	return found
}

// judgeCopies gives the copy that is behind, too.
func judgeCopies(p Phase, f JobFacts) (class DifferenceClass, behind StoredCopy, mark uint64) {
	oldHolds, newHolds := f.Old.Holds == HoldsWhole, f.New.Holds == HoldsWhole
	switch {
	case f.New.Holds == HoldsOther, f.New.Holds == HoldsUnwieldy:
		return DifferenceWrongType, f.New, 0
	case f.Old.Holds == HoldsUnwieldy && p.LooksAtOld():
		return DifferenceWrongType, f.Old, 0
	case f.New.Holds == HoldsForeign:
		return DifferenceContradiction, f.New, 0
	case f.New.Holds == HoldsStub && p.LooksAtNew():
		return DifferencePartial, f.New, 0
	case oldHolds && newHolds:
		return judgePair(p, f)
	case oldHolds && p.LooksAtNew():
		return DifferenceMissing, f.Old, 0
	case newHolds && p.WritesOld() && (f.Old.Holds == HoldsNothing || f.Old.Holds == HoldsStub):
		return DifferenceGhost, f.New, 0
	}
	return 0, StoredCopy{}, 0
}

// judgePair compares two whole copies. A copy that the phase neither writes nor reads may be behind.
func judgePair(p Phase, f JobFacts) (class DifferenceClass, behind StoredCopy, mark uint64) {
	if f.Equal {
		if p.LooksAtOld() && p.LooksAtNew() && !expireTogether(f.Old.Left, f.New.Left) {
			return DifferenceTTL, f.New, markOf([]string{expiries(f.Old.Left, f.New.Left)})
		}
		return 0, StoredCopy{}, 0
	}
	if job.Undecided(f.Old.Version, f.New.Version) {
		return DifferenceConflict, f.New, markOfFields(f.New.Fields)
	}
	oldLacks, newLacks, differ := compareFields(f.Old.Fields, f.New.Fields)
	if (differ || oldLacks && newLacks) && tied(f.Old.Version, f.New.Version) {
		return DifferenceConflict, f.New, markOfFields(f.New.Fields)
	}
	class, behind = DifferenceStale, f.Old
	switch {
	case !differ && oldLacks && !newLacks:
		class = DifferenceExtraField
	case !differ && newLacks && f.Old.Version == f.New.Version:
		class, behind = DifferencePartial, f.New
	case job.Fresher(f.Old.Version, f.New.Version) == job.CopyOld, f.Old.Version.Rev > 0 && f.Old.Version.Rev == f.New.Version.Rev:
		behind = f.New // of one rev the old copy is the fresher whatever differs, which a version does not show
	}
	if behind.Key == f.Old.Key && !p.LooksAtOld() || behind.Key == f.New.Key && !p.LooksAtNew() {
		return 0, StoredCopy{}, 0
	}
	return class, behind, markOfFields(behind.Fields)
}

// tied tells whether nothing tells which of two differing copies is the fresher: neither was ever written by Relay, and their
// times and states say the same.
func tied(old, new job.Version) bool { //nolint:revive // the names of the two schemas
	return old.Rev == 0 && new.Rev == 0 && job.Fresher(old, new) != job.CopyOld && job.Fresher(new, old) != job.CopyOld
}

func expireTogether(a, b time.Duration) bool {
	if a < 0 || b < 0 {
		return a < 0 && b < 0
	}
	return (a - b).Abs() <= expiryTolerance
}

// expiries says which of two copies expires, and which first.
func expiries(old, new time.Duration) string { //nolint:revive // the names of the two schemas
	switch {
	case old < 0:
		return "new only"
	case new < 0:
		return "old only"
	case old < new:
		return "old first"
	}
	return "new first"
}

func compareFields(old, new map[string]string) (oldLacks, newLacks, differ bool) { //nolint:revive // as above
	for field, value := range old {
		other, there := new[field]
		newLacks = newLacks || !there
		differ = differ || there && other != value
	}
	for field := range new {
		if _, there := old[field]; !there {
			oldLacks = true
		}
	}
	return oldLacks, newLacks, differ
}

func judgeEntries(f JobFacts) DifferenceClass {
	switch {
	case len(f.MissingEntries) > 0 && len(f.ExtraEntries) > 0:
		return DifferenceIndexMisplaced
	case len(f.MissingEntries) > 0:
		return DifferenceIndexMissing
	case len(f.ExtraEntries) > 0:
		return DifferenceIndexExtra
	}
	return 0
}

func markOfFields(fields map[string]string) uint64 {
	var texts []string
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		texts = append(texts, field, fields[field])
	}
	return markOf(texts)
}

func markOf(texts []string) uint64 {
	h := fnv.New64a()
	for _, text := range texts {
		_, _ = h.Write([]byte(text))
		_, _ = h.Write([]byte{0xff}) // ends a text
	}
	return h.Sum64()
}

// ReferenceKind says where a reference to a job stands.
type ReferenceKind uint8

// The kinds.
const (
	ReferenceKey         ReferenceKind = iota + 1 // no reference: a key that should hold a job, or jobs' order, and does not
	ReferenceIndex                                // an entry of a workspace's index
	ReferenceIdempotency                          // an idempotency key
	ReferenceQueue                                // an entry of the queue
)

// Reference is what names a job, or should. Key and Entry are untrusted text.
type Reference struct {
	Kind      ReferenceKind
	Workspace workspace.ID // that it names, zero for none
	Key       string
	Entry     string // of the index or the queue at Key
	Depth     int64  // of a queue entry: how many stood before it, at most, when it was met; later they are fewer
}

// ReferenceBatch is one step of a walk through indexes and idempotency keys. Indexes are to be walked through in turn.
type ReferenceBatch struct {
	Process    string // as of a KeyBatch
	Indexes    []workspace.ID
	References []Reference
	Next       Position // zero at the end
}
