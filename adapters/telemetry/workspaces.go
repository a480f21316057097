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

// event is something that is counted for each workspace without further labels.
type event uint8

const (
	listResult event = iota
	mismatched
	breached
	staleRead
	collided
	wrongType
	undecodable
	indexNotMended
	events
)

// plain names the counter of each event.
func plain() [events]prometheus.CounterOpts {
	return [events]prometheus.CounterOpts{
		listResult: {Name: "relay_job_list_results_total", Help: "Jobs given in pages."},
		mismatched: {
			Name: "relay_workspace_mismatch_total",
			Help: "Reads by id that met a record of another workspace, by the asking workspace.",
		},
		breached: {
			Name: "relay_isolation_breach_total",
			Help: "Stored records that contradict the workspace of their key. None was shown. The target is 0.",
		},
		staleRead: {Name: "relay_stale_copy_total", Help: "Reads that served one of two differing copies."},
		collided: {
			Name: "relay_job_id_collision_total",
			Help: "Jobs written to the new schema alone, because another workspace's record holds their old key.",
		},
		wrongType:   {Name: "relay_wrong_type_total", Help: "Job keys that hold something else than a hash."},
		undecodable: {Name: "relay_record_invalid_total", Help: "Whole records that cannot be decoded."},
		indexNotMended: {
			Name: "relay_index_not_mended_total",
			Help: "Pages that met wrong index entries and could not mend them. None was shown.",
		},
	}
}

type vecs struct {
	jobRead, listRead, dualWrite *prometheus.CounterVec
	plain                        [events]*prometheus.CounterVec
}

// counters are those of one workspace. They all exist from the first event on, so that a rate over the first of a
// kind is seen.
type counters struct {
	jobRead                        [job.CopyNew + 1]prometheus.Counter
	listRead                       [job.ListMixed + 1]prometheus.Counter
	dualWriteDone, dualWriteFailed prometheus.Counter
	plain                          [events]prometheus.Counter
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
		dualWrite: vec("relay_dual_write_attempt_total",
			"Writes to both schemas; failed is a failure of the storage, a refused write is not counted.", "result"),
	}}
	for e, opts := range plain() {
		w.vecs.plain[e] = vec(opts.Name, opts.Help)
	}
	w.other = w.vecs.of(otherWorkspaces)
	w.seen.Store(&map[workspace.ID]*counters{})
	return w
}

func (v vecs) of(label string) *counters {
	c := &counters{
		dualWriteDone:   v.dualWrite.WithLabelValues(label, "succeeded"),
		dualWriteFailed: v.dualWrite.WithLabelValues(label, "failed"),
	}
	for e, vec := range v.plain {
		c.plain[e] = vec.WithLabelValues(label)
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
	all := []prometheus.Collector{w.vecs.jobRead, w.vecs.listRead, w.vecs.dualWrite}
	for _, vec := range w.vecs.plain {
		all = append(all, vec)
	}
	return all
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
