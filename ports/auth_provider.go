package ports

import (
	"context"

	"github.com/relay-jobs/relay/core/access"
)

//go:generate go tool mockgen -source=$GOFILE -destination=portsmock/$GOFILE -package=portsmock

// AuthProvider proves who a bearer credential belongs to.
type AuthProvider interface {
	// Authenticate returns what the credential proves. It judges the credential alone: a missing or malformed
	// workspace and missing scopes are the caller's to refuse. An empty, malformed, unknown, expired, revoked or
	// otherwise unproven credential is fault.Unauthenticated with CodeInvalidToken; the error says why to a log,
	// never to a caller, and never repeats the credential. fault.Unavailable where the proof could not be checked.
	Authenticate(ctx context.Context, credential string) (access.Principal, error)
}
