// Package newschema stores jobs under ai:job:{workspace_id}:{job_id} alone. A record that lacks its id or workspace
// is a stub and ignored; one that contradicts its key is an isolation breach and never shown.
package newschema

import (
	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/migration"
)

// New makes the repository of the new schema.
func New(rdb redis.UniversalClient, o redisjobs.Options) *redisjobs.Repository {
	return redisjobs.New(rdb, migration.NewOnly, o)
}
