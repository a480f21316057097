package contract

import (
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// jobEvent is one call of an Observer; what it does not carry is zero.
type jobEvent struct {
	name          string
	ws, other     workspace.ID
	id            job.ID
	served        job.Copy
	wrote, failed bool
}

// jobEvents is an Observer that keeps what it is told.
type jobEvents struct {
	mu   sync.Mutex
	list []jobEvent
}

var _ ports.Observer = (*jobEvents)(nil)

func (e *jobEvents) add(ev jobEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
}

// take gives what was told under name since the last take of any name.
func (e *jobEvents) take(names ...string) []jobEvent {
	e.mu.Lock()
	defer e.mu.Unlock()
	told := slices.DeleteFunc(e.list, func(ev jobEvent) bool { return !slices.Contains(names, ev.name) })
	e.list = nil
	return told
}

func (e *jobEvents) JobRead(ws workspace.ID, id job.ID, c job.Copy) {
	e.add(jobEvent{name: "JobRead", ws: ws, id: id, served: c})
}

func (e *jobEvents) JobsListed(ws workspace.ID, _ job.ListPath, _ int) {
	e.add(jobEvent{name: "JobsListed", ws: ws})
}

func (e *jobEvents) EnqueueFailed(ws workspace.ID, _ fault.Kind) {
	e.add(jobEvent{name: "EnqueueFailed", ws: ws})
}

func (e *jobEvents) DualWritten(ws workspace.ID, ok bool) {
	e.add(jobEvent{name: "DualWritten", ws: ws, wrote: ok, failed: !ok})
}

func (e *jobEvents) StaleCopyRead(ws workspace.ID) { e.add(jobEvent{name: "StaleCopyRead", ws: ws}) }

// WorkspaceMismatch notes those that are any: a storage may tell of a miss that met nobody's record too.
func (e *jobEvents) WorkspaceMismatch(request, stored workspace.ID) {
	if stored.IsZero() {
		return
	}
	e.add(jobEvent{name: "WorkspaceMismatch", ws: request, other: stored})
}

func (e *jobEvents) OtherWorkspaceRequested(request, given workspace.ID) {
	e.add(jobEvent{name: "OtherWorkspaceRequested", ws: request, other: given})
}

func (e *jobEvents) IsolationBreach(ws workspace.ID) {
	e.add(jobEvent{name: "IsolationBreach", ws: ws})
}

func (e *jobEvents) IDCollision(ws workspace.ID) { e.add(jobEvent{name: "IDCollision", ws: ws}) }

func (e *jobEvents) WrongTypeRead(ws workspace.ID) { e.add(jobEvent{name: "WrongTypeRead", ws: ws}) }

func (e *jobEvents) IndexNotMended(ws workspace.ID) { e.add(jobEvent{name: "IndexNotMended", ws: ws}) }

func (e *jobEvents) RecordInvalid(ws workspace.ID) { e.add(jobEvent{name: "RecordInvalid", ws: ws}) }

// neverInOrder are what no sound storage tells while each workspace keeps to jobs of its own. The use cases tell the
// first three.
func neverInOrder() []string {
	return []string{
		"JobsListed", "EnqueueFailed", "OtherWorkspaceRequested",
		"StaleCopyRead", "IsolationBreach", "IDCollision", "WrongTypeRead", "RecordInvalid",
	}
}

func observerTopic(t *testing.T, s JobStorage) {
	t.Helper()
	t.Run("a read by id tells which copy was served", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		d := newDraft(t, w.acme)
		_, err := w.Jobs.Enqueue(t.Context(), d)
		require.NoError(t, err)
		w.events.take()

		w.get(t, w.acme, d.ID)
		told := w.events.take("JobRead", "WorkspaceMismatch")
		require.Len(t, told, 1)
		require.NotEqual(t, job.CopyNone, told[0].served)
		require.Equal(t, jobEvent{name: "JobRead", ws: w.acme, id: d.ID, served: told[0].served}, told[0])
	})

	t.Run("a miss is told as one", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		id := newJobID(t)
		requireAbsent(t, w, w.acme, id)
		require.Equal(t, []jobEvent{{name: "JobRead", ws: w.acme, id: id}}, w.events.take("JobRead", "WorkspaceMismatch"))
	})

	t.Run("another workspace's job is a miss of the reader's", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		theirs := w.enqueue(t, newDraft(t, w.acme))
		w.events.take()
		requireAbsent(t, w, w.acmeEU, theirs.ID)
		told := w.events.take("JobRead", "WorkspaceMismatch")
		require.Contains(t, told, jobEvent{name: "JobRead", ws: w.acmeEU, id: theirs.ID})
		// Only a storage that looked at the other's record can tell of it, and it tells once.
		for _, ev := range told {
			if ev.name == "WorkspaceMismatch" {
				require.Equal(t, jobEvent{name: "WorkspaceMismatch", ws: w.acmeEU, other: w.acme}, ev)
			}
		}
		require.LessOrEqual(t, len(told), 2)
	})

	t.Run("a list skips other workspaces in silence", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		w.fill(t, w.acme, 2)
		w.fill(t, w.acmeEU, 2)
		w.events.take()
		w.list(t, w.acme)
		w.list(t, w.acmeLabs)
		require.Empty(t, w.events.take("JobRead", "WorkspaceMismatch"))
	})

	t.Run("nothing alarming in the ordinary course", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		for _, ws := range append(w.neighbours(), w.acme) {
			for _, way := range ways() {
				d := newDraft(t, ws)
				d.ClientRequestID = newRequestID(t)
				j := w.enqueue(t, d)
				w.move(t, ws, j.ID, way...)
				d.ID = newJobID(t)
				_, err := w.Jobs.Enqueue(t.Context(), d)
				require.NoError(t, err)
			}
			w.list(t, ws)
		}
		told := w.events.take(append(neverInOrder(), "DualWritten", "WorkspaceMismatch")...)
		for _, ev := range told {
			require.Equal(t, "DualWritten", ev.name)
			require.True(t, ev.wrote)
		}
	})

	t.Run("a refusal is no failed write", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		j := w.enqueue(t, newDraft(t, w.acme))
		w.events.take()
		requireKind(t, fault.Conflict, w.Jobs.Move(t.Context(), w.acme, j.ID, job.Move{To: job.Completed}))
		requireKind(t, fault.NotFound, w.Jobs.Move(t.Context(), w.acme, newJobID(t), job.Move{To: job.Running}))
		require.Empty(t, w.events.take(append(neverInOrder(), "DualWritten")...))
	})
}
