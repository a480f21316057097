package telemetry

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

// otherWorkspaces is the label of the workspaces past the cap. No workspace id begins with an underscore.
const otherWorkspaces = "_other"

// event is something that is counted for each workspace.
type event uint8

const (
	jobRead  event = iota // by job.Copy
	listRead              // by job.ListPath
	dualWrite
	listResult
	mismatched
	breached
	staleRead
	collided
	wrongType
	undecodable
	indexNotMended
)

// The values of dualWrite.
const (
	writeFailed = iota
	writeSucceeded
)

// counter is what an event is counted in: one for each value of its label, or one where it has none.
type counter struct {
	name, help string
	label      string
	values     []string
}

// counted names the counter of each event.
func counted() []counter {
	return []counter{
		jobRead: {
			name: "relay_job_read_path_total", help: "Reads of a job by id, by the stored copy that was served.",
			label: "path", values: texts(job.CopyNone, job.CopyOld, job.CopyNew),
		},
		listRead: {
			name: "relay_job_list_read_path_total", help: "Pages of jobs, by the stored copies that were served.",
			label: "path", values: texts(job.ListMiss, job.ListOld, job.ListNew, job.ListMixed),
		},
		dualWrite: {
			name:  "relay_dual_write_attempt_total",
			help:  "Writes to both schemas; failed is a failure of the storage, a refused write is not counted.",
			label: "result", values: []string{writeFailed: "failed", writeSucceeded: "succeeded"},
		},
		listResult: {name: "relay_job_list_results_total", help: "Jobs given in pages."},
		mismatched: {
			name: "relay_workspace_mismatch_total",
			help: "Reads by id that met a record of another workspace, by the asking workspace.",
		},
		breached: {
			name: "relay_isolation_breach_total",
			help: "Stored records that contradict the workspace of their key. None was shown. The target is 0.",
		},
		staleRead: {name: "relay_stale_copy_total", help: "Reads that served one of two differing copies."},
		collided: {
			name: "relay_job_id_collision_total",
			help: "Jobs written to the new schema alone, because another workspace's record holds their old key.",
		},
		wrongType:   {name: "relay_wrong_type_total", help: "Job keys that hold something else than a hash."},
		undecodable: {name: "relay_record_invalid_total", help: "Whole records that cannot be decoded."},
		indexNotMended: {
			name: "relay_index_not_mended_total",
			help: "Pages that met wrong index entries and could not mend them. None was shown.",
		},
	}
}

// texts gives the label values of a closed set, which are counted by their place in it.
func texts[T fmt.Stringer](all ...T) []string {
	values := make([]string, len(all))
	for i, v := range all {
		values[i] = v.String()
	}
	return values
}

// counters are those of one workspace, by event and value. They all exist from the first event on, so that a rate over
// the first of a kind is seen.
type counters [][]prometheus.Counter

// workspaces counts by workspace.
type workspaces struct {
	vecs   []*prometheus.CounterVec
	series *series[workspace.ID, counters]
}

// newWorkspaces registers counters. Workspaces seen after the first labelCap are counted together.
func newWorkspaces(registry prometheus.Registerer, labelCap int, all []counter) *workspaces {
	w := &workspaces{}
	for _, c := range all {
		labels := []string{"workspace_id"}
		if c.label != "" {
			labels = append(labels, c.label)
		}
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: c.name, Help: c.help}, labels)
		registry.MustRegister(vec)
		w.vecs = append(w.vecs, vec)
	}
	open := func(label string) counters {
		opened := make(counters, len(all))
		for e, c := range all {
			if c.label == "" {
				opened[e] = []prometheus.Counter{w.vecs[e].WithLabelValues(label)}
			}
			for _, value := range c.values {
				opened[e] = append(opened[e], w.vecs[e].WithLabelValues(label, value))
			}
		}
		return opened
	}
	w.series = newSeries(labelCap, open(otherWorkspaces), func(ws workspace.ID) counters { return open(ws.String()) })
	return w
}

// of gives the counters of ws.
func (w *workspaces) of(ws workspace.ID) counters {
	if ws.IsZero() {
		return w.series.other
	}
	return w.series.of(ws)
}

// add counts n events of ws; an event without values has the value 0. A value that is none of the event's is not counted.
func (w *workspaces) add(ws workspace.ID, e event, value int, n float64) {
	if of := w.of(ws)[e]; value < len(of) {
		of[value].Add(n)
	}
}
