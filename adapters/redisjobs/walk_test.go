package redisjobs_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// write stores whole jobs of a workspace under the keys of the schemas given, past the code under test.
func write(t *testing.T, rdb *redis.Client, ws string, ids []string, inOld, inNew bool) {
	t.Helper()
	for chunk := range slices.Chunk(ids, 1000) {
		_, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for _, id := range chunk {
				hash := whole("job_id", id, "workspace_id", ws)
				if inOld {
					p.HSet(t.Context(), "ai:jobs:"+id, hash)
				}
				if inNew {
					p.HSet(t.Context(), "ai:job:"+ws+":"+id, hash)
				}
			}
			return nil
		})
		require.NoError(t, err)
	}
}

// ids makes n ids that begin with a word.
func ids(word string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s-%d", word, i)
	}
	return out
}

// settle ends a resize of Redis' table that may be under way: each look-up moves a bucket.
func settle(t *testing.T, rdb *redis.Client) {
	t.Helper()
	_, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		for range 2 * rdb.DBSize(t.Context()).Val() {
			p.Exists(t.Context(), "nothing")
		}
		return nil
	})
	require.NoError(t, err)
}

// tableSize gives how many buckets Redis' table has, as the positions of a walk show it.
func tableSize(t *testing.T, rdb *redis.Client) uint64 {
	t.Helper()
	var pos, most uint64
	for {
		_, next, err := rdb.Scan(t.Context(), pos, "nothing", 1).Result()
		require.NoError(t, err)
		if next == 0 {
			break
		}
		pos, most = next, max(most, next)
	}
	size := uint64(1)
	for size <= most {
		size *= 2
	}
	return size
}

// page asks for one page, gives its ids, and the cursor as a caller would give it back; ended where there is none.
func page(t *testing.T, r *redisjobs.Repository, ws workspace.ID, q job.Query) (found []string, next job.Cursor, ended bool) {
	t.Helper()
	p, err := r.List(t.Context(), ws, q)
	require.NoError(t, err)
	require.LessOrEqual(t, len(p.Jobs), q.Limit)
	require.True(t, slices.IsSortedFunc(p.Jobs, job.Newer))
	size := 0
	for _, j := range p.Jobs {
		require.Equal(t, ws, j.Workspace)
		found = append(found, j.ID.String())
		size += j.Size()
	}
	require.True(t, len(p.Jobs) < 2 || size <= job.MaxPageBytes)
	if p.Next.IsZero() {
		return found, job.Cursor{}, true
	}
	next, err = job.ParseCursor(p.Next.String())
	require.NoError(t, err)
	return found, next, false
}

// walk counts how often each id is given until the end. between is told each page's ids and what follows it.
func walk(
	t *testing.T, r func(pages int) *redisjobs.Repository, ws workspace.ID, q job.Query, between func(found []string, next job.Cursor),
) map[string]int {
	t.Helper()
	times := make(map[string]int)
	for pages := range 100_000 {
		found, next, ended := page(t, r(pages), ws, q)
		for _, id := range found {
			times[id]++
		}
		if ended {
			return times
		}
		if between != nil {
			between(found, next)
		}
		q.Cursor = next
	}
	require.FailNow(t, "the walk does not end")
	return nil
}

func only(r *redisjobs.Repository) func(int) *redisjobs.Repository {
	return func(int) *redisjobs.Repository { return r }
}

// requireTimes checks that each id was given at least once and at most so often.
func requireTimes(t *testing.T, want []string, times map[string]int, most int) {
	t.Helper()
	for _, id := range want {
		require.True(t, times[id] >= 1 && times[id] <= most, "%q was given %d times", id, times[id])
	}
}

func repositoryOf(t *testing.T, rdb *redis.Client, phase migration.Phase) *redisjobs.Repository {
	t.Helper()
	return redisjobs.New(redisserver.AsServer(t, rdb), phase, redisjobs.Options{Observer: &events{}})
}

