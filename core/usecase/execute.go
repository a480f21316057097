// Package usecase holds what Relay does, one struct and one method a use case: credential and input in, result out.
// Each authenticates through the AuthProvider, applies the rules of core/access, calls the repository, and checks
// the ownership of what came back: adapters are not trusted.
//
// Input comes as a function that is called only once the credential, its workspace and its scope have passed, so
// that a refused caller's input is not even read. What goes wrong in an input function is its edge's to say, in faults
// or in terms of its protocol: those errors are passed on untouched.
package usecase

import (
	"context"

	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// Gate authenticates and authorizes for every use case that serves a caller.
type Gate struct {
	Auth     ports.AuthProvider
	Observer ports.Observer
}

// authorize checks the credential, its workspace and its scope.
func (g Gate) authorize(ctx context.Context, credential string, need access.Scope) (access.Caller, error) {
	principal, err := g.Auth.Authenticate(ctx, credential)
	if err != nil {
		return access.Caller{}, err //nolint:wrapcheck // already a fault
	}
	return access.Authorize(principal, need)
}

// sameWorkspace refuses a given workspace that is not the caller's, and leaves the audit trail.
func (g Gate) sameWorkspace(c access.Caller, given *workspace.ID, need access.Scope) error {
	err := access.SameWorkspace(c, given, need)
	if err != nil {
		g.Observer.OtherWorkspaceRequested(c.Workspace, *given)
	}
	return err
}

// owned turns a repository's answer that is not the caller's into a miss.
func (g Gate) owned(c access.Caller, j job.Job) bool {
	if access.Owns(c.Workspace, j) {
		return true
	}
	g.Observer.IsolationBreach(c.Workspace)
	return false
}

// Execute enqueues one job in the caller's workspace.
type Execute struct {
	Gate
	Jobs ports.JobRepository
	IDs  ports.JobIDs
}

// ExecuteInput is one request for an action. Given is the workspace that the client named, nil for none.
type ExecuteInput struct {
	Given           *workspace.ID
	Provider        string
	Name            string
	Params          job.JSON
	ClientRequestID job.ClientRequestID
	TraceParent     string
}

// ExecuteOutput is the job that the request has, made by it or by an earlier one with the same ClientRequestID.
type ExecuteOutput struct {
	ID       job.ID
	Replayed bool
}

// Do returns fault.Mismatch where the ClientRequestID was used for a different action or params.
func (u Execute) Do(ctx context.Context, credential string, input func() (ExecuteInput, error)) (ExecuteOutput, error) {
	caller, err := u.authorize(ctx, credential, access.ScopeExecute)
	if err != nil {
		return ExecuteOutput{}, err
	}
	in, err := input()
	if err != nil {
		return ExecuteOutput{}, err
	}
	if err := u.sameWorkspace(caller, in.Given, access.ScopeExecute); err != nil {
		return ExecuteOutput{}, err
	}
	draft, made, err := u.enqueue(ctx, job.Draft{
		Workspace: caller.Workspace, Provider: in.Provider, Name: in.Name, Params: in.Params,
		Actor: caller.Actor, ClientRequestID: in.ClientRequestID, TraceParent: in.TraceParent,
	})
	if err != nil {
		return ExecuteOutput{}, u.failed(caller, err)
	}
	if !u.owned(caller, made.Job) {
		return ExecuteOutput{}, u.failed(caller, fault.New(fault.Internal, fault.CodeInternal, "not the caller's job"))
	}
	if !made.Replayed && made.Job.ID != draft.ID {
		return ExecuteOutput{}, u.failed(caller, fault.New(fault.Internal, fault.CodeInternal, "not the job that was drafted"))
	}
	if made.Replayed && !draft.Asks(made.Job) {
		return ExecuteOutput{}, fault.New(fault.Mismatch, fault.CodeIdempotencyKeyReuse,
			"The idempotency key was used for a different action or params")
	}
	return ExecuteOutput{ID: made.Job.ID, Replayed: made.Replayed}, nil
}

// maxIDs bounds the ids tried for one job.
const maxIDs = 3

// enqueue gives the draft an id that nobody holds. The caller did not choose the id, so that a taken one is none of its
// business.
func (u Execute) enqueue(ctx context.Context, d job.Draft) (job.Draft, job.Enqueued, error) {
	for range maxIDs {
		var err error
		if d.ID, err = u.IDs.NewJobID(); err != nil {
			return d, job.Enqueued{}, fault.Wrap(err, fault.Internal, fault.CodeInternal, "no job id")
		}
		made, err := u.Jobs.Enqueue(ctx, d)
		if err == nil || fault.KindOf(err) != fault.Conflict {
			return d, made, err //nolint:wrapcheck // already a fault
		}
	}
	return d, job.Enqueued{}, fault.New(fault.Internal, fault.CodeInternal, "no free job id")
}

func (u Execute) failed(c access.Caller, err error) error {
	u.Observer.EnqueueFailed(c.Workspace, fault.KindOf(err))
	return err
}
