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
	// ClaimEmpty marks the index complete where the storage holds nothing but what servers say of themselves, in one step
	// with looking.
	ClaimEmpty(ctx context.Context) error
	// Complete tells whether every stored job is in its workspace's index.
	Complete(ctx context.Context) (bool, error)
	// MarkComplete says so for good, in one step with making sure that the storage is still the process that a pass went
	// through. It is false where it is not.
	MarkComplete(ctx context.Context, process string) (bool, error)
	// Batch brings the entries of the jobs at one position into line with their stored copies, each job in one step,
	// and drops no entry of a stored job. dry changes nothing.
	Batch(ctx context.Context, scope migration.IndexScope, at migration.Position, dry bool) (migration.IndexBatch, error)
	// Trim does the same for some entries of one workspace's index: the oldest, whose jobs are the first to have expired,
	// and a few at random. more tells that others are worth a look. dry changes nothing.
	Trim(ctx context.Context, ws workspace.ID, dry bool) (counts migration.IndexCounts, more bool, err error)
	// TrimAll does the same for the next entries of one workspace's index before one, from the newest on: before is empty for
	// the start, and next at the end. It takes out what names no job, too, and mends an index in
	// which a score keeps entries from the order of their bytes. A walk ends, however many jobs are made meanwhile.
	TrimAll(ctx context.Context, ws workspace.ID, before string, dry bool) (
		counts migration.IndexCounts, next string, err error)
	// TakeSweep gives holder the turn to sweep a scope, for so long from now on, unless another's still lasts, and tells
	// whether it did. A holder that asks again prolongs its own; for a turn of 0 it gives it up.
	TakeSweep(ctx context.Context, scope migration.IndexScope, holder string, turn time.Duration) (bool, error)
}
