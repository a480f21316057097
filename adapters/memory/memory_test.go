package memory_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/memory"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports/portsmock"
	"github.com/relay-jobs/relay/tests/contract"
)

// clock stands still unless it is moved.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 11, 21, 19, 28, 54, 17_837_999, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func TestJobRepository(t *testing.T) {
	contract.JobRepository(t, contract.JobStorage{
		Open: func(_ *testing.T, o contract.JobOptions) contract.OpenedJobs {
			c := newClock()
			r := memory.New(memory.Options{Now: c.now, Retention: o.Retention, Observer: o.Observer})
			return contract.OpenedJobs{Jobs: r, Advance: c.advance}
		},
		Size: 200,
	})
}

// open gives an empty repository and a way to enqueue the n-th job.
func open(t *testing.T, c *clock, retention time.Duration) (*memory.Repository, workspace.ID, func(n int) job.Job) {
	t.Helper()
	r := memory.New(memory.Options{
		Now: c.now, Retention: retention, Observer: portsmock.NewMockObserver(gomock.NewController(t)),
	})
	ws, err := workspace.Parse("acme")
	require.NoError(t, err)
	return r, ws, func(n int) job.Job {
		t.Helper()
		id, err := job.ParseID(fmt.Sprintf("job %04d", n))
		require.NoError(t, err)
		made, err := r.Enqueue(t.Context(), job.Draft{ID: id, Workspace: ws, Params: `{}`})
		require.NoError(t, err)
		return made.Job
	}
}

func TestEnqueuedAtIncreasesWhateverTheClockDoes(t *testing.T) {
	c := newClock()
	_, _, enqueue := open(t, c, 0)
	first := enqueue(0)
	require.Equal(t, c.now().Truncate(time.Microsecond), first.EnqueuedAt)
	require.Equal(t, first.EnqueuedAt.Add(time.Microsecond), enqueue(1).EnqueuedAt, "the clock stands still")
	c.advance(-time.Hour)
	require.Equal(t, first.EnqueuedAt.Add(2*time.Microsecond), enqueue(2).EnqueuedAt, "the clock steps back")
	c.advance(2 * time.Hour)
	require.Equal(t, c.now().Truncate(time.Microsecond), enqueue(3).EnqueuedAt)
}

func TestListIsNewestFirstAcrossPages(t *testing.T) {
	r, ws, enqueue := open(t, newClock(), 0)
	var want []job.Job
	for n := range 25 {
		want = append([]job.Job{enqueue(n)}, want...)
	}
	var got []job.Job
	q := job.Query{Limit: 10}
	for _, size := range []int{10, 10, 5} {
		page, err := r.List(t.Context(), ws, q)
		require.NoError(t, err)
		require.Len(t, page.Jobs, size)
		got, q.Cursor = append(got, page.Jobs...), page.Next
	}
	require.True(t, q.Cursor.IsZero())
	require.Equal(t, want, got)
}

func TestPagesAreFilledUpToTheirSize(t *testing.T) {
	r, ws, _ := open(t, newClock(), 0)
	for n := range 12 {
		id, err := job.ParseID(fmt.Sprint(n))
		require.NoError(t, err)
		params := job.JSON(`"` + strings.Repeat("x", 200<<10) + `"`)
		_, err = r.Enqueue(t.Context(), job.Draft{ID: id, Workspace: ws, Params: params})
		require.NoError(t, err)
	}
	q := job.Query{Limit: job.MaxLimit}
	for _, want := range []int{5, 5, 2} {
		page, err := r.List(t.Context(), ws, q)
		require.NoError(t, err)
		require.Len(t, page.Jobs, want)
		q.Cursor = page.Next
	}
	require.True(t, q.Cursor.IsZero())
}

func TestFilteredPageLooksAtSoManyJobs(t *testing.T) {
	r, ws, enqueue := open(t, newClock(), 0)
	oldest := enqueue(0)
	require.NoError(t, r.Move(t.Context(), ws, oldest.ID, job.Move{To: job.Failed}))
	const others = 2500
	for n := range others {
		enqueue(n + 1)
	}
	q := job.Query{Status: job.Failed, Limit: job.MaxLimit}
	page, err := r.List(t.Context(), ws, q)
	require.NoError(t, err)
	require.Empty(t, page.Jobs)
	require.False(t, page.Next.IsZero(), "an empty page is not the end")
	q.Cursor = page.Next
	page, err = r.List(t.Context(), ws, q)
	require.NoError(t, err)
	require.Len(t, page.Jobs, 1)
	require.True(t, page.Next.IsZero())
}

func TestWalkGoesOnWhereItsCursorsJobRanOut(t *testing.T) {
	c := newClock()
	r, ws, enqueue := open(t, c, time.Minute)
	oldest, middle, newest := enqueue(0), enqueue(1), enqueue(2)
	page, err := r.List(t.Context(), ws, job.Query{Limit: 2})
	require.NoError(t, err)
	require.Equal(t, []job.Job{newest, middle}, page.Jobs)
	require.NoError(t, r.Move(t.Context(), ws, middle.ID, job.Move{To: job.Failed}))
	c.advance(time.Minute)
	page, err = r.List(t.Context(), ws, job.Query{Limit: 2, Cursor: page.Next})
	require.NoError(t, err)
	require.Equal(t, []job.Job{oldest}, page.Jobs)
	require.True(t, page.Next.IsZero())
}
