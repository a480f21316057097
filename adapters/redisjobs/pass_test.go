package redisjobs_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// restless never sleeps.
type restless struct{}

func (restless) Now() time.Time                                   { return time.Now() }
func (restless) Sleep(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// pass makes one with the rights of whoever makes it: operators go over everything, servers sweep the rest.
func pass(t *testing.T, rdb *redis.Client, phase migration.Phase, in usecase.IndexJobsInput) migration.IndexCounts {
	t.Helper()
	as := redisserver.AsServer
	if in.Scope == migration.IndexAll {
		as = redisserver.AsOperator
	}
	index := redisjobs.New(as(t, rdb), phase, redisjobs.Options{Observer: &events{}})
	counts, err := usecase.IndexJobs{Index: index, Clock: restless{}}.Do(t.Context(), in, nil)
	require.NoError(t, err)
	return counts
}

// TestPassTakesExpiredJobsOut: retention ends jobs that nobody lists; a pass takes their entries, wherever among living
// ones they stand, and leaves those.
func TestPassTakesExpiredJobsOut(t *testing.T) {
	for scope, phases := range map[migration.IndexScope][]migration.Phase{
		migration.IndexAll: {migration.DualWrite}, migration.IndexOld: {migration.Legacy}, migration.IndexEntries: {migration.NewOnly},
	} {
		for _, phase := range phases {
			t.Run(fmt.Sprint(scope, " ", phase), func(t *testing.T) {
				t.Parallel()
				rdb := redisserver.Start(t).Client(t)
				complete(t, rdb)
				r := redisjobs.New(redisserver.AsServer(t, rdb), phase, redisjobs.Options{Observer: &events{}, Retention: 50 * time.Millisecond})
				oldest := ids("oldest", 150) // never finished: more of them than a step looks at
				for _, id := range oldest {
					_, err := r.Enqueue(t.Context(), draft(t, id, ""))
					require.NoError(t, err)
				}
				for i := range 600 {
					id := fmt.Sprint("mine-", i)
					_, err := r.Enqueue(t.Context(), draft(t, id, ""))
					require.NoError(t, err)
					if i%3 > 0 {
						require.NoError(t, r.Move(t.Context(), acme(t), jobID(t, id), job.Move{To: job.Failed}))
					}
				}
				keys := func() int {
					n := len(redisserver.Dump(t, rdb, "ai:jobs:*")) + len(redisserver.Dump(t, rdb, "ai:job:*"))
					if phase.WritesBoth() {
						n /= 2
					}
					return n
				}
				require.Eventually(t, func() bool { return keys() == 350 }, 10*time.Second, 10*time.Millisecond)
				require.EqualValues(t, 1500, rdb.ZCard(t.Context(), theIndex).Val())
				for range 20 {
					pass(t, rdb, phase, usecase.IndexJobsInput{Scope: scope})
				}
				left := rdb.ZCard(t.Context(), theIndex).Val()
				require.GreaterOrEqual(t, left, int64(700))
				require.LessOrEqual(t, left, int64(740), "a few that chance left out at most")
				times := walk(t, only(r), acme(t), job.Query{Limit: 100}, nil)
				require.Len(t, times, 350)
				require.EqualValues(t, 700, rdb.ZCard(t.Context(), theIndex).Val())
			})
		}
	}
}

// TestTrimStepByStep: the oldest first, and more while there are any.
func TestTrimStepByStep(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	r := repositoryOf(t, rdb, migration.DualWrite)
	var gone []string
	for i := range 250 {
		gone = append(gone, entryAt("z", placeA+int64(i), fmt.Sprint("gone-", i)), entryAt("c", placeA+int64(i), fmt.Sprint("gone-", i)))
	}
	plant(t, rdb, theIndex, gone...)
	plant(t, rdb, theIndex, "z", "garbage", "z12345", "")
	write(t, rdb, "acme", []string{"oldest"}, true, false)
	plant(t, rdb, theIndex, entriesOf(whole("job_id", "oldest"))...)
	write(t, rdb, "acme", []string{"mine"}, true, false)
	require.NoError(t, rdb.HSet(t.Context(), "ai:jobs:mine", "enqueued_at", timeText(placeB)).Err())
	plant(t, rdb, theIndex, entryAt("z", placeB, "mine"), entryAt("p", placeB, "mine"))

	before := entries(t, rdb, theIndex)
	counts, more, err := r.Trim(t.Context(), acme(t), true)
	require.NoError(t, err)
	require.False(t, more)
	require.Positive(t, counts.Dropped)
	require.Equal(t, before, entries(t, rdb, theIndex), "a dry run changes nothing")

	var dropped int64
	for steps := 0; ; steps++ {
		require.Less(t, steps, 100)
		counts, more, err := r.Trim(t.Context(), acme(t), false)
		require.NoError(t, err)
		require.Zero(t, counts.Mended)
		dropped += counts.Dropped
		if !more {
			break
		}
	}
	require.EqualValues(t, 250, dropped)
	var left []string
	for _, e := range entries(t, rdb, theIndex) {
		require.NotContains(t, e, "gone-")
		if strings.Contains(e, "oldest") || strings.Contains(e, "mine") {
			left = append(left, e)
		}
	}
	require.Len(t, left, 4)
	_, _, err = r.Trim(t.Context(), workspace.ID{}, false)
	require.Error(t, err)
	_, more, err = r.Trim(t.Context(), workspaceID(t, "nobody"), false)
	require.NoError(t, err)
	require.False(t, more)
}

// TestPassOverEverythingTrimsAll: jobs that are gone in the middle of an index go in one pass, and what is no place; the
// dry run before it says how many and changes nothing.
func TestPassOverEverythingTrimsAll(t *testing.T) {
	t.Parallel()
	rdb := redisserver.Start(t).Client(t)
	r := repositoryOf(t, rdb, migration.DualWrite)
	kept := ids("kept", 2000)
	for _, id := range kept {
		_, err := r.Enqueue(t.Context(), draft(t, id, ""))
		require.NoError(t, err)
	}
	var gone []string
	for i := 500; i < 2000; i += 100 {
		gone = append(gone, "ai:jobs:"+kept[i], "ai:job:acme:"+kept[i])
	}
	require.NoError(t, rdb.Del(t.Context(), gone...).Err())
	plant(t, rdb, theIndex, "z", "garbage", "z12345", "", "x"+entryAt("", placeA, kept[0]), entryAt("f", placeA, "state alone"))
	before := entries(t, rdb, theIndex)
	dry := pass(t, rdb, migration.DualWrite, usecase.IndexJobsInput{DryRun: true})
	require.Equal(t, before, entries(t, rdb, theIndex))
	require.EqualValues(t, 15+6, dry.Dropped)
	require.Zero(t, dry.Mended)
	counts := pass(t, rdb, migration.DualWrite, usecase.IndexJobsInput{})
	require.Equal(t, dry, counts)
	require.Len(t, entries(t, rdb, theIndex), 2*(2000-15))
	require.Zero(t, pass(t, rdb, migration.DualWrite, usecase.IndexJobsInput{}).Dropped)
	counted := &commands{}
	operator := redisserver.AsOperator(t, rdb)
	operator.AddHook(counted)
	trim, next := redisjobs.New(operator, 0, redisjobs.Options{Observer: &events{}}), ""
	for page := range 2 {
		from := counted.trips.Load()
		var trimmed migration.IndexCounts
		var err error
		trimmed, next, err = trim.TrimAll(t.Context(), workspaceID(t, "acme"), next, false)
		require.NoError(t, err)
		require.Equal(t, migration.IndexCounts{Entries: 500}, trimmed)
		if page > 0 { // whose connections are there
			require.EqualValues(t, 1+5, counted.trips.Load()-from, "a page of which nothing is to mend, and each hundred jobs")
		}
	}
	_, _, err := r.TrimAll(t.Context(), workspace.ID{}, "", false)
	require.Error(t, err)
}

// TestBatchNamesTheProcess: the id that INFO gives, and another one after a restart.
func TestBatchNamesTheProcess(t *testing.T) {
	server := redisserver.Start(t)
	seen := map[string]bool{}
	for range 2 {
		rdb := server.Client(t)
		batch, err := repositoryOf(t, rdb, migration.Legacy).Batch(t.Context(), migration.IndexAll, 0, false)
		require.NoError(t, err)
		info, err := rdb.InfoMap(t.Context(), "server").Result()
		require.NoError(t, err)
		require.NotEmpty(t, batch.Process)
		require.Equal(t, info["Server"]["run_id"], batch.Process)
		seen[batch.Process] = true
		require.NoError(t, server.Kill())
		require.NoError(t, server.Restart(t.Context()))
	}
	require.Len(t, seen, 2)
}

// TestPassOverThePredecessorsKeys: every job of either schema gets its entries, each of its own workspace alone; what
// holds no job gets none; a second pass finds all of it right; a dry run says so beforehand and changes nothing.
func TestPassOverThePredecessorsKeys(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	records := redisserver.ReadFixture(t, "../../tests/migration/testdata/predecessor.jsonl")
	redisserver.Load(t, rdb, records)
	want := map[string][]string{}
	jobs := int64(0)
	for _, record := range records {
		if record.Type != "hash" {
			continue
		}
		hash := record.Hash(t)
		ws, err := workspace.Parse(hash["workspace_id"])
		if err != nil || hash["job_id"] == "" ||
			record.Key != "ai:jobs:"+hash["job_id"] && record.Key != "ai:job:"+ws.String()+":"+hash["job_id"] {
			continue
		}
		jobs++
		if id := jobID(t, hash["job_id"]); id.SortBytes()[0] != 0 { // a UUID: its bytes stand without a mark
			micros := max(0, job.ParseTime(hash["enqueued_at"]).UnixMicro())
			head := strings.TrimSuffix(entryAt("", micros, ""), "\x00")
			want["ai:index:"+ws.String()] = append(want["ai:index:"+ws.String()], "z"+head+id.SortBytes(), letters()[hash["status"]]+head+id.SortBytes())
			continue
		}
		want["ai:index:"+ws.String()] = append(want["ai:index:"+ws.String()], entriesOf(hash)...)
	}
	require.Greater(t, jobs, int64(500))
	r := repositoryOf(t, rdb, migration.ReadRouting)
	before := redisserver.Dump(t, rdb, "*")
	dry := pass(t, rdb, migration.ReadRouting, usecase.IndexJobsInput{DryRun: true})
	require.Equal(t, before, redisserver.Dump(t, rdb, "*"))
	counts := pass(t, rdb, migration.ReadRouting, usecase.IndexJobsInput{})
	require.Equal(t, dry.Scanned, counts.Scanned)
	require.Equal(t, dry.Ignored, counts.Ignored)
	require.GreaterOrEqual(t, counts.Mended+counts.Identical, jobs, "and stubs beside a whole copy")
	require.Equal(t, counts.Scanned, counts.Mended+counts.Identical+counts.Ignored)
	require.Len(t, redisserver.Dump(t, rdb, "ai:index:*"), len(want))
	for index, expected := range want {
		slices.Sort(expected)
		require.Equal(t, slices.Compact(expected), entries(t, rdb, index), index)
	}
	complete, err := r.Complete(t.Context())
	require.NoError(t, err)
	require.True(t, complete)
	again := pass(t, rdb, migration.ReadRouting, usecase.IndexJobsInput{})
	require.Zero(t, again.Mended)
	require.Zero(t, again.Dropped)
	require.Equal(t, counts.Mended+counts.Identical, again.Identical)
	after := redisserver.Dump(t, rdb, "*")
	for key, content := range before {
		require.Equal(t, content, after[key], "a pass writes no job")
	}
}

// TestPassBesideAnotherType: keys of jobs that hold no hash.
func TestPassBesideAnotherType(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	for _, key := range []string{"ai:jobs:stats", "ai:job:acme:list", "ai:jobs:", "ai:job:acme", "ai:job::x", "ai:indexed", "ai:index:", "ai:index:ACME"} {
		require.NoError(t, rdb.RPush(t.Context(), key, "a").Err())
	}
	write(t, rdb, "globex", []string{"theirs"}, true, true)
	require.NoError(t, rdb.Set(t.Context(), "ai:index:globex", "no index", 0).Err())
	require.NoError(t, rdb.HSet(t.Context(), "ai:jobs:mine", whole("job_id", "mine")).Err())
	counts := pass(t, rdb, migration.DualWrite, usecase.IndexJobsInput{})
	require.EqualValues(t, 1, counts.Mended)
	require.Equal(t, entriesSorted("mine"), entries(t, rdb, theIndex))
	indexes, err := rdb.Keys(t.Context(), "ai:index:*").Result()
	require.NoError(t, err)
	require.ElementsMatch(t, []string{theIndex, "ai:index:", "ai:index:ACME", "ai:index:globex"}, indexes)
	require.Equal(t, "complete", rdb.Get(t.Context(), theState).Val())
}

func entriesSorted(id string) []string {
	return slices.Sorted(slices.Values(entriesOf(whole("job_id", id))))
}

// TestClaimEmpty: an empty keyspace alone is complete from the start, and complete stays.
func TestClaimEmpty(t *testing.T) {
	for name, plantIn := range map[string]func(*redis.Client){
		"nothing": func(*redis.Client) {},
		"a turn to sweep": func(rdb *redis.Client) {
			for _, scope := range []migration.IndexScope{migration.IndexOld, migration.IndexEntries} {
				mine, err := repositoryOf(t, rdb, migration.DualWrite).TakeSweep(t.Context(), scope, "a server", time.Hour)
				require.NoError(t, err)
				require.True(t, mine)
			}
		},
		"servers that live and lived, and their hits": func(rdb *redis.Client) {
			state := redisjobs.NewMigrationState(rdb)
			for _, id := range []string{"one", "two", "gone"} {
				require.NoError(t, state.Beat(t.Context(), migration.Server{ID: id, Phase: migration.DualWrite}))
			}
			require.NoError(t, rdb.Del(t.Context(), "ai:server:gone").Err())
			require.NoError(t, state.AddHits(t.Context(), 1))
		},
		"a key": func(rdb *redis.Client) { require.NoError(t, rdb.Set(t.Context(), "any", "", 0).Err()) },
	} {
		t.Run(name, func(t *testing.T) {
			rdb := redisserver.Start(t).Client(t)
			plantIn(rdb)
			r := repositoryOf(t, rdb, migration.DualWrite)
			require.NoError(t, r.ClaimEmpty(t.Context()))
			complete, err := r.Complete(t.Context())
			require.NoError(t, err)
			require.Equal(t, name != "a key", complete)
			require.NoError(t, r.ClaimEmpty(t.Context()))
			again, err := r.Complete(t.Context())
			require.NoError(t, err)
			require.Equal(t, complete, again)
		})
	}
}

// TestMarkComplete: a server process that took another's place may lack the last of its writes.
func TestMarkComplete(t *testing.T) {
	server := redisserver.Start(t)
	r := repositoryOf(t, server.Client(t), migration.NewOnly)
	batch, err := r.Batch(t.Context(), migration.IndexAll, 0, false)
	require.NoError(t, err)
	require.NoError(t, server.Kill())
	require.NoError(t, server.Restart(t.Context()))
	r = repositoryOf(t, server.Client(t), migration.NewOnly)
	marked, err := r.MarkComplete(t.Context(), batch.Process)
	require.NoError(t, err)
	require.False(t, marked)
	complete, err := r.Complete(t.Context())
	require.NoError(t, err)
	require.False(t, complete)
	pass(t, server.Client(t), migration.NewOnly, usecase.IndexJobsInput{})
	complete, err = r.Complete(t.Context())
	require.NoError(t, err)
	require.True(t, complete)
}

// TestTakeSweep: one server at a time has a scope's turn, until it gives it up or lets it end.
func TestTakeSweep(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	r := repositoryOf(t, rdb, migration.DualWrite)
	take := func(scope migration.IndexScope, holder string, turn time.Duration) bool {
		mine, err := r.TakeSweep(t.Context(), scope, holder, turn)
		require.NoError(t, err)
		return mine
	}
	const old, all = migration.IndexOld, migration.IndexEntries
	require.True(t, take(old, "a", time.Hour))
	require.True(t, take(old, "a", time.Hour), "its own")
	require.False(t, take(old, "b", time.Hour))
	require.True(t, take(all, "b", time.Hour), "another scope")
	require.False(t, take(old, "b", 0), "another's is not its to give up")
	require.False(t, take(old, "b", time.Hour))
	require.False(t, take(old, "a", 0))
	require.True(t, take(old, "b", time.Millisecond))
	require.Eventually(t, func() bool { return take(old, "a", time.Hour) }, time.Minute, time.Millisecond)
}
