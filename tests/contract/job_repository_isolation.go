package contract

import (
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

func isolationTopic(t *testing.T, s JobStorage) {
	t.Helper()
	t.Run("another workspace's job is not there", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		var mine []job.Job
		for _, text := range hostileIDs(rand.Text(), w.acmeEU) {
			d := newDraft(t, w.acme)
			d.ID = jobID(t, text)
			mine = append(mine, w.enqueue(t, d))
		}
		_, absent := w.Jobs.Get(t.Context(), w.acmeEU, newJobID(t))
		for _, other := range w.neighbours() {
			for _, j := range mine {
				_, err := w.Jobs.Get(t.Context(), other, j.ID)
				requireKind(t, fault.NotFound, err)
				require.Equal(t, absent.Error(), err.Error(), "it tells no more than an absent one")
				for _, m := range attempts() {
					requireKind(t, fault.NotFound, w.Jobs.Move(t.Context(), other, j.ID, m))
				}
			}
			for _, limit := range []int{1, job.MaxLimit} {
				require.Empty(t, w.walk(t, other, job.Query{Limit: limit}, nil))
			}
		}
		w.requireJobs(t, mine, w.list(t, w.acme))
	})

	t.Run("neighbours see their own", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		jobs := make(map[workspace.ID][]job.Job)
		for range 5 {
			for _, ws := range append(w.neighbours(), w.acme) {
				jobs[ws] = append(jobs[ws], w.fill(t, ws, 1)...)
			}
		}
		for ws, mine := range jobs {
			for _, limit := range []int{1, 3, job.MaxLimit} {
				w.requireJobs(t, mine, w.walk(t, ws, job.Query{Limit: limit}, nil))
			}
		}
	})

	t.Run("a cursor of one workspace shows another's holder nothing", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		w.fill(t, w.acme, 10)
		theirs := w.fill(t, w.acmeEU, 3)
		w.walk(t, w.acme, job.Query{Limit: 2}, func(p job.Page) {
			for _, ws := range w.neighbours() {
				// From such a place the walk may be in its middle: what it gives is of its own workspace, which
				// walk checks, and each at most once.
				got := w.walk(t, ws, job.Query{Limit: 2, Cursor: p.Next}, nil)
				if ws == w.acmeLabs {
					require.Empty(t, got)
				}
				requireAmong(t, theirs, got)
			}
		})
	})

	t.Run("an absent job is not found and not made", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		for _, m := range attempts() {
			id := newJobID(t)
			requireKind(t, fault.NotFound, w.Jobs.Move(t.Context(), w.acme, id, m))
			requireAbsent(t, w, w.acme, id)
		}
		require.Empty(t, w.list(t, w.acme))
	})
}

func requireAbsent(t *testing.T, w jobWorld, ws workspace.ID, id job.ID) {
	t.Helper()
	_, err := w.Jobs.Get(t.Context(), ws, id)
	requireKind(t, fault.NotFound, err)
	require.Equal(t, fault.CodeJobNotFound, fault.CodeOf(err))
}
