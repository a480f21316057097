package contract

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

// jobModel is what a storage should hold: jobs without their times, and the keys that lead to them.
type jobModel struct {
	jobs map[workspace.ID]map[job.ID]job.Job
	keys map[workspace.ID]map[job.ClientRequestID]job.ID
}

// modelTopic compares runs of random calls with a model. Each run has workspaces of its own in one storage.
func modelTopic(t *testing.T, s JobStorage) {
	t.Helper()
	opened := newJobWorld(t, s, 0)
	rapid.Check(t, func(rt *rapid.T) {
		w := opened.elsewhere(t)
		spaces := append(w.neighbours(), w.acme)
		model := jobModel{
			jobs: make(map[workspace.ID]map[job.ID]job.Job), keys: make(map[workspace.ID]map[job.ClientRequestID]job.ID),
		}
		ids := make(map[workspace.ID][]job.ID) // an id is one workspace's: collisions depend on the schemas
		for _, ws := range spaces {
			model.jobs[ws], model.keys[ws] = make(map[job.ID]job.Job), make(map[job.ClientRequestID]job.ID)
			ids[ws] = []job.ID{newJobID(t), newJobID(t), newJobID(t)}
		}
		keys := []job.ClientRequestID{{}, newRequestID(t), newRequestID(t)}
		names := slices.Sorted(maps.Keys(attempts()))

		for range rapid.IntRange(1, 12).Draw(rt, "calls") {
			ws := rapid.SampledFrom(spaces).Draw(rt, "workspace")
			owner := rapid.SampledFrom(spaces).Draw(rt, "owner")
			n := rapid.IntRange(0, 2).Draw(rt, "id")
			switch rapid.SampledFrom([]string{"enqueue", "move", "get"}).Draw(rt, "call") {
			case "enqueue":
				d := newDraft(t, ws)
				d.ID, d.ClientRequestID = ids[ws][n], rapid.SampledFrom(keys).Draw(rt, "key")
				made, err := w.Jobs.Enqueue(t.Context(), d)
				require.NoError(rt, err)
				want, replayed := model.enqueue(d)
				require.Equal(rt, replayed, made.Replayed)
				require.Equal(rt, want, made.Job.ID)
			case "move":
				m := attempts()[rapid.SampledFrom(names).Draw(rt, "move")]
				err := w.Jobs.Move(t.Context(), ws, ids[owner][n], m)
				if kind, refused := model.move(ws, ids[owner][n], m); refused {
					require.Equal(rt, kind.String(), fault.KindOf(err).String())
				} else {
					require.NoError(rt, err)
				}
			case "get":
				got, err := w.Jobs.Get(t.Context(), ws, ids[owner][n])
				if want, ok := model.jobs[ws][ids[owner][n]]; ok {
					require.NoError(rt, err)
					require.Equal(rt, want, withoutTimes(got))
				} else {
					require.Equal(rt, fault.NotFound.String(), fault.KindOf(err).String())
				}
			}
		}
		ws := rapid.SampledFrom(spaces).Draw(rt, "listed")
		var got []job.Job
		for _, j := range w.list(t, ws) {
			got = append(got, withoutTimes(j))
		}
		w.requireJobs(t, slices.Collect(maps.Values(model.jobs[ws])), got)
	})
}

func withoutTimes(j job.Job) job.Job {
	j.EnqueuedAt, j.StartedAt, j.FinishedAt = time.Time{}, time.Time{}, time.Time{}
	return j
}

func (m jobModel) enqueue(d job.Draft) (id job.ID, replayed bool) {
	if id, ok := m.keys[d.Workspace][d.ClientRequestID]; ok && id != d.ID {
		return id, true
	}
	if _, ok := m.jobs[d.Workspace][d.ID]; ok {
		return d.ID, false
	}
	m.jobs[d.Workspace][d.ID] = job.Job{
		ID: d.ID, Workspace: d.Workspace, Status: job.Pending, Provider: d.Provider, Name: d.Name, Params: d.Params,
		Actor: d.Actor, ClientRequestID: d.ClientRequestID.String(), Rev: 1,
	}
	if !d.ClientRequestID.IsZero() {
		m.keys[d.Workspace][d.ClientRequestID] = d.ID
	}
	return d.ID, false
}

func (m jobModel) move(ws workspace.ID, id job.ID, mv job.Move) (kind fault.Kind, refused bool) {
	j, ok := m.jobs[ws][id]
	switch {
	case !ok:
		return fault.NotFound, true
	case j.Status == mv.To && j.Result == mv.Result && j.Error == mv.Error:
		return 0, false
	case !slices.Contains(mv.To.Sources(), j.Status):
		return fault.Conflict, true
	}
	j.Status, j.Result, j.Error = mv.To, mv.Result, mv.Error
	j.Rev++
	m.jobs[ws][id] = j
	return 0, false
}
