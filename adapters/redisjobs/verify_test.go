package redisjobs

import (
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/contract"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// TestCompareScriptsOnlyRead: no command in them writes, and a server that refuses scripts that do runs them in every
// case.
func TestCompareScriptsOnlyRead(t *testing.T) {
	reads := []string{"DUMP", "EXISTS", "HGETALL", "HLEN", "HMGET", "HSTRLEN", "PTTL", "TYPE", "ZMSCORE", "ZSCORE"}
	for _, source := range []string{compareJobSource(), compareEntrySource()} {
		calls := regexp.MustCompile(`call\('([A-Z]+)'`).FindAllStringSubmatch(source, -1)
		require.NotEmpty(t, calls)
		for _, c := range calls {
			require.Contains(t, reads, c[1])
		}
	}
	rdb := redisserver.Start(t).Client(t)
	ctx, ref := t.Context(), acmeJob(t, "1")
	keys := indexedKeys(ref.Workspace, ref.ID)
	for name, plant := range map[string]func(){
		"nothing":      func() {},
		"equal":        func() { rdb.HSet(ctx, keys[0], record()); rdb.HSet(ctx, keys[1], record()) },
		"differ":       func() { rdb.HSet(ctx, keys[0], record()); rdb.HSet(ctx, keys[1], record(fieldRev, "3")) },
		"old alone":    func() { rdb.HSet(ctx, keys[0], record()) },
		"wrong types":  func() { rdb.Set(ctx, keys[0], 1, 0); rdb.Set(ctx, keys[1], 1, 0); rdb.Set(ctx, keys[2], 1, 0) },
		"stub":         func() { rdb.HSet(ctx, keys[1], "result", "1"); rdb.ZAdd(ctx, keys[2], redis.Z{Member: "z"}) },
		"of another":   func() { rdb.HSet(ctx, keys[0], record(fieldWorkspace, "globex")) },
		"one expires":  func() { rdb.HSet(ctx, keys[0], record()); rdb.Expire(ctx, keys[0], time.Hour) },
		"no index":     func() { rdb.HSet(ctx, keys[0], record()); rdb.Set(ctx, keys[2], 1, 0) },
		"contradicted": func() { rdb.HSet(ctx, keys[1], record(fieldID, "2")) },
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, rdb.Del(ctx, keys...).Err())
			plant()
			args := []any{ref.Workspace.String(), ref.ID.String(), ref.ID.SortBytes()}
			require.NoError(t, rdb.EvalRO(ctx, compareJobSource(), keys, args...).Err())
			require.NoError(t, rdb.EvalRO(ctx, compareEntrySource(), keys, append(args, "z")...).Err())
		})
	}
}

// TestCompareSendsNoBodyInVain: of copies that are equal, or of one alone, only what a version needs is sent.
func TestCompareSendsNoBodyInVain(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	ctx, ref := t.Context(), acmeJob(t, "1")
	keys := indexedKeys(ref.Workspace, ref.ID)
	facts := func() migration.JobFacts {
		found, err := NewCopies(redisserver.AsOperator(t, rdb)).Compare(ctx, []migration.JobRef{ref})
		require.NoError(t, err)
		return found[0]
	}
	body := record(fieldResult, "a result", fieldStartedAt, second)
	require.NoError(t, rdb.HSet(ctx, keys[0], body).Err())
	f := facts()
	require.Equal(t, migration.HoldsWhole, f.Old.Holds)
	require.Equal(t, migration.HoldsNothing, f.New.Holds)
	require.NotContains(t, f.Old.Fields, fieldResult)
	require.Equal(t, micros(second), f.Latest())
	require.Len(t, f.MissingEntries, 2)

	require.NoError(t, rdb.HSet(ctx, keys[1], body).Err())
	f = facts()
	require.True(t, f.Equal)
	require.NotContains(t, f.Old.Fields, fieldResult, "only entries are wrong")
	require.Len(t, f.MissingEntries, 2)

	require.NoError(t, rdb.HSet(ctx, keys[1], fieldResult, "another").Err())
	f = facts()
	require.False(t, f.Equal)
	require.Equal(t, "a result", f.Old.Fields[fieldResult])
	require.Equal(t, "another", f.New.Fields[fieldResult])
}

// TestCompareTellsWhoWroteWithoutRev: the latest time of the copies that have none, also where nothing else is told.
func TestCompareTellsWhoWroteWithoutRev(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	ctx, ref := t.Context(), acmeJob(t, "1")
	keys := indexedKeys(ref.Workspace, ref.ID)
	equal := func(changes ...string) []hash { return []hash{record(changes...), record(changes...)} }
	for name, c := range map[string]struct {
		copies []hash
		want   string
	}{
		"equal":                 {equal(fieldStartedAt, second), second},
		"equal, finished first": {equal(fieldStartedAt, second, fieldFinishedAt, first), second},
		"equal, without time":   {equal(fieldEnqueuedAt, ""), ""},
		"equal, with rev":       {equal(fieldStartedAt, second, fieldRev, "1"), ""},
		"equal, no number":      {equal(fieldRev, "one"), first},
		"old alone":             {[]hash{record(fieldFinishedAt, second), nil}, second},
		"new alone, with rev":   {[]hash{nil, record(fieldRev, "1")}, ""},
		"of another":            {[]hash{record(fieldWorkspace, "globex"), nil}, ""},
		"one with rev":          {[]hash{record(), record(fieldStartedAt, second, fieldRev, "1")}, first},
		"both without, differ":  {[]hash{record(fieldStartedAt, second), record()}, second},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, rdb.Del(ctx, keys...).Err())
			for i, fields := range c.copies {
				if fields != nil {
					require.NoError(t, rdb.HSet(ctx, keys[i], fields).Err())
				}
			}
			copies := NewCopies(redisserver.AsOperator(t, rdb))
			for range 2 {
				found, err := copies.Compare(ctx, []migration.JobRef{ref})
				require.NoError(t, err)
				require.Equal(t, micros(c.want), found[0].WithoutRev)
				// With its index entries right, a job of equal copies is told in short.
				_, err = New(redisserver.AsServer(t, rdb), migration.DualWrite, Options{}).indexJobs(ctx, []indexCall{{ws: ref.Workspace, id: ref.ID}}, false)
				require.NoError(t, err)
			}
		})
	}
}

