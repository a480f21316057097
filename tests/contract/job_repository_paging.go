package contract

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
)

func pagingTopic(t *testing.T, s JobStorage) {
	t.Helper()
	t.Run("every limit", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		require.Empty(t, w.list(t, w.acme))
		all := w.fill(t, w.acme, s.Size)
		w.fill(t, w.acmeEU, s.Size/4)
		for _, limit := range []int{1, 2, 3, 7, s.Size - 1, s.Size, s.Size + 1, job.DefaultLimit, job.MaxLimit} {
			t.Run(fmt.Sprint(limit), func(t *testing.T) {
				w.requireJobs(t, all, w.walk(t, w.acme, job.Query{Limit: limit}, nil))
			})
		}
	})

	t.Run("by status", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		want := make(map[job.Status][]job.Job)
		for i, j := range w.fill(t, w.acme, s.Size) {
			way := []job.Move{{To: job.Running}, {To: job.Completed}}[:min(i%4, 2)]
			if i%4 == 3 {
				way = []job.Move{{To: job.Failed, Error: "no"}}
			}
			j = w.move(t, w.acme, j.ID, way...)
			want[j.Status] = append(want[j.Status], j)
		}
		require.Len(t, want, 4)
		for _, status := range job.Statuses() {
			for _, limit := range []int{1, 7, job.MaxLimit} {
				got := w.walk(t, w.acme, job.Query{Status: status, Limit: limit}, nil)
				w.requireJobs(t, want[status], got)
			}
		}
	})

	t.Run("a status that no job has", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		w.fill(t, w.acme, 5)
		require.Empty(t, w.walk(t, w.acme, job.Query{Status: job.Failed, Limit: 2}, nil))
	})

	t.Run("under writes", func(t *testing.T) {
		for _, limit := range []int{1, 4, 25} {
			t.Run(fmt.Sprint(limit), func(t *testing.T) {
				w := newJobWorld(t, s, 0)
				all := w.fill(t, w.acme, s.Size)
				turn := 0
				got := w.walk(t, w.acme, job.Query{Limit: limit}, func(job.Page) {
					if turn < s.Size { // some storages give many pages without jobs
						w.fill(t, w.acme, 1)
						w.fill(t, w.acmeEU, 1)
						w.move(t, w.acme, all[turn].ID, job.Move{To: job.Running})
						w.move(t, w.acme, all[s.Size-1-turn].ID, job.Move{To: job.Running})
					}
					turn++
				})
				w.requireOnce(t, all, got)
			})
		}
	})

	t.Run("while others write", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		all := w.fill(t, w.acme, s.Size)
		drafts := make([]job.Draft, len(all))
		for i := range drafts {
			drafts[i] = newDraft(t, w.acme)
		}
		const writers = 3
		errs := make([]error, writers)
		written := make(chan struct{})
		go func() {
			defer close(written)
			atOnce(writers, func(i int) {
				for n := i; n < len(all) && errs[i] == nil; n += writers {
					_, err := w.Jobs.Enqueue(t.Context(), drafts[n])
					errs[i] = errors.Join(err, w.Jobs.Move(t.Context(), w.acme, all[n].ID, job.Move{To: job.Running}))
				}
			})
		}()
		for writing := true; writing; {
			w.requireOnce(t, all, w.walk(t, w.acme, job.Query{Limit: 5}, nil))
			select {
			case <-written:
				writing = false
			default:
			}
		}
		require.NoError(t, errors.Join(errs...))
		require.Len(t, distinct(w.list(t, w.acme)), 2*s.Size)
	})

	t.Run("a filtered walk while jobs change state", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		all := w.fill(t, w.acme, s.Size)
		stay := slices.DeleteFunc(slices.Clone(all), func(j job.Job) bool { return slices.Index(all, j)%2 == 0 })
		turn := 0
		got := w.walk(t, w.acme, job.Query{Status: job.Pending, Limit: 3}, func(job.Page) {
			if turn < s.Size {
				w.move(t, w.acme, all[turn].ID, job.Move{To: job.Running})
				turn += 2
			}
		})
		w.requireOnce(t, stay, got)
	})

	t.Run("pages of large jobs", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		var all []job.Job
		for range 9 {
			d := newDraft(t, w.acme)
			d.Params = job.JSON(`{"s":"` + strings.Repeat("x", 250<<10) + `"}`)
			all = append(all, w.enqueue(t, d))
		}
		all = append(all, w.fill(t, w.acme, 5)...)
		var most int
		got := w.walk(t, w.acme, job.Query{Limit: job.MaxLimit}, func(p job.Page) { most = max(most, len(p.Jobs)) })
		w.requireJobs(t, all, got)
		require.Less(t, most, 10, "four large jobs and the small ones fit")
	})

	t.Run("a job beyond the size of a page", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		huge := newDraft(t, w.acme)
		huge.Params = job.JSON(`{"s":"` + strings.Repeat("x", job.MaxPageBytes) + `"}`)
		all := w.fill(t, w.acme, 2)
		all = append(all, w.enqueue(t, huge))
		all = append(all, w.fill(t, w.acme, 2)...)
		w.requireJobs(t, all, w.list(t, w.acme))
		w.requireJobs(t, all, w.walk(t, w.acme, job.Query{Limit: 1}, nil))
	})

	t.Run("cursors of every kind", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		all := w.fill(t, w.acme, 5)
		w.fill(t, w.acmeEU, 5)
		for _, cursor := range []job.Cursor{
			job.ScanCursor(0, 0, job.ID{}),
			job.ScanCursor(1, 0, job.ID{}),
			job.ScanCursor(0, 1, job.ID{}),
			job.ScanCursor(1<<63, 1<<63, newJobID(t)),
			job.OrderCursor(all[2].Place()),
			job.OrderCursor(job.Place{ID: newJobID(t)}),
		} {
			_, err := w.Jobs.List(t.Context(), w.acme, job.Query{Limit: 2, Cursor: cursor})
			if err != nil {
				requireKind(t, fault.Invalid, err)
				require.Equal(t, fault.CodeInvalidCursor, fault.CodeOf(err))
				continue
			}
			requireAmong(t, all, w.walk(t, w.acme, job.Query{Limit: 2, Cursor: cursor}, nil))
		}
	})

	t.Run("what is returned is the caller's", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		w.fill(t, w.acme, 3)
		before := w.list(t, w.acme)
		page, err := w.Jobs.List(t.Context(), w.acme, job.Query{Limit: 3})
		require.NoError(t, err)
		for i := range page.Jobs {
			page.Jobs[i] = job.Job{ID: newJobID(t), Workspace: w.acmeEU}
		}
		_ = append(page.Jobs[:0], job.Job{})
		w.requireJobs(t, before, w.list(t, w.acme))
		for _, j := range before {
			require.Equal(t, j, w.get(t, w.acme, j.ID))
		}
	})
}
