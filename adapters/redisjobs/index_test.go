package redisjobs_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

const theState = "ai:index-state"

// entryAt spells an entry of the index; the id must be no UUID.
func entryAt(letter string, micros int64, id string) string {
	seconds := binary.BigEndian.AppendUint64(nil, uint64(micros/1_000_000))[3:]
	return fmt.Sprintf("%s%s%06d\x00%s", letter, seconds, micros%1_000_000, id)
}

// letters are those of the states.
func letters() map[string]string {
	return map[string]string{"pending": "p", "running": "r", "completed": "c", "failed": "f"}
}

// entriesOf spells those that a copy asks for.
func entriesOf(hash map[string]string) []string {
	micros := max(0, job.ParseTime(hash["enqueued_at"]).UnixMicro())
	entries := []string{entryAt("z", micros, hash["job_id"])}
	if letter := letters()[hash["status"]]; letter != "" {
		entries = append(entries, entryAt(letter, micros, hash["job_id"]))
	}
	return entries
}

func plant(t *testing.T, rdb *redis.Client, index string, entries ...string) {
	t.Helper()
	for chunk := range slices.Chunk(entries, 1000) {
		var members []redis.Z
		for _, e := range chunk {
			members = append(members, redis.Z{Member: e})
		}
		require.NoError(t, rdb.ZAdd(t.Context(), index, members...).Err())
	}
}

func entries(t *testing.T, rdb *redis.Client, index string) []string {
	t.Helper()
	found, err := rdb.ZRange(t.Context(), index, 0, -1).Result()
	require.NoError(t, err)
	return found
}

// complete makes new walks go by the index.
func complete(t *testing.T, rdb *redis.Client) {
	t.Helper()
	marked, err := repositoryOf(t, rdb, migration.Legacy).MarkComplete(t.Context(), "")
	require.NoError(t, err)
	require.True(t, marked)
}

func timeText(micros int64) string { return time.UnixMicro(micros).UTC().Format(job.TimeLayout) }

// TestEnqueueFollowsTheNewestEntry: whatever stands in the index, each job comes behind those before it, on the servers
// of both repositories, unless an entry lies too far ahead. An entry ahead of the clock is what a clock that stepped
// back leaves.
func TestEnqueueFollowsTheNewestEntry(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	second, n := int64(time.Second/time.Microsecond), 0
	for name, ahead := range map[string][]int64{ // µs before a whole second after now
		"nothing":                   nil,
		"behind":                    {-3600 * second, -5 * second},
		"a little ahead":            {10*second + 123},
		"carry of a second":         {20*second - 1},
		"nearly a carry":            {20*second - 3},
		"as far as is followed":     {50 * second},
		"several":                   {5 * second, 30*second - 1, 29 * second, 30*second - 2},
		"too far":                   {90 * second},
		"too far, by years":         {90 * second, 900_000_000 * second},
		"too far and a little":      {90 * second, 10*second - 1, 3600 * second, 7 * second},
		"too far and behind":        {-second, 86_400 * second},
		"a little ahead, by binary": {8*second + 4}, // digits 000004
	} {
		for _, phase := range migration.Phases() {
			n++
			ws := workspaceID(t, fmt.Sprint("w", n))
			t.Run(fmt.Sprint(name, " ", phase), func(t *testing.T) {
				index := "ai:index:" + ws.String()
				now, err := rdb.Time(t.Context()).Result()
				require.NoError(t, err)
				followed, isAhead := now.UnixMicro(), false // the newest that is not too far
				for i, d := range ahead {
					at := now.Unix()*second + d
					plant(t, rdb, index, entryAt("z", at, fmt.Sprint("planted ", i)), entryAt("p", at, fmt.Sprint("planted ", i)))
					if d > 2*second && d < 60*second {
						followed, isAhead = max(followed, at), true
					}
				}
				both := []*redisjobs.Repository{repositoryOf(t, rdb, phase), repositoryOf(t, rdb, phase)}
				for i := range 12 {
					d := draft(t, fmt.Sprint(ws, " ", i), "")
					d.Workspace = ws
					_, err := both[i%2].Enqueue(t.Context(), d)
					require.NoError(t, err)
					key := "ai:jobs:" + d.ID.String()
					if !phase.WritesOld() {
						key = "ai:job:" + ws.String() + ":" + d.ID.String()
					}
					text := rdb.HGet(t.Context(), key, "enqueued_at").Val()
					require.Regexp(t, storedTime, text)
					got := job.ParseTime(text).UnixMicro()
					if isAhead {
						require.Equal(t, timeText(followed+1), text)
					}
					require.Greater(t, got, followed)
					require.Less(t, got, now.UnixMicro()+80*second, "it is not drawn ahead by what is too far")
					for _, letter := range []string{"z", "p"} {
						require.NoError(t, rdb.ZScore(t.Context(), index, entryAt(letter, got, d.ID.String())).Err(), "%s %s", letter, text)
					}
					followed = got
				}
				require.EqualValues(t, 2*(len(ahead)+12), rdb.ZCard(t.Context(), index).Val())
			})
		}
	}
}

