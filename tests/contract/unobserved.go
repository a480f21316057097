package contract

import (
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

// Unobserved is a ports.Observer that keeps nothing, for tests that ask what is stored and answered alone.
type Unobserved struct{}

// JobRead implements ports.Observer.
func (Unobserved) JobRead(workspace.ID, job.ID, job.Copy) {}

// JobsListed implements ports.Observer.
func (Unobserved) JobsListed(workspace.ID, job.ListPath, int) {}

// EnqueueFailed implements ports.Observer.
func (Unobserved) EnqueueFailed(workspace.ID, fault.Kind) {}

// DualWritten implements ports.Observer.
func (Unobserved) DualWritten(workspace.ID, bool) {}

// StaleCopyRead implements ports.Observer.
func (Unobserved) StaleCopyRead(workspace.ID) {}

// WorkspaceMismatch implements ports.Observer.
func (Unobserved) WorkspaceMismatch(workspace.ID, workspace.ID) {}

// OtherWorkspaceRequested implements ports.Observer.
func (Unobserved) OtherWorkspaceRequested(workspace.ID, workspace.ID) {}

// IsolationBreach implements ports.Observer.
func (Unobserved) IsolationBreach(workspace.ID) {}

// IDCollision implements ports.Observer.
func (Unobserved) IDCollision(workspace.ID) {}

// WrongTypeRead implements ports.Observer.
func (Unobserved) WrongTypeRead(workspace.ID) {}

// RecordInvalid implements ports.Observer.
func (Unobserved) RecordInvalid(workspace.ID) {}

// IndexNotMended implements ports.Observer.
func (Unobserved) IndexNotMended(workspace.ID) {}
