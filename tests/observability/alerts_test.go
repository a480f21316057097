package observability_test

import (
	"context"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// scenario is a deployment to which something happens.
type scenario struct {
	name string
	// begin starts it, and brings about what its first alerts are for before anything is scraped.
	begin func(t *testing.T, d *deployment)
	fires []string
	// further is what happens to it once they fire, where that is not all.
	further func(t *testing.T, d *deployment, p *prometheus)
}

func scenarios() []scenario {
	return []scenario{
		{"Redis goes away", redisGoesAway, []string{"RelayRedisAway", "RelayRequestsFailing", "RelayDualWritesFailing"}, serverGoesAway},
		{"Redis is slow", redisIsSlow, []string{"RelayLatencyHigh"}, nil},
		{"Redis is full", redisIsFull, []string{"RelayRedisMemoryHigh"}, nil},
		{"new is not filled", newIsNotFilled, []string{"RelayNewSchemaReadsLow"}, nil},
		{"jobs are missing", jobsAreMissing, []string{"RelayJobsNotFound"}, nil},
		{"a record contradicts its key", recordContradicts, []string{"RelayIsolationBreach"}, copiesDiffer},
		{"a job waits long", jobWaitsLong, []string{"RelayQueueOld"}, nil},
		{"many jobs wait", manyJobsWait, []string{"RelayQueueDeep"}, nil},
		{"backfill leaves jobs", backfillLeavesJobs, []string{"RelayBackfillLeavesJobs"}, backfillIsHeld},
		{"an id is taken", idIsTaken, []string{"RelayIDCollision"}, mismatchesComeAtOnce},
	}
}

// TestEachAlertFiresWithItsCauseAlone runs Prometheus with the shipped rules, a hundred times as fast as in production, over
// one deployment for each cause and one in which all is well.
func TestEachAlertFiresWithItsCauseAlone(t *testing.T) {
	t.Parallel()
	p := startPrometheus(t)
	well := startHealthy(t)
	all, deployments := scenarios(), []*deployment{well}
	for _, s := range all {
		d := &deployment{name: s.name}
		s.begin(t, d)
		deployments = append(deployments, d)
	}
	p.await(t, "", []string{"RelayNotScraped"})
	p.scrape(t, deployments)

	t.Run("deployments", func(t *testing.T) {
		t.Run(well.name, func(t *testing.T) {
			t.Parallel()
			requireData(t, p)
			requireSilence(t, p, well)
		})
		for i, s := range all {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				p.await(t, s.name, s.fires)
				if s.further != nil {
					s.further(t, deployments[1+i], p)
				}
			})
		}
	})
	p.await(t, "", nil)
	p.requireAllAwaited(t)
}

// startHealthy runs a deployment in the middle of its migration: in dual write, with a backfill running and consumers that
// do all that consumers do.
func startHealthy(t *testing.T) *deployment {
	t.Helper()
	d := &deployment{name: "all is well"}
	d.startRedis(t, "--maxmemory", "1gb")
	d.serve(t, migration.DualWrite)
	d.plant(t, 5000, time.Now())
	d.backfill(t, "--rate=50", "--batch-size=5")
	keep(t, func(ctx context.Context) {
		id := d.execute(ctx)
		d.get(ctx, id)
		d.list(ctx)
	})
	return d
}

// requireSilence watches until every alert would have fired, had there been a cause since the first scrape.
func requireSilence(t *testing.T, p *prometheus, d *deployment) {
	t.Helper()
	const (
		longest = "15m" // of a window and a "for" together
		served  = `sum(increase(relay_http_request_duration_seconds_count{deployment="all is well", status="200"}[5m]))`
	)
	require.Eventually(t, func() bool { return len(p.values(t, accelerated(t, served))) > 0 }, waitLimit, pollInterval)
	length, err := time.ParseDuration(longest)
	require.NoError(t, err)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for until := time.Now().Add(length / acceleration); time.Now().Before(until); <-tick.C {
		require.Empty(t, p.firing(t, d.name))
	}
	require.Len(t, rules(t), p.requireHealthy(t))
	require.Greater(t, p.values(t, accelerated(t, served))[0], 20.0, "too little traffic to say anything")
	require.Len(t, d.statuses(), 1, "answers with other statuses than 200")
}

func redisGoesAway(t *testing.T, d *deployment) {
	t.Helper()
	d.startRedis(t)
	d.serve(t, migration.DualWrite)
	require.NoError(t, d.redis.Kill())
	keep(t, func(ctx context.Context) { d.execute(ctx) })
}

func serverGoesAway(t *testing.T, d *deployment, p *prometheus) {
	t.Helper()
	d.process.Kill(t)
	p.await(t, d.name, []string{"RelayServerDown"}, "RelayRedisAway", "RelayRequestsFailing", "RelayDualWritesFailing")
}

// redisIsSlow: writes wait for most of a second.
func redisIsSlow(t *testing.T, d *deployment) {
	t.Helper()
	d.startRedis(t)
	d.serve(t, migration.DualWrite)
	keep(t, func(ctx context.Context) { d.execute(ctx) })
	keep(t, func(ctx context.Context) {
		_ = d.rdb.Do(ctx, "CLIENT", "PAUSE", "700", "WRITE").Err() // the test may have ended
	})
}