// TestEnqueueAtOnce: jobs of one workspace never share a time, however many callers enqueue at once.
func TestEnqueueAtOnce(t *testing.T) {
	for _, phase := range migration.Phases() {
		t.Run(phase.String(), func(t *testing.T) {
			t.Parallel()
			server := redisserver.Start(t)
			both := []*redisjobs.Repository{repositoryOf(t, server.Client(t), phase), repositoryOf(t, server.Client(t), phase)}
			const callers, each = 8, 30
			var wg sync.WaitGroup
			for c := range callers {
				wg.Go(func() {
					for i := range each {
						d := job.Draft{ID: jobID(t, fmt.Sprint(c, " ", i)), Workspace: acme(t), Provider: "p", Name: "n", Params: "{}"}
						_, err := both[c%2].Enqueue(t.Context(), d)
						if err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			claimed := both[0]
			complete(t, server.Client(t))
			seen := map[int64]bool{}
			cursor := job.Cursor{}
			var last *job.Job
			for ended := false; !ended; ended = cursor.IsZero() {
				p, err := claimed.List(t.Context(), acme(t), job.Query{Limit: 37, Cursor: cursor})
				require.NoError(t, err)
				for _, j := range p.Jobs {
					require.False(t, seen[j.EnqueuedAt.UnixMicro()])
					seen[j.EnqueuedAt.UnixMicro()] = true
					require.True(t, last == nil || job.Newer(*last, j) < 0)
					last = &j
				}
				cursor = p.Next
			}
			require.Len(t, seen, callers*each)
		})
	}
}

// TestEnqueueBehindStrangeEntries: what Relay never wrote stands ahead of the clock; a job still gets a time, in its form.
func TestEnqueueBehindStrangeEntries(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	now, err := rdb.Time(t.Context()).Result()
	require.NoError(t, err)
	ahead := string(binary.BigEndian.AppendUint64(nil, uint64(now.Unix()+20))[3:])
	for i, rest := range []string{
		"", "1", "9", "99999", "0x1f00", "1e9999", "   nan", "infini", "   inf", "-1    ", "-00001", "1.5e3 ", "12345 ", " 12345",
		"0x000f", "\x00\x00\x00\x00\x00\x00", "\xff\xff\xff\xff\xff\xff", "zzzzzz", "00000\x00", "0001\n2", "999999", "999999\x00x",
	} {
		for _, phase := range []migration.Phase{migration.Legacy, migration.NewOnly} {
			ws := workspaceID(t, fmt.Sprint("w", i, "-", uint8(phase)))
			index := "ai:index:" + ws.String()
			strange := "z" + ahead + rest
			plant(t, rdb, index, strange)
			last := strange
			for n := range 3 {
				d := draft(t, fmt.Sprint(ws, " ", n), "")
				d.Workspace = ws
				_, err := repositoryOf(t, rdb, phase).Enqueue(t.Context(), d)
				require.NoError(t, err)
				key := map[bool]string{true: "ai:jobs:", false: "ai:job:" + ws.String() + ":"}[phase.WritesOld()] + d.ID.String()
				text := rdb.HGet(t.Context(), key, "enqueued_at").Val()
				require.Regexp(t, storedTime, text, "%q", rest)
				require.NotZero(t, job.ParseTime(text))
				at := entryAt("z", job.ParseTime(text).UnixMicro(), d.ID.String())
				require.Greater(t, at, last, "%q", rest)
				require.NoError(t, rdb.ZScore(t.Context(), index, at).Err())
				last = at
			}
		}
	}
}

// combination is one job's copies, and what the index says of it.
type combination struct {
	id       string
	old, new stored
	planted  []string
	right    []string // what its living copies ask for
}

const (
	placeA = 1_788_249_600_000_001 // 2026-09-01T08:00:00.000001
	placeB = 1_788_249_700_999_999
	placeC = 1_788_249_650_000_000
)

// combinations are each old copy beside each new one beside each state of the index.
func combinations() []combination {
	at := func(status string, micros int64, rev string, more ...string) map[string]string {
		return whole(append([]string{"status", status, "enqueued_at", timeText(micros), "rev", rev}, more...)...)
	}
	either := []stored{
		{name: "absent"},
		{name: "wrong type", wrongType: true},
		{name: "expired", hash: at("pending", placeA, "1"), ttl: time.Millisecond},
		{name: "stub", hash: map[string]string{"status": "completed"}},
		{name: "pending at A", hash: at("pending", placeA, "1"), mine: true},
		{name: "completed at B", hash: at("completed", placeB, "2"), mine: true},
		{name: "running at A", hash: at("running", placeA, "3"), mine: true},
		{name: "paused, no time", hash: at("paused", placeA, "4", "enqueued_at", "soon"), mine: true},
	}
	olds := append(slices.Clone(either),
		stored{name: "another's", hash: at("pending", placeA, "9", "workspace_id", "acme-eu"), foreign: true},
		stored{name: "nobody's", hash: at("pending", placeA, "9", "workspace_id", "-"), foreign: true},
	)
	news := append(slices.Clone(either),
		stored{name: "breach", hash: at("pending", placeA, "9", "workspace_id", "acme-eu"), breach: true})
	var all []combination
	for _, o := range olds {
		for _, n := range news {
			for _, index := range []string{
				"none", "right", "all and none of a state", "another place", "another state", "right, beside all wrong", "a state alone",
			} {
				c := combination{id: fmt.Sprintf("%s, %s, %s", o.name, n.name, index), old: o, new: n}
				for _, s := range []*stored{&c.old, &c.new} {
					if s.hash = maps.Clone(s.hash); s.hash["job_id"] == theID {
						s.hash["job_id"] = c.id
					}
					if s.mine {
						c.right = append(c.right, entriesOf(s.hash)...)
					}
				}
				slices.Sort(c.right)
				c.right = slices.Compact(c.right)
				var wrong []string
				for _, place := range []int64{placeA, placeB, placeC} {
					for _, letter := range []string{"z", "p", "r", "c", "f"} {
						wrong = append(wrong, entryAt(letter, place, c.id))
					}
				}
				switch index {
				case "right":
					c.planted = c.right
				case "all and none of a state":
					c.planted = slices.DeleteFunc(slices.Clone(c.right), func(e string) bool { return e[0] != 'z' })
				case "another place":
					c.planted = []string{entryAt("z", placeC, c.id), entryAt("p", placeC, c.id)}
				case "another state":
					c.planted = []string{entryAt("z", placeA, c.id), entryAt("f", placeA, c.id)}
				case "right, beside all wrong":
					c.planted = append(wrong, c.right...)
				case "a state alone":
					c.planted = []string{entryAt("p", placeA, c.id)}
				}
				all = append(all, c)
			}
		}
	}
	return all
}

func storeAll(t *testing.T, rdb *redis.Client, all []combination) {
	t.Helper()
	_, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		for _, c := range all {
			for key, s := range map[string]stored{"ai:jobs:" + c.id: c.old, "ai:job:acme:" + c.id: c.new} {
				switch {
				case s.wrongType:
					p.RPush(t.Context(), key, "a")
				case s.hash != nil:
					p.HSet(t.Context(), key, s.hash)
				}
				if s.ttl > 0 {
					p.PExpire(t.Context(), key, s.ttl)
				}
			}
		}
		return nil
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		for _, c := range all {
			for key, s := range map[string]stored{"ai:jobs:" + c.id: c.old, "ai:job:acme:" + c.id: c.new} {
				if s.ttl > 0 && rdb.Exists(t.Context(), key).Val() > 0 {
					return false
				}
			}
		}
		return true
	}, 10*time.Second, 10*time.Millisecond)
}

// served gives the copy that a phase serves, nil for none.
func (c combination) served(phase migration.Phase) map[string]string {
	o, n := c.old.mine && phase.ReadsOld(), c.new.mine && phase.ReadsNew()
	switch {
	case o && n && isFresher(c.old.hash, c.new.hash):
		return c.old.hash
	case n:
		return c.new.hash
	case o:
		return c.old.hash
	}
	return nil
}

func statuses() []job.Status { return append([]job.Status{""}, job.Statuses()...) }

// requireServed walks and checks that nothing is shown twice, out of order or otherwise than served.
func requireServed(
	t *testing.T, r *redisjobs.Repository, phase migration.Phase, status job.Status, byID map[string]combination,
) map[string]bool {
	t.Helper()
	shown := map[string]bool{}
	q := job.Query{Limit: 250, Status: status}
	var last *job.Job
	for range 10_000 {
		p, err := r.List(t.Context(), acme(t), q)
		require.NoError(t, err)
		for _, j := range p.Jobs {
			require.False(t, shown[j.ID.String()], "twice: %s", j.ID)
			shown[j.ID.String()] = true
			want := byID[j.ID.String()].served(phase)
			require.NotNil(t, want, "%s is none to show", j.ID)
			require.Equal(t, want["status"], string(j.Status), j.ID)
			require.Equal(t, want["rev"], fmt.Sprint(j.Rev), j.ID)
			require.True(t, status == "" || j.Status == status)
			require.True(t, last == nil || job.Newer(*last, j) < 0)
			last = &j
		}
		if p.Next.IsZero() {
			return shown
		}
		q.Cursor = p.Next
	}
	require.FailNow(t, "the walk does not end")
	return nil
}

// TestIndexOfDifferingCopies: whatever the copies and the index say, a list shows what is served, under its true place and
// state, mends what it met, and drops nothing that a copy of either schema asks for. Another workspace's index stays.
func TestIndexOfDifferingCopies(t *testing.T) {
	all := combinations()
	byID := make(map[string]combination, len(all))
	for _, c := range all {
		byID[c.id] = c
	}
	for _, phase := range migration.Phases() {
		t.Run(phase.String(), func(t *testing.T) {
			t.Parallel()
			rdb := redisserver.Start(t).Client(t)
			complete(t, rdb)
			storeAll(t, rdb, all)
			r := repositoryOf(t, rdb, phase)
			var planted, wanted []string
			neighbours := []string{"z", "zgarbage"}
			for _, c := range all {
				planted = append(planted, c.planted...)
				wanted = append(wanted, c.right...)
				neighbours = append(neighbours, c.right...) // which name acme's jobs
			}
			for _, first := range []job.Status{"", job.Pending, job.Completed} {
				require.NoError(t, rdb.Del(t.Context(), theIndex).Err())
				plant(t, rdb, theIndex, planted...)
				require.NoError(t, rdb.Del(t.Context(), "ai:index:acme-eu").Err())
				plant(t, rdb, "ai:index:acme-eu", neighbours...)
				theirs := entries(t, rdb, "ai:index:acme-eu")

				shown := requireServed(t, r, phase, first, byID)
				now := entries(t, rdb, theIndex)
				letter := cmp.Or(letters()[string(first)], "z")
				for _, c := range all {
					served := c.served(phase)
					if served != nil && (first == "" || served["status"] == string(first)) && slices.Contains(c.planted, entriesOf(served)[0]) &&
						(first == "" || slices.Contains(c.planted, entriesOf(served)[1])) {
						require.True(t, shown[c.id], "%s has its entries", c.id)
					}
					for _, e := range c.planted {
						_, kept := slices.BinarySearch(now, e)
						switch {
						case slices.Contains(c.right, e):
							require.True(t, kept, "an entry of a living copy: %q", e)
						case e[:1] == letter:
							require.False(t, kept, "an entry that no copy asks for was met: %q", e)
						}
					}
				}
				again := requireServed(t, r, phase, first, byID)
				for _, c := range all {
					_, met := slices.BinarySearchFunc(slices.Sorted(slices.Values(c.planted)), letter, func(e, l string) int { return strings.Compare(e[:1], l) })
					if served := c.served(phase); met && served != nil && (first == "" || served["status"] == string(first)) {
						require.True(t, again[c.id], "%s was met and mended", c.id)
					}
				}
				require.Equal(t, theirs, entries(t, rdb, "ai:index:acme-eu"))

				for _, s := range statuses() {
					requireServed(t, r, phase, s, byID)
				}
				pass(t, rdb, phase, usecase.IndexJobsInput{})
				slices.Sort(wanted)
				require.Equal(t, wanted, entries(t, rdb, theIndex), "after %q and a pass the index says what the copies say", first)
				for _, s := range statuses() {
					last := requireServed(t, r, phase, s, byID)
					for _, c := range all {
						served := c.served(phase)
						require.Equal(t, served != nil && (s == "" || served["status"] == string(s)), last[c.id], "%s by %q", c.id, s)
					}
				}
				require.Equal(t, wanted, entries(t, rdb, theIndex), "nothing is left to mend")
			}

			// The neighbour's index names acme's jobs: none is shown, and the entries go from that index alone.
			got := walk(t, only(r), workspaceID(t, "acme-eu"), job.Query{Limit: 90}, nil)
			for id := range got {
				require.True(t, phase.ReadsOld() && byID[id].old.foreign, "%s is acme's", id)
			}
			for _, s := range job.Statuses() {
				walk(t, only(r), workspaceID(t, "acme-eu"), job.Query{Limit: 90, Status: s}, nil)
			}
			var left []string
			for _, c := range all {
				if c.old.name == "another's" {
					left = append(left, entriesOf(c.old.hash)...)
				}
			}
			slices.Sort(left)
			require.Subset(t, left, entries(t, rdb, "ai:index:acme-eu"))
			require.Equal(t, wanted, entries(t, rdb, theIndex))
		})
	}
}

// TestListAfterThePredecessor: a status that the predecessor set on the old copy.
func TestListAfterThePredecessor(t *testing.T) {
	for _, phase := range migration.Phases() {
		if !phase.ReadsOld() {
			continue
		}
		for _, by := range []string{"the stale list", "a pass"} {
			t.Run(fmt.Sprint(phase, ", mended by ", by), func(t *testing.T) {
				t.Parallel()
				rdb := redisserver.Start(t).Client(t)
				r := repositoryOf(t, rdb, phase)
				complete(t, rdb)
				mine := ids("mine", 7)
				for _, id := range mine {
					_, err := r.Enqueue(t.Context(), draft(t, id, ""))
					require.NoError(t, err)
				}
				list := func(s job.Status) []string {
					return slices.Sorted(maps.Keys(walk(t, only(r), acme(t), job.Query{Limit: 3, Status: s}, nil)))
				}
				before := job.Pending
				for _, s := range []job.Status{job.Running, job.Failed, job.Pending, job.Completed} {
					require.NoError(t, rdb.HSet(t.Context(), "ai:jobs:"+mine[3], "status", string(s)).Err())
					require.Equal(t, mine, list(""))
					for _, other := range job.Statuses() {
						if other != s && other != before {
							require.NotContains(t, list(other), mine[3])
						}
					}
					if by == "a pass" {
						pass(t, rdb, phase, usecase.IndexJobsInput{Scope: migration.IndexOld})
						require.Contains(t, list(s), mine[3])
					}
					require.NotContains(t, list(before), mine[3], "it is no longer %s", before)
					require.Contains(t, list(s), mine[3])
					require.Equal(t, mine, list(""))
					before = s
				}
				require.NoError(t, rdb.HSet(t.Context(), "ai:jobs:"+mine[3], "status", "paused").Err())
				require.Equal(t, mine, list(""))
				require.NotContains(t, list(before), mine[3])

				require.NoError(t, rdb.HSet(t.Context(), "ai:jobs:theirs", whole("job_id", "theirs")).Err())
				require.NotContains(t, list(""), "theirs", "nobody told the index yet")
				pass(t, rdb, phase, usecase.IndexJobsInput{Scope: migration.IndexOld})
				require.Contains(t, list(""), "theirs")
				require.Contains(t, list(job.Pending), "theirs")
				require.NoError(t, rdb.Del(t.Context(), "ai:jobs:theirs").Err())
				require.NotContains(t, list(job.Pending), "theirs")
				require.NotContains(t, list(""), "theirs")
				for _, e := range entries(t, rdb, theIndex) {
					require.NotContains(t, e, "theirs")
				}
			})
		}
	}
}

// commands counts what a client sends.
type commands struct{ sent, trips atomic.Int64 }

func (*commands) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *commands) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.sent.Add(1)
		c.trips.Add(1)
		return next(ctx, cmd)
	}
}

