// Package contract holds what every implementation of a port must do, as suites that the adapters run.
package contract

import (
	"crypto/rand"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// JobStorage is a storage of jobs as the suite needs to know it.
type JobStorage struct {
	// Open gives a repository that is closed with the test. Its storage may be shared: the suite keeps to workspaces
	// and job ids that nothing else has.
	Open func(t *testing.T, o JobOptions) OpenedJobs
	// Resizes tells that a walk may meet a job a second time, because the storage's own table may grow under it.
	Resizes bool
	// Size is how many jobs the larger walks go through; 60 where it is 0.
	Size int
}

// JobOptions are what a repository is opened with. Observer is always set.
type JobOptions struct {
	Observer  ports.Observer
	Retention time.Duration // 0 keeps finished jobs
}

// OpenedJobs is an opened repository. Advance moves the storage's clock; it is nil where time can only be waited for.
type OpenedJobs struct {
	Jobs    ports.JobRepository
	Advance func(d time.Duration)
}

// JobRepository is what every ports.JobRepository passes, whichever schemas it writes and reads.
func JobRepository(t *testing.T, s JobStorage) {
	t.Helper()
	if s.Size == 0 {
		s.Size = 60
	}
	t.Run("Enqueue", func(t *testing.T) { enqueueTopic(t, s) })
	t.Run("Idempotency", func(t *testing.T) { idempotencyTopic(t, s) })
	t.Run("Moves", func(t *testing.T) { movesTopic(t, s) })
	t.Run("Isolation", func(t *testing.T) { isolationTopic(t, s) })
	t.Run("Refusals", func(t *testing.T) { refusalsTopic(t, s) })
	t.Run("Paging", func(t *testing.T) { pagingTopic(t, s) })
	t.Run("Retention", func(t *testing.T) { retentionTopic(t, s) })
	t.Run("Observer", func(t *testing.T) { observerTopic(t, s) })
	t.Run("Model", func(t *testing.T) { modelTopic(t, s) })
}

// jobWorld is a fresh corner of a storage: three workspaces whose ids begin alike, all empty.
type jobWorld struct {
	OpenedJobs
	storage JobStorage
	events  *jobEvents

	acme, acmeEU, acmeLabs workspace.ID
}

func newJobWorld(t *testing.T, s JobStorage, retention time.Duration) jobWorld {
	t.Helper()
	w := jobWorld{storage: s, events: &jobEvents{}}
	w.OpenedJobs = s.Open(t, JobOptions{Observer: w.events, Retention: retention})
	return w.elsewhere(t)
}

// elsewhere is the same storage with three new workspaces.
func (w jobWorld) elsewhere(t *testing.T) jobWorld {
	t.Helper()
	base := "acme" + strings.ToLower(rand.Text()[:12])
	for suffix, id := range map[string]*workspace.ID{"": &w.acme, "-eu": &w.acmeEU, "_labs": &w.acmeLabs} {
		var err error
		*id, err = workspace.Parse(base + suffix)
		require.NoError(t, err)
	}
	return w
}

// neighbours are the workspaces that share acme's first letters.
func (w jobWorld) neighbours() []workspace.ID { return []workspace.ID{w.acmeEU, w.acmeLabs} }

func newJobID(t *testing.T) job.ID {
	t.Helper()
	return jobID(t, rand.Text())
}

func jobID(t *testing.T, text string) job.ID {
	t.Helper()
	id, err := job.ParseID(text)
	require.NoError(t, err)
	return id
}

func newRequestID(t *testing.T) job.ClientRequestID {
	t.Helper()
	key, err := job.ParseClientRequestID("request " + rand.Text())
	require.NoError(t, err)
	return key
}

func newDraft(t *testing.T, ws workspace.ID) job.Draft {
	t.Helper()
	return job.Draft{
		ID: newJobID(t), Workspace: ws, Provider: "google", Name: "gmail.send",
		Params: `{"to":"a@example.com"}`, Actor: "user:1",
	}
}

// enqueue makes a job and gives it as it is read back.
func (w jobWorld) enqueue(t *testing.T, d job.Draft) job.Job {
	t.Helper()
	made, err := w.Jobs.Enqueue(t.Context(), d)
	require.NoError(t, err)
	require.False(t, made.Replayed)
	require.Equal(t, d.ID, made.Job.ID)
	return w.get(t, d.Workspace, d.ID)
}

// fill makes n plain jobs, oldest first.
func (w jobWorld) fill(t *testing.T, ws workspace.ID, n int) []job.Job {
	t.Helper()
	jobs := make([]job.Job, 0, n)
	for range n {
		jobs = append(jobs, w.enqueue(t, newDraft(t, ws)))
	}
	return jobs
}

func (w jobWorld) get(t *testing.T, ws workspace.ID, id job.ID) job.Job {
	t.Helper()
	j, err := w.Jobs.Get(t.Context(), ws, id)
	require.NoError(t, err)
	return j
}

func (w jobWorld) move(t *testing.T, ws workspace.ID, id job.ID, moves ...job.Move) job.Job {
	t.Helper()
	for _, m := range moves {
		require.NoError(t, w.Jobs.Move(t.Context(), ws, id, m), "to %s", m.To)
	}
	return w.get(t, ws, id)
}

// maxPages is more pages than any walk here takes, whatever else the storage holds: a walk that reaches it goes in a
// circle.
const maxPages = 20_000

// walk goes through q's pages from its cursor to the end and checks each; between is called after each, nil for
// nothing.
func (w jobWorld) walk(t *testing.T, ws workspace.ID, q job.Query, between func(job.Page)) []job.Job {
	t.Helper()
	var all []job.Job
	for range maxPages {
		page, err := w.Jobs.List(t.Context(), ws, q)
		require.NoError(t, err)
		checkPage(t, ws, q, page)
		all = append(all, page.Jobs...)
		if between != nil {
			between(page)
		}
		if page.Next.IsZero() {
			return all
		}
		q.Cursor, err = job.ParseCursor(page.Next.String())
		require.NoError(t, err, "a page's next cursor is %q", page.Next)
		require.Equal(t, page.Next, q.Cursor)
	}
	require.FailNow(t, "the walk does not end")
	return nil
}

func checkPage(t *testing.T, ws workspace.ID, q job.Query, p job.Page) {
	t.Helper()
	require.LessOrEqual(t, len(p.Jobs), q.Limit)
	require.True(t, slices.IsSortedFunc(p.Jobs, job.Newer), "a page is newest first")
	require.Equal(t, len(p.Jobs) == 0, p.ReadPath == job.ListMiss, "read path %s for %d jobs", p.ReadPath, len(p.Jobs))
	ids := make(map[job.ID]bool)
	size := 0
	for _, j := range p.Jobs {
		require.Equal(t, ws, j.Workspace)
		require.True(t, q.Matches(j), "status %q, asked for %q", j.Status, q.Status)
		require.False(t, ids[j.ID], "a job twice on one page")
		ids[j.ID] = true
		size += j.Size()
	}
	require.True(t, len(p.Jobs) <= 1 || size <= job.MaxPageBytes, "a page of %d jobs takes %d bytes", len(p.Jobs), size)
}

// list walks in pages as large as may be.
func (w jobWorld) list(t *testing.T, ws workspace.ID) []job.Job {
	t.Helper()
	return w.walk(t, ws, job.Query{Limit: job.MaxLimit}, nil)
}

// requireJobs checks that got holds the jobs of want, each as it is there and once, or where the storage's table may
// grow at most twice, and none else.
func (w jobWorld) requireJobs(t *testing.T, want, got []job.Job) {
	t.Helper()
	requireAmong(t, want, got)
	w.requireOnce(t, want, got)
}

// requireAmong checks that got holds none but the jobs of want, each as it is there.
func requireAmong(t *testing.T, want, got []job.Job) {
	t.Helper()
	byID := make(map[job.ID]job.Job)
	for _, j := range want {
		byID[j.ID] = j
	}
	for _, j := range got {
		require.Equal(t, byID[j.ID], j)
	}
}

// requireOnce checks that each of want's jobs is in got as often as it may be, in whatever state.
func (w jobWorld) requireOnce(t *testing.T, want, got []job.Job) {
	t.Helper()
	times := make(map[job.ID]int)
	for _, j := range got {
		times[j.ID]++
	}
	most := 1
	if w.storage.Resizes {
		most = 2
	}
	for _, j := range want {
		n := times[j.ID]
		require.True(t, n >= 1 && n <= most, "job %q is listed %d times", j.ID, n)
	}
}

func requireKind(t *testing.T, want fault.Kind, err error) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, want.String(), fault.KindOf(err).String(), "%v", err)
}

// atOnce calls f n times at the same time.
func atOnce(n int, f func(i int)) {
	var done sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		done.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	done.Wait()
}
