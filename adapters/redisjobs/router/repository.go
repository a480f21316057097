// Package router stores jobs in both schemas while they are moved from one to the other: it writes and reads what
// its phase says, serves the fresher of two copies, and leaves both equal after each write to both.
package router

import (
	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/migration"
)

// New makes the repository of a phase.
func New(rdb redis.UniversalClient, phase migration.Phase, o redisjobs.Options) *redisjobs.Repository {
	return redisjobs.New(rdb, phase, o)
}
