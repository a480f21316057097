package ports

import (
	"context"

	"github.com/relay-jobs/relay/core/migration"
)

//go:generate go tool mockgen -source=$GOFILE -destination=portsmock/$GOFILE -package=portsmock

// JobCopies works on the stored copies of jobs, of all workspaces, as a migration does. Errors are those of
// JobRepository.
type JobCopies interface {
	// Keys gives about n of the stored keys behind at. A key that is there throughout a walk is met at least once.
	Keys(ctx context.Context, at migration.Position, n int) (migration.KeyBatch, error)
	// Copy makes the missing copies of jobs in a schema, and equal copies of those that differ, each job in one step. The
	// answers stand in the order of jobs. dry changes nothing.
	Copy(ctx context.Context, jobs []migration.JobRef, to migration.Schema, dry bool) ([]migration.Copied, error)
	// SaveCheckpoint keeps how far a pass to a schema has come; the zero Checkpoint forgets it.
	SaveCheckpoint(ctx context.Context, to migration.Schema, c migration.Checkpoint) error
	// Checkpoint gives what was kept, the zero Checkpoint where nothing was.
	Checkpoint(ctx context.Context, to migration.Schema) (migration.Checkpoint, error)
}
