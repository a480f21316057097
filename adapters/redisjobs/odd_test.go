package redisjobs_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// TestWritersWithoutRevLeaveATrace: where a copy or a move takes over what somebody without rev has changed, or a move
// overwrites it, and nowhere else.
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
		for change, traced := range map[string]bool{
			"nothing": false, "without rev": true, "with rev": false,
			"without rev, fallen behind": name == "a move", // a copy leaves such a pair as it is
		} {
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
				case "without rev, fallen behind":
					require.NoError(t, rdb.HSet(ctx, "ai:job:acme:one", "status", "running", "rev", "2", "started_at", "2026-11-21T19:28:55.017837+00:00").Err())
					require.NoError(t, rdb.HSet(ctx, "ai:jobs:one", "status", "running", "started_at", "2026-11-21T19:28:56.017837+00:00").Err())
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

// TestAHashOfTooManyFieldsIsOneDifference: reads by id show it, lists have it, and nothing that strict new would lose is
// called clean.
func TestAHashOfTooManyFieldsIsOneDifference(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ref := migration.JobRef{Workspace: workspaceID(t, "acme"), ID: jobID(t, "one")}
	for _, beside := range []bool{false, true} {
		rdb := redisserver.Start(t).Client(t)
		fields := []any{
			"job_id", "one", "workspace_id", "acme", "status", "completed", "enqueued_at", "2026-11-21T19:28:54.017837+00:00",
		}
		if beside {
			require.NoError(t, rdb.HSet(ctx, "ai:job:acme:one", append(slices.Clone(fields), "status", "pending")...).Err())
		}
		for n := range 1100 {
			fields = append(fields, fmt.Sprint("field", n), "x")
		}
		require.NoError(t, rdb.HSet(ctx, "ai:jobs:one", fields...).Err())
		pass(t, rdb, migration.DualWrite, usecase.IndexJobsInput{})
		facts, err := redisjobs.NewCopies(redisserver.AsOperator(t, rdb)).Compare(ctx, []migration.JobRef{ref})
		require.NoError(t, err)
		require.Equal(t, []migration.DifferenceClass{migration.DifferenceWrongType}, classesOf(migration.Judge(migration.DualWrite, facts[0])))
	}
}

func classesOf(found []migration.Difference) (classes []migration.DifferenceClass) {
	for _, d := range found {
		classes = append(classes, d.Class)
	}
	return classes
}

// TestCopiesOfWhatAWriterWithoutRevChanged: a field that says nothing of the order of copies is no less a change.
func TestCopiesOfWhatAWriterWithoutRevChanged(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ref := migration.JobRef{Workspace: workspaceID(t, "acme"), ID: jobID(t, "one")}
	for name, c := range map[string]struct {
		rev     string // of both copies, "" for none
		alone   bool   // old is
		outcome migration.CopyOutcome
		traced  bool
	}{
		"over a rev":               {"1", false, migration.CopyRepaired, true},
		"nothing tells which":      {"", false, migration.CopyConflict, false},
		"a job that it made":       {"", true, migration.CopyMade, true},
		"a job that Relay made":    {"1", true, migration.CopyMade, false},
		"a job of Relay, rev of 9": {"9", false, migration.CopyRepaired, true},
	} {
		t.Run(name, func(t *testing.T) {
			rdb := redisserver.Start(t).Client(t)
			fields := []any{
				"job_id", "one", "workspace_id", "acme", "status", "running", "action_provider", "google", "action_name",
				"gmail.send", "params", "{}", "enqueued_at", "2026-11-21T19:28:54.017837+00:00", "attempts", "1",
			}
			if c.rev != "" {
				fields = append(fields, "rev", c.rev)
			}
			require.NoError(t, rdb.HSet(ctx, "ai:jobs:one", fields...).Err())
			if !c.alone {
				require.NoError(t, rdb.HSet(ctx, "ai:job:acme:one", fields...).Err())
			}
			require.NoError(t, rdb.HSet(ctx, "ai:jobs:one", "attempts", "2", "params", `{"a":2}`).Err())
			old, inNew := rdb.HGetAll(ctx, "ai:jobs:one").Val(), rdb.HGetAll(ctx, "ai:job:acme:one").Val()
			rights := redisserver.AsOperator(t, rdb)
			copied, err := redisjobs.NewCopies(rights).Copy(ctx, []migration.JobRef{ref}, migration.New, false)
			require.NoError(t, err)
			require.Equal(t, c.outcome, copied[0].Outcome)
			if c.outcome != migration.CopyConflict {
				inNew = old
			}
			require.Equal(t, old, rdb.HGetAll(ctx, "ai:jobs:one").Val())
			require.Equal(t, inNew, rdb.HGetAll(ctx, "ai:job:acme:one").Val())
			facts, err := redisjobs.NewMigrationState(rights).Facts(ctx, 0, false)
			require.NoError(t, err)
			require.Equal(t, c.traced, !facts.WithoutRev.IsZero())
		})
	}
}

// TestRemovalsAreKnown: no copy to the old schema before the last of them counts.
func TestRemovalsAreKnown(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	rdb := redisserver.AsOperator(t, redisserver.Start(t).Client(t))
	r := redisserver.AsServer(t, rdb)
	ref := migration.JobRef{Workspace: workspaceID(t, "acme"), ID: jobID(t, "one")}
	_, err := repositoryOf(t, r, migration.DualWrite).Enqueue(ctx, draft(t, "one", ""))
	require.NoError(t, err)
	removed := func(dry bool) time.Time {
		retired, err := redisjobs.NewOldCopies(rdb).Retire(ctx, []migration.JobRef{ref}, dry)
		require.NoError(t, err)
		require.Equal(t, migration.RetireRemoved, retired[0].Outcome)
		facts, err := redisjobs.NewMigrationState(rdb).Facts(ctx, 0, false)
		require.NoError(t, err)
		return facts.Retired
	}
	require.Zero(t, removed(true))
	before, err := rdb.Time(ctx).Result()
	require.NoError(t, err)
	require.False(t, removed(false).Before(before.UTC().Truncate(time.Microsecond)))
}

// TestWhatCannotBeReadClosesGatesAndStopsNobody: another version may have kept more.
func TestWhatCannotBeReadClosesGatesAndStopsNobody(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	rdb := redisserver.Start(t).Client(t)
	m := redisjobs.NewMigrationState(redisserver.AsServer(t, rdb))
	require.NoError(t, rdb.RPush(ctx, "ai:migration-passes", `{"kind":"of a later version"}`, "{").Err())
	require.NoError(t, rdb.Set(ctx, "ai:writer-without-rev", "yesterday", 0).Err())
	require.NoError(t, rdb.HSet(ctx, "ai:retired", "a", "b").Err())
	facts, err := m.Facts(ctx, 0, false)
	require.NoError(t, err)
	require.Equal(t, 2, facts.Unreadable)
	require.Equal(t, facts.Now, facts.WithoutRev)
	require.Equal(t, facts.Now, facts.Retired)
}
