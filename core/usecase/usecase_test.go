package usecase_test

import (
	"context"
	"errors"
	"testing"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports/portsmock"
)

// proof is the credential that callers send.
const proof = "of the caller"

// rig holds strict mocks of every port: a call that a test does not expect fails it.
type rig struct {
	auth     *portsmock.MockAuthProvider
	jobs     *portsmock.MockJobRepository
	ids      *portsmock.MockJobIDs
	observer *portsmock.MockObserver

	acme, neighbour workspace.ID
	id, other       job.ID
}

func newRig(t *testing.T) rig {
	t.Helper()
	c := gomock.NewController(t)
	r := rig{
		auth: portsmock.NewMockAuthProvider(c), jobs: portsmock.NewMockJobRepository(c),
		ids: portsmock.NewMockJobIDs(c), observer: portsmock.NewMockObserver(c),
	}
	var err error
	r.acme, err = workspace.Parse("acme")
	require.NoError(t, err)
	r.neighbour, err = workspace.Parse("acme-eu")
	require.NoError(t, err)
	r.id, err = job.ParseID("one")
	require.NoError(t, err)
	r.other, err = job.ParseID("two")
	require.NoError(t, err)
	return r
}

func (r rig) gate() usecase.Gate { return usecase.Gate{Auth: r.auth, Observer: r.observer} }

// principal is one that may do everything in acme.
func principal() access.Principal {
	return access.Principal{
		Workspace: "acme", Actor: "user:1", Scopes: []access.Scope{access.ScopeExecute, access.ScopeJobsRead},
	}
}

func (r rig) authenticates() {
	r.auth.EXPECT().Authenticate(gomock.Any(), proof).Return(principal(), nil)
}

// operation is a use case that serves a caller, asked for as a test needs it. given and err are what its input
// function returns, and read is called when it is.
type operation struct {
	name   string
	scope  access.Scope
	refuse string // the text for another workspace
	do     func(ctx context.Context, r rig, given *workspace.ID, err error, read func()) error
	// answers lets the repository do its part well, or fail with err.
	answers func(r rig, err error)
}

func operations() []operation {
	const list, execute = "Cannot access jobs from other workspaces", "Cannot execute actions in other workspaces"
	return []operation{
		{
			name: "Execute", scope: access.ScopeExecute, refuse: execute,
			do: func(ctx context.Context, r rig, given *workspace.ID, err error, read func()) error {
				u := usecase.Execute{Gate: r.gate(), Jobs: r.jobs, IDs: r.ids}
				_, doErr := u.Do(ctx, proof, func() (usecase.ExecuteInput, error) {
					read()
					return usecase.ExecuteInput{Given: given, Provider: "google", Name: "gmail.send", Params: `{}`}, err
				})
				return doErr
			},
			answers: func(r rig, err error) {
				r.ids.EXPECT().NewJobID().Return(r.id, nil)
				r.jobs.EXPECT().Enqueue(gomock.Any(), gomock.Any()).
					Return(job.Enqueued{Job: job.Job{ID: r.id, Workspace: r.acme}}, err)
				if err != nil {
					r.observer.EXPECT().EnqueueFailed(r.acme, fault.KindOf(err))
				}
			},
		},
		{
			name: "GetJob", scope: access.ScopeJobsRead, refuse: list,
			do: func(ctx context.Context, r rig, given *workspace.ID, err error, read func()) error {
				u := usecase.GetJob{Gate: r.gate(), Jobs: r.jobs}
				_, doErr := u.Do(ctx, proof, func() (usecase.GetJobInput, error) {
					read()
					return usecase.GetJobInput{Given: given, ID: r.id}, err
				})
				return doErr
			},
			answers: func(r rig, err error) {
				r.jobs.EXPECT().Get(gomock.Any(), r.acme, r.id).Return(job.Job{ID: r.id, Workspace: r.acme}, err)
			},
		},
		{
			name: "ListJobs", scope: access.ScopeJobsRead, refuse: list,
			do: func(ctx context.Context, r rig, given *workspace.ID, err error, read func()) error {
				u := usecase.ListJobs{Gate: r.gate(), Jobs: r.jobs}
				_, doErr := u.Do(ctx, proof, func() (usecase.ListJobsInput, error) {
					read()
					return usecase.ListJobsInput{Given: given, Query: job.Query{Limit: 10}}, err
				})
				return doErr
			},
			answers: func(r rig, err error) {
				r.jobs.EXPECT().List(gomock.Any(), r.acme, job.Query{Limit: 10}).Return(job.Page{}, err)
				if err == nil {
					r.observer.EXPECT().JobsListed(r.acme, job.ListMiss, 0)
				}
			},
		},
	}
}

