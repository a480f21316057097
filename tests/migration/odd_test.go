package migration_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// reads is what acme gets of an odd record, by which schemas a phase reads: "old" or "new" for the copy that is shown,
// "miss", or "500" where the record is its own and cannot be decoded. What else is counted stands behind it: s a stale
// copy, m a mismatch, b an isolation breach, t a key of another type.
type reads struct{ onlyOld, both, onlyNew string }

// odd is one job's records beyond what the fixture holds. A nil hash is no key; wrongType is a key that holds no hash.
type odd struct {
	name string
	id   string // the name where it is empty
	old  fields
	new  fields
	want reads
}

var wrongType = fields{"": "another type"} //nolint:gochecknoglobals // a mark that is compared by its one field

// fresh is acme's job in the predecessor's form, with changes; a value of "-" takes the field away.
func fresh(changes ...string) fields {
	f := fields{
		"job_id": "{id}", "workspace_id": "acme", "status": "pending", "action_provider": "google",
		"action_name": "gmail.send", "params": `{"to": "a@example.com"}`, "result": "", "actor_id": "user-1",
		"enqueued_at": "2026-09-01T08:00:00.000001+00:00",
	}
	for i := 0; i < len(changes); i += 2 {
		if changes[i+1] == "-" {
			delete(f, changes[i])
		} else {
			f[changes[i]] = changes[i+1]
		}
	}
	return f
}

const (
	at9  = "2026-09-01T09:00:00.000000+00:00"
	at10 = "2026-09-01T10:00:00.000000+00:00"
)

