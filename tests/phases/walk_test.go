package phases_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// What is promised in every pair of phases is the same, as long as the runbook is followed: a job that was acknowledged is
// found by its id and in lists, and no read is older than what was acknowledged before it began. Three things are less,
// and the tests ask for no more:
//
//   - The predecessor writes nothing from the proof before strict new until dual write has come back: strict new and new
//     only do not read what it writes (TestStrictNewDoesNotSeeThePredecessor).
//   - A job of the predecessor's is in lists by the index once a sweep has come by it.
//   - A list by SCAN may show a job twice where servers of two phases serve it in turn, or Redis resizes its table.

// fixture puts in what the predecessor's real code stored. Where it left two copies of a job, the old one is as fresh or
// fresher: it is the truth.
func fixture(w *world) {
	records := redisserver.ReadFixture(w, "../migration/testdata/predecessor.jsonl")
	redisserver.Load(w, w.rdb, records)
	waiting := map[string]bool{}
	for _, entry := range w.rdb.LRange(w.Context(), queueKey, 0, -1).Val() {
		waiting[entry] = true
	}
	for _, r := range records {
		id, old := strings.CutPrefix(r.Key, "ai:jobs:")
		if !old || r.Type != "hash" {
			continue
		}
		f := r.Hash(w)
		if _, err := workspace.Parse(f["workspace_id"]); err != nil {
			continue // nobody's
		}
		require.Equal(w, id, f["job_id"])
		w.add(&life{
			id: id, ws: f["workspace_id"], provider: f["action_provider"], name: f["action_name"], actor: f["actor_id"],
			params: job.JSONOf(f["params"]), queued: waiting[id], since: "stored before",
		}, version{
			status: job.Status(f["status"]), result: job.JSONOf(f["result"]), problem: f["error"],
			started: exactly(f["started_at"]), finished: exactly(f["finished_at"]),
		})
	}
	for _, r := range records {
		ws, key, ok := strings.Cut(strings.TrimPrefix(r.Key, "ai:idempotency:"), ":")
		if ok && r.Type == "string" && strings.HasPrefix(r.Key, "ai:idempotency:") {
			of := w.lives[w.rdb.Get(w.Context(), r.Key).Val()]
			require.NotNil(w, of, r.Key)
			w.asked = append(w.asked, request{ws: ws, key: key, provider: of.provider, name: of.name, params: of.params, id: of.id})
		}
	}
	w.strange = true
}

// fill is steps 3 and 4 of the way forward: copies, index and proof.
func (w *world) fill() {
	w.Helper()
	code := app.ExitOK
	if w.strange {
		code = app.ExitDiffers
	}
	w.migrate(code, "backfill", "--execute", "--rate=0")
	w.migrate(app.ExitOK, "index", "--execute", "--rate=0")
	w.rest(func() { w.indexed = true })
	w.stopPredecessor()
	w.backfill(migration.New)
	w.prove()
	w.requireMet(migration.GateFallbackOff, migration.ConditionVerified, migration.ConditionWriters)
}

// leaveOld is step 6 of the way forward, behind which the old schema is no longer written.
func (w *world) leaveOld() {
	w.Helper()
	w.prove()
	w.rest(func() {
		w.drain()
		w.requireMet(migration.GateNewOnly, migration.ConditionVerified, migration.ConditionWriters, migration.ConditionQueue,
			migration.ConditionWorkers)
	})
	w.roll(migration.NewOnly)
}

// drain lets Relay's workers take all that waits. Some jobs are still running then.
func (w *world) drain() {
	w.Helper()
	for n := 0; ; n++ {
		of, err := w.next(w.Context(), "LPOP")
		if errors.Is(err, errIdle) {
			return
		}
		require.NoError(w, err)
		if w.last(of).status != job.Pending {
			continue
		}
		require.NoError(w, w.move(w.Context(), w.either(), of, job.Move{To: job.Running}))
		if n%10 == 0 {
			w.lose(of)
			continue
		}
		require.NoError(w, w.move(w.Context(), w.either(), of, job.Move{To: job.Completed, Result: `{"drained":true}`}))
	}
}