// Each check fails together with all behind it, so that the answer shows which came first. The mocks see to it that a
// refused request reaches no repository.
func TestChecksInTheirOrder(t *testing.T) {
	badInput := fault.BadInput(fault.CodeInvalidParameter, "Invalid request")
	denied := fault.New(fault.Unauthenticated, fault.CodeInvalidToken, "Invalid authentication token")
	steps := []struct {
		name string
		kind fault.Kind
		code fault.Code
	}{
		{"credential", fault.Unauthenticated, fault.CodeInvalidToken},
		{"workspace of the credential", fault.Forbidden, fault.CodeWorkspaceMissing},
		{"scope", fault.Forbidden, fault.CodeInsufficientScope},
		{"input", fault.Invalid, fault.CodeInvalidParameter},
		{"same workspace", fault.Forbidden, fault.CodeOtherWorkspace},
	}
	for _, op := range operations() {
		for i, step := range steps {
			t.Run(op.name+"/"+step.name, func(t *testing.T) {
				r := newRig(t)
				p, authErr, inputErr := principal(), error(nil), error(nil)
				if i <= 0 {
					authErr = denied
				}
				if i <= 1 {
					p.Workspace = "Acme"
				}
				if i <= 2 {
					p.Scopes = []access.Scope{"ai:other"}
				}
				if i <= 3 {
					inputErr = badInput
				}
				if i == 4 {
					r.observer.EXPECT().OtherWorkspaceRequested(r.acme, r.neighbour)
				}
				r.auth.EXPECT().Authenticate(gomock.Any(), proof).Return(p, authErr)
				read := false
				err := op.do(t.Context(), r, &r.neighbour, inputErr, func() { read = true })
				require.Equal(t, step.kind, fault.KindOf(err))
				require.Equal(t, step.code, fault.CodeOf(err))
				require.Equal(t, i >= 3, read, "the input of a refused caller is not read")
				if i == 4 {
					require.EqualError(t, err, op.refuse)
				}
			})
		}
		for name, given := range map[string]bool{"allowed": false, "allowed, own workspace given": true} {
			t.Run(op.name+"/"+name, func(t *testing.T) {
				r := newRig(t)
				r.authenticates()
				op.answers(r, nil)
				var ws *workspace.ID
				if given {
					ws = &r.acme
				}
				require.NoError(t, op.do(t.Context(), r, ws, nil, func() {}))
			})
		}
	}
}

func TestOnlyTheScopeOfTheUseCaseOpensIt(t *testing.T) {
	for _, op := range operations() {
		for _, scope := range []access.Scope{access.ScopeExecute, access.ScopeJobsRead} {
			t.Run(op.name+"/"+string(scope), func(t *testing.T) {
				r := newRig(t)
				p := principal()
				p.Scopes = []access.Scope{scope}
				r.auth.EXPECT().Authenticate(gomock.Any(), proof).Return(p, nil)
				if scope == op.scope {
					op.answers(r, nil)
					require.NoError(t, op.do(t.Context(), r, nil, nil, func() {}))
					return
				}
				err := op.do(t.Context(), r, nil, nil, func() {})
				require.Equal(t, fault.CodeInsufficientScope, fault.CodeOf(err))
			})
		}
	}
}

func TestFaultsOfThePortsPassThrough(t *testing.T) {
	for _, op := range operations() {
		for _, kind := range []fault.Kind{
			fault.Unavailable, fault.Timeout, fault.Canceled, fault.Internal, fault.NotFound, fault.Invalid,
		} {
			t.Run(op.name+"/"+kind.String(), func(t *testing.T) {
				cause := errors.New("connection reset")
				r := newRig(t)
				r.authenticates()
				op.answers(r, fault.Wrap(cause, kind, fault.CodeStorageUnavailable, "no"))
				err := op.do(t.Context(), r, nil, nil, func() {})
				require.Equal(t, kind, fault.KindOf(err))
				require.Equal(t, fault.CodeStorageUnavailable, fault.CodeOf(err))
				require.ErrorIs(t, err, cause)

				r.auth.EXPECT().Authenticate(gomock.Any(), proof).
					Return(access.Principal{}, fault.Wrap(cause, kind, fault.CodeStorageUnavailable, "no"))
				err = op.do(t.Context(), r, nil, nil, func() {})
				require.Equal(t, kind, fault.KindOf(err))
				require.ErrorIs(t, err, cause)
			})
		}
	}
}

type contextKey struct{}

func TestTheCallersContextGoesAllTheWay(t *testing.T) {
	ctx := context.WithValue(t.Context(), contextKey{}, "the caller's")
	is := func(got context.Context) { require.Equal(t, "the caller's", got.Value(contextKey{})) }
	r := newRig(t)
	r.auth.EXPECT().Authenticate(gomock.Any(), proof).Times(3).
		DoAndReturn(func(ctx context.Context, _ string) (access.Principal, error) { is(ctx); return principal(), nil })
	r.ids.EXPECT().NewJobID().Return(r.id, nil)
	mine := job.Job{ID: r.id, Workspace: r.acme}
	r.jobs.EXPECT().Enqueue(gomock.Any(), gomock.Any()).
		DoAndReturn(func(ctx context.Context, _ job.Draft) (job.Enqueued, error) {
			is(ctx)
			return job.Enqueued{Job: mine}, nil
		})
	r.jobs.EXPECT().Get(gomock.Any(), r.acme, r.id).
		DoAndReturn(func(ctx context.Context, _ workspace.ID, _ job.ID) (job.Job, error) { is(ctx); return mine, nil })
	r.jobs.EXPECT().List(gomock.Any(), r.acme, gomock.Any()).
		DoAndReturn(func(ctx context.Context, _ workspace.ID, _ job.Query) (job.Page, error) {
			is(ctx)
			return job.Page{}, nil
		})
	r.observer.EXPECT().JobsListed(r.acme, job.ListMiss, 0)
	for _, op := range operations() {
		require.NoError(t, op.do(ctx, r, nil, nil, func() {}))
	}
}
