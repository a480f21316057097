package contract

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

func refusalsTopic(t *testing.T, s JobStorage) {
	t.Helper()
	t.Run("no workspace or job id", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		before := w.enqueue(t, newDraft(t, w.acme))
		ctx, m := t.Context(), job.Move{To: job.Running}

		var err error
		_, err = w.Jobs.Get(ctx, workspace.ID{}, before.ID)
		requireKind(t, fault.Invalid, err)
		_, err = w.Jobs.Get(ctx, w.acme, job.ID{})
		requireKind(t, fault.Invalid, err)
		_, err = w.Jobs.List(ctx, workspace.ID{}, job.Query{Limit: 1})
		requireKind(t, fault.Invalid, err)
		requireKind(t, fault.Invalid, w.Jobs.Move(ctx, workspace.ID{}, before.ID, m))
		requireKind(t, fault.Invalid, w.Jobs.Move(ctx, w.acme, job.ID{}, m))
		d := newDraft(t, workspace.ID{})
		_, err = w.Jobs.Enqueue(ctx, d)
		requireKind(t, fault.Invalid, err)
		d = newDraft(t, w.acme)
		d.ID = job.ID{}
		_, err = w.Jobs.Enqueue(ctx, d)
		requireKind(t, fault.Invalid, err)

		w.requireJobs(t, []job.Job{before}, w.list(t, w.acme))
	})

	t.Run("moves that no job could make", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		before := w.move(t, w.acme, w.enqueue(t, newDraft(t, w.acme)).ID, job.Move{To: job.Running})
		for name, m := range map[string]job.Move{
			"nowhere":             {},
			"unknown state":       {To: "paused"},
			"state in capitals":   {To: "Completed"},
			"result not JSON":     {To: job.Completed, Result: "{"},
			"result not UTF-8":    {To: job.Completed, Result: "\"\xff\""},
			"result while open":   {To: job.Pending, Result: "1"},
			"error of a success":  {To: job.Completed, Error: "no"},
			"error while running": {To: job.Running, Error: "no"},
		} {
			requireKind(t, fault.Invalid, w.Jobs.Move(t.Context(), w.acme, before.ID, m))
			require.Equal(t, before, w.get(t, w.acme, before.ID), name)
		}
	})

	t.Run("a context that has ended", func(t *testing.T) {
		for want, at := range map[fault.Kind]time.Time{fault.Canceled: time.Now().Add(time.Hour), fault.Timeout: {}} {
			t.Run(want.String(), func(t *testing.T) {
				w := newJobWorld(t, s, 0)
				before := w.enqueue(t, newDraft(t, w.acme))
				d := newDraft(t, w.acme)
				d.ClientRequestID = newRequestID(t)

				ctx, cancel := context.WithDeadline(t.Context(), at)
				cancel() // of no effect on one that has expired
				_, err := w.Jobs.Enqueue(ctx, d)
				requireKind(t, want, err)
				_, err = w.Jobs.Get(ctx, w.acme, before.ID)
				requireKind(t, want, err)
				_, err = w.Jobs.Get(ctx, w.acme, newJobID(t))
				requireKind(t, want, err)
				_, err = w.Jobs.List(ctx, w.acme, job.Query{Limit: 1})
				requireKind(t, want, err)
				requireKind(t, want, w.Jobs.Move(ctx, w.acme, before.ID, job.Move{To: job.Running}))
				w.requireJobs(t, []job.Job{before}, w.list(t, w.acme))

				d.ID = newJobID(t)
				w.enqueue(t, d) // the refused request did not take the key
			})
		}
	})
}
