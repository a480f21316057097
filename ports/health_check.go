package ports

import "context"

//go:generate go tool mockgen -source=$GOFILE -destination=portsmock/$GOFILE -package=portsmock

// HealthCheck tells whether something that requests depend on is there.
type HealthCheck interface {
	// Name is a short, stable word for what is checked, fit to be shown to callers.
	Name() string
	// Check returns nil where it is there and works.
	Check(ctx context.Context) error
}