func (c *commands) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.sent.Add(int64(len(cmds)))
		c.trips.Add(1)
		return next(ctx, cmds)
	}
}

// requireBounded walks to the end and checks that no request sends or reads much.
func requireBounded(t *testing.T, server *redisserver.Server, phase migration.Phase, q job.Query) []string {
	t.Helper()
	counted := &commands{}
	rdb := redisserver.AsServer(t, server.Client(t))
	rdb.AddHook(counted)
	r := redisjobs.New(rdb, phase, redisjobs.Options{Observer: &events{}})
	for _, other := range []job.Status{"warm", "up"} { // the scripts are loaded
		_, err := r.List(t.Context(), workspaceID(t, "nobody"), job.Query{Limit: 1, Status: other})
		require.NoError(t, err)
	}
	read := func() int64 {
		var calls, n int64
		info, err := server.Client(t).InfoMap(t.Context(), "commandstats").Result()
		require.NoError(t, err)
		for name, stats := range info["Commandstats"] {
			if strings.Contains("cmdstat_hgetall cmdstat_hmget cmdstat_zmscore cmdstat_zrem cmdstat_zadd", name) {
				_, err := fmt.Sscanf(stats, "calls=%d,", &n)
				require.NoError(t, err)
				calls += n
			}
		}
		return calls
	}
	var found []string
	for range 5_000 {
		sent, trips, calls := counted.sent.Load(), counted.trips.Load(), read()
		got, next, ended := page(t, r, acme(t), q)
		require.Less(t, counted.sent.Load()-sent, int64(8_000), "commands for a page")
		require.Less(t, counted.trips.Load()-trips, int64(400), "round trips for a page")
		require.Less(t, read()-calls, int64(16_000), "what the scripts do for a page")
		found = append(found, got...)
		if ended {
			return found
		}
		q.Cursor = next
	}
	require.FailNow(t, "the walk does not end")
	return nil
}