func odds() []odd {
	done := func(more ...string) fields {
		return fresh(append([]string{"status", "completed", "started_at", at9, "finished_at", at10, "result", `{"ok": true}`}, more...)...)
	}
	same := reads{"old", "new", "new"}
	older := reads{"old", "old s", "new"}
	newer := reads{"old", "new s", "new"}
	list := []odd{
		// Which copy is fresher.
		{name: "equal copies", old: fresh(), new: fresh(), want: same},
		{name: "rev in new alone, later time in old", old: done(), new: fresh("rev", "1"), want: newer},
		{name: "rev in old alone, later time in new", old: fresh("rev", "1"), new: done(), want: older},
		{name: "higher rev in old", old: fresh("rev", "10"), new: done("rev", "9"), want: older},
		{name: "higher rev in new", old: done("rev", "9"), new: fresh("rev", "10"), want: newer},
		{name: "equal rev, equal content", old: done("rev", "3"), new: done("rev", "3"), want: same},
		{name: "equal rev, old further", old: done("rev", "3"), new: fresh("rev", "3"), want: older},
		{name: "equal rev, new further", old: fresh("rev", "3"), new: done("rev", "3"), want: older},
		{name: "equal rev, another time", old: done("rev", "3", "finished_at", at9), new: done("rev", "3"), want: older},
		{name: "rev 0 is none", old: done("rev", "0"), new: fresh("rev", "0"), want: older},
		{name: "rev that is no number is none", old: done("rev", "x"), new: fresh("rev", "-1"), want: older},
		{name: "no rev, later time in old", old: done(), new: fresh(), want: older},
		{name: "no rev, later time in new", old: fresh(), new: done(), want: newer},
		{name: "no rev, same instant in two zones", old: fresh("enqueued_at", "2026-09-01T10:00:00.000001+02:00"), new: fresh(), want: same},
		{name: "no rev, equal times, old further", old: fresh("status", "running"), new: fresh(), want: older},
		{name: "no rev, equal times, new further", old: fresh(), new: fresh("status", "failed"), want: newer},
		{name: "no rev, equal times, as far", old: done("status", "failed"), new: done(), want: newer},
		{name: "no rev, unreadable time in old", old: done("started_at", "-", "finished_at", "tomorrow"), new: fresh("started_at", at9), want: newer},
		{name: "no rev, naive time in old", old: fresh("started_at", "2026-09-01T12:00:00.000000"), new: fresh("started_at", at9), want: newer},

		// Whose a record is.
		{name: "new names another workspace", new: fresh("workspace_id", "acme-eu"), want: reads{"miss", "miss b", "miss b"}},
		{name: "new names another workspace, old is whole", old: fresh(), new: fresh("workspace_id", "acme-eu"), want: reads{"old", "old b", "miss b"}},
		{name: "new names a malformed workspace", new: fresh("workspace_id", "ACME"), want: reads{"miss", "miss b", "miss b"}},
		{name: "new names another id", old: fresh(), new: fresh("job_id", "legacy-no-time"), want: reads{"old", "old b", "miss b"}},
		{name: "new without id", old: fresh(), new: done("job_id", "-"), want: reads{"old", "old", "miss"}},
		{name: "new without workspace", old: fresh(), new: done("workspace_id", "-"), want: reads{"old", "old", "miss"}},
		{name: "new of empty texts", old: fresh(), new: done("job_id", "", "workspace_id", ""), want: reads{"old", "old", "miss"}},
		{name: "new stub alone", new: fields{"status": "completed"}, want: reads{"miss", "miss", "miss"}},
		{name: "old names another id", old: fresh("job_id", "legacy-no-time"), want: reads{"miss", "miss", "miss"}},
		{name: "old names another id and workspace", old: fresh("job_id", "x", "workspace_id", "acme-eu"), want: reads{"miss", "miss", "miss"}},
		{name: "old without id", old: fresh("job_id", "-"), new: fresh(), want: reads{"miss", "new", "new"}},
		{name: "old without workspace", old: fresh("workspace_id", "-"), new: fresh(), want: reads{"miss", "new", "new"}},
		{name: "old with an empty workspace", old: fresh("workspace_id", ""), want: reads{"miss", "miss", "miss"}},
		{name: "old with a newline in its workspace", old: fresh("workspace_id", "acme\n"), want: reads{"miss", "miss", "miss"}},
		{name: "old is a neighbour's", old: fresh("workspace_id", "acme-eu"), want: reads{"miss m", "miss m", "miss"}},
		{name: "old is a neighbour's, new is ours", old: fresh("workspace_id", "acme-eu"), new: fresh(), want: reads{"miss m", "new", "new"}},
		{name: "old is a neighbour's, new a stub", old: fresh("workspace_id", "acme-eu"), new: fields{"status": "failed"}, want: reads{"miss m", "miss m", "miss"}},
		{name: "old of another type", old: wrongType, new: fresh(), want: reads{"miss t", "new t", "new"}},
		{name: "new of another type", old: fresh(), new: wrongType, want: reads{"old", "old t", "miss t"}},

		// What cannot be decoded, and what can.
		{name: "old without status", old: fresh("status", "-"), want: reads{"500", "500", "miss"}},
		{name: "new with an empty status", new: fresh("status", ""), want: reads{"miss", "500", "500"}},
		{name: "unknown status", old: fresh("status", "paused"), new: fresh("status", "paused"), want: same},
		{name: "status that is nearly one", old: fresh("status", "pending "), want: reads{"old", "old", "miss"}},
		{name: "only what says whose it is", old: fields{"job_id": "{id}", "workspace_id": "acme", "status": "failed"}, want: reads{"old", "old", "miss"}},
		{name: "empty texts", new: fresh("action_provider", "", "action_name", "", "params", "", "actor_id", "", "enqueued_at", ""), want: reads{"miss", "new", "new"}},
		{name: "naive times", new: done("enqueued_at", "2026-09-01T08:00:00", "finished_at", "2026-09-01T08:00:01.000000"), want: reads{"miss", "new", "new"}},
		{name: "times of other forms", new: done("enqueued_at", "2026-09-01T08:00:00Z", "started_at", "2026-09-01T10:00:00.5+01:30"), want: reads{"miss", "new", "new"}},
		{name: "finished before it started", new: done("started_at", at10, "finished_at", at9), want: reads{"miss", "new", "new"}},
		{name: "a duration of 1.999 ms", new: done("started_at", "2026-09-01T09:00:00.000000+00:00", "finished_at", "2026-09-01T09:00:00.001999+00:00"), want: reads{"miss", "new", "new"}},
		{name: "params that are no JSON", old: fresh("params", "{'a': None}"), want: reads{"old", "old", "miss"}},
		{name: "params of two values", old: fresh("params", "{} {}"), want: reads{"old", "old", "miss"}},
		{name: "params that are no object", old: fresh("params", "[1, null]"), want: reads{"old", "old", "miss"}},
		{name: "result of Python", old: done("result", "NaN"), want: reads{"old", "old", "miss"}},
		{name: "result null", old: done("result", "null"), want: reads{"old", "old", "miss"}},
		{name: "numbers beyond any machine's", new: done("result", `[12345678901234567890123, 1e400, 0.10, -0]`), want: reads{"miss", "new", "new"}},
		{name: "bytes that are not UTF-8", new: done("params", "{\"a\": \"\xff\xfe\"}", "result", "\xc3\x28", "error", "no\xff", "actor_id", "\xf0\x9f", "status", "d\xffne"), want: reads{"miss", "new", "new"}},
		{name: "texts that JSON must escape", old: done("params", "</script>\u2028\x00\x1f\"\\", "error", "<&>\u2029\n"), want: reads{"old", "old", "miss"}},
	}
	for _, id := range []string{
		"..", ".", "a/b", "a%2Fb", "%", "a b", "a+b", "?limit=1", "#", "*", "[a-z]*", "acme:x", "ai:job:acme:x", "\x00", "\n",
		"\xff\xfe", "ü", "日本", strings.Repeat("i", 256),
	} {
		list = append(list, odd{name: fmt.Sprintf("id %.20q", id), id: id, old: fresh(), new: fresh(), want: same})
	}
	for i := range list {
		o := &list[i]
		if o.id == "" {
			o.id = o.name
		}
		for _, f := range []fields{o.old, o.new} {
			if f["job_id"] == "{id}" {
				f["job_id"] = o.id
			}
		}
	}
	return list
}

