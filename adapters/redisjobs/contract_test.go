package redisjobs_test

import (
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/redisjobs/newschema"
	"github.com/relay-jobs/relay/adapters/redisjobs/oldschema"
	"github.com/relay-jobs/relay/adapters/redisjobs/router"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/contract"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// TestJobRepositoryContract runs the suite for every repository on a real server and on the embedded one.
func TestJobRepositoryContract(t *testing.T) {
	type repository struct {
		name string
		make func(redis.UniversalClient, redisjobs.Options) *redisjobs.Repository
	}
	repositories := []repository{{"oldschema", oldschema.New}, {"newschema", newschema.New}}
	for _, phase := range migration.Phases() {
		repositories = append(repositories, repository{
			"router/" + phase.String(),
			func(rdb redis.UniversalClient, o redisjobs.Options) *redisjobs.Repository {
				return router.New(rdb, phase, o)
			},
		})
	}
	for _, r := range repositories {
		t.Run("redis/"+r.name, func(t *testing.T) {
			t.Parallel()
			server := redisserver.Start(t)
			contract.JobRepository(t, contract.JobStorage{
				Resizes: true,
				Size:    200,
				Open: func(t *testing.T, o contract.JobOptions) contract.OpenedJobs {
					t.Helper()
					return contract.OpenedJobs{Jobs: r.make(connect(t, server.URL()), options(o))}
				},
			})
		})
		t.Run("embedded/"+r.name, func(t *testing.T) {
			t.Parallel()
			contract.JobRepository(t, contract.JobStorage{
				Open: func(t *testing.T, o contract.JobOptions) contract.OpenedJobs {
					t.Helper()
					embedded := miniredis.RunT(t)
					return contract.OpenedJobs{
						Jobs:    r.make(connect(t, "redis://"+embedded.Addr()), options(o)),
						Advance: func(d time.Duration) { embedded.FastForward(d) },
					}
				},
			})
		})
	}
}

func options(o contract.JobOptions) redisjobs.Options {
	return redisjobs.Options{Retention: o.Retention, Observer: o.Observer}
}

func connect(t *testing.T, url string) *redis.Client {
	t.Helper()
	rdb, err := redisjobs.Connect(redisjobs.ConnectOptions{URL: url})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	return rdb
}
