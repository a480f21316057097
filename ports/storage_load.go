package ports

import (
	"context"

	"github.com/relay-jobs/relay/core/migration"
)

//go:generate go tool mockgen -source=$GOFILE -destination=portsmock/$GOFILE -package=portsmock

// StorageLoad tells how busy the storage is. Errors are those of JobRepository.
type StorageLoad interface {
	// Load asks the storage, and measures how long it takes to answer.
	Load(ctx context.Context) (migration.Load, error)
}