// TestWalkWhileBucketsChange: pages that end inside a bucket of Redis' table, while the job that they ended with is
// deleted and others are made, give each job that stays exactly once, because the table keeps its size.
func TestWalkWhileBucketsChange(t *testing.T) {
	for _, phase := range []migration.Phase{migration.Legacy, migration.DualWrite, migration.NewOnly} {
		for _, limit := range []int{1, 2} {
			t.Run(fmt.Sprint(phase, ", limit ", limit), func(t *testing.T) {
				t.Parallel()
				rdb := redisserver.Start(t).Client(t)
				mine := ids("mine", 2000)
				write(t, rdb, "acme", mine[:1800], true, true)
				write(t, rdb, "acme", mine[1800:1900], true, false)
				write(t, rdb, "acme", mine[1900:], false, true) // 3 800 keys: the table holds 4 096
				settle(t, rdb)
				size := tableSize(t, rdb)
				stays := make(map[string]bool)
				readable := map[migration.Phase][]string{
					migration.Legacy: mine[:1900], migration.DualWrite: mine, migration.NewOnly: slices.Concat(mine[:1800], mine[1900:]),
				}[phase]
				for _, id := range readable {
					stays[id] = true
				}
				cut, made := 0, 0
				times := walk(t, only(repositoryOf(t, rdb, phase)), acme(t), job.Query{Limit: limit}, func(found []string, next job.Cursor) {
					_, _, after, _ := next.Scan()
					if after.IsZero() {
						return
					}
					cut++
					require.Contains(t, found, after.String())
					if cut%2 == 0 {
						delete(stays, after.String())
						require.NoError(t, rdb.Del(t.Context(), "ai:jobs:"+after.String(), "ai:job:acme:"+after.String()).Err())
					}
					if made < 250 { // the table has room for as many
						write(t, rdb, "acme-eu", ids(fmt.Sprint("new-", made), 5), false, true)
						made += 5
					}
				})
				require.Greater(t, cut, 5, "the walk ended pages inside buckets")
				require.Equal(t, size, tableSize(t, rdb), "the table kept its size")
				requireTimes(t, slices.Collect(maps.Keys(stays)), times, 1)
			})
		}
	}
}

// TestWalkWhileTheTableShrinks: a page that ended inside a bucket goes on in a table where that bucket holds others
// too. No job that keeps its copies is missing, and none is given more than twice.
func TestWalkWhileTheTableShrinks(t *testing.T) {
	for _, phase := range []migration.Phase{migration.Canary, migration.ReadRouting, migration.StrictNew} {
		t.Run(phase.String(), func(t *testing.T) {
			t.Parallel()
			rdb := redisserver.Start(t).Client(t)
			mine := ids("mine", 800) // of which some twenty pairs have a bucket in common
			write(t, rdb, "acme", mine, phase.ReadsOld(), phase.ReadsNew())
			other := ids("other", 14_600) // the table then holds 16 384, and shrinks where less than a tenth is left
			for round := range 3 {
				write(t, rdb, "acme-eu", other, false, true)
				settle(t, rdb)
				size := tableSize(t, rdb)
				cut := 0
				times := walk(t, only(repositoryOf(t, rdb, phase)), acme(t), job.Query{Limit: 1}, func(_ []string, next job.Cursor) {
					_, _, after, _ := next.Scan()
					if after.IsZero() {
						return
					}
					if cut++; cut != 1+round {
						return
					}
					keys := make([]string, len(other))
					for i, id := range other {
						keys[i] = "ai:job:acme-eu:" + id
					}
					require.NoError(t, rdb.Unlink(t.Context(), keys...).Err())
					require.Eventually(t, func() bool { return tableSize(t, rdb) < size }, 10*time.Second, 10*time.Millisecond)
				})
				require.Less(t, tableSize(t, rdb), size, "the table shrank in the middle of the walk")
				requireTimes(t, mine, times, 2)
			}
		})
	}
}

// TestWalkWhileTheTableGrows: no job that keeps its copies is missing, and none is given more than twice.
func TestWalkWhileTheTableGrows(t *testing.T) {
	for _, limit := range []int{1, 3, 40} {
		t.Run(fmt.Sprint("limit ", limit), func(t *testing.T) {
			t.Parallel()
			rdb := redisserver.Start(t).Client(t)
			mine := ids("mine", 900)
			write(t, rdb, "acme", mine[:600], true, true)
			write(t, rdb, "acme", mine[600:], false, true)
			size, pages := tableSize(t, rdb), 0
			times := walk(t, only(repositoryOf(t, rdb, migration.DualWrite)), acme(t), job.Query{Limit: limit}, func([]string, job.Cursor) {
				if pages++; pages < 20 {
					write(t, rdb, "acme-eu", ids(fmt.Sprint("other-", pages), 800), false, true)
				}
			})
			require.Greater(t, tableSize(t, rdb), size)
			requireTimes(t, mine, times, 2)
		})
	}
}

