package migration

import "github.com/relay-jobs/relay/core/workspace"

// Checkpoint is how far a pass has come.
type Checkpoint struct {
	Process   string // the server process that At belongs to
	At        Position
	Workspace workspace.ID // the one that the pass is for, zero for all
	Counts    BackfillCounts
}

// IsZero tells whether there is none.
func (c Checkpoint) IsZero() bool { return c.At == 0 }

// BackfillCounts says what became of what a pass met. In a dry run it says what would.
type BackfillCounts struct {
	Scanned int64                 `json:"scanned"` // keys that a job or nobody stands under, each job once
	Jobs    map[CopyOutcome]int64 `json:"jobs"`
	Strange map[KeyClass]int64    `json:"strange"`
	Entries int64                 `json:"entries"` // index entries that were added or dropped
}

// Add counts what became of one batch.
func (c *BackfillCounts) Add(copied []Copied, strange []StrangeKey) {
	if c.Jobs == nil {
		c.Jobs = map[CopyOutcome]int64{}
	}
	if c.Strange == nil {
		c.Strange = map[KeyClass]int64{}
	}
	c.Scanned += int64(len(copied) + len(strange))
	for _, j := range copied {
		c.Jobs[j.Outcome]++
		c.Entries += j.Entries
	}
	for _, k := range strange {
		c.Strange[k.Class]++
	}
}

// Left gives how much the pass met that it had to leave.
func (c BackfillCounts) Left() (n int64) {
	for outcome, jobs := range c.Jobs {
		if outcome.Left() {
			n += jobs
		}
	}
	for _, keys := range c.Strange {
		n += keys
	}
	return n
}

// Clean tells whether the pass changed nothing and met nothing that it had to leave.
func (c BackfillCounts) Clean() bool {
	for outcome, jobs := range c.Jobs {
		if outcome.Changed() && jobs > 0 {
			return false
		}
	}
	return c.Entries == 0 && c.Left() == 0
}