// TestListThroughStaleEntries: thousands in a row that show nothing.
func TestListThroughStaleEntries(t *testing.T) {
	for _, phase := range []migration.Phase{migration.Legacy, migration.DualWrite, migration.NewOnly} {
		for name, holds := range map[string]bool{"of jobs in another state": true, "of jobs that are gone": false} {
			t.Run(fmt.Sprint(phase, " ", name), func(t *testing.T) {
				t.Parallel()
				server := redisserver.Start(t)
				rdb := server.Client(t)
				complete(t, rdb)
				pending, done := ids("pending", 5), ids("done", 3_000)
				if holds {
					write(t, rdb, "acme", done, phase.WritesOld(), phase.WritesNew())
				}
				var all []string
				_, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
					for i, id := range done {
						all = append(all, entryAt("z", placeB+int64(i), id), entryAt("p", placeB+int64(i), id))
						for _, key := range []string{"ai:jobs:" + id, "ai:job:acme:" + id} {
							if holds && (key[:7] == "ai:jobs" && phase.WritesOld() || key[:7] == "ai:job:" && phase.WritesNew()) {
								p.HSet(t.Context(), key, "status", "completed", "enqueued_at", timeText(placeB+int64(i)))
							}
						}
					}
					return nil
				})
				require.NoError(t, err)
				write(t, rdb, "acme", pending, phase.WritesOld(), phase.WritesNew())
				for _, id := range pending {
					all = append(all, entriesOf(whole("job_id", id))...)
				}
				plant(t, rdb, theIndex, all...)
				before := rdb.ZCard(t.Context(), theIndex).Val()
				require.ElementsMatch(t, pending, requireBounded(t, server, phase, job.Query{Limit: 10, Status: job.Pending}))
				require.EqualValues(t, 5, rdb.ZLexCount(t.Context(), theIndex, "[p", "(q").Val())
				if holds {
					require.Equal(t, before, rdb.ZCard(t.Context(), theIndex).Val(), "each moved from one state to the other")
				} else {
					require.EqualValues(t, 10, rdb.ZCard(t.Context(), theIndex).Val())
				}
			})
		}
	}
}

