package migration

import "github.com/relay-jobs/relay/core/workspace"

// IndexScope says what a pass goes through.
type IndexScope uint8

// The scopes.
const (
	// IndexAll is every stored job, and every index.
	IndexAll IndexScope = iota
	// IndexOld is every job that has an old copy, which is what a predecessor writes, and every index.
	IndexOld
	// IndexEntries is every index alone.
	IndexEntries
)

// IndexOutcome is what became of one job's entries, or would in a dry run.
type IndexOutcome uint8

// The outcomes.
const (
	IndexIdentical IndexOutcome = iota // they were right
	IndexMended                        // some were added, or dropped as they say what no copy says
	IndexDropped                       // the job is not stored; its entry is dropped where it was met in an index
	IndexUnusable                      // something else than an index stands under the index' key
)

// IndexCounts says what became of what a pass met. In a dry run it says what would: a job of both schemas counts for each
// of its keys then, and mends at the first alone when it is done.
type IndexCounts struct {
	Scanned   int64 `json:"scanned"`   // keys of jobs
	Entries   int64 `json:"entries"`   // places looked at in the indexes: all, or the oldest and some that chance picks
	Mended    int64 `json:"mended"`    // keys of jobs whose entries were added or mended
	Identical int64 `json:"identical"` // keys of jobs whose entries were right
	Dropped   int64 `json:"dropped"`   // places of jobs that are stored no more, and entries that are no place
	Ignored   int64 `json:"ignored"`   // keys that hold no job of any workspace, or whose index is none
}

// Add gives the sum of both.
func (c IndexCounts) Add(d IndexCounts) IndexCounts {
	return IndexCounts{
		Scanned: c.Scanned + d.Scanned, Entries: c.Entries + d.Entries, Mended: c.Mended + d.Mended,
		Identical: c.Identical + d.Identical, Dropped: c.Dropped + d.Dropped, Ignored: c.Ignored + d.Ignored,
	}
}

// IndexBatch is one step of a pass. Next is the zero position at the end.
type IndexBatch struct {
	IndexCounts

	Process string         // names the server process that gave Next
	Indexes []workspace.ID // whose indexes were met: they are to be trimmed
	Next    Position
}
