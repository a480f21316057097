// Package oldschema stores jobs under ai:jobs:{job_id} alone, as the predecessor does. The key names no workspace:
// whose a record is stands in its fields, and a record that does not say is nobody's.
package oldschema

import (
	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/migration"
)

// New makes the repository of the old schema.
func New(rdb redis.UniversalClient, o redisjobs.Options) *redisjobs.Repository {
	return redisjobs.New(rdb, migration.Legacy, o)
}