// TestListThroughStrangeEntries: members that Relay never wrote are passed in bounded steps, and go; jobs stay.
func TestListThroughStrangeEntries(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 9))
	var strange []string
	for _, letter := range []string{"", "\x00", "a", "o", "p", "q", "r", "c", "f", "b", "y", "z", "{", "\xff"} {
		for n := range 41 {
			for _, digits := range []bool{false, true} {
				b := make([]byte, n)
				for i := range b {
					if b[i] = byte(random.IntN(256)); digits {
						b[i] = byte('0' + random.IntN(10))
					}
				}
				strange = append(strange, letter+string(b))
			}
		}
	}
	onTop := make([]string, 6_000) // ahead of every job in a walk, and too many for a request
	for i := range onTop {
		onTop[i] = fmt.Sprintf("z\xff%06d", i)
	}
	between := make([]string, 6_000)
	for i := range between {
		between[i] = entryAt("z", placeA, "")[:6] + fmt.Sprintf("x%d", i)
	}
	for name, planted := range map[string][]string{
		"every length": strange, "on top": onTop, "between": between, "all": slices.Concat(strange, onTop, between),
	} {
		for _, phase := range []migration.Phase{migration.Canary, migration.DualWrite, migration.StrictNew} {
			t.Run(fmt.Sprint(name, " ", phase), func(t *testing.T) {
				t.Parallel()
				server := redisserver.Start(t)
				rdb := server.Client(t)
				complete(t, rdb)
				mine := ids("mine", 50)
				write(t, rdb, "acme", mine, true, true)
				for _, id := range mine {
					plant(t, rdb, theIndex, entriesOf(whole("job_id", id))...)
				}
				plant(t, rdb, theIndex, planted...)
				for _, s := range []job.Status{"", job.Pending} {
					for range 2 {
						got := requireBounded(t, server, phase, job.Query{Limit: 7, Status: s})
						require.ElementsMatch(t, mine, got)
					}
				}
			})
		}
	}
}

