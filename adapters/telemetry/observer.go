package telemetry

import (
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

const (
	// mismatchBuffer is how many mismatches are kept between two drains; what is past it is counted as dropped.
	mismatchBuffer = 16384
	drainInterval  = 200 * time.Millisecond
)

// Observer is a ports.Observer. Its Close must be called for the last mismatches to be counted and logged.
type Observer struct {
	metrics *Metrics
	log     *zap.Logger
	stop    chan struct{}
	stopped sync.WaitGroup
	once    sync.Once

	mu      sync.Mutex
	waiting []mismatch // filled by requests
	dropped int
	spare   []mismatch // owned by the drain
}

type mismatch struct{ request, stored workspace.ID }

// NewObserver starts to observe.
func NewObserver(m *Metrics, log *zap.Logger) *Observer {
	o := &Observer{
		metrics: m, log: log, stop: make(chan struct{}),
		waiting: make([]mismatch, 0, mismatchBuffer), spare: make([]mismatch, 0, mismatchBuffer),
	}
	o.stopped.Go(o.drainUntilStopped)
	return o
}

// Close counts and logs what is waiting and stops. Whatever is observed afterwards waits for ever.
func (o *Observer) Close() {
	o.once.Do(func() { close(o.stop) })
	o.stopped.Wait()
}

// JobRead counts the copy. A miss costs the same whether or not another workspace has the job.
func (o *Observer) JobRead(ws workspace.ID, id job.ID, c job.Copy) {
	o.metrics.workspaces.add(ws, jobRead, int(c), 1)
	if e := o.log.Check(zapcore.DebugLevel, "Job read"); e != nil {
		e.Write(zap.Stringer("workspace_id", ws), zap.Stringer("job_id", id), zap.Stringer("path", c))
	}
}

// JobsListed counts the page and its jobs.
func (o *Observer) JobsListed(ws workspace.ID, path job.ListPath, n int) {
	o.metrics.workspaces.add(ws, listRead, int(path), 1)
	o.metrics.workspaces.add(ws, listResult, 0, float64(max(n, 0)))
	if e := o.log.Check(zapcore.DebugLevel, "Jobs listed"); e != nil {
		e.Write(zap.Stringer("workspace_id", ws), zap.Int("count", n), zap.Stringer("path", path))
	}
}

// EnqueueFailed logs the kind of failure; the failure itself is in the request's own line.
func (o *Observer) EnqueueFailed(ws workspace.ID, kind fault.Kind) {
	o.log.Error("Failed to enqueue job for workspace (job_id logged internally)",
		zap.Stringer("workspace_id", ws), zap.Stringer("reason", kind))
}

// DualWritten counts the write.
func (o *Observer) DualWritten(ws workspace.ID, ok bool) {
	result := writeFailed
	if ok {
		result = writeSucceeded
	}
	o.metrics.workspaces.add(ws, dualWrite, result, 1)
}

// StaleCopyRead counts the read.
func (o *Observer) StaleCopyRead(ws workspace.ID) { o.metrics.workspaces.add(ws, staleRead, 0, 1) }

// WorkspaceMismatch leaves the event to the next drain: it wakes nobody and allocates nothing. A miss that met nobody's
// record is written down like one that did, and forgotten: the answers to both come equally soon.
func (o *Observer) WorkspaceMismatch(request, stored workspace.ID) {
	o.mu.Lock()
	met := !stored.IsZero()
	if len(o.waiting) < cap(o.waiting) {
		waiting := append(o.waiting, mismatch{request, stored})
		if met {
			o.waiting = waiting
		}
	} else if met {
		o.dropped++
	}
	o.mu.Unlock()
}

// OtherWorkspaceRequested logs the refusal: the audit trail.
func (o *Observer) OtherWorkspaceRequested(request, given workspace.ID) {
	o.log.Warn("Workspace mismatch in request",
		zap.Stringer("request_workspace", request), zap.Stringer("given_workspace", given))
}

// IsolationBreach counts and logs it: none is expected, ever.
func (o *Observer) IsolationBreach(ws workspace.ID) {
	o.metrics.workspaces.add(ws, breached, 0, 1)
	o.log.Error("Stored job contradicts the workspace of its key", zap.Stringer("workspace_id", ws))
}

// IDCollision counts and logs it.
func (o *Observer) IDCollision(ws workspace.ID) {
	o.metrics.workspaces.add(ws, collided, 0, 1)
	o.log.Warn("Job id is held by another workspace in the old schema", zap.Stringer("workspace_id", ws))
}

// WrongTypeRead counts it.
func (o *Observer) WrongTypeRead(ws workspace.ID) { o.metrics.workspaces.add(ws, wrongType, 0, 1) }

// RecordInvalid counts and logs it.
func (o *Observer) RecordInvalid(ws workspace.ID) {
	o.metrics.workspaces.add(ws, undecodable, 0, 1)
	o.log.Warn("Stored job cannot be decoded", zap.Stringer("workspace_id", ws))
}

// IndexNotMended counts it.
func (o *Observer) IndexNotMended(ws workspace.ID) {
	o.metrics.workspaces.add(ws, indexNotMended, 0, 1)
}

func (o *Observer) drainUntilStopped() {
	tick := time.NewTicker(drainInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			o.drain()
		case <-o.stop:
			o.drain()
			return
		}
	}
}

// drain swaps the buffers, so that requests wait for no log line.
func (o *Observer) drain() {
	o.mu.Lock()
	o.waiting, o.spare = o.spare[:0], o.waiting
	dropped := o.dropped
	o.dropped = 0
	o.mu.Unlock()

	for _, m := range o.spare {
		o.metrics.workspaces.add(m.request, mismatched, 0, 1)
		o.log.Warn("Workspace mismatch during fallback",
			zap.Stringer("request_workspace", m.request), zap.Stringer("stored_workspace", m.stored))
	}
	if dropped > 0 {
		o.metrics.eventsDropped.Add(float64(dropped))
		o.log.Error("Workspace mismatches were dropped from the audit trail", zap.Int("count", dropped))
	}
}
