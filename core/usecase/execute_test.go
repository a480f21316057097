package usecase_test

import (
	"context"
	"errors"
	"testing"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/usecase"
)

func requestID(t *testing.T) job.ClientRequestID {
	t.Helper()
	key, err := job.ParseClientRequestID("request 1")
	require.NoError(t, err)
	return key
}

func executeInput(t *testing.T) usecase.ExecuteInput {
	t.Helper()
	return usecase.ExecuteInput{
		Provider: "google", Name: "gmail.send", Params: `{"to":"a"}`, ClientRequestID: requestID(t), TraceParent: "00-1",
	}
}

// execute asks for in, of which the repository makes made.
func (r rig) execute(
	t *testing.T, in usecase.ExecuteInput, made job.Enqueued,
) (usecase.ExecuteOutput, job.Draft, error) {
	t.Helper()
	r.authenticates()
	r.ids.EXPECT().NewJobID().Return(r.id, nil)
	var asked job.Draft
	r.jobs.EXPECT().Enqueue(gomock.Any(), gomock.Any()).
		DoAndReturn(func(_ context.Context, d job.Draft) (job.Enqueued, error) {
			asked = d
			return made, nil
		})
	out, err := usecase.Execute{Gate: r.gate(), Jobs: r.jobs, IDs: r.ids}.
		Do(t.Context(), proof, func() (usecase.ExecuteInput, error) { return in, nil })
	return out, asked, err
}

func TestExecuteDraftsForTheCaller(t *testing.T) {
	r := newRig(t)
	in := executeInput(t)
	in.Given = &r.acme
	out, asked, err := r.execute(t, in, job.Enqueued{Job: job.Job{ID: r.id, Workspace: r.acme}})
	require.NoError(t, err)
	require.Equal(t, usecase.ExecuteOutput{ID: r.id}, out)
	require.Equal(t, job.Draft{
		ID: r.id, Workspace: r.acme, Provider: "google", Name: "gmail.send", Params: `{"to":"a"}`,
		Actor: "user:1", ClientRequestID: requestID(t), TraceParent: "00-1",
	}, asked)
}

func TestExecuteAgain(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*job.Job)
		same   bool
	}{
		"the same request":      {func(*job.Job) {}, true},
		"params written anew":   {func(j *job.Job) { j.Params = "{ \"to\" : \"\\u0061\" }" }, true},
		"another provider":      {func(j *job.Job) { j.Provider = "Google" }, false},
		"another name":          {func(j *job.Job) { j.Name = "gmail.read" }, false},
		"other params":          {func(j *job.Job) { j.Params = `{"to":"b"}` }, false},
		"params that are none":  {func(j *job.Job) { j.Params = `{"to":` }, false},
		"in whatever state":     {func(j *job.Job) { j.Status, j.Result = job.Completed, `1` }, true},
		"by another actor here": {func(j *job.Job) { j.Actor = "user:2" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			known := job.Job{ID: r.other, Workspace: r.acme, Provider: "google", Name: "gmail.send", Params: `{"to":"a"}`}
			c.change(&known)
			out, _, err := r.execute(t, executeInput(t), job.Enqueued{Job: known, Replayed: true})
			if c.same {
				require.NoError(t, err)
				require.Equal(t, usecase.ExecuteOutput{ID: r.other, Replayed: true}, out)
				return
			}
			require.Equal(t, fault.Mismatch, fault.KindOf(err))
			require.Equal(t, fault.CodeIdempotencyKeyReuse, fault.CodeOf(err))
			require.Zero(t, out)
		})
	}
}

func TestExecuteNeverAnswersAnotherWorkspacesJob(t *testing.T) {
	for name, replayed := range map[string]bool{"made": false, "replayed": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.observer.EXPECT().IsolationBreach(r.acme)
			r.observer.EXPECT().EnqueueFailed(r.acme, fault.Internal)
			theirs := job.Job{ID: r.other, Workspace: r.neighbour, Provider: "google", Name: "gmail.send", Params: `{"to":"a"}`}
			out, _, err := r.execute(t, executeInput(t), job.Enqueued{Job: theirs, Replayed: replayed})
			require.Equal(t, fault.Internal, fault.KindOf(err))
			require.NotContains(t, err.Error(), "acme-eu")
			require.NotContains(t, err.Error(), "two")
			require.Zero(t, out)
		})
	}
}

func TestExecuteNeverAnswersAnotherJobAsMade(t *testing.T) {
	r := newRig(t)
	r.observer.EXPECT().EnqueueFailed(r.acme, fault.Internal)
	other := job.Job{ID: r.other, Workspace: r.acme, Provider: "google", Name: "gmail.send", Params: `{"to":"a"}`}
	out, _, err := r.execute(t, executeInput(t), job.Enqueued{Job: other})
	require.Equal(t, fault.Internal, fault.KindOf(err))
	require.Zero(t, out)
}

func TestExecuteWithoutAnID(t *testing.T) {
	r := newRig(t)
	r.authenticates()
	cause := errors.New("no entropy")
	r.ids.EXPECT().NewJobID().Return(job.ID{}, cause)
	r.observer.EXPECT().EnqueueFailed(r.acme, fault.Internal)
	_, err := usecase.Execute{Gate: r.gate(), Jobs: r.jobs, IDs: r.ids}.
		Do(t.Context(), proof, func() (usecase.ExecuteInput, error) { return executeInput(t), nil })
	require.Equal(t, fault.Internal, fault.KindOf(err))
	require.ErrorIs(t, err, cause)
}

func TestExecuteTakesAnotherIDWhereOneIsTaken(t *testing.T) {
	taken := fault.New(fault.Conflict, fault.CodeJobState, "The job id is taken")
	free, err := job.ParseID("free")
	require.NoError(t, err)

	r := newRig(t)
	u := usecase.Execute{Gate: r.gate(), Jobs: r.jobs, IDs: r.ids}
	input := func() (usecase.ExecuteInput, error) { return executeInput(t), nil }
	r.authenticates()
	gomock.InOrder(
		r.ids.EXPECT().NewJobID().Return(r.id, nil),
		r.jobs.EXPECT().Enqueue(gomock.Any(), gomock.Any()).Return(job.Enqueued{}, taken),
		r.ids.EXPECT().NewJobID().Return(free, nil),
		r.jobs.EXPECT().Enqueue(gomock.Any(), gomock.Any()).
			DoAndReturn(func(_ context.Context, d job.Draft) (job.Enqueued, error) {
				return job.Enqueued{Job: job.Job{ID: d.ID, Workspace: d.Workspace}}, nil
			}),
	)
	out, err := u.Do(t.Context(), proof, input)
	require.NoError(t, err)
	require.Equal(t, free, out.ID)

	r.authenticates()
	r.ids.EXPECT().NewJobID().Return(r.id, nil).MinTimes(2)
	r.jobs.EXPECT().Enqueue(gomock.Any(), gomock.Any()).Return(job.Enqueued{}, taken).MinTimes(2)
	r.observer.EXPECT().EnqueueFailed(r.acme, fault.Internal)
	_, err = u.Do(t.Context(), proof, input)
	require.Equal(t, fault.Internal, fault.KindOf(err), "the caller did not choose the id")
}
