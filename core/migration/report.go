package migration

import "time"

// DifferenceTally is what a pass found of one class. Example is untrusted text.
type DifferenceTally struct {
	Count   int64   `json:"count"`
	AgeMS   int64   `json:"age_ms"`  // since the latest time of the oldest job concerned; 0 where no time is known
	SeenMS  int64   `json:"seen_ms"` // how long one of them was watched, at most
	Example Example `json:"example"`
}

// Example names one of many.
type Example struct {
	Key   string `json:"key"`
	Entry string `json:"entry,omitempty"`
}

// VerifyReport is what a pass that compares everything has found.
type VerifyReport struct {
	Process   string    `json:"process"` // the server process that it ran in
	Phase     string    `json:"phase"`
	Workspace string    `json:"workspace_id,omitempty"` // the only one that was looked at
	Sample    int       `json:"sample"`                 // every so many jobs one was compared
	Started   time.Time `json:"started_at"`             // by the server's clock
	Ended     time.Time `json:"ended_at"`

	Jobs            int64 `json:"jobs"` // compared
	IndexEntries    int64 `json:"index_entries"`
	QueueEntries    int64 `json:"queue_entries"`
	IdempotencyKeys int64 `json:"idempotency_keys"`

	// WithoutRev is how many jobs had a copy without rev whose latest time lies behind RevSince; zero RevSince means that
	// none was looked for.
	RevSince   time.Time `json:"rev_since,omitzero"`
	WithoutRev int64     `json:"without_rev"`

	Differences map[DifferenceClass]DifferenceTally `json:"differences"`
}

// Add counts a difference that was watched for a while, at a time of the server's clock.
func (r *VerifyReport) Add(d Difference, seen time.Duration, now time.Time) {
	if r.Differences == nil {
		r.Differences = map[DifferenceClass]DifferenceTally{}
	}
	t := r.Differences[d.Class]
	if t.Count == 0 {
		t.Example = Example{Key: d.Key, Entry: d.Entry}
	}
	t.Count++
	t.SeenMS = max(t.SeenMS, seen.Milliseconds())
	if d.Latest > 0 {
		t.AgeMS = max(t.AgeMS, now.UnixMilli()-d.Latest/1000)
	}
	r.Differences[d.Class] = t
}

// Clean tells whether nothing was found beyond what is harmless and what was accepted: of each class as many as its number,
// or fewer.
func (r VerifyReport) Clean(accepted map[DifferenceClass]int64) bool {
	for class, t := range r.Differences {
		if t.Count > accepted[class] && !class.Harmless() {
			return false
		}
	}
	return true
}

// Whole tells whether the pass left nothing out: only such a one says something of all jobs.
func (r VerifyReport) Whole() bool { return r.Workspace == "" && r.Sample <= 1 }