// TestIndexWithAScore: verify reports an index whose entries stand in another order than that of their bytes, rather than
// walk through it, and the pass over the index mends it.
func TestIndexWithAScore(t *testing.T) {
	ctx, ws := t.Context(), acmeJob(t, "1").Workspace
	key := indexKey(ws)
	for name, score := range map[string]float64{"at the head": -1, "at the tail": 1} {
		t.Run(name, func(t *testing.T) {
			rdb := redisserver.Start(t).Client(t)
			copies := NewCopies(redisserver.AsOperator(t, rdb))
			options := Options{Observer: contract.Unobserved{}}
			repo, pass := New(redisserver.AsServer(t, rdb), migration.DualWrite, options), New(redisserver.AsOperator(t, rdb), 0, options)
			for _, id := range []string{"1", "2"} {
				_, err := repo.Enqueue(ctx, job.Draft{
					ID: acmeJob(t, id).ID, Workspace: ws, Provider: "google", Name: "gmail.send", Params: "{}",
				})
				require.NoError(t, err)
			}
			there := rdb.ZRangeWithScores(ctx, key, 0, -1).Val()
			require.Len(t, there, 4)
			index := []migration.Reference{{Kind: migration.ReferenceKey, Workspace: ws, Key: key}}
			judge := func() migration.DifferenceClass {
				classes, err := copies.Judge(ctx, index, true)
				require.NoError(t, err)
				return classes[0]
			}
			require.Empty(t, judge())
			refs, _, next, err := copies.IndexEntries(ctx, ws, "", 2)
			require.NoError(t, err)
			require.NotEmpty(t, next)
			require.NotEqual(t, index, refs)

			require.NoError(t, rdb.ZAdd(ctx, key, redis.Z{Member: there[1].Member, Score: score}).Err())
			require.Equal(t, migration.DifferenceWrongType, judge())
			for _, before := range []string{"", next} {
				refs, looked, next, err := copies.IndexEntries(ctx, ws, before, 2)
				require.NoError(t, err)
				require.Equal(t, index, refs)
				require.Zero(t, looked)
				require.Empty(t, next)
			}

			counts, _, err := pass.TrimAll(ctx, ws, "", true)
			require.NoError(t, err)
			require.Equal(t, migration.IndexCounts{Entries: 1, Mended: 1}, counts)
			require.Equal(t, migration.DifferenceWrongType, judge(), "a dry run changes nothing")
			counts, _, err = pass.TrimAll(ctx, ws, "", false)
			require.NoError(t, err)
			require.Equal(t, migration.IndexCounts{Entries: 3, Mended: 1}, counts)
			require.Equal(t, there, rdb.ZRangeWithScores(ctx, key, 0, -1).Val())
			require.Empty(t, judge())
		})
	}
}

// TestIndexEntriesEndWhileJobsAreMade: a walk meets each entry that was there. Of jobs that are made meanwhile it meets
// entries of their state alone, and no more than there were when it came to the first.
func TestIndexEntriesEndWhileJobsAreMade(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	ctx, ws := t.Context(), acmeJob(t, "1").Workspace
	repo, copies := New(redisserver.AsServer(t, rdb), migration.DualWrite, Options{Observer: contract.Unobserved{}}), NewCopies(redisserver.AsOperator(t, rdb))
	made := 0
	enqueue := func(n int) {
		for range n {
			made++
			_, err := repo.Enqueue(ctx, job.Draft{
				ID: acmeJob(t, strconv.Itoa(made)).ID, Workspace: ws, Provider: "google", Name: "gmail.send", Params: "{}",
			})
			require.NoError(t, err)
		}
	}
	enqueue(10)
	there, err := rdb.ZRange(ctx, indexKey(ws), 0, -1).Result()
	require.NoError(t, err)
	require.Len(t, there, 20)
	var looked, steps int
	for before := ""; ; steps++ {
		refs, n, next, err := copies.IndexEntries(ctx, ws, before, 3)
		require.NoError(t, err)
		looked += n
		for _, ref := range refs {
			require.Equal(t, migration.Reference{
				Kind: migration.ReferenceIndex, Workspace: ws, Key: indexKey(ws), Entry: ref.Entry,
			}, ref)
			there = slices.DeleteFunc(there, func(e string) bool { return e[1:] == ref.Entry[1:] }) // one stands for both
		}
		enqueue(4)
		require.Less(t, steps, 100, "the walk goes after new jobs")
		if before = next; before == "" {
			break
		}
	}
	require.Empty(t, there)
	require.LessOrEqual(t, looked, 10+10+4*4, "the order of all jobs takes four steps")
}