func redisIsFull(t *testing.T, d *deployment) {
	t.Helper()
	d.startRedis(t)
	d.serve(t, migration.DualWrite)
	used, err := strconv.Atoi(d.rdb.InfoMap(t.Context(), "memory").Item("Memory", "used_memory"))
	require.NoError(t, err)
	require.NoError(t, d.rdb.ConfigSet(t.Context(), "maxmemory", strconv.Itoa(used*100/95)).Err())
}

// newIsNotFilled: only the old schema holds the jobs that are read.
func newIsNotFilled(t *testing.T, d *deployment) {
	t.Helper()
	d.startRedis(t)
	d.serve(t, migration.DualWrite)
	id := d.plant(t, 1, time.Now())[0]
	keep(t, func(ctx context.Context) { d.get(ctx, id) })
}

func jobsAreMissing(t *testing.T, d *deployment) {
	t.Helper()
	d.startRedis(t)
	d.serve(t, migration.DualWrite)
	keep(t, func(ctx context.Context) { d.get(ctx, uuid.NewString()) })
}

// recordContradicts: another workspace's job lies under a key of the new schema.
func recordContradicts(t *testing.T, d *deployment) {
	t.Helper()
	d.startRedis(t)
	d.serve(t, migration.DualWrite)
	id := uuid.NewString()
	d.store(t, "ai:job:acme:"+id, fields(id, "globex"))
	require.Equal(t, http.StatusNotFound, d.get(t.Context(), id))
}

// copiesDiffer: somebody who writes old alone changes a job. Then the index names a job that is gone, and Redis takes no
// writes.
func copiesDiffer(t *testing.T, d *deployment, p *prometheus) {
	t.Helper()
	ctx := t.Context()
	id := d.execute(ctx)
	d.store(t, "ai:jobs:"+id, map[string]string{"status": "running", "started_at": time.Now().UTC().Format(job.TimeLayout)})
	require.Equal(t, http.StatusOK, d.get(ctx, id))
	p.await(t, d.name, []string{"RelayStaleCopiesServed"}, "RelayIsolationBreach")

	require.NoError(t, d.rdb.Del(ctx, "ai:jobs:"+id, "ai:job:acme:"+id).Err())
	require.NoError(t, d.rdb.ConfigSet(ctx, "maxmemory", "1").Err())
	require.Equal(t, http.StatusOK, d.list(ctx))
	require.NoError(t, d.rdb.ConfigSet(ctx, "maxmemory", "0").Err())
	p.await(t, d.name, []string{"RelayIndexNotMended"}, "RelayStaleCopiesServed", "RelayIsolationBreach")
}

func jobWaitsLong(t *testing.T, d *deployment) {
	t.Helper()
	d.startRedis(t)
	d.serve(t, migration.DualWrite)
	d.plant(t, 1, time.Now().Add(-time.Hour))
}

func manyJobsWait(t *testing.T, d *deployment) {
	t.Helper()
	d.startRedis(t)
	d.serve(t, migration.DualWrite)
	d.plant(t, 10_001, time.Now())
}

func backfillLeavesJobs(t *testing.T, d *deployment) {
	t.Helper()
	d.startRedis(t)
	d.plant(t, 1000, time.Now())
	for range 100 {
		id := uuid.NewString()
		d.store(t, "ai:job:acme:"+id, fields(id, "globex"))
	}
	d.backfill(t, "--rate=50", "--batch-size=5")
}

// backfillIsHeld: an operator forgets the key that holds it.
func backfillIsHeld(t *testing.T, d *deployment, p *prometheus) {
	t.Helper()
	require.NoError(t, d.rdb.Set(t.Context(), "ai:backfill-pause", "1", 0).Err())
	p.await(t, d.name, []string{"RelayBackfillStalled"}, "RelayBackfillLeavesJobs")
}

// taken makes one id for all jobs. Relay's own ids collide with nobody's.
type taken struct{ id job.ID }

func (i taken) NewJobID() (job.ID, error) { return i.id, nil }

// idIsTaken: another workspace has a job of the same id.
func idIsTaken(t *testing.T, d *deployment) {
	t.Helper()
	d.startRedis(t)
	id, err := job.ParseID(uuid.NewString())
	require.NoError(t, err)
	d.store(t, "ai:jobs:"+id.String(), fields(id.String(), "globex"))
	d.serveHere(t, migration.DualWrite,
		fx.Decorate(func(ports.JobIDs) ports.JobIDs { return taken{id} }), fx.Populate(&d.observer))
	require.Equal(t, id.String(), d.execute(t.Context()))
}

// mismatchesComeAtOnce: more than requests could bring in so short a time, so that the observer is told directly.
func mismatchesComeAtOnce(t *testing.T, d *deployment, p *prometheus) {
	t.Helper()
	acme, err := workspace.Parse("acme")
	require.NoError(t, err)
	globex, err := workspace.Parse("globex")
	require.NoError(t, err)
	for range 100_000 {
		d.observer.WorkspaceMismatch(acme, globex)
	}
	p.await(t, d.name, []string{"RelayMismatchesDropped"}, "RelayIDCollision")
}
