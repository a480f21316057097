package ports

import (
	"context"

	"github.com/relay-jobs/relay/core/job"
)

//go:generate go tool mockgen -source=$GOFILE -destination=portsmock/$GOFILE -package=portsmock

// Backlog tells what waits to be run. Errors are those of JobRepository.
type Backlog interface {
	// Backlog costs the same whatever waits, and writes nothing.
	Backlog(ctx context.Context) (job.Backlog, error)
}
