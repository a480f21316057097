package migration_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// loaded is a Redis server that holds the predecessor's keys, and what they are.
type loaded struct {
	redis      *redisserver.Server
	stock      stock
	workspaces []string
}

func load(t *testing.T) loaded {
	t.Helper()
	records := redisserver.ReadFixture(t, "testdata/predecessor.jsonl")
	require.Len(t, records, 875)
	l := loaded{redis: redisserver.Start(t), stock: stockOf(t, records)}
	redisserver.Load(t, l.redis.Client(t), records)
	// Two that own nothing: one's name begins another's, one is what a wildcard would match.
	l.workspaces = slices.Sorted(maps.Keys(l.stock.workspaces()))
	require.Contains(t, l.workspaces, "acme")
	require.Contains(t, l.workspaces, "acme-eu")
	l.workspaces = append(l.workspaces, "acm", "jobs")
	return l
}

// expected is every job that a workspace may see in a phase, by id.
func (l loaded) expected(phase migration.Phase, ws string) map[string]map[string]any {
	jobs := make(map[string]map[string]any)
	for id := range l.stock.suffixes() {
		if a := l.stock.read(plans()[phase], ws, id); a.path != "miss" {
			jobs[id] = wire(ws, id, a.hash)
		}
	}
	return jobs
}

func withStatus(jobs map[string]map[string]any, status string) map[string]map[string]any {
	jobs = maps.Clone(jobs)
	maps.DeleteFunc(jobs, func(_ string, j map[string]any) bool { return status != "" && j["status"] != status })
	return jobs
}

// TestFixtureHoldsWhatItIsFor: each kind of record that the other tests are about is in the fixture, in numbers.
func TestFixtureHoldsWhatItIsFor(t *testing.T) {
	l := load(t)
	counts := make(map[string]int)
	for _, ws := range l.workspaces {
		for id := range l.stock.suffixes() {
			a := l.stock.read(plan{old: true, new: true}, ws, id)
			counts[a.path]++
			if a.stale {
				counts["stale, served "+a.path]++
			}
			if a.mismatch {
				counts["mismatch"]++
			}
			if a.path == "old" {
				if _, stub := l.stock["ai:job:"+ws+":"+id]; stub && !a.stale {
					counts["stub"]++
				}
			}
		}
	}
	for _, kind := range []string{"old", "new", "miss", "mismatch", "stale, served old", "stub"} {
		require.Positive(t, counts[kind], kind)
	}
	require.NotEmpty(t, l.stock["ai:jobs:legacy:with:colons"])
	require.Zero(t, counts["breach"])
}

// TestFixtureInEveryPhase: for each workspace, full walks with several limits and each status give exactly the jobs
// that the phase's plan can read, each once and as its fresher copy; each is found by id, and nothing else is.
func TestFixtureInEveryPhase(t *testing.T) {
	l := load(t)
	rdb := l.redis.Client(t)
	before := redisserver.Dump(t, rdb, "*")
	for phase := range plans() {
		t.Run(phase.String(), func(t *testing.T) {
			s := serve(t, l.redis, phase, l.workspaces)
			for _, ws := range l.workspaces {
				all := l.expected(phase, ws)
				for _, status := range []string{"", "pending", "running", "completed", "failed"} {
					for _, limit := range []int{1, 7, 100, 1000} {
						l.requireWalk(t, s, ws, limit, status, withStatus(all, status))
					}
				}
			}
			l.requireByIDs(t, s)
			l.requireOddKeys(t, s)
		})
	}
	require.Equal(t, before, redisserver.Dump(t, rdb, "*"), "reading changes nothing")
}

