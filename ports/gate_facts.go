package ports

import (
	"context"

	"github.com/relay-jobs/relay/core/migration"
)

//go:generate go tool mockgen -source=$GOFILE -destination=portsmock/$GOFILE -package=portsmock

// GateFacts gathers what gates are decided from. Errors are those of JobRepository.
type GateFacts interface {
	// Facts writes nothing. It looks at no more than about so many queue entries, the newest first, and at the connections of
	// workers where that is asked for.
	Facts(ctx context.Context, entries int64, workers bool) (migration.Facts, error)
}
