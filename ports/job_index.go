package ports

import (
	"context"
	"time"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
)

//go:generate go tool mockgen -source=$GOFILE -destination=portsmock/$GOFILE -package=portsmock

// JobIndex keeps the order in which jobs are listed in step with the jobs that are stored. Errors are those of
// JobRepository.
type JobIndex interface {
	// ClaimEmpty marks the index complete where the storage holds nothing at all, in one step with looking.
	ClaimEmpty(ctx context.Context) error
	// Complete tells whether every stored job is in its workspace's index.
	Complete(ctx context.Context) (bool, error)
	// MarkComplete says so for good.
	MarkComplete(ctx context.Context) error
	// Batch brings the entries of the jobs at one position into line with their stored copies, each job in one step,
	// and drops no entry of a stored job. dry changes nothing.
	Batch(ctx context.Context, scope migration.IndexScope, at migration.IndexPosition, dry bool) (migration.IndexBatch, error)
	// Trim does the same for the oldest entries of one workspace's index: those of jobs that have expired. more tells
	// that the next ones are worth a look. dry changes nothing.
	Trim(ctx context.Context, ws workspace.ID, dry bool) (counts migration.IndexCounts, more bool, err error)
	// TakeSweep tells whether it is holder's turn to sweep: nobody else's turn has lasted less than turn. A holder that
	// asks again prolongs its own.
	TakeSweep(ctx context.Context, holder string, turn time.Duration) (bool, error)
}
