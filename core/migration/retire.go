package migration

// RetireOutcome is what became of one job's old copy, or would in a dry run.
type RetireOutcome uint8

// The outcomes of removing one old copy.
const (
	RetireAbsent        RetireOutcome = iota // there is none
	RetireRemoved                            // the new copy is whole, and equal or fresher
	RetireKeptAlone                          // no whole new copy is there
	RetireKeptFresh                          // the old copy is the fresher one
	RetireKeptUnlike                         // of two as fresh as each other the old one holds what the new one does not
	RetireKeptTTL                            // equal, but the new copy would stay for longer
	RetireConflict                           // new has the higher rev and old the later time
	RetireForeign                            // another's record, or nobody's, holds the old key
	RetireContradiction                      // the new record contradicts its key
	RetireWrongType                          // a key holds something else than a hash
)

// RetireOutcomes lists them all.
func RetireOutcomes() []RetireOutcome {
	return []RetireOutcome{
		RetireAbsent, RetireRemoved, RetireKeptAlone, RetireKeptFresh, RetireKeptUnlike, RetireKeptTTL, RetireConflict,
		RetireForeign, RetireContradiction, RetireWrongType,
	}
}

// String gives the name that reports use.
func (o RetireOutcome) String() string {
	switch o {
	case RetireAbsent:
		return "absent"
	case RetireRemoved:
		return "removed"
	case RetireKeptAlone:
		return "alone"
	case RetireKeptFresh:
		return "fresher"
	case RetireKeptUnlike:
		return "unlike"
	case RetireKeptTTL:
		return "ttl"
	case RetireConflict:
		return "conflict"
	case RetireForeign:
		return "foreign"
	case RetireContradiction:
		return "contradiction"
	case RetireWrongType:
		return "wrong-type"
	}
	return "unknown"
}

// MarshalText gives the same name.
func (o RetireOutcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads such a name.
func (o *RetireOutcome) UnmarshalText(text []byte) (err error) {
	*o, err = named(RetireOutcomes(), text)
	return err
}

// Kept tells whether an old key was left in place.
func (o RetireOutcome) Kept() bool { return o != RetireAbsent && o != RetireRemoved }

// Retired says what became of one job's old copy.
type Retired struct {
	Job     JobRef
	Outcome RetireOutcome
	Entries int64 // index entries that were added or dropped
}

// RetireCounts says what became of what a removal met. In a dry run it says what would.
type RetireCounts struct {
	Scanned int64                   `json:"scanned"`
	Jobs    map[RetireOutcome]int64 `json:"jobs"`
	Strange map[KeyClass]int64      `json:"strange"`
	Entries int64                   `json:"entries"`
}

// Add counts what became of one batch.
func (c *RetireCounts) Add(retired []Retired, strange []StrangeKey) {
	if c.Jobs == nil {
		c.Jobs, c.Strange = map[RetireOutcome]int64{}, map[KeyClass]int64{}
	}
	c.Scanned += int64(len(retired) + len(strange))
	for _, j := range retired {
		c.Jobs[j.Outcome]++
		c.Entries += j.Entries
	}
	for _, k := range strange {
		c.Strange[k.Class]++
	}
}

// Kept gives how many old keys were left in place. Of strange keys it counts those, too, that only look like a job's.
func (c RetireCounts) Kept() (n int64) {
	for outcome, jobs := range c.Jobs {
		if outcome.Kept() {
			n += jobs
		}
	}
	for _, keys := range c.Strange {
		n += keys
	}
	return n
}
