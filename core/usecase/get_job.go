package usecase

import (
	"context"

	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// GetJob returns one job of the caller's workspace.
type GetJob struct {
	Gate
	Jobs ports.JobRepository
}

// GetJobInput names a job; the zero ID names none, and is answered as an absent one. Given is the workspace that the
// client named, nil for none.
type GetJobInput struct {
	Given *workspace.ID
	ID    job.ID
}

// Do returns fault.NotFound for an absent job and for another workspace's alike.
func (u GetJob) Do(ctx context.Context, credential string, input func() (GetJobInput, error)) (job.Job, error) {
	caller, err := u.authorize(ctx, credential, access.ScopeJobsRead)
	if err != nil {
		return job.Job{}, err
	}
	in, err := input()
	if err != nil {
		return job.Job{}, err
	}
	if err := u.sameWorkspace(caller, in.Given, access.ScopeJobsRead); err != nil {
		return job.Job{}, err
	}
	if in.ID.IsZero() {
		return job.Job{}, job.ErrNotFound()
	}
	found, err := u.Jobs.Get(ctx, caller.Workspace, in.ID)
	if err != nil {
		return job.Job{}, err //nolint:wrapcheck // already a fault
	}
	if !u.owned(caller, found) {
		return job.Job{}, job.ErrNotFound()
	}
	if found.ID != in.ID {
		return job.Job{}, fault.New(fault.Internal, fault.CodeInternal, "another job than asked for")
	}
	return found, nil
}