// TestFixtureRetired: what dual write served of the predecessor's jobs is what new only serves once they were moved and
// their old copies removed. Of the old keys those are left that hold no job, as they were.
func TestFixtureRetired(t *testing.T) {
	l := load(t)
	rdb := l.redis.Client(t)
	before, nobodys := redisserver.Dump(t, rdb, "ai:jobs:*"), redisserver.Keyspace{}
	for key, content := range before {
		f := l.stock[key]
		if !validWorkspace(f["workspace_id"]) || key != "ai:jobs:"+f["job_id"] {
			nobodys[key] = content
		}
	}
	require.Len(t, nobodys, 4)
	harness.Retire(t, l.redis, "wrong-type=2", "invalid-workspace=2")
	require.Equal(t, nobodys, redisserver.Dump(t, rdb, "ai:jobs:*"))
	s := serve(t, l.redis, migration.NewOnly, l.workspaces)
	for _, ws := range l.workspaces {
		all := l.expected(migration.DualWrite, ws)
		for _, status := range []string{"", "pending", "running", "completed", "failed"} {
			l.requireWalk(t, s, ws, 100, status, withStatus(all, status))
		}
		for id := range l.stock.suffixes() {
			if status, j := s.job(t, ws, id); all[id] == nil {
				requireAbsent(t, status, j)
			} else {
				require.Equal(t, all[id], j)
			}
		}
	}
	l.requireOddKeys(t, s)
}

func (loaded) requireWalk(t *testing.T, s server, ws string, limit int, status string, want map[string]map[string]any) {
	t.Helper()
	got := make(map[string]map[string]any)
	walk(t, func(int) server { return s }, ws, limit, status, "", func(_ server, j map[string]any) {
		id := j["job_id"].(string)
		require.NotContains(t, got, id, "%s gets %q twice: limit %d, status %q", ws, id, limit, status)
		got[id] = j
	})
	require.Equal(t, want, got, "%s, limit %d, status %q", ws, limit, status)
}

func requireAbsent(t *testing.T, status int, j map[string]any) {
	t.Helper()
	require.Equal(t, http.StatusNotFound, status)
	require.Equal(t, "job_not_found", j["code"])
	require.Equal(t, "Job not found", j["detail"])
}

// requireByIDs asks as each workspace for each id that any key could stand for, and checks what was counted.
func (l loaded) requireByIDs(t *testing.T, s server) {
	t.Helper()
	before, want := s.counters(t), make(map[string]float64)
	for _, ws := range l.workspaces {
		one := func(name, more string) { want[fmt.Sprintf("relay_%s_total{%sworkspace_id=%q}", name, more, ws)]++ }
		for id := range l.stock.suffixes() {
			a := l.stock.read(plans()[s.phase], ws, id)
			status, j := s.job(t, ws, id)
			one("job_read_path", fmt.Sprintf("path=%q,", a.path))
			if a.stale {
				one("stale_copy", "")
			}
			if a.mismatch {
				one("workspace_mismatch", "")
			}
			if a.path == "miss" {
				requireAbsent(t, status, j)
				continue
			}
			require.Equal(t, http.StatusOK, status)
			require.Equal(t, wire(ws, id, a.hash), j)
		}
		for _, name := range []string{"stale_copy", "workspace_mismatch", "isolation_breach", "record_invalid", "wrong_type"} {
			want[fmt.Sprintf("relay_%s_total{workspace_id=%q}", name, ws)] += 0
		}
		for _, path := range []string{"old", "new", "miss"} {
			want[fmt.Sprintf("relay_job_read_path_total{path=%q,workspace_id=%q}", path, ws)] += 0
		}
	}
	s.requireCounted(t, before, want)
}

// requireOddKeys asks for what the fixture's keys that hold no job could be taken for.
func (loaded) requireOddKeys(t *testing.T, s server) {
	t.Helper()
	before, want := s.counters(t), make(map[string]float64)
	for _, id := range []string{"stats", "recent"} { // keys of another type
		status, j := s.job(t, "acme", id)
		requireAbsent(t, status, j)
	}
	want[`relay_job_read_path_total{path="miss",workspace_id="acme"}`] = 2
	if plans()[s.phase].old {
		want[`relay_wrong_type_total{workspace_id="acme"}`] = 2
	}
	s.requireCounted(t, before, want)
	for _, id := range []string{"absent", "legacy", "legacy:with", "legacy:with:colons:", ":legacy:with:colons", "*", "acme:legacy-no-time"} {
		status, j := s.job(t, "acme", id)
		requireAbsent(t, status, j)
	}
}

