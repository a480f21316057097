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
		for _, listing := range []struct {
			name    string
			indexed bool
		}{{"by index", true}, {"by scan", false}} {
			t.Run("redis/"+r.name+"/"+listing.name, func(t *testing.T) {
				t.Parallel()
				server := redisserver.Start(t)
				if listing.indexed {
					claim(t, r.make(connect(t, server.URL()), redisjobs.Options{}))
				}
				contract.JobRepository(t, contract.JobStorage{
					Resizes: !listing.indexed,
					Size:    200,
					Open: func(t *testing.T, o contract.JobOptions) contract.OpenedJobs {
						t.Helper()
						return contract.OpenedJobs{Jobs: r.make(connect(t, server.URL()), options(o))}
					},
				})
			})
			t.Run("embedded/"+r.name+"/"+listing.name, func(t *testing.T) {
				t.Parallel()
				contract.JobRepository(t, contract.JobStorage{
					Open: func(t *testing.T, o contract.JobOptions) contract.OpenedJobs {
						t.Helper()
						embedded := miniredis.RunT(t)
						jobs := r.make(connect(t, "redis://"+embedded.Addr()), options(o))
						if listing.indexed {
							claim(t, jobs)
						}
						return contract.OpenedJobs{Jobs: jobs, Advance: func(d time.Duration) { embedded.FastForward(d) }}
					},
				})
			})
		}
	}
}

// claim makes lists go by the index from the start.
func claim(t *testing.T, jobs *redisjobs.Repository) {
	t.Helper()
	require.NoError(t, jobs.ClaimEmpty(t.Context()))
	complete, err := jobs.Complete(t.Context())
	require.NoError(t, err)
	require.True(t, complete)
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
