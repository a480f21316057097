// Package access holds the isolation rules: what a credential permits, which workspace a request may name, and whose
// a job is. The rules are functions of their arguments alone.
package access

import (
	"slices"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

// Scope is a permission that a credential carries.
type Scope string

// The scopes of the API.
const (
	ScopeExecute  Scope = "ai:execute"
	ScopeJobsRead Scope = "ai:jobs:read"
)

// Principal is what a credential proved, before any rule was applied. Workspace is the credential's own text: it may
// be missing or malformed, and only Authorize makes an ID of it.
type Principal struct {
	Workspace string
	Actor     string
	Scopes    []Scope
}

// Caller is a principal that passed Authorize.
type Caller struct {
	Workspace workspace.ID
	Actor     string
}

// ErrUnproven is the one answer to a credential that proves nothing: fault.Unauthenticated. Why it does not is for logs.
func ErrUnproven(cause error) error {
	return fault.Wrap(cause, fault.Unauthenticated, fault.CodeInvalidToken, "Invalid authentication token")
}

// Authorize applies the rules that depend on the credential alone, in their order: its workspace, then its scope.
// Both failures are fault.Forbidden.
func Authorize(p Principal, need Scope) (Caller, error) {
	id, err := workspace.Parse(p.Workspace)
	if err != nil {
		return Caller{}, fault.Wrap(err, fault.Forbidden, fault.CodeWorkspaceMissing,
			"Workspace not found in authentication token")
	}
	if !slices.Contains(p.Scopes, need) {
		return Caller{}, fault.New(fault.Forbidden, fault.CodeInsufficientScope,
			"The credential lacks the scope "+string(need))
	}
	return Caller{Workspace: id, Actor: p.Actor}, nil
}

// SameWorkspace checks a workspace that the client gave, nil where it gave none. Another than the caller's is
// fault.Forbidden with the text for the scope's action. The caller's own workspace is what the work is done in,
// whatever was given.
func SameWorkspace(c Caller, given *workspace.ID, need Scope) error {
	if given == nil || *given == c.Workspace {
		return nil
	}
	msg := "Cannot access jobs from other workspaces"
	if need == ScopeExecute {
		msg = "Cannot execute actions in other workspaces"
	}
	return fault.New(fault.Forbidden, fault.CodeOtherWorkspace, msg)
}

// Owns tells whether j is ws's. The zero workspace owns nothing.
func Owns(ws workspace.ID, j job.Job) bool {
	return !ws.IsZero() && j.Workspace == ws
}
