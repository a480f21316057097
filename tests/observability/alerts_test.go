package observability_test

import (
	"context"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
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

// scenario is a deployment and what happens to it.
type scenario struct {
	name string
	// begin starts it, and brings about what the first alerts are for before anything is scraped.
	begin func(t *testing.T, d *deployment)
	// load is one round of what goes on all the time; nil is nothing.
	load  func(ctx context.Context, d *deployment)
	fires []string
	// further is what happens once those fire; nil is nothing.
	further func(t *testing.T, d *deployment)
	then    []string
}

// latencyHigh is the one alert that a busy machine may bring about.
const latencyHigh = "RelayLatencyHigh"

func scenarios() []scenario {
	return []scenario{
		{"all is well", startHealthy, consume, nil, requireServed, nil},
		{"nothing is scraped", startNothing, nil, []string{"RelayNotScraped"}, nil, nil},
		{
			"Redis goes away", redisGoesAway, write,
			[]string{"RelayRedisAway", "RelayRequestsFailing", "RelayDualWritesFailing"},
			serverGoesAway,
			[]string{"RelayServerDown"},
		},
		{"Redis is slow", serve, writeSlowly, []string{latencyHigh}, nil, nil},
		{"Redis is full", redisIsFull, nil, []string{"RelayRedisMemoryHigh"}, nil, nil},
		{"new is not filled", newIsNotFilled, readKnown, []string{"RelayNewSchemaReadsLow"}, nil, nil},
		{"jobs are missing", serve, readUnknown, []string{"RelayJobsNotFound"}, nil, nil},
		{
			"a record contradicts its key", recordContradicts, nil,
			[]string{"RelayIsolationBreach"},
			copiesDiffer,
			[]string{"RelayStaleCopiesServed", "RelayIndexNotMended"},
		},
		{"a job waits long", jobWaitsLong, nil, []string{"RelayQueueOld"}, nil, nil},
		{"many jobs wait", manyJobsWait, nil, []string{"RelayQueueDeep"}, nil, nil},
		{
			"the backfill leaves jobs", backfillLeavesJobs, awaitStep,
			[]string{"RelayBackfillLeavesJobs"},
			backfillIsHeld,
			[]string{"RelayBackfillStalled"},
		},
		{"an id is taken", idIsTaken, nil, []string{"RelayIDCollision"}, mismatchesComeAtOnce, []string{"RelayMismatchesDropped"}},
	}
}

// TestEachAlertFiresWithItsCauseAlone judges what real servers tell of themselves by the shipped rules as they are. Only the
// time is not real: it is a minute from scrape to scrape, however soon one follows the other.
func TestEachAlertFiresWithItsCauseAlone(t *testing.T) {
	t.Parallel()
	brought := map[string]bool{}
	for _, s := range scenarios() {
		for _, a := range append(s.fires, s.then...) {
			brought[a] = true
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			d := &deployment{name: s.name}
			s.begin(t, d)
			var r recording
			r.watch(t, s, d)
			r.expect(s.fires)
			if s.further != nil {
				s.further(t, d)
				r.watch(t, s, d)
				r.expect(append(s.fires, s.then...))
			}
			r.requireFired(t, d)
		})
	}
	for _, a := range alerts(t) {
		require.True(t, brought[a.Alert], "nothing brings %s about", a.Alert)
	}
}

// TestPrometheusWatches: a real Prometheus, which scrapes as configs/prometheus says, tells of causes, and each query of the
// dashboard has data. With RELAY_SOAK=full it is given the time that it takes for every alert, at fifteen times its pace.
func TestPrometheusWatches(t *testing.T) {
	t.Parallel()
	p := startPrometheus(t)
	var deployments []*deployment
	all := slices.DeleteFunc(scenarios(), func(s scenario) bool {
		return s.name == "nothing is scraped" || !full() && waits(t, append(s.fires, s.then...))
	})
	for _, s := range all {
		d := &deployment{name: s.name}
		s.begin(t, d)
		if s.load != nil {
			keep(t, func(ctx context.Context) { s.load(ctx, d) })
		}
		deployments = append(deployments, d)
	}
	if full() {
		p.await(t, "", []string{"RelayNotScraped"})
	}
	p.scrape(t, deployments)

	for i, s := range all {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			p.await(t, s.name, s.fires)
			if len(s.fires) == 0 && full() {
				p.requireSilence(t, s.name)
			}
			if s.further != nil {
				s.further(t, deployments[i])
				p.await(t, s.name, s.then, s.fires...)
			}
		})
	}
	t.Run("dashboard", func(t *testing.T) {
		t.Parallel()
		requireData(t, p)
		require.Len(t, rules(t), p.requireHealthy(t))
	})
}

// full tells whether tests have the time that they would like to have.
func full() bool { return os.Getenv("RELAY_SOAK") == "full" }

// waits tells whether one of these alerts takes its time.
func waits(t *testing.T, names []string) bool {
	t.Helper()
	return slices.ContainsFunc(alerts(t), func(a rule) bool { return slices.Contains(names, a.Alert) && a.For != "" })
}

// startHealthy runs a deployment in the middle of its migration: in dual write, with a backfill that goes on.
func startHealthy(t *testing.T, d *deployment) {
	t.Helper()
	d.startRedis(t, "--maxmemory", "1gb")
	d.serve(t, migration.DualWrite)
	jobs := 60_000
	if full() {
		jobs = 100_000
	}
	d.plant(t, jobs, job.Completed, time.Now())
	d.backfill(t, "--rate=200", "--batch-size=5")
}

// consume does what consumers do, while the backfill goes on.
func consume(ctx context.Context, d *deployment) {
	for range 5 {
		d.get(ctx, d.execute(ctx))
		d.list(ctx)
	}
	awaitStep(ctx, d)
}

