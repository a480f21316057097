package usecase_test

import (
	"testing"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
)

func TestUpdateStatusRefusesWithoutAskingTheStorage(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		ws   workspace.ID
		id   job.ID
		move job.Move
	}{
		"no workspace":   {workspace.ID{}, r.id, job.Move{To: job.Running}},
		"no job id":      {r.acme, job.ID{}, job.Move{To: job.Running}},
		"no state":       {r.acme, r.id, job.Move{}},
		"unknown state":  {r.acme, r.id, job.Move{To: "paused"}},
		"bad result":     {r.acme, r.id, job.Move{To: job.Completed, Result: "{"}},
		"early result":   {r.acme, r.id, job.Move{To: job.Running, Result: "1"}},
		"misplaced text": {r.acme, r.id, job.Move{To: job.Completed, Error: "no"}},
	} {
		err := usecase.UpdateStatus{Jobs: r.jobs}.Do(t.Context(), c.ws, c.id, c.move)
		require.Equal(t, fault.Invalid, fault.KindOf(err), name)
	}
}

func TestUpdateStatusAnswersWhatTheStorageDoes(t *testing.T) {
	r := newRig(t)
	move := job.Move{To: job.Failed, Error: "no", Result: `[1]`}
	down := fault.New(fault.Unavailable, fault.CodeStorageUnavailable, "The storage did not answer")
	for _, want := range []error{nil, job.ErrState(), job.ErrNotFound(), down} {
		r.jobs.EXPECT().Move(gomock.Any(), r.acme, r.id, move).Return(want)
		require.Equal(t, want, usecase.UpdateStatus{Jobs: r.jobs}.Do(t.Context(), r.acme, r.id, move))
	}
}