// TestListOfLargeJobs: pages end by size, and each job comes once.
func TestListOfLargeJobs(t *testing.T) {
	server := redisserver.Start(t)
	rdb := server.Client(t)
	complete(t, rdb)
	r := repositoryOf(t, rdb, migration.DualWrite)
	var want []string
	for i, size := range []int{10, 300 << 10, 10, 1 << 20, 3 << 20, 500 << 10, 600 << 10, 10, 10, 1<<20 - 600, 900 << 10, 10} {
		d := draft(t, fmt.Sprint("large ", i), "")
		d.Params = job.JSON(`{"s": "` + strings.Repeat("x", size) + `"}`)
		_, err := r.Enqueue(t.Context(), d)
		require.NoError(t, err)
		want = append(want, d.ID.String())
	}
	slices.Reverse(want)
	for _, limit := range []int{1, 2, 5, 1000} {
		require.Equal(t, want, requireBounded(t, server, migration.DualWrite, job.Query{Limit: limit}))
	}
}

// TestListReadsFewBodiesBeyondAPage: small jobs before large ones do not make a page read many of the large.
func TestListReadsFewBodiesBeyondAPage(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	complete(t, rdb)
	r := repositoryOf(t, rdb, migration.NewOnly)
	const size, large, small = 100 << 10, 200, 80
	for i := range large + small {
		d := draft(t, fmt.Sprint("job ", i), "")
		if i < large {
			d.Params = job.JSON(`{"s": "` + strings.Repeat("x", size) + `"}`)
		}
		_, err := r.Enqueue(t.Context(), d)
		require.NoError(t, err)
	}
	sent := func() int {
		info, err := rdb.InfoMap(t.Context(), "stats").Result()
		require.NoError(t, err)
		n, err := strconv.Atoi(info["Stats"]["total_net_output_bytes"])
		require.NoError(t, err)
		return n
	}
	before := sent()
	page, err := r.List(t.Context(), acme(t), job.Query{Limit: job.MaxLimit})
	require.NoError(t, err)
	require.Greater(t, len(page.Jobs), small)
	require.Less(t, sent()-before, 80*size)
}

