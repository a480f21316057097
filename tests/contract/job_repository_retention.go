package contract

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

// newExpiringWorld opens a storage that keeps finished jobs only for as long as a test can wait.
func newExpiringWorld(t *testing.T, s JobStorage) (jobWorld, time.Duration) {
	t.Helper()
	const retention = 100 * time.Millisecond
	return newJobWorld(t, s, retention), retention
}

// waitUntilGone returns once a job that was just finished has run out.
func (w jobWorld) waitUntilGone(t *testing.T, ws workspace.ID, id job.ID, retention time.Duration) {
	t.Helper()
	if w.Advance != nil {
		w.Advance(retention + time.Millisecond)
	}
	gone := func() bool {
		_, err := w.Jobs.Get(t.Context(), ws, id)
		return fault.KindOf(err) == fault.NotFound
	}
	require.Eventually(t, gone, 30*time.Second, 10*time.Millisecond)
}

func retentionTopic(t *testing.T, s JobStorage) {
	t.Helper()
	final := map[string]job.Move{
		"completed": {To: job.Completed, Result: `1`},
		"failed":    {To: job.Failed, Error: "no"},
	}
	for name, m := range final {
		t.Run("a job that "+name+" runs out", func(t *testing.T) {
			w, retention := newExpiringWorld(t, s)
			pending := w.enqueue(t, newDraft(t, w.acme))
			running := w.move(t, w.acme, w.enqueue(t, newDraft(t, w.acme)).ID, job.Move{To: job.Running})
			back := w.move(t, w.acme, w.enqueue(t, newDraft(t, w.acme)).ID,
				job.Move{To: job.Running}, job.Move{To: job.Pending})
			d := newDraft(t, w.acme)
			w.enqueue(t, d)
			w.move(t, w.acme, d.ID, job.Move{To: job.Running})
			require.NoError(t, w.Jobs.Move(t.Context(), w.acme, d.ID, m))
			w.waitUntilGone(t, w.acme, d.ID, retention)

			for _, move := range append([]job.Move{m}, job.Move{To: job.Running}, job.Move{To: job.Pending}) {
				requireKind(t, fault.NotFound, w.Jobs.Move(t.Context(), w.acme, d.ID, move))
				requireAbsent(t, w, w.acme, d.ID)
			}
			w.requireJobs(t, []job.Job{pending, running, back}, w.walk(t, w.acme, job.Query{Limit: 1}, nil))
			require.Empty(t, w.walk(t, w.acme, job.Query{Status: m.To, Limit: 10}, nil))
		})
	}

	t.Run("not before its time", func(t *testing.T) {
		w := newJobWorld(t, s, time.Hour)
		done := w.enqueue(t, newDraft(t, w.acme))
		done = w.move(t, w.acme, done.ID, job.Move{To: job.Running}, job.Move{To: job.Completed})
		if w.Advance != nil {
			w.Advance(59 * time.Minute)
		}
		require.Equal(t, done, w.get(t, w.acme, done.ID))
		w.requireJobs(t, []job.Job{done}, w.list(t, w.acme))
		// The move that is answered as done writes nothing, so it does not make the job last longer either.
		require.NoError(t, w.Jobs.Move(t.Context(), w.acme, done.ID, job.Move{To: job.Completed}))
		if w.Advance != nil {
			w.Advance(2 * time.Minute)
			requireAbsent(t, w, w.acme, done.ID)
		}
	})

	t.Run("kept where there is none", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		done := w.move(t, w.acme, w.enqueue(t, newDraft(t, w.acme)).ID, job.Move{To: job.Failed, Error: "no"})
		if w.Advance != nil {
			w.Advance(10 * 365 * 24 * time.Hour)
		}
		require.Equal(t, done, w.get(t, w.acme, done.ID))
		w.requireJobs(t, []job.Job{done}, w.list(t, w.acme))
	})
}
