package migration_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/tests/contract"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// TestIndexThroughThePhases: forward and back through every phase, with jobs made and moved in each, and two workspaces.
// After each step each phase's lists, of all and of each state, hold what that phase can read, each job once and as it
// is served, and the index holds the entries that every copy of either schema asks for. Nothing is swept meanwhile.
func TestIndexThroughThePhases(t *testing.T) {
	redis := redisserver.Start(t)
	rdb := redis.Client(t)
	repositories := make(map[migration.Phase]*redisjobs.Repository)
	for _, p := range migration.Phases() {
		repositories[p] = redisjobs.New(redisserver.AsServer(t, rdb), p, redisjobs.Options{Observer: contract.Unobserved{}})
	}
	require.NoError(t, repositories[migration.Legacy].ClaimEmpty(t.Context()))

	order := migration.Phases()
	back := slices.Clone(order[:len(order)-1])
	slices.Reverse(back)
	order = slices.Concat(order, back)
	order = append(order, migration.Canary, migration.StrictNew, migration.Legacy, migration.NewOnly, migration.ReadRouting)

	moves := []job.Status{job.Running, job.Completed, job.Failed}
	var made []string
	for step, phase := range order {
		r := repositories[phase]
		for _, ws := range []string{"acme", "acme-eu"} {
			for n := range 3 {
				text := fmt.Sprintf("%02d-%s-%d", step, ws, n)
				d := job.Draft{ID: parsed(t, text), Workspace: workspaceOf(t, ws), Provider: "p", Name: "n", Params: "{}"}
				_, err := r.Enqueue(t.Context(), d)
				require.NoError(t, err)
				made = append(made, text)
			}
			for i, text := range made { // one more move of some jobs of each earlier step, where this phase finds them
				if (i+step)%3 != 0 {
					continue
				}
				for _, to := range moves[:1+(i+step)%2] {
					err := r.Move(t.Context(), workspaceOf(t, ws), parsed(t, text), job.Move{To: to})
					kind := fault.KindOf(err)
					require.True(t, err == nil || kind == fault.NotFound || kind == fault.Conflict, "%v", err)
				}
			}
		}
		requireIndexed(t, redis, fmt.Sprint("step ", step, ", ", phase))
		l := loaded{redis: redis, stock: stock{}, workspaces: []string{"acme", "acme-eu"}}
		for _, pattern := range []string{"ai:jobs:*", "ai:job:*"} {
			for it := rdb.Scan(t.Context(), 0, pattern, 1000).Iterator(); it.Next(t.Context()); {
				l.stock[it.Val()] = rdb.HGetAll(t.Context(), it.Val()).Val()
			}
		}
		for reading, list := range repositories {
			for _, ws := range l.workspaces {
				for _, status := range append([]job.Status{""}, job.Statuses()...) {
					want := withStatus(l.expected(reading, ws), string(status))
					got := make(map[string]bool)
					q := job.Query{Limit: 41, Status: status}
					for more := true; more; more = !q.Cursor.IsZero() {
						p, err := list.List(t.Context(), workspaceOf(t, ws), q)
						require.NoError(t, err)
						for _, j := range p.Jobs {
							require.False(t, got[j.ID.String()], "%s twice", j.ID)
							got[j.ID.String()] = true
							require.Contains(t, want, j.ID.String())
							require.Equal(t, want[j.ID.String()]["status"], string(j.Status))
						}
						q.Cursor = p.Next
					}
					require.Len(t, got, len(want), "step %d in %s, read in %s, %s %q", step, phase, reading, ws, status)
				}
			}
		}
		requireIndexed(t, redis, fmt.Sprint("step ", step, ", ", phase, ", listed"))
	}
	require.Len(t, made, 6*len(order))
}

func parsed(t *testing.T, text string) job.ID {
	t.Helper()
	id, err := job.ParseID(text)
	require.NoError(t, err)
	return id
}

func workspaceOf(t *testing.T, text string) workspace.ID {
	t.Helper()
	ws, err := workspace.Parse(text)
	require.NoError(t, err)
	return ws
}

// requireIndexed checks that each copy of either schema has its entries.
func requireIndexed(t *testing.T, redis *redisserver.Server, when string) {
	t.Helper()
	rdb := redis.Client(t)
	held := make(map[string]map[string]bool)
	for _, ws := range []string{"acme", "acme-eu"} {
		held[ws] = make(map[string]bool)
		members, err := rdb.ZRange(t.Context(), "ai:index:"+ws, 0, -1).Result()
		require.NoError(t, err)
		for _, m := range members {
			held[ws][m] = true
		}
	}
	letters := map[string]string{"pending": "p", "running": "r", "completed": "c", "failed": "f"}
	for _, pattern := range []string{"ai:jobs:*", "ai:job:*"} {
		for it := rdb.Scan(t.Context(), 0, pattern, 1000).Iterator(); it.Next(t.Context()); {
			f := rdb.HGetAll(t.Context(), it.Val()).Val()
			at, ok := parseTime(f["enqueued_at"])
			require.True(t, ok)
			s := at.Unix()
			place := string([]byte{byte(s >> 32), byte(s >> 24), byte(s >> 16), byte(s >> 8), byte(s)}) +
				fmt.Sprintf("%06d\x00", at.Nanosecond()/1000) + f["job_id"]
			require.True(t, held[f["workspace_id"]]["z"+place], "%s: %s is in no list", when, it.Val())
			require.True(t, held[f["workspace_id"]][letters[f["status"]]+place], "%s: %s is not among the %s", when, it.Val(), f["status"])
		}
	}
}
