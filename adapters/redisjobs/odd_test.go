package redisjobs_test

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// TestWritersWithoutRevLeaveATrace: where a copy or a move takes over what somebody without rev has changed, and nowhere
// else.
func TestWritersWithoutRevLeaveATrace(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	id := jobID(t, "one")
	ref := migration.JobRef{Workspace: workspaceID(t, "acme"), ID: id}
	for name, take := range map[string]func(t *testing.T, rdb *redis.Client){
		"a copy": func(t *testing.T, rdb *redis.Client) {
			t.Helper()
			_, err := redisjobs.NewCopies(rdb).Copy(ctx, []migration.JobRef{ref}, migration.New, false)
			require.NoError(t, err)
		},
		"a move": func(t *testing.T, rdb *redis.Client) {
			t.Helper()
			require.NoError(t, repositoryOf(t, rdb, migration.DualWrite).Move(ctx, ref.Workspace, id, job.Move{To: job.Completed}))
		},
	} {
		for change, traced := range map[string]bool{"nothing": false, "without rev": true, "with rev": false} {
			t.Run(name+", "+change, func(t *testing.T) {
				rdb := redisserver.Start(t).Client(t)
				for _, key := range []string{"ai:jobs:one", "ai:job:acme:one"} {
					require.NoError(t, rdb.HSet(ctx, key, "job_id", "one", "workspace_id", "acme", "status", "pending",
						"action_provider", "google", "action_name", "gmail.send", "params", "{}",
						"enqueued_at", "2026-11-21T19:28:54.017837+00:00", "rev", "1").Err())
				}
				switch change {
				case "without rev":
					require.NoError(t, rdb.HSet(ctx, "ai:jobs:one", "status", "running", "started_at", "2026-11-21T19:28:55.017837+00:00").Err())
				case "with rev":
					require.NoError(t, repositoryOf(t, rdb, migration.ReadRouting).Move(ctx, ref.Workspace, id, job.Move{To: job.Running}))
				default:
					require.NoError(t, repositoryOf(t, rdb, migration.DualWrite).Move(ctx, ref.Workspace, id, job.Move{To: job.Running}))
				}
				before, err := rdb.Time(ctx).Result()
				require.NoError(t, err)
				take(t, rdb)
				facts, err := redisjobs.NewMigrationState(rdb).Facts(ctx, 0, false)
				require.NoError(t, err)
				require.Equal(t, traced, !facts.WithoutRev.IsZero())
				require.True(t, !traced || !facts.WithoutRev.Before(before.UTC()))
			})
		}
	}
}

// TestCopiesBearWhatStandsInTheWayOfTheIndexAndTheQueue: another type under their keys is no reason to stop, or to write a
// half.
func TestCopiesBearWhatStandsInTheWayOfTheIndexAndTheQueue(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	rdb := redisserver.Start(t).Client(t)
	copies := redisjobs.NewCopies(rdb)
	ref := migration.JobRef{Workspace: workspaceID(t, "acme"), ID: jobID(t, "one")}
	fields := []any{
		"job_id", "one", "workspace_id", "acme", "status", "pending", "action_provider", "google", "action_name",
		"gmail.send", "params", "{}", "enqueued_at", "2026-11-21T19:28:54.017837+00:00",
	}
	require.NoError(t, rdb.HSet(ctx, "ai:jobs:one", fields...).Err())
	require.NoError(t, rdb.Set(ctx, "ai:index:acme", "x", 0).Err())
	for _, dry := range []bool{true, false} {
		copied, err := copies.Copy(ctx, []migration.JobRef{ref}, migration.New, dry)
		require.NoError(t, err)
		require.Equal(t, migration.CopyMade, copied[0].Outcome)
		require.Zero(t, copied[0].Entries)
	}
	require.NoError(t, rdb.Del(ctx, "ai:index:acme", "ai:jobs:one").Err())
	require.NoError(t, rdb.Set(ctx, "ai:queue:pending", "x", 0).Err())
	copied, err := copies.Copy(ctx, []migration.JobRef{ref}, migration.Old, false)
	require.NoError(t, err)
	require.Equal(t, migration.CopyWrongType, copied[0].Outcome)
	require.Zero(t, rdb.Exists(ctx, "ai:jobs:one", "ai:index:acme").Val(), "nothing was written")
}

// TestHashesOfTooManyFieldsAreNoJobs: nobody waits for somebody to go through them.
func TestHashesOfTooManyFieldsAreNoJobs(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	rdb := redisserver.Start(t).Client(t)
	ref := migration.JobRef{Workspace: workspaceID(t, "acme"), ID: jobID(t, "one")}
	for i, key := range []string{"ai:jobs:one", "ai:job:acme:one"} {
		fields := []any{"job_id", "one", "workspace_id", "acme", "status", "pending"}
		for n := range 1100 * i {
			fields = append(fields, fmt.Sprint("field", n), "x")
		}
		require.NoError(t, rdb.HSet(ctx, key, fields...).Err())
	}
	copied, err := redisjobs.NewCopies(rdb).Copy(ctx, []migration.JobRef{ref}, migration.New, false)
	require.NoError(t, err)
	require.Equal(t, migration.CopyWrongType, copied[0].Outcome)
	retired, err := redisjobs.NewOldCopies(rdb).Retire(ctx, []migration.JobRef{ref}, false)
	require.NoError(t, err)
	require.Equal(t, migration.RetireWrongType, retired[0].Outcome)
	facts, err := redisjobs.NewCopies(rdb).Compare(ctx, []migration.JobRef{ref})
	require.NoError(t, err)
	require.Contains(t, classesOf(migration.Judge(migration.DualWrite, facts[0])), migration.DifferenceWrongType)
}

func classesOf(found []migration.Difference) (classes []migration.DifferenceClass) {
	for _, d := range found {
		classes = append(classes, d.Class)
	}
	return classes
}
