package ports

import "github.com/relay-jobs/relay/core/job"

//go:generate go tool mockgen -source=$GOFILE -destination=portsmock/$GOFILE -package=portsmock

// JobIDs makes ids for new jobs. It does not block.
type JobIDs interface {
	// NewJobID returns an id that was never returned before, by any process.
	NewJobID() (job.ID, error)
}