func plant(t *testing.T, rdb *redis.Client, key string, f fields) {
	t.Helper()
	switch {
	case f == nil:
	case f[""] != "":
		require.NoError(t, rdb.ZAdd(t.Context(), key, redis.Z{Member: "a"}).Err())
	default:
		require.NoError(t, rdb.HSet(t.Context(), key, f).Err())
	}
}

// TestOddRecords: what no writer should have written, beside the fixture, by id and in lists, in each phase.
func TestOddRecords(t *testing.T) {
	l := load(t)
	rdb := l.redis.Client(t)
	for _, o := range odds() {
		plant(t, rdb, "ai:jobs:"+o.id, o.old)
		plant(t, rdb, "ai:job:acme:"+o.id, o.new)
	}
	expiring := fresh("job_id", "half expired", "actor_id", "user-2")
	require.NoError(t, rdb.HSet(t.Context(), "ai:jobs:half expired", fresh("job_id", "half expired")).Err())
	require.NoError(t, rdb.PExpire(t.Context(), "ai:jobs:half expired", time.Millisecond).Err())
	require.NoError(t, rdb.HSet(t.Context(), "ai:job:acme:half expired", expiring).Err())
	require.Eventually(t, func() bool { return rdb.Exists(t.Context(), "ai:jobs:half expired").Val() == 0 },
		5*time.Second, time.Millisecond)
	list := append(odds(), odd{name: "half expired", id: "half expired", new: expiring, want: reads{"miss", "new", "new"}})

	before := redisserver.Dump(t, rdb, "*")
	for phase, p := range plans() {
		t.Run(phase.String(), func(t *testing.T) {
			s := serve(t, l.redis, phase, []string{"acme", "acme-eu"})
			expected := l.expected(phase, "acme")
			counted := make(map[string]float64)
			start := s.counters(t)
			for _, o := range list {
				want := map[plan]string{{old: true}: o.want.onlyOld, {old: true, new: true}: o.want.both, {new: true}: o.want.onlyNew}[p]
				path, more, _ := strings.Cut(want, " ")
				for letter, name := range map[string]string{
					"s": "relay_stale_copy_total", "m": "relay_workspace_mismatch_total", "b": "relay_isolation_breach_total",
					"t": "relay_wrong_type_total",
				} {
					counted[name+`{workspace_id="acme"}`] += float64(strings.Count(more, letter))
				}
				status, j := s.job(t, "acme", o.id)
				switch path {
				case "miss":
					require.Equal(t, http.StatusNotFound, status, o.name)
					require.Equal(t, "job_not_found", j["code"], o.name)
				case "500":
					require.Equal(t, http.StatusInternalServerError, status, o.name)
					require.Equal(t, "record_invalid", j["code"], o.name)
					counted[`relay_record_invalid_total{workspace_id="acme"}`]++
					continue
				default:
					shown := map[string]fields{"old": o.old, "new": o.new}[path]
					expected[text(o.id)] = wire("acme", o.id, shown)
					require.Equal(t, http.StatusOK, status, o.name)
					require.Equal(t, expected[text(o.id)], j, o.name)
				}
				counted[fmt.Sprintf(`relay_job_read_path_total{path=%q,workspace_id="acme"}`, path)]++
			}
			delete(counted, `relay_job_read_path_total{path="old",workspace_id="acme"}`) // what a 500 counts is not settled
			delete(counted, `relay_job_read_path_total{path="new",workspace_id="acme"}`)
			s.requireCounted(t, start, counted)

			start = s.counters(t)
			for _, status := range []string{"", "pending", "running", "completed", "failed"} {
				for _, limit := range []int{3, 100, 1000} {
					l.requireWalk(t, s, "acme", limit, status, withStatus(expected, status))
				}
			}
			s.requireCounted(t, start, map[string]float64{`relay_workspace_mismatch_total{workspace_id="acme"}`: 0})

			// The neighbour sees its own of them and nothing else.
			theirs := l.expected(phase, "acme-eu")
			for _, o := range list {
				if p.old && o.old["workspace_id"] == "acme-eu" && o.old["job_id"] == o.id {
					theirs[o.id] = wire("acme-eu", o.id, o.old)
				}
			}
			l.requireWalk(t, s, "acme-eu", 100, "", theirs)
		})
	}
	require.Equal(t, before, redisserver.Dump(t, rdb, "*"), "reading changes nothing")
}

