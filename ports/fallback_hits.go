package ports

import "context"

//go:generate go tool mockgen -source=$GOFILE -destination=portsmock/$GOFILE -package=portsmock

// FallbackHits keeps account of reads that served an old copy though the new schema is read. Errors are those of
// JobRepository.
type FallbackHits interface {
	// AddHits adds n of them, the last of which was just now by the storage's clock.
	AddHits(ctx context.Context, n int64) error
}
