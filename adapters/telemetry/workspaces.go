package telemetry

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

// otherWorkspaces is the label of the workspaces past the cap. No workspace id begins with an underscore.
const otherWorkspaces = "_other"

// workspaces keeps the counters of each workspace at hand, so that counting is a map read and an atomic addition.
type workspaces struct {
	vecs  vecs
	other *counters
	cap   int

	mu   sync.Mutex // held while a workspace is added
	seen atomic.Pointer[map[workspace.ID]*counters]
}

type vecs struct {
	jobRead, listRead, dualWrite                                  *prometheus.CounterVec
	listResults, mismatch, breach, stale, collision, wrong, broke *prometheus.CounterVec
}

// counters are those of one workspace. They all exist from the first event on, so that a rate over the first of a
// kind is seen.
type counters struct {
	jobRead                                                       [job.CopyNew + 1]prometheus.Counter
	listRead                                                      [job.ListMixed + 1]prometheus.Counter
	dualWriteDone, dualWriteFailed                                prometheus.Counter
	listResults, mismatch, breach, stale, collision, wrong, broke prometheus.Counter
}

func newWorkspaces(labelCap int) *workspaces {
	vec := func(name, help string, more ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help},
			append([]string{"workspace_id"}, more...))
	}
	w := &workspaces{cap: labelCap, vecs: vecs{
		jobRead: vec("relay_job_read_path_total",
			"Reads of a job by id, by the stored copy that was served.", "path"),
		listRead: vec("relay_job_list_read_path_total",
			"Pages of jobs, by the stored copies that were served.", "path"),
		listResults: vec("relay_job_list_results_total",
			"Jobs given in pages."),
		dualWrite: vec("relay_dual_write_attempt_total",
			"Writes to both schemas; failed is a failure of the storage, a refused write is not counted.", "result"),
		mismatch: vec("relay_workspace_mismatch_total",
			"Reads by id that met a record of another workspace, by the asking workspace."),
		breach: vec("relay_isolation_breach_total",
			"Stored records that contradict the workspace of their key. None was shown. The target is 0."),
		stale: vec("relay_stale_copy_total",
			"Reads that served one of two differing copies."),
		collision: vec("relay_job_id_collision_total",
			"Jobs written to the new schema alone, because another workspace's record holds their old key."),
		wrong: vec("relay_wrong_type_total",
			"Job keys that hold something else than a hash."),
		broke: vec("relay_record_invalid_total",
			"Whole records that cannot be decoded."),
	}}
	w.other = w.vecs.of(otherWorkspaces)
	w.seen.Store(&map[workspace.ID]*counters{})
	return w
}

func (v vecs) of(label string) *counters {
	c := &counters{
		dualWriteDone:   v.dualWrite.WithLabelValues(label, "succeeded"),
		dualWriteFailed: v.dualWrite.WithLabelValues(label, "failed"),
		listResults:     v.listResults.WithLabelValues(label),
		mismatch:        v.mismatch.WithLabelValues(label),
		breach:          v.breach.WithLabelValues(label),
		stale:           v.stale.WithLabelValues(label),
		collision:       v.collision.WithLabelValues(label),
		wrong:           v.wrong.WithLabelValues(label),
		broke:           v.broke.WithLabelValues(label),
	}
	for i := range c.jobRead {
		c.jobRead[i] = v.jobRead.WithLabelValues(label, job.Copy(i).String())
	}
	for i := range c.listRead {
		c.listRead[i] = v.listRead.WithLabelValues(label, job.ListPath(i).String())
	}
	return c
}

func (w *workspaces) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		w.vecs.jobRead, w.vecs.listRead, w.vecs.listResults, w.vecs.dualWrite, w.vecs.mismatch, w.vecs.breach,
		w.vecs.stale, w.vecs.collision, w.vecs.wrong, w.vecs.broke,
	}
}

// of gives the counters of ws. A workspace that is seen for the first time gets its own while the cap allows it.
func (w *workspaces) of(ws workspace.ID) *counters {
	seen := *w.seen.Load()
	if c, ok := seen[ws]; ok {
		return c
	}
	if len(seen) >= w.cap || ws.IsZero() {
		return w.other
	}
	return w.add(ws)
}

// add copies the map, which readers use without a lock; there are no more copies than the cap.
func (w *workspaces) add(ws workspace.ID) *counters {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := *w.seen.Load()
	if c, ok := seen[ws]; ok {
		return c
	}
	if len(seen) >= w.cap {
		return w.other
	}
	grown := maps.Clone(seen)
	c := w.vecs.of(ws.String())
	grown[ws] = c
	w.seen.Store(&grown)
	return c
}
