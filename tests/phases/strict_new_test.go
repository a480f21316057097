package phases_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/redisjobs/router"
	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/tests/contract"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// TestStrictNewDoesNotSeeThePredecessor says why the predecessor has to be stopped before strict new: reads look at new
// alone, and it writes old alone. A verification tells, a write starts from what it wrote, and a backfill brings the
// rest, so that nothing is lost.
func TestStrictNewDoesNotSeeThePredecessor(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	rdb, ctx := server.Client(t), t.Context()
	dual := router.New(rdb, migration.DualWrite, redisjobs.Options{Observer: contract.Unobserved{}})
	strict := router.New(rdb, migration.StrictNew, redisjobs.Options{Observer: contract.Unobserved{}})
	ws, err := workspace.Parse("acme")
	require.NoError(t, err)
	idOf := func(text string) job.ID {
		id, err := job.ParseID(text)
		require.NoError(t, err)
		return id
	}
	migrate := func(code int, args ...string) string {
		env := harness.Environment(harness.PhaseEnvironment(migration.DualWrite), map[string]string{"REDIS_URL": server.OperatorURL()})
		got, stdout, stderr := harness.Run(t, env, append([]string{"migrate"}, args...)...)
		require.Equal(t, code, got, "%v: %s%s", args, stdout, stderr)
		return stdout
	}
	requireStatus := func(r *redisjobs.Repository, id string, want job.Status) job.Job {
		got, err := r.Get(ctx, ws, idOf(id))
		require.NoError(t, err)
		require.Equal(t, want, got.Status)
		return got
	}
	started := stored(time.Now().Add(time.Second))
	start := func(id string) {
		require.NoError(t, rdb.HSet(ctx, "ai:jobs:"+id, "status", "running", "started_at", started).Err())
	}

	for _, id := range []string{"moved", "left"} {
		_, err := dual.Enqueue(ctx, job.Draft{ID: idOf(id), Workspace: ws, Provider: "google", Name: "gmail.send", Params: "{}"})
		require.NoError(t, err)
		start(id)
		requireStatus(dual, id, job.Running)
		requireStatus(strict, id, job.Pending)
	}
	require.NoError(t, rdb.HSet(ctx, "ai:jobs:made", "job_id", "made", "workspace_id", "acme", "status", "pending",
		"action_provider", "google", "action_name", "gmail.send", "params", "{}", "enqueued_at", stored(time.Now())).Err())
	requireStatus(dual, "made", job.Pending)
	_, err = strict.Get(ctx, ws, idOf("made"))
	require.Equal(t, fault.NotFound, fault.KindOf(err))

	found := migrate(app.ExitDiffers, "verify", "--record", "--rate=0", "--index-lag=0")
	require.Regexp(t, `(?m)^stale +2, `, found)
	require.Regexp(t, `(?m)^missing +1, `, found)
	require.Regexp(t, `(?m)^gate fallback off +closed: two clean passes: `, migrate(app.ExitOK, "status"))

	require.NoError(t, strict.Move(ctx, ws, idOf("moved"), job.Move{To: job.Completed, Result: "1"}))
	require.Equal(t, started, stored(requireStatus(strict, "moved", job.Completed).StartedAt))
	requireStatus(dual, "moved", job.Completed)
	require.NoError(t, strict.Move(ctx, ws, idOf("made"), job.Move{To: job.Running}))
	requireStatus(strict, "made", job.Running)
	migrate(app.ExitOK, "backfill", "--execute", "--rate=0")
	require.Equal(t, started, stored(requireStatus(strict, "left", job.Running).StartedAt))
}