// TestFixtureThroughTwoPhases: walks whose pages are asked in turn of two servers in neighbouring phases, on one Redis,
// end, give each job that both can read exactly once, and show each as the server that gave it should.
func TestFixtureThroughTwoPhases(t *testing.T) {
	l := load(t)
	servers := make(map[migration.Phase]server)
	for phase := range plans() {
		servers[phase] = serve(t, l.redis, phase, l.workspaces)
	}
	phases := migration.Phases()
	for i := range len(phases) - 1 {
		for _, pair := range [][2]server{
			{servers[phases[i]], servers[phases[i+1]]}, {servers[phases[i+1]], servers[phases[i]]},
		} {
			t.Run(fmt.Sprint(pair[0].phase, " and ", pair[1].phase), func(t *testing.T) {
				for _, ws := range l.workspaces {
					expected := map[migration.Phase]map[string]map[string]any{
						pair[0].phase: l.expected(pair[0].phase, ws), pair[1].phase: l.expected(pair[1].phase, ws),
					}
					random := rand.New(rand.NewPCG(7, uint64(len(ws))))
					for name, turn := range map[string]func(int) server{
						"handed over early": func(n int) server { return pair[min(n, 1)] },
						"handed over later": func(n int) server { return pair[min(n/20, 1)] },
						"in turn":           func(n int) server { return pair[n%2] },
						"at random":         func(int) server { return pair[random.IntN(2)] },
					} {
						times := make(map[string]int) // of those that both can read
						for id := range expected[pair[0].phase] {
							if _, ok := expected[pair[1].phase][id]; ok {
								times[id] = 0
							}
						}
						walk(t, turn, ws, 7, "", "", func(by server, j map[string]any) {
							id := j["job_id"].(string)
							require.Equal(t, expected[by.phase][id], j)
							if _, ok := times[id]; ok {
								times[id]++
							}
						})
						for id, n := range times {
							require.Equal(t, 1, n, "times %s gets %q, %s", ws, id, name)
						}
					}
				}
			})
		}
	}
}

// TestFixtureCursors: a cursor is useless to another workspace, the predecessor's form goes on where the composite one
// would, and what is no cursor is refused.
func TestFixtureCursors(t *testing.T) {
	l := load(t)
	for phase := range plans() {
		t.Run(phase.String(), func(t *testing.T) {
			s := serve(t, l.redis, phase, l.workspaces)
			theirs := l.expected(phase, "acme-eu")
			cursors := []string{"0", "5", "new:0:old:0", "new:3:old:0", "new:0:old:3", "new:3:old:5", "18446744073709551615"}
			for cursor := ""; len(cursors) < 60; {
				p := s.page(t, "acme", 1, "", cursor)
				if cursor = p.next; cursor == "" {
					break
				}
				require.NotContains(t, cursor, "acme")
				cursors = append(cursors, cursor)
			}
			for _, cursor := range cursors {
				walk(t, func(int) server { return s }, "acme-eu", 100, "", cursor, func(_ server, j map[string]any) {
					require.Equal(t, theirs[j["job_id"].(string)], j)
				})
				if pos, ok := strings.CutPrefix(cursor, "new:"); ok && strings.HasSuffix(pos, ":old:0") {
					var given [2][]string
					for i, text := range []string{cursor, strings.TrimSuffix(pos, ":old:0")} {
						walk(t, func(int) server { return s }, "acme", 100, "", text, func(_ server, j map[string]any) {
							given[i] = append(given[i], j["job_id"].(string))
						})
					}
					require.Equal(t, given[0], given[1], cursor)
				}
			}
			for _, bad := range []string{"x", "-1", "01", "new:1", "new:1:old:", "new:1:old:1:after:", "new:1:old:1:after:%zz", "18446744073709551616", "1 "} {
				code, body := s.get(t, "acme", "/ai/jobs?cursor="+percent(bad))
				require.Equal(t, http.StatusBadRequest, code, bad)
				require.Contains(t, string(body), `"invalid_cursor"`, bad)
			}
		})
	}
}
