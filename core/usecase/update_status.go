package usecase

import (
	"context"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// UpdateStatus moves a job to another state. It serves no API caller and takes no credential: who runs jobs knows
// the workspace of each from its queue entry.
type UpdateStatus struct {
	Jobs ports.JobRepository
}

// Do returns what ports.JobRepository.Move does; an invalid move reaches no storage.
func (u UpdateStatus) Do(ctx context.Context, ws workspace.ID, id job.ID, m job.Move) error {
	if ws.IsZero() || id.IsZero() {
		return fault.New(fault.Invalid, fault.CodeInvalidParameter, "A move needs a workspace and a job id")
	}
	if err := m.Validate(); err != nil {
		return err
	}
	return u.Jobs.Move(ctx, ws, id, m) //nolint:wrapcheck // already a fault
}