// TestWalkThroughManyKeys: tens of thousands of keys of all kinds, most of them not the workspace's; and pages that
// the size of their jobs ends.
func TestWalkThroughManyKeys(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	both, onlyOld, onlyNew := ids("both", 2500), ids("old", 1000), ids("new", 1500)
	write(t, rdb, "acme", both, true, true)
	write(t, rdb, "acme", onlyOld, true, false)
	write(t, rdb, "acme", onlyNew, false, true)
	write(t, rdb, "acme-eu", ids("other", 6000), true, true)
	write(t, rdb, "acme-eu", both[:500], false, true) // the same ids, another workspace
	large := ids("large", 15)
	write(t, rdb, "acme", large, true, true)
	for _, id := range large {
		for _, key := range []string{"ai:jobs:" + id, "ai:job:acme:" + id} {
			require.NoError(t, rdb.HSet(t.Context(), key, "params", `{"s": "`+strings.Repeat("x", 200<<10)+`"}`).Err())
		}
	}
	settle(t, rdb)
	for _, phase := range migration.Phases() {
		want := slices.Concat(both, large)
		if phase.ReadsOld() {
			want = append(want, onlyOld...)
		}
		if phase.ReadsNew() {
			want = append(want, onlyNew...)
		}
		for _, limit := range []int{150, 1000} {
			times := walk(t, only(repositoryOf(t, rdb, phase)), acme(t), job.Query{Limit: limit}, nil)
			require.Len(t, times, len(want), "%s, limit %d", phase, limit)
			requireTimes(t, want, times, 1)
		}
		none := walk(t, only(repositoryOf(t, rdb, phase)), acme(t), job.Query{Limit: 1000, Status: job.Failed}, nil)
		require.Empty(t, none)
	}
	eu := walk(t, only(repositoryOf(t, rdb, migration.DualWrite)), workspaceID(t, "acme-eu"), job.Query{Limit: 1000}, nil)
	require.Len(t, eu, 6500)
	require.Empty(t, walk(t, only(repositoryOf(t, rdb, migration.DualWrite)), workspaceID(t, "acm"), job.Query{Limit: 1000}, nil))
}

// TestWalkThroughTwoPhases: pages asked of two servers whose flags differ by one step, in turn or from some page on,
// end and give each job that both can read exactly once. No other workspace's job is ever given.
func TestWalkThroughTwoPhases(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	both, onlyOld, onlyNew := ids("both", 80), ids("old", 30), ids("new", 30)
	write(t, rdb, "acme", both, true, true)
	write(t, rdb, "acme", onlyOld, true, false)
	write(t, rdb, "acme", onlyNew, false, true)
	write(t, rdb, "acme-eu", ids("other", 60), true, true)
	write(t, rdb, "acme-eu", onlyNew[:15], true, false) // whose old keys another workspace holds
	settle(t, rdb)
	readable := func(p migration.Phase) map[string]bool {
		out := make(map[string]bool)
		for _, id := range both {
			out[id] = true
		}
		for _, id := range onlyOld {
			out[id] = p.ReadsOld()
		}
		for _, id := range onlyNew {
			out[id] = p.ReadsNew()
		}
		return out
	}
	phases := migration.Phases()
	for i := range len(phases) - 1 {
		for _, pair := range [][2]migration.Phase{{phases[i], phases[i+1]}, {phases[i+1], phases[i]}} {
			t.Run(fmt.Sprint(pair[0], " to ", pair[1]), func(t *testing.T) {
				t.Parallel()
				first, second := readable(pair[0]), readable(pair[1])
				var must []string
				for id := range first {
					if first[id] && second[id] {
						must = append(must, id)
					}
				}
				servers := [2]*redisjobs.Repository{repositoryOf(t, rdb, pair[0]), repositoryOf(t, rdb, pair[1])}
				for _, limit := range []int{1, 5, 30} {
					for _, from := range []int{1, 2, 5, 20, 60} {
						times := walk(t, func(pages int) *redisjobs.Repository {
							if pages < from {
								return servers[0]
							}
							return servers[1]
						}, acme(t), job.Query{Limit: limit}, nil)
						for id := range times {
							require.True(t, first[id] || second[id], "%q is none of the workspace's", id)
						}
						for _, id := range must {
							require.Equal(t, 1, times[id], "times %q is given: limit %d, handed over at page %d", id, limit, from)
						}
					}
					random := rand.New(rand.NewPCG(1, uint64(limit)))
					times := walk(t, func(int) *redisjobs.Repository { return servers[random.IntN(2)] }, acme(t), job.Query{Limit: limit}, nil)
					for id := range times {
						require.True(t, first[id] || second[id], "%q is none of the workspace's", id)
					}
					for _, id := range must {
						require.Equal(t, 1, times[id], "times %q is given: limit %d, servers in turn", id, limit)
					}
				}
			})
		}
	}
}

// TestWalkFromThePredecessorsCursor: a position alone is the same as that of the new walk with the old one to come.
func TestWalkFromThePredecessorsCursor(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	both, onlyNew := ids("both", 100), ids("new", 100)
	write(t, rdb, "acme", both, true, true)
	write(t, rdb, "acme", onlyNew, false, true)
	settle(t, rdb)
	for _, phase := range migration.Phases() {
		r := repositoryOf(t, rdb, phase)
		for _, pos := range []string{"0", "1", "64", "255", "9223372036854775808", "18446744073709551615"} {
			var given [2]map[string]int
			for i, text := range []string{pos, "new:" + pos + ":old:0"} {
				cursor, err := job.ParseCursor(text)
				require.NoError(t, err)
				given[i] = walk(t, only(r), acme(t), job.Query{Limit: 7, Cursor: cursor}, nil)
				requireTimes(t, both, given[i], 1) // the old walk is still to come
			}
			require.Equal(t, given[1], given[0])
		}
	}
}