// TestIndexOfAnotherType: a key in the place of an index is a clear fault of lists, and of nothing else that reads.
func TestIndexOfAnotherType(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	complete(t, rdb)
	for _, phase := range migration.Phases() {
		write(t, rdb, "acme", []string{"mine"}, true, true)
		require.NoError(t, rdb.Del(t.Context(), theIndex).Err())
		require.NoError(t, rdb.Set(t.Context(), theIndex, "text", 0).Err())
		before := redisserver.Dump(t, rdb, "*")
		r := repositoryOf(t, rdb, phase)
		for _, cursor := range []job.Cursor{{}, job.OrderCursor(job.Place{Micros: placeB, ID: jobID(t, "x")})} {
			_, err := r.List(t.Context(), acme(t), job.Query{Limit: 10, Cursor: cursor})
			require.Equal(t, fault.Internal, fault.KindOf(err), "%v", err)
		}
		_, _, err := r.Trim(t.Context(), acme(t), false)
		require.NoError(t, err)
		err = r.Move(t.Context(), acme(t), jobID(t, "mine"), job.Move{To: job.Running})
		require.Equal(t, fault.Internal, fault.KindOf(err), "%v", err)
		_, err = r.Get(t.Context(), acme(t), jobID(t, "mine"))
		require.NoError(t, err)
		require.Equal(t, before, redisserver.Dump(t, rdb, "*"))
	}
}

