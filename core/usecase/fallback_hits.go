package usecase

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// flushInterval is how long a hit may wait before the storage is told of it.
const flushInterval = 5 * time.Second

// FallbackCounter is the ports.Observer of a server that reads the new schema and falls back to the old one. It counts
// the answers in which an old copy was served, and passes everything on. A list that held several counts once.
type FallbackCounter struct {
	ports.Observer
	waiting atomic.Int64
}

// JobRead implements ports.Observer.
func (c *FallbackCounter) JobRead(ws workspace.ID, id job.ID, served job.Copy) {
	if served == job.CopyOld {
		c.waiting.Add(1)
	}
	c.Observer.JobRead(ws, id, served)
}

// JobsListed implements ports.Observer.
func (c *FallbackCounter) JobsListed(ws workspace.ID, path job.ListPath, n int) {
	if path == job.ListOld || path == job.ListMixed {
		c.waiting.Add(1)
	}
	c.Observer.JobsListed(ws, path, n)
}

// FlushFallbackHits tells the storage what a FallbackCounter counted, in batches and only where there is something.
type FlushFallbackHits struct {
	Counter *FallbackCounter
	Hits    ports.FallbackHits
	Clock   ports.Clock
	Failed  func(error) // told of a batch that failed; its hits go with the next one
}

// Run goes on until the context ends, and then tells the rest. It has to end after the last request was answered.
func (u FlushFallbackHits) Run(ctx context.Context) {
	for ended := false; !ended; {
		ended = u.Clock.Sleep(ctx, flushInterval) != nil
		u.flush(ctx)
	}
}

func (u FlushFallbackHits) flush(ctx context.Context) {
	ctx, cancel := lastWords(ctx)
	defer cancel()
	n := u.Counter.waiting.Swap(0)
	if n == 0 {
		return
	}
	if err := u.Hits.AddHits(ctx, n); err != nil {
		u.Counter.waiting.Add(n)
		u.Failed(err)
	}
}
