package ports

import (
	"context"

	"github.com/relay-jobs/relay/core/migration"
)

//go:generate go tool mockgen -source=$GOFILE -destination=portsmock/$GOFILE -package=portsmock

// LiveServers knows which servers live. Errors are those of JobRepository.
type LiveServers interface {
	// Beat says that s lives, for migration.ServerLife from now on. What s holds never changes while it lives.
	Beat(ctx context.Context, s migration.Server) error
	// Leave says that s lives no longer.
	Leave(ctx context.Context, s migration.Server) error
}