// back is the way back from new only, up to where every phase may follow and the predecessor may come again: its workers
// change old copies, which strict new does not read, and must find each job there as it is.
func (w *world) back(passes ...migration.Schema) {
	w.Helper()
	w.roll(migration.StrictNew)
	w.rest(w.requireBehind)
	for _, to := range passes {
		w.backfill(to)
	}
	w.roll(migration.DualWrite)
	w.backfill(migration.Old)
	w.requireMet(migration.GateBack, migration.ConditionCopiedBack)
	w.startPredecessor()
}

// requireBehind checks that the way back has something to do: jobs wait that old does not hold, and others that it holds
// as running.
func (w *world) requireBehind() {
	w.Helper()
	w.waited = map[string]bool{}
	absent, behind := 0, 0
	for _, of := range w.waiting() {
		switch status := w.rdb.HGet(w.Context(), "ai:jobs:"+of.id, "status").Val(); status {
		case string(job.Pending):
			continue
		case "":
			absent++
		default:
			behind++
		}
		w.waited[of.id] = true
	}
	w.Logf("%d jobs wait that old does not hold, and %d that it holds as running", absent, behind)
	require.Positive(w, absent)
	require.Positive(w, behind)
}

// waiting gives the jobs that a worker has to find.
func (w *world) waiting() (all []*life) {
	for _, of := range w.all {
		if of.queued && w.last(of).status == job.Pending {
			all = append(all, of)
		}
	}
	return all
}

// requireFound ends the load, and checks that each job is found by its id, and that the predecessor's worker finds every one
// that waits, and runs it.
func (w *world) requireFound() {
	w.Helper()
	w.end()
	for i, of := range w.all {
		require.NoError(w, w.read(w.Context(), w.servers[i%len(w.servers)], of))
	}
	waiting, ofNewOnly := map[string]string{}, 0
	for _, of := range w.waiting() {
		waiting[of.id] = of.since
		if w.waited[of.id] {
			ofNewOnly++
		}
	}
	w.Logf("%d jobs; %d wait, %d since new only", len(w.all), len(waiting), ofNewOnly)
	require.Positive(w, ofNewOnly, "some still wait that old did not hold so")
	for {
		err := w.theirs.takeOne(w.Context(), func(id string) error {
			delete(waiting, id)
			return w.theirs.run(w.Context(), id)
		})
		if errors.Is(err, errIdle) {
			break
		}
		require.NoError(w, err)
	}
	require.Empty(w, waiting, "the predecessor's worker does not find them")
	w.rest(w.requireTruth)
}

// TestForwardAndBack: what the predecessor stored, from legacy to new only as the runbook says, and back.
func TestForwardAndBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, migration.Legacy, fixture)
	w.startPredecessor()
	w.roll(migration.ReadRouting)
	w.roll(migration.DualWrite)
	w.fill()
	w.roll(migration.StrictNew)
	w.leaveOld()
	w.back(migration.Old)
	w.roll(migration.ReadRouting)
	w.roll(migration.Legacy)
	w.requireFound()
}

// TestByWayOfCanary: a store that was empty, through the pairs in which the phase canary stands, and by it back from new
// only.
func TestByWayOfCanary(t *testing.T) {
	t.Parallel()
	w := newWorld(t, migration.Legacy, func(*world) {})
	w.startPredecessor()
	w.roll(migration.Canary)
	w.roll(migration.ReadRouting)
	w.roll(migration.Canary)
	w.roll(migration.DualWrite)
	w.fill()
	w.roll(migration.StrictNew)
	w.leaveOld()
	w.back(migration.New, migration.Old) // the first is what the class stale calls for
	w.roll(migration.Canary)
	w.roll(migration.Legacy)
	w.requireFound()
}