// TestSameIDInTwoWorkspaces: each sees its own new copy, whoever holds the old key.
func TestSameIDInTwoWorkspaces(t *testing.T) {
	l := loaded{redis: redisserver.Start(t), stock: stock{}, workspaces: []string{"acme", "acme-eu", "acme_labs"}}
	rdb := l.redis.Client(t)
	id := "acme:eu"
	for _, ws := range l.workspaces {
		l.stock["ai:job:"+ws+":"+id] = fresh("job_id", id, "workspace_id", ws, "actor_id", "of "+ws)
	}
	l.stock["ai:jobs:"+id] = fresh("job_id", id, "workspace_id", "acme-eu", "status", "running", "started_at", at9)
	l.stock["ai:job:acme:eu:x"] = fresh("job_id", "eu:x") // acme's eu:x, and of no workspace named acme:eu
	for key, f := range l.stock {
		plant(t, rdb, key, f)
	}
	for _, phase := range slices.Sorted(maps.Keys(plans())) {
		t.Run(phase.String(), func(t *testing.T) {
			s := serve(t, l.redis, phase, l.workspaces)
			for _, ws := range l.workspaces {
				for _, limit := range []int{1, 100} {
					l.requireWalk(t, s, ws, limit, "", l.expected(phase, ws))
				}
			}
			l.requireByIDs(t, s)
		})
	}
}
