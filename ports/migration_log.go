package ports

import (
	"context"
	"time"

	"github.com/relay-jobs/relay/core/migration"
)

//go:generate go tool mockgen -source=$GOFILE -destination=portsmock/$GOFILE -package=portsmock

// MigrationLog keeps what a migration knows of itself. Errors are those of JobRepository.
type MigrationLog interface {
	// Now gives the storage's time, and names its server process, empty where it does not tell.
	Now(ctx context.Context) (at time.Time, process string, err error)
	// RecordPass keeps p for the gates; of each kind the last 20 are kept.
	RecordPass(ctx context.Context, p migration.RecordedPass) error
	// Audit adds e to the account of what operators did; the storage sets its time.
	Audit(ctx context.Context, e migration.AuditEntry) error
}
