package redisjobs

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/core/fault"
)

// translate classifies what Redis or the way to it answered. It is the one place where that is decided. The message
// is fit for a caller; Redis' own text stays in the cause.
func translate(err error) error {
	var timeout net.Error
	var reply redis.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return fault.Wrap(err, fault.Canceled, fault.CodeCanceled, "The request was canceled")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fault.Wrap(err, fault.Timeout, fault.CodeStorageUnavailable, "The job storage did not answer in time")
	case errors.As(err, &reply) && isDefect(err.Error()):
		return untrusted(err)
	}
	return unavailable(err)
}

// unavailable is the answer where Redis cannot serve, or changes faster than a request may follow.
func unavailable(cause error) error {
	return fault.Wrap(cause, fault.Unavailable, fault.CodeStorageUnavailable, "The job storage is not available")
}

// untrusted is the answer where a stored record contradicts its key or is none that Relay could have written.
func untrusted(cause error) error {
	return fault.Wrap(cause, fault.Internal, fault.CodeInternal, "Internal error")
}

// isDefect tells replies that mean a wrong record or a wrong program from those that mean a server that cannot serve
// now: loading, read-only, out of memory, unable to persist, refusing the connection's rights. Redis 6.2 gives those
// that a script met inside an ERR of its own.
func isDefect(reply string) bool {
	if isWrongType(reply) {
		return true
	}
	for _, passing := range []string{
		": -OOM ", ": -READONLY ", ": -MISCONF ", ": -NOREPLICAS ", ": -NOPERM ", "The user executing the script can't ",
		"max number of clients", "Protocol error: unauthenticated ", "ERR AUTH ", "DB index is out of range",
	} {
		if strings.Contains(reply, passing) {
			return false
		}
	}
	return strings.HasPrefix(reply, "ERR ")
}

// isWrongType is true where a command met a key that holds another type. In a script that is a defect like any other.
func isWrongType(reply string) bool { return strings.HasPrefix(reply, "WRONGTYPE ") }

// invalid is the answer to a caller that broke the port's contract: no workspace, no job id, a limit out of range.
func invalid() error {
	return fault.New(fault.Invalid, fault.CodeInvalidParameter, "A workspace, a job id and a limit within bounds are required")
}
