package usecase

import (
	"context"
	"slices"

	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// ListJobs returns one page of the caller's workspace's jobs.
type ListJobs struct {
	Gate
	Jobs ports.JobRepository
}

// ListJobsInput asks for a page. Given is the workspace that the client named, nil for none.
type ListJobsInput struct {
	Given *workspace.ID
	Query job.Query
}

// Do returns the page without whatever in it is not the caller's or not asked for. A page over the query's limit is
// fault.Internal: cut to size, it would skip the jobs between its end and its next cursor.
func (u ListJobs) Do(ctx context.Context, credential string, input func() (ListJobsInput, error)) (job.Page, error) {
	caller, err := u.authorize(ctx, credential, access.ScopeJobsRead)
	if err != nil {
		return job.Page{}, err
	}
	in, err := input()
	if err != nil {
		return job.Page{}, err
	}
	if err := u.sameWorkspace(caller, in.Given, access.ScopeJobsRead); err != nil {
		return job.Page{}, err
	}
	page, err := u.Jobs.List(ctx, caller.Workspace, in.Query)
	if err != nil {
		return job.Page{}, err //nolint:wrapcheck // already a fault
	}
	given := len(page.Jobs)
	page.Jobs = slices.DeleteFunc(page.Jobs, func(j job.Job) bool {
		return !u.owned(caller, j) || !in.Query.Matches(j)
	})
	if given > in.Query.Limit {
		return job.Page{}, fault.New(fault.Internal, fault.CodeInternal, "more jobs than were asked for")
	}
	u.Observer.JobsListed(caller.Workspace, page.ReadPath, len(page.Jobs))
	return page, nil
}