// awaitStep waits for the backfill's next step, unless an operator holds it.
func awaitStep(ctx context.Context, d *deployment) {
	ended := func() string { return d.metric(ctx, "relay-backfill", "backfill_last_progress_timestamp_seconds") }
	end := time.Now().Add(waitLimit)
	for before := ended(); ended() == before && ctx.Err() == nil && time.Now().Before(end); {
		if d.metric(ctx, "relay-backfill", held) != "" {
			return
		}
	}
}

// requireServed: nothing that consumers did was refused.
func requireServed(t *testing.T, d *deployment) {
	t.Helper()
	statuses := d.statuses()
	require.Positive(t, statuses[http.StatusOK])
	require.Len(t, statuses, 1, "%v", statuses)
}

func startNothing(*testing.T, *deployment) {}

// serve starts a server in dual write.
func serve(t *testing.T, d *deployment) {
	t.Helper()
	d.startRedis(t)
	d.serve(t, migration.DualWrite)
}

func write(ctx context.Context, d *deployment) {
	for range 5 {
		d.execute(ctx)
	}
}

func redisGoesAway(t *testing.T, d *deployment) {
	t.Helper()
	serve(t, d)
	require.NoError(t, d.redis.Kill())
	d.redisGone = true
}

func serverGoesAway(t *testing.T, d *deployment) {
	t.Helper()
	d.process.Kill(t)
}

// writeSlowly: Redis lets writes wait for more than half a second.
func writeSlowly(ctx context.Context, d *deployment) {
	_ = d.rdb.Do(ctx, "CLIENT", "PAUSE", "600", "WRITE").Err() // the test may have ended
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() { d.execute(ctx) })
	}
	all.Wait()
}

func redisIsFull(t *testing.T, d *deployment) {
	t.Helper()
	serve(t, d)
	used, err := strconv.Atoi(d.rdb.InfoMap(t.Context(), "memory").Item("Memory", "used_memory"))
	require.NoError(t, err)
	require.NoError(t, d.rdb.ConfigSet(t.Context(), "maxmemory", strconv.Itoa(used*100/95)).Err())
}

// newIsNotFilled: only the old schema holds the jobs that are read.
func newIsNotFilled(t *testing.T, d *deployment) {
	t.Helper()
	serve(t, d)
	d.known = d.plant(t, 1, job.Pending, time.Now())[0]
}

func readKnown(ctx context.Context, d *deployment) {
	for range 5 {
		d.get(ctx, d.known)
	}
}

func readUnknown(ctx context.Context, d *deployment) {
	for range 5 {
		d.get(ctx, uuid.NewString())
	}
}

// recordContradicts: another workspace's job lies under a key of the new schema.
func recordContradicts(t *testing.T, d *deployment) {
	t.Helper()
	serve(t, d)
	id := uuid.NewString()
	d.store(t, "ai:job:acme:"+id, fields(id, "globex"))
	require.Equal(t, http.StatusNotFound, d.get(t.Context(), id))
}

// copiesDiffer: somebody who writes old alone changes a job. Then the index names a job that is gone while Redis is a
// replica, which takes no writes.
func copiesDiffer(t *testing.T, d *deployment) {
	t.Helper()
	ctx := t.Context()
	id := d.execute(ctx)
	d.store(t, "ai:jobs:"+id, map[string]string{"status": "running", "started_at": time.Now().UTC().Format(job.TimeLayout)})
	require.Equal(t, http.StatusOK, d.get(ctx, id))

	require.NoError(t, d.rdb.Del(ctx, "ai:jobs:"+id, "ai:job:acme:"+id).Err())
	require.NoError(t, d.rdb.ReplicaOf(ctx, "127.0.0.1", "1").Err())
	require.Equal(t, http.StatusOK, d.list(ctx))
	require.NoError(t, d.rdb.ReplicaOf(ctx, "NO", "ONE").Err())
}

func jobWaitsLong(t *testing.T, d *deployment) {
	t.Helper()
	serve(t, d)
	d.plant(t, 1, job.Pending, time.Now().Add(-time.Hour))
}

func manyJobsWait(t *testing.T, d *deployment) {
	t.Helper()
	serve(t, d)
	d.plant(t, 10_001, job.Pending, time.Now())
}

func backfillLeavesJobs(t *testing.T, d *deployment) {
	t.Helper()
	serve(t, d)
	d.plant(t, 1000, job.Completed, time.Now())
	for range 100 {
		id := uuid.NewString()
		d.store(t, "ai:job:acme:"+id, fields(id, "globex"))
	}
	d.backfill(t, "--rate=20", "--batch-size=5")
	d.awaitMetric(t, "relay-backfill", `backfill_jobs_total\{.*result="failed".*\} [1-9]`)
}

// held is what a backfill tells while its pause key is there.
const held = `backfill_slowed\{reason="paused by its key"\} 1`

// backfillIsHeld: an operator forgets the key that holds it.
func backfillIsHeld(t *testing.T, d *deployment) {
	t.Helper()
	require.NoError(t, d.rdb.Set(t.Context(), "ai:backfill-pause", "1", 0).Err())
	d.awaitMetric(t, "relay-backfill", held)
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
func mismatchesComeAtOnce(t *testing.T, d *deployment) {
	t.Helper()
	acme, err := workspace.Parse("acme")
	require.NoError(t, err)
	globex, err := workspace.Parse("globex")
	require.NoError(t, err)
	for range 100_000 {
		d.observer.WorkspaceMismatch(acme, globex)
	}
	d.awaitMetric(t, "relay", `relay_workspace_mismatch_dropped_total [1-9]`)
}
