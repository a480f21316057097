package contract

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
)

// ways are the legal ways by which a job comes into each state, beginning when it was enqueued.
func ways() map[string][]job.Move {
	run := job.Move{To: job.Running}
	back := job.Move{To: job.Pending}
	done := job.Move{To: job.Completed, Result: `{"id":7}`}
	fail := job.Move{To: job.Failed, Error: "quota"}
	return map[string][]job.Move{
		"pending":            {},
		"pending, once more": {run, back},
		"running":            {run},
		"running, once more": {run, back, run},
		"completed":          {run, done},
		"completed, empty":   {run, {To: job.Completed}},
		"failed":             {run, fail},
		"failed, unstarted":  {fail},
		"failed, with both":  {run, {To: job.Failed, Error: "quota", Result: `[1]`}},
	}
}

// attempts are moves to each state, with outcomes of their own.
func attempts() map[string]job.Move {
	return map[string]job.Move{
		"pending":             {To: job.Pending},
		"running":             {To: job.Running},
		"completed":           {To: job.Completed, Result: `{"id":7}`},
		"completed otherwise": {To: job.Completed, Result: `{"id": 7}`},
		"completed, empty":    {To: job.Completed},
		"failed":              {To: job.Failed, Error: "quota"},
		"failed otherwise":    {To: job.Failed, Error: "network"},
		"failed, with both":   {To: job.Failed, Error: "quota", Result: `[1]`},
	}
}

func movesTopic(t *testing.T, s JobStorage) {
	t.Helper()
	t.Run("table", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		for from, way := range ways() {
			for to, m := range attempts() {
				t.Run(from+" to "+to, func(t *testing.T) {
					j := w.enqueue(t, newDraft(t, w.acme))
					for _, step := range way {
						require.NoError(t, w.Jobs.Move(t.Context(), w.acme, j.ID, step))
					}
					before := w.get(t, w.acme, j.ID)
					requireMoved(t, j, before, way...)
					err := w.Jobs.Move(t.Context(), w.acme, j.ID, m)
					after := w.get(t, w.acme, j.ID)
					switch legal := slices.Contains(m.To.Sources(), before.Status); {
					case legal:
						require.NoError(t, err)
						requireMoved(t, before, after, m)
					case before.Status == m.To && before.Result == m.Result && before.Error == m.Error:
						require.NoError(t, err, "it is there already")
						require.Equal(t, before, after)
					default:
						requireKind(t, fault.Conflict, err)
						require.Equal(t, before, after)
					}
				})
			}
		}
	})

	t.Run("a list shows the moved job", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		var all []job.Job
		for _, way := range ways() {
			all = append(all, w.move(t, w.acme, w.enqueue(t, newDraft(t, w.acme)).ID, way...))
		}
		w.requireJobs(t, all, w.list(t, w.acme))
		for _, status := range job.Statuses() {
			want := slices.DeleteFunc(slices.Clone(all), func(j job.Job) bool { return j.Status != status })
			w.requireJobs(t, want, w.walk(t, w.acme, job.Query{Status: status, Limit: job.MaxLimit}, nil))
		}
	})

	t.Run("outcomes byte by byte", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		for name, result := range exactParams() {
			j := w.enqueue(t, newDraft(t, w.acme))
			got := w.move(t, w.acme, j.ID, job.Move{To: job.Running}, job.Move{To: job.Completed, Result: result})
			require.True(t, result == got.Result, name) //nolint:testifylint // a failure need not print them
		}
		j := w.enqueue(t, newDraft(t, w.acme))
		text := "no\x00t\r\n \"found\" %s 🙂"
		require.Equal(t, text, w.move(t, w.acme, j.ID, job.Move{To: job.Failed, Error: text}).Error)
	})

	t.Run("one winner among different outcomes", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		for range 3 {
			before := w.move(t, w.acme, w.enqueue(t, newDraft(t, w.acme)).ID, job.Move{To: job.Running})
			moves, errs := make([]job.Move, 16), make([]error, 16)
			for i := range moves {
				moves[i] = job.Move{To: job.Completed, Result: job.JSON(fmt.Sprint(i))}
				if i%2 == 0 {
					moves[i] = job.Move{To: job.Failed, Error: fmt.Sprint(i)}
				}
			}
			atOnce(len(moves), func(i int) { errs[i] = w.Jobs.Move(t.Context(), w.acme, before.ID, moves[i]) })
			var won []job.Move
			for i, err := range errs {
				if err == nil {
					won = append(won, moves[i])
				} else {
					requireKind(t, fault.Conflict, err)
				}
			}
			require.Len(t, won, 1)
			requireMoved(t, before, w.get(t, w.acme, before.ID), won[0])
		}
	})

	t.Run("the same move at once is written once", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		before := w.enqueue(t, newDraft(t, w.acme))
		for _, m := range []job.Move{{To: job.Running}, {To: job.Completed, Result: `{}`}} {
			errs := make([]error, 16)
			atOnce(len(errs), func(i int) { errs[i] = w.Jobs.Move(t.Context(), w.acme, before.ID, m) })
			for _, err := range errs {
				require.NoError(t, err)
			}
			after := w.get(t, w.acme, before.ID)
			requireMoved(t, before, after, m)
			before = after
		}
	})
}

// requireMoved checks that after is before as moves leave it: states, outcome, rev, and which times are there.
func requireMoved(t *testing.T, before, after job.Job, moves ...job.Move) {
	t.Helper()
	want := before
	started, finished := false, false
	for _, m := range moves {
		want.Status, want.Result, want.Error = m.To, m.Result, m.Error
		want.Rev++
		switch m.To {
		case job.Pending:
			want.StartedAt, started = time.Time{}, false
		case job.Running:
			started = true
		case job.Completed, job.Failed:
			finished = true
		}
	}
	if started {
		requireStamp(t, after.StartedAt)
		want.StartedAt = after.StartedAt
	}
	if finished {
		requireStamp(t, after.FinishedAt)
		want.FinishedAt = after.FinishedAt
	}
	require.Equal(t, want, after)
}