// notMended counts one event beside the others.
type notMended struct {
	events
	count int
}

func (n *notMended) IndexNotMended(workspace.ID) { n.count++ }

// TestListWithoutMemory: a server that may take no more memory lists what it has, and tells what it could not mend.
func TestListWithoutMemory(t *testing.T) {
	for _, phase := range migration.Phases() {
		t.Run(phase.String(), func(t *testing.T) {
			t.Parallel()
			rdb := redisserver.Start(t, "--maxmemory", "8mb", "--maxmemory-policy", "noeviction").Client(t)
			complete(t, rdb)
			observed := &notMended{}
			r := redisjobs.New(redisserver.AsServer(t, rdb), phase, redisjobs.Options{Observer: observed})
			mine := ids("mine", 20)
			write(t, rdb, "acme", mine, true, true)
			for _, id := range mine {
				plant(t, rdb, theIndex, entriesOf(whole("job_id", id))...)
			}
			changed := []any{"status", "completed"}
			require.NoError(t, rdb.HSet(t.Context(), "ai:jobs:"+mine[4], changed...).Err())
			require.NoError(t, rdb.HSet(t.Context(), "ai:job:acme:"+mine[4], changed...).Err())
			require.NoError(t, rdb.Del(t.Context(), "ai:jobs:"+mine[5], "ai:job:acme:"+mine[5]).Err())
			left := slices.DeleteFunc(slices.Clone(mine), func(id string) bool { return id == mine[4] || id == mine[5] })
			var err error
			for i := 0; err == nil; i++ {
				require.Less(t, i, 1000, "the server takes ever more")
				err = rdb.Append(t.Context(), "filler", strings.Repeat("x", 64<<10)).Err()
			}
			require.ErrorContains(t, err, "OOM")

			for range 2 {
				found, _, ended := page(t, r, acme(t), job.Query{Limit: 100, Status: job.Pending})
				require.True(t, ended)
				require.ElementsMatch(t, left, found)
			}
			require.Equal(t, 2, observed.count)
			require.NoError(t, rdb.Del(t.Context(), "filler").Err())
			found, _, _ := page(t, r, acme(t), job.Query{Limit: 100, Status: job.Pending})
			require.ElementsMatch(t, left, found)
			require.Equal(t, 2, observed.count)
			found, _, _ = page(t, r, acme(t), job.Query{Limit: 100, Status: job.Completed})
			require.Equal(t, []string{mine[4]}, found)
		})
	}
}
