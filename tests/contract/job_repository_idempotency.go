package contract

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/job"
)

func idempotencyTopic(t *testing.T, s JobStorage) {
	t.Helper()
	t.Run("the same key answers the same job", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		first := newDraft(t, w.acme)
		first.ClientRequestID = newRequestID(t)
		before := w.enqueue(t, first)

		same := newDraft(t, w.acme)
		same.ClientRequestID = first.ClientRequestID
		requireReplayed(t, w, same, first)

		w.move(t, w.acme, first.ID, job.Move{To: job.Running}, job.Move{To: job.Failed, Error: "no"})
		same.ID = newJobID(t)
		requireReplayed(t, w, same, first)

		require.Equal(t, before.EnqueuedAt, w.get(t, w.acme, first.ID).EnqueuedAt)
		require.Equal(t, int64(3), w.get(t, w.acme, first.ID).Rev, "a replay is no write of the job")
		require.Len(t, distinct(w.list(t, w.acme)), 1)
	})

	t.Run("another request with the key gets the known job to compare", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		first := newDraft(t, w.acme)
		first.ClientRequestID = newRequestID(t)
		before := w.enqueue(t, first)
		for _, change := range []func(*job.Draft){
			func(d *job.Draft) { d.Provider = "slack" },
			func(d *job.Draft) { d.Name = "gmail.delete" },
			func(d *job.Draft) { d.Params = `{}` },
		} {
			other := newDraft(t, w.acme)
			other.ClientRequestID = first.ClientRequestID
			change(&other)
			requireReplayed(t, w, other, first)
		}
		w.requireJobs(t, []job.Job{before}, w.list(t, w.acme))
	})

	t.Run("keys belong to their workspace", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		first := newDraft(t, w.acme)
		first.ClientRequestID = newRequestID(t)
		before := w.enqueue(t, first)
		for _, other := range w.neighbours() {
			d := newDraft(t, other)
			d.ClientRequestID = first.ClientRequestID
			theirs := w.enqueue(t, d)
			w.requireJobs(t, []job.Job{theirs}, w.list(t, other))
		}
		w.requireJobs(t, []job.Job{before}, w.list(t, w.acme))
	})

	t.Run("keys of any printable characters", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		drafts := make(map[string]job.Draft)
		for _, text := range []string{" ", ":", "*", "a:b", "a", "a ", "{a}", `"`, "%00", "~"} {
			key, err := job.ParseClientRequestID(text)
			require.NoError(t, err)
			d := newDraft(t, w.acme)
			d.ClientRequestID = key
			w.enqueue(t, d)
			drafts[text] = d
		}
		for _, first := range drafts {
			again := newDraft(t, w.acme)
			again.ClientRequestID = first.ClientRequestID
			requireReplayed(t, w, again, first)
		}
		require.Len(t, distinct(w.list(t, w.acme)), len(drafts))
	})

	t.Run("64 at once make one job", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		const groups, callers = 3, 64
		for range groups {
			key := newRequestID(t)
			drafts := make([]job.Draft, callers)
			for i := range drafts {
				drafts[i] = newDraft(t, w.acme)
				drafts[i].ClientRequestID = key
			}
			made, errs := make([]job.Enqueued, callers), make([]error, callers)
			atOnce(callers, func(i int) { made[i], errs[i] = w.Jobs.Enqueue(t.Context(), drafts[i]) })
			firsts := 0
			for i := range made {
				require.NoError(t, errs[i])
				require.Equal(t, made[0].Job.ID, made[i].Job.ID)
				require.Equal(t, drafts[i].ID != made[i].Job.ID, made[i].Replayed)
				if !made[i].Replayed {
					firsts++
				}
			}
			require.Equal(t, 1, firsts)
			require.Equal(t, int64(1), w.get(t, w.acme, made[0].Job.ID).Rev)
		}
		listed := w.list(t, w.acme)
		w.requireOnce(t, listed, listed)
		require.Len(t, distinct(listed), groups)
	})

	t.Run("a key whose job is gone makes a new one", func(t *testing.T) {
		w, retention := newExpiringWorld(t, s)
		first := newDraft(t, w.acme)
		first.ClientRequestID = newRequestID(t)
		w.enqueue(t, first)
		require.NoError(t, w.Jobs.Move(t.Context(), w.acme, first.ID, job.Move{To: job.Failed, Error: "no"}))
		w.waitUntilGone(t, w.acme, first.ID, retention)

		second := newDraft(t, w.acme)
		second.ClientRequestID = first.ClientRequestID
		made := w.enqueue(t, second)
		third := newDraft(t, w.acme)
		third.ClientRequestID = first.ClientRequestID
		requireReplayed(t, w, third, second)
		w.requireJobs(t, []job.Job{made}, w.list(t, w.acme))
	})

	t.Run("a key is known for 24 hours", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		if w.Advance == nil {
			return // a day cannot be waited for; what can be seen without it is in the other tests
		}
		first := newDraft(t, w.acme)
		first.ClientRequestID = newRequestID(t)
		w.enqueue(t, first)
		second := newDraft(t, w.acme)
		second.ClientRequestID = first.ClientRequestID
		w.Advance(24*time.Hour - time.Minute)
		requireReplayed(t, w, second, first)
		w.Advance(2 * time.Minute)
		w.enqueue(t, second)
		require.Len(t, distinct(w.list(t, w.acme)), 2)
	})
}

// requireReplayed checks that d is answered with the job that first made, and makes none.
func requireReplayed(t *testing.T, w jobWorld, d, first job.Draft) {
	t.Helper()
	again, err := w.Jobs.Enqueue(t.Context(), d)
	require.NoError(t, err)
	require.True(t, again.Replayed)
	requireRequest(t, first, again.Job)
	requireAbsent(t, w, d.Workspace, d.ID)
}

// distinct gives the ids in jobs.
func distinct(jobs []job.Job) map[job.ID]bool {
	ids := make(map[job.ID]bool)
	for _, j := range jobs {
		ids[j.ID] = true
	}
	return ids
}
