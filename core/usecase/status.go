package usecase

import (
	"context"
	"time"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/ports"
)

// MigrationStatus tells how far the migration is. It writes nothing.
type MigrationStatus struct {
	Facts ports.GateFacts
	Keys  ports.JobCopies
	Old   ports.OldCopies
	Index ports.JobIndex
	Clock ports.Clock
}

// StatusInput says how much work a status is worth.
type StatusInput struct {
	Phase migration.Phase // of the environment that asks
	Exact bool            // go through all keys and all queue entries, however long that takes
	Quiet time.Duration   // for how long no read may have fallen back; 0 for migration.DefaultQuiet
}

// StatusReport is what there is to tell.
type StatusReport struct {
	Phase   migration.Phase          `json:"phase"`
	Jobs    migration.JobCounts      `json:"jobs"`
	Indexed bool                     `json:"indexed"` // every stored job is in its workspace's index
	Queue   migration.Queue          `json:"queue"`
	Servers []migration.Server       `json:"servers"`
	Differ  bool                     `json:"servers_differ"` // live servers are in several phases, or in another than Phase
	Hits    int64                    `json:"fallback_hits"`
	LastHit time.Time                `json:"last_fallback_hit_at,omitzero"`
	Passes  []migration.RecordedPass `json:"passes"`
	Gates   []migration.GateState    `json:"gates"`
}

const (
	// statusTime bounds how long jobs are counted where an exact number is not asked for.
	statusTime = time.Second
	// statusKeys is how many keys a step of counting looks at.
	statusKeys = 1000
	// statusEntries bounds the queue entries that are looked at likewise.
	statusEntries = 10_000
)

// Do counts jobs for a second and says what that stands for, or counts all.
func (u MigrationStatus) Do(ctx context.Context, in StatusInput, progress func(migration.JobCounts)) (StatusReport, error) {
	entries := int64(statusEntries)
	if in.Exact {
		entries = gateEntries
	}
	f, err := u.Facts.Facts(ctx, entries, true)
	if err != nil {
		return StatusReport{}, err //nolint:wrapcheck // already a fault
	}
	f.Quiet = in.Quiet
	r := StatusReport{
		Phase: in.Phase, Queue: f.Queue, Servers: f.Servers, Hits: f.FallbackHits, LastHit: f.LastFallback, Passes: f.Passes,
	}
	for _, s := range f.Servers {
		r.Differ = r.Differ || s.Phase != in.Phase
	}
	for _, g := range migration.Gates() {
		r.Gates = append(r.Gates, migration.Decide(g, f))
	}
	if r.Indexed, err = u.Index.Complete(ctx); err != nil {
		return StatusReport{}, err //nolint:wrapcheck // already a fault
	}
	r.Jobs, err = u.count(ctx, in.Exact, progress)
	return r, err
}

// count walks through the keys. Where the server process changes under it, it starts over.
func (u MigrationStatus) count(ctx context.Context, exact bool, progress func(migration.JobCounts)) (migration.JobCounts, error) {
	var c migration.JobCounts
	var at migration.Position
	process, began := "", u.Clock.Now()
	for {
		batch, err := u.Keys.Keys(ctx, at, statusKeys)
		if err != nil {
			return c, err //nolint:wrapcheck // already a fault
		}
		if at != 0 && batch.Process != process {
			c, at = migration.JobCounts{}, 0
			continue
		}
		refs := make([]migration.JobRef, len(batch.Jobs))
		for i, j := range batch.Jobs {
			refs[i] = j.JobRef
		}
		held, err := u.Old.Held(ctx, refs)
		if err != nil {
			return c, err //nolint:wrapcheck // already a fault
		}
		at, process = batch.Next, batch.Process
		c.Add(held, batch.Strange, at)
		if progress != nil {
			progress(c)
		}
		if at == 0 || !exact && u.Clock.Now().Sub(began) >= statusTime {
			return c, nil
		}
	}
}
