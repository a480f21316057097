package ports

import (
	"context"

	"github.com/relay-jobs/relay/core/migration"
)

//go:generate go tool mockgen -source=$GOFILE -destination=portsmock/$GOFILE -package=portsmock

// OldCopies removes the copies of the old schema. Errors are those of JobRepository.
type OldCopies interface {
	// Retire removes old copies whose new copy is whole, and equal or fresher, each in one step with looking; the job's
	// index entries follow in the same step. The answers stand in the order of jobs. dry changes nothing.
	Retire(ctx context.Context, jobs []migration.JobRef, dry bool) ([]migration.Retired, error)
	// Held tells for each job which schemas hold a whole record of it. The answers stand in the order of jobs.
	Held(ctx context.Context, jobs []migration.JobRef) ([]migration.Held, error)
}
