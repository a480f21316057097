package access_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

func workspaceID(t *testing.T, text string) workspace.ID {
	t.Helper()
	id, err := workspace.Parse(text)
	require.NoError(t, err)
	return id
}

func TestAuthorize(t *testing.T) {
	const execute, read = access.ScopeExecute, access.ScopeJobsRead
	const noWorkspace, noScope = fault.CodeWorkspaceMissing, fault.CodeInsufficientScope
	both := []access.Scope{execute, read}
	for name, c := range map[string]struct {
		workspace string
		scopes    []access.Scope
		need      access.Scope
		code      fault.Code // empty where it passes
	}{
		"execute":                     {"acme", both, execute, ""},
		"read":                        {"acme", both, read, ""},
		"only the scope needed":       {"acme", both[:1], execute, ""},
		"the other scope":             {"acme", both[1:], execute, noScope},
		"no scopes":                   {"acme", nil, read, noScope},
		"a longer scope":              {"acme", []access.Scope{"ai:execute:all"}, execute, noScope},
		"a shorter scope":             {"acme", []access.Scope{"ai:"}, execute, noScope},
		"everything":                  {"acme", []access.Scope{"*", "ai:*"}, execute, noScope},
		"scope in capitals":           {"acme", []access.Scope{"AI:EXECUTE"}, execute, noScope},
		"no workspace":                {"", both, execute, noWorkspace},
		"malformed workspace":         {"acme\n", both, execute, noWorkspace},
		"neither: workspace is first": {"", nil, execute, noWorkspace},
	} {
		t.Run(name, func(t *testing.T) {
			p := access.Principal{Workspace: c.workspace, Actor: "user:1", Scopes: c.scopes}
			caller, err := access.Authorize(p, c.need)
			if c.code == "" {
				require.NoError(t, err)
				require.Equal(t, access.Caller{Workspace: workspaceID(t, c.workspace), Actor: "user:1"}, caller)
				return
			}
			require.Equal(t, fault.Forbidden, fault.KindOf(err))
			require.Equal(t, c.code, fault.CodeOf(err))
			require.Zero(t, caller)
			var e *fault.Error
			require.ErrorAs(t, err, &e)
			if c.code == fault.CodeWorkspaceMissing {
				require.Equal(t, "Workspace not found in authentication token", e.Msg)
			} else {
				require.Equal(t, "The credential lacks the scope "+string(c.need), e.Msg)
			}
		})
	}
}

func TestErrUnproven(t *testing.T) {
	cause := errors.New("unknown key")
	err := access.ErrUnproven(cause)
	require.Equal(t, fault.Unauthenticated, fault.KindOf(err))
	require.Equal(t, fault.CodeInvalidToken, fault.CodeOf(err))
	require.ErrorIs(t, err, cause)
	require.EqualError(t, err, "Invalid authentication token: unknown key")
}

func TestSameWorkspace(t *testing.T) {
	acme, neighbour := workspaceID(t, "acme"), workspaceID(t, "acme-eu")
	caller := access.Caller{Workspace: acme}
	const list, execute = "Cannot access jobs from other workspaces", "Cannot execute actions in other workspaces"
	for name, c := range map[string]struct {
		given *workspace.ID
		need  access.Scope
		want  string // empty where it passes
	}{
		"none given, execute": {nil, access.ScopeExecute, ""},
		"none given, read":    {nil, access.ScopeJobsRead, ""},
		"own, execute":        {&acme, access.ScopeExecute, ""},
		"own, read":           {&acme, access.ScopeJobsRead, ""},
		"neighbour, execute":  {&neighbour, access.ScopeExecute, execute},
		"neighbour, read":     {&neighbour, access.ScopeJobsRead, list},
		"zero, read":          {&workspace.ID{}, access.ScopeJobsRead, list},
	} {
		t.Run(name, func(t *testing.T) {
			err := access.SameWorkspace(caller, c.given, c.need)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, c.want)
			require.Equal(t, fault.Forbidden, fault.KindOf(err))
			require.Equal(t, fault.CodeOtherWorkspace, fault.CodeOf(err))
		})
	}
}

func TestOwns(t *testing.T) {
	acme, neighbour := workspaceID(t, "acme"), workspaceID(t, "acme-eu")
	require.True(t, access.Owns(acme, job.Job{Workspace: acme}))
	require.False(t, access.Owns(acme, job.Job{Workspace: neighbour}))
	require.False(t, access.Owns(neighbour, job.Job{Workspace: acme}))
	require.False(t, access.Owns(acme, job.Job{}))
	require.False(t, access.Owns(workspace.ID{}, job.Job{}), "no workspace owns nothing, not even nobody's job")
}
