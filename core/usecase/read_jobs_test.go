package usecase_test

import (
	"testing"
	"time"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/usecase"
)

func (r rig) getJob(t *testing.T, id job.ID) (job.Job, error) {
	t.Helper()
	r.authenticates()
	return usecase.GetJob{Gate: r.gate(), Jobs: r.jobs}.
		Do(t.Context(), proof, func() (usecase.GetJobInput, error) { return usecase.GetJobInput{ID: id}, nil })
}

func TestGetJob(t *testing.T) {
	r := newRig(t)
	want := job.Job{ID: r.id, Workspace: r.acme, Status: job.Running, EnqueuedAt: time.UnixMicro(1).UTC(), Rev: 2}
	r.jobs.EXPECT().Get(gomock.Any(), r.acme, r.id).Return(want, nil)
	got, err := r.getJob(t, r.id)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestGetJobNeverShowsAnotherWorkspacesJob(t *testing.T) {
	r := newRig(t)
	for name, found := range map[string]job.Job{
		"a neighbour's": {ID: r.id, Workspace: r.neighbour, Result: `"secret"`},
		"nobody's":      {ID: r.id},
	} {
		r.jobs.EXPECT().Get(gomock.Any(), r.acme, r.id).Return(found, nil)
		r.observer.EXPECT().IsolationBreach(r.acme)
		got, err := r.getJob(t, r.id)
		require.Equal(t, job.ErrNotFound(), err, name)
		require.Zero(t, got, name)
	}
}

func TestGetJobNeverShowsAnotherJob(t *testing.T) {
	r := newRig(t)
	r.jobs.EXPECT().Get(gomock.Any(), r.acme, r.id).Return(job.Job{ID: r.other, Workspace: r.acme}, nil)
	got, err := r.getJob(t, r.id)
	require.Equal(t, fault.Internal, fault.KindOf(err))
	require.Zero(t, got)
}

func TestGetJobOfNoID(t *testing.T) {
	_, err := newRig(t).getJob(t, job.ID{})
	require.Equal(t, job.ErrNotFound(), err, "what names no job is absent, and the storage is not asked")
}

func TestListJobsDropsWhatIsNotTheCallers(t *testing.T) {
	r := newRig(t)
	query := job.Query{Status: job.Failed, Limit: 7, Cursor: job.ScanCursor(1, 2, r.id)}
	mine := job.Job{ID: r.id, Workspace: r.acme, Status: job.Failed}
	another := job.Job{ID: r.other, Workspace: r.acme, Status: job.Failed}
	next := job.ScanCursor(3, 4, r.other)
	r.authenticates()
	r.jobs.EXPECT().List(gomock.Any(), r.acme, query).Return(job.Page{
		Jobs: []job.Job{
			{ID: r.id, Workspace: r.neighbour, Status: job.Failed},
			mine,
			{ID: r.id, Status: job.Failed},
			{ID: r.id, Workspace: r.acme, Status: job.Running}, // not asked for
			another,
		},
		Next: next, ReadPath: job.ListMixed,
	}, nil)
	r.observer.EXPECT().IsolationBreach(r.acme).Times(2)
	r.observer.EXPECT().JobsListed(r.acme, job.ListMixed, 2)
	page, err := usecase.ListJobs{Gate: r.gate(), Jobs: r.jobs}.
		Do(t.Context(), proof, func() (usecase.ListJobsInput, error) { return usecase.ListJobsInput{Query: query}, nil })
	require.NoError(t, err)
	require.Equal(t, job.Page{Jobs: []job.Job{mine, another}, Next: next, ReadPath: job.ListMixed}, page)
}

func TestListJobsRefusesMoreThanWasAskedFor(t *testing.T) {
	r := newRig(t)
	query := job.Query{Limit: 2}
	list := func(jobs ...job.Job) (job.Page, error) {
		r.authenticates()
		r.jobs.EXPECT().List(gomock.Any(), r.acme, query).Return(job.Page{Jobs: jobs, ReadPath: job.ListNew}, nil)
		return usecase.ListJobs{Gate: r.gate(), Jobs: r.jobs}.
			Do(t.Context(), proof, func() (usecase.ListJobsInput, error) { return usecase.ListJobsInput{Query: query}, nil })
	}
	mine, theirs := job.Job{ID: r.id, Workspace: r.acme}, job.Job{ID: r.id, Workspace: r.neighbour}

	page, err := list(mine, mine, mine)
	require.Equal(t, fault.Internal, fault.KindOf(err))
	require.Zero(t, page)

	r.observer.EXPECT().IsolationBreach(r.acme)
	page, err = list(mine, mine, theirs)
	require.Equal(t, fault.Internal, fault.KindOf(err), "what is dropped was given as well")
	require.Zero(t, page)

	r.observer.EXPECT().JobsListed(r.acme, job.ListNew, 2)
	page, err = list(mine, mine)
	require.NoError(t, err, "the control: as many as were asked for")
	require.Len(t, page.Jobs, 2)
}
