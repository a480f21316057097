package redisjobs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/parse"
	"pgregory.net/rapid"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// sources reads every script file: its name and text.
func sources(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("script/*.lua")
	require.NoError(t, err)
	found := make(map[string]string)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		found[filepath.Base(path)] = string(text)
	}
	require.GreaterOrEqual(t, len(found), 4)
	return found
}

// split takes a script apart: the comment before its first line of code, and the code without comments.
func split(source string) (header, code string) {
	for line := range strings.Lines(source) {
		text, _, _ := strings.Cut(line, "--")
		if code == "" && strings.TrimSpace(text) == "" {
			header += line
			continue
		}
		code += strings.TrimRight(text, "\n") + "\n"
	}
	return header, code
}

func numbers(t *testing.T, texts [][]string) []int {
	t.Helper()
	var out []int
	for _, m := range texts {
		n, err := strconv.Atoi(m[1])
		require.NoError(t, err)
		out = append(out, n)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestScriptsNameTheirKeysAndArguments: the header of a script names what the code uses, in sequence, and nothing else.
func TestScriptsNameTheirKeysAndArguments(t *testing.T) {
	for name, source := range sources(t) {
		header, code := split(source)
		for _, table := range []string{"KEYS", "ARGV"} {
			used := regexp.MustCompile(table+`\[(\d+)\]`).FindAllStringSubmatch(code, -1)
			for _, by := range regexp.MustCompile(table+`\[([a-z]+)\]`).FindAllStringSubmatch(code, -1) {
				loop := regexp.MustCompile(`for ` + by[1] + ` = (\d+), (\d+) do`).FindStringSubmatch(code)
				require.NotNil(t, loop, "%s: %s", name, by[0])
				from, err := strconv.Atoi(loop[1])
				require.NoError(t, err)
				to, err := strconv.Atoi(loop[2])
				require.NoError(t, err)
				for ; from <= to; from++ {
					used = append(used, []string{"", strconv.Itoa(from)})
				}
			}
			named := numbers(t, regexp.MustCompile(`(?m)^-- `+table+`\[(\d+)\] \S`).FindAllStringSubmatch(header, -1))
			for _, rest := range regexp.MustCompile(`unpack\(`+table+`, (\d+)\)`).FindAllStringSubmatch(code, -1) {
				from, err := strconv.Atoi(rest[1])
				require.NoError(t, err)
				for ; from <= len(named); from++ {
					used = append(used, []string{"", strconv.Itoa(from)})
				}
			}
			require.Equal(t, named, numbers(t, used), "%s: %s of the header against those of the code", name, table)
			for i, n := range named {
				require.Equal(t, i+1, n, "%s: %s", name, table)
			}
		}
		for _, line := range regexp.MustCompile(`(?m)^-- KEYS\[\d+\] .*$`).FindAllString(header, -1) {
			require.Regexp(t, `^-- KEYS\[\d+\] ai:(jobs:|job:|queue:|idempotency:|index:|index-state|index-sweep|server:|servers|phases-seen|fallback-hits|retired|writer-without-rev)`, line, name)
		}
		require.NotRegexp(t, `['"]ai:`, code, "%s builds a key that it does not declare", name)
	}
}

// TestScriptsDocumentTheirReturns: each value that a whole script returns stands in its header, and the other way
// round.
func TestScriptsDocumentTheirReturns(t *testing.T) {
	checked := 0
	for name, source := range sources(t) {
		header, code := split(source)
		_, documented, whole := strings.Cut(header, "-- Returns\n")
		if !whole {
			require.NotRegexp(t, `(?m)^return`, code, "%s is a part and returns from its functions alone", name)
			continue
		}
		checked++
		var want []string
		for _, m := range regexp.MustCompile(`(?m)^--   (-?\d+|\{.*?\}|error)  `).FindAllStringSubmatch(documented, -1) {
			want = append(want, shape(m[1]))
		}
		var got []string
		for _, m := range regexp.MustCompile(`\breturn (.+)`).FindAllStringSubmatch(code, -1) {
			value := strings.TrimSpace(m[1])
			if value == "reply" { // of a command that failed
				got = append(got, "error")
				continue
			}
			if regexp.MustCompile(`^(-?\d+|\{.*\})$`).MatchString(value) {
				got = append(got, shape(value))
				continue
			}
			assigned := regexp.MustCompile(`\b`+value+`\b[a-z_, ]* = (?:false, )?(\d+)`).FindAllStringSubmatch(code, -1)
			require.NotEmpty(t, assigned, "%s returns %s", name, value)
			for _, a := range assigned {
				got = append(got, a[1])
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		require.Equal(t, slices.Compact(want), slices.Compact(got), name)
	}
	require.Equal(t, 12, checked)
}

// shape gives a table by how many values it holds.
func shape(value string) string {
	if !strings.HasPrefix(value, "{") {
		return value
	}
	return fmt.Sprintf("{%d}", strings.Count(value, ",")+1)
}

// TestIdempotencyKeysLiveAsLongAsTheCoreSays: a script cannot take the constant itself.
func TestIdempotencyKeysLiveAsLongAsTheCoreSays(t *testing.T) {
	seconds := strconv.Itoa(int(job.ClientRequestIDLifetime / time.Second))
	require.Contains(t, enqueueSource, "call('SETEX', idempotency, '"+seconds+"', id)")
}

// TestScriptsUseNoGlobals compiles each script as it is sent: it sets no global variable and reads known ones alone.
func TestScriptsUseNoGlobals(t *testing.T) {
	allowed := []string{"KEYS", "ARGV", "redis", "string", "math", "table", "ipairs", "pairs", "tonumber", "unpack"}
	for name, source := range map[string]string{
		"enqueue":     planSource(migration.DualWrite) + stampSource + placeSource + enqueueSource,
		"update":      updateJobSource(migration.DualWrite),
		"index":       versionSource + placeSource + statesSource + entriesSource + mendSource + indexSource,
		"copy":        copyJobSource(),
		"retire":      retireJobSource(),
		"compare job": compareJobSource(), "compare entry": compareEntrySource(),
		"claim empty": claimEmptySource, "take sweep": takeSweepSource, "mark complete": markCompleteSource,
		"server beat": serverBeatSource, "fallback hits": fallbackHitsSource,
	} {
		chunk, err := parse.Parse(strings.NewReader(source), name)
		require.NoError(t, err)
		proto, err := lua.Compile(chunk, name)
		require.NoError(t, err)
		read := requireGlobals(t, proto, allowed)
		require.Contains(t, read, "KEYS", "%s: the test looks at the right instructions", name)
	}
}

func requireGlobals(t *testing.T, p *lua.FunctionProto, allowed []string) (read []string) {
	t.Helper()
	for i, instruction := range p.Code {
		operation := int(instruction >> 26)
		if operation != lua.OP_GETGLOBAL && operation != lua.OP_SETGLOBAL {
			continue
		}
		global := p.Constants[instruction&0x3ffff].String()
		require.Equal(t, lua.OP_GETGLOBAL, operation, "%s line %d sets %s", p.SourceName, p.DbgSourcePositions[i], global)
		require.Contains(t, allowed, global, "%s line %d", p.SourceName, p.DbgSourcePositions[i])
		read = append(read, global)
	}
	for _, inner := range p.FunctionPrototypes {
		read = append(read, requireGlobals(t, inner, allowed)...)
	}
	return read
}

// TestScriptsUseOldCommands: no script walks the keyspace, and each command and option is one that Redis 6.2 has.
func TestScriptsUseOldCommands(t *testing.T) {
	since := map[string]string{
		"COPY": "6.2", "DBSIZE": "1.0", "DEL": "1.0", "DUMP": "2.6", "EXISTS": "1.0", "GET": "1.0", "HDEL": "2.0", "HGET": "2.0", "HLEN": "2.0", "HSTRLEN": "3.2",
		"HGETALL": "2.0", "HINCRBY": "2.0", "HMGET": "2.0", "HSET": "2.0", "INFO": "1.0", "LPOS": "6.0.6", "PEXPIRE": "2.6", "PTTL": "2.6", "RPUSH": "1.0",
		"SET": "2.6", "SETEX": "2.0", "TIME": "2.6", "TYPE": "1.0", "ZADD": "2.4", "ZLEXCOUNT": "2.8", "ZMSCORE": "6.2",
		"ZREM": "2.4", "ZREMRANGEBYSCORE": "1.2", "ZREVRANGEBYLEX": "2.8", "ZSCORE": "1.2",
	}
	seen := make(map[string]bool)
	for name, source := range sources(t) {
		_, code := split(source)
		calls := regexp.MustCompile(`call\((.?)([A-Za-z]*)`).FindAllStringSubmatch(code, -1)
		for _, c := range calls {
			require.Equal(t, "'", c[1], "%s calls a command that it does not spell: %s", name, c[0])
			require.Contains(t, since, c[2], name)
			seen[c[2]] = true
		}
		for _, word := range []string{"KEYS", "SCAN", "RANDOMKEY"} {
			require.NotContains(t, code, "'"+word+"'", name)
		}
	}
	require.Len(t, seen, len(since), "the list names a command that no script uses")
}

// runLua runs a chunk behind a part of the scripts, on a real server.
func runLua(t require.TestingT, rdb *redis.Client, chunk string, args ...any) []any {
	reply, err := rdb.Eval(context.Background(), chunk, nil, args...).Slice()
	require.NoError(t, err)
	return reply
}

// stampChunk calls stamp for each four arguments.
const stampChunk = `
local out = {}
for i = 1, #ARGV, 4 do
  out[#out + 1] = stamp(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
end
return out`

func stampedBy(t require.TestingT, rdb *redis.Client, instants []time.Time, second func(time.Time) (string, string)) []string {
	args := make([]any, 0, 4*len(instants))
	for _, at := range instants {
		seconds, text := second(at)
		args = append(args, at.Unix(), fmt.Sprintf("%06d", at.Nanosecond()/1000), seconds, text)
	}
	var out []string
	for _, v := range runLua(t, rdb, stampSource+stampChunk, args...) {
		out = append(out, v.(string))
	}
	return out
}

func TestStamp(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	var instants []time.Time
	add := func(at time.Time) {
		for _, d := range []time.Duration{0, -time.Microsecond, time.Microsecond, -time.Second, time.Minute, 999_999 * time.Microsecond} {
			if at = at.Add(d); !at.Before(time.Unix(0, 0)) {
				instants = append(instants, at.UTC())
			}
		}
	}
	for _, year := range []int{1970, 1971, 1972, 1999, 2000, 2001, 2024, 2026, 2027, 2028, 2038, 2099, 2100, 2101, 2400, 9999} {
		for month := time.January; month <= time.December; month++ {
			add(time.Date(year, month, 1, 0, 0, 0, 0, time.UTC))
			add(time.Date(year, month, 28, 23, 59, 59, 999_999_000, time.UTC))
		}
		add(time.Date(year, 2, 29, 12, 0, 0, 17_837_000, time.UTC)) // the first of March where there is none
		add(time.Date(year, 12, 31, 23, 59, 58, 0, time.UTC))
	}
	for day := range 366 * 9 { // every day of a leap cycle and the turn of 2100
		instants = append(instants, time.Date(2096, 1, 1+day, day%24, day%60, day%59, day*1000, time.UTC))
	}
	instants = slices.DeleteFunc(instants, func(at time.Time) bool { return at.Year() > 9999 })
	want := make([]string, len(instants))
	for i, at := range instants {
		want[i] = at.Format(job.TimeLayout)
	}

	sameSecond := func(at time.Time) (string, string) {
		return strconv.FormatInt(at.Unix(), 10), at.Format("2006-01-02T15:04:05")
	}
	anotherSecond := func(at time.Time) (string, string) {
		return sameSecond(at.Add(-time.Second))
	}
	require.Equal(t, want, stampedBy(t, rdb, instants, sameSecond), "the date is the server's")
	require.Equal(t, want, stampedBy(t, rdb, instants, anotherSecond), "the date is computed")

	rapid.Check(t, func(rt *rapid.T) {
		at := time.UnixMicro(rapid.Int64Range(0, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).UnixMicro()).Draw(rt, "µs")).UTC()
		require.Equal(rt, []string{at.Format(job.TimeLayout)}, stampedBy(rt, rdb, []time.Time{at}, anotherSecond))
	})
}

// TestSecondOf: what Enqueue and Move give to stamp is a whole second and its text.
func TestSecondOf(t *testing.T) {
	second, text := secondOf(time.Now().UTC())
	at, err := strconv.ParseInt(second, 10, 64)
	require.NoError(t, err)
	require.Equal(t, time.Unix(at, 0).UTC().Format("2006-01-02T15:04:05"), text)
	require.WithinDuration(t, time.Now(), time.Unix(at, 0), time.Minute)
}

// copyText is a copy's fields as the scripts read them, after job_id and workspace_id. Nothing is absent here: an
// absent field and an empty one count alike.
type copyText struct{ rev, status, enqueued, started, finished string }

// freshnessChunk judges pairs of copies, ten arguments each; where the last character of the chunk's first argument
// is a, empty texts are given as absent fields.
const freshnessChunk = `
local out = {}
for i = 2, #ARGV, 10 do
  local old, new = {'id', 'ws'}, {'id', 'ws'}
  for n = 0, 4 do
    old[3 + n], new[3 + n] = ARGV[i + n], ARGV[i + 5 + n]
    if ARGV[1] == 'absent' then
      old[3 + n], new[3 + n] = old[3 + n] ~= '' and old[3 + n], new[3 + n] ~= '' and new[3 + n]
    end
  end
  out[#out + 1] = (old_is_fresher(old, new) and 1 or 0) + (undecided(old, new) and 2 or 0)
end
return out`

// requireSameFreshness compares the scripts' judgement with the core's.
func requireSameFreshness(t require.TestingT, rdb *redis.Client, pairs [][2]copyText) {
	for _, empty := range []string{"absent", "empty"} {
		args := []any{empty}
		for _, p := range pairs {
			for _, c := range p {
				args = append(args, c.rev, c.status, c.enqueued, c.started, c.finished)
			}
		}
		for i, judged := range runLua(t, rdb, versionSource+freshnessChunk, args...) {
			old, new := pairs[i][0], pairs[i][1] //nolint:revive // the names of the two schemas
			want := int64(0)
			if job.Fresher(old.version(), new.version()) == job.CopyOld {
				want = 1
			}
			if job.Undecided(old.version(), new.version()) {
				want += 2
			}
			require.Equal(t, want, judged, "old %+v, new %+v, with %s fields: 1 for old is fresher, 2 for undecided",
				old, new, empty)
		}
	}
}

func (c copyText) version() job.Version {
	return stamps(c).version()
}

func storedTimes() []string {
	return []string{
		"", "2026-11-21T19:28:54.017837+00:00", "2026-11-21T19:28:54.017838+00:00", "2026-11-21T19:28:54.017838Z",
		"2026-11-21T20:28:54.017838+01:00", "2026-11-21T19:28:54.0178389Z", "2026-11-21T19:28:54.01783Z",
		"2026-11-21T19:28:54", "2026-11-21T19:28:54.017837", "2026-11-21 19:28:54+00:00", "2026-11-21T19:28:54+0000",
		"2026-11-21T23:59:60Z", "2026-11-21T24:00:00Z", "2026-11-21T19:28:54.Z", "2026-11-21T19:28:54.1234567890Z",
		"2026-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2000-02-29T00:00:00Z",
		"2026-11-31T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z",
		"1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000001Z", "1969-12-31T23:59:59.999999Z",
		"1970-01-01T00:00:00+00:01", "1970-01-01T00:00:00-00:01", "0000-01-01T00:00:00Z", "0000-02-29T00:00:00Z",
		"0000-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999998Z",
		"9999-12-31T23:59:59-00:01", "9999-12-31T23:59:59-23:59", "2300-01-01T00:00:00.000001Z",
		"2300-01-01T00:00:00.000002Z", "2026-11-21T19:28:54+24:00", "2026-11-21T19:28:54+23:60", "now", "1795289334",
		"2026-11-21T19:28:54Z\n", "2026-11-21T19:28:54\x00Z", "2026-11-21T19:28:54.5\xff",
	}
}

func TestScriptsJudgeFreshnessLikeTheCore(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	times := storedTimes()
	revs := []string{"", "0", "1", "2", "007", "-1", "1.0", " 1", "1 ", "+1", "1e3", "0x10", "999999999999999", "1000000000000000", "one", "1\x00"}
	statuses := []string{"", "pending", "running", "completed", "failed", "paused", "Pending"}

	var pairs [][2]copyText
	for _, a := range times { // each time against each, in each field, without rev and with one
		for _, b := range times {
			for _, rev := range []string{"", "3"} {
				pairs = append(pairs,
					[2]copyText{{rev: rev, status: "pending", enqueued: a}, {rev: rev, status: "pending", enqueued: b}},
					[2]copyText{{rev: rev, status: "running", started: a}, {rev: rev, status: "running", finished: b}},
				)
			}
		}
	}
	for _, a := range revs {
		for _, b := range revs {
			for _, s := range statuses {
				pairs = append(pairs, [2]copyText{
					{rev: a, status: "running", enqueued: times[1]}, {rev: b, status: s, enqueued: times[1]},
				})
			}
			pairs = append(pairs, // a later time on either side, so that a higher rev is beside it or opposite
				[2]copyText{{rev: a, enqueued: times[1], started: times[2]}, {rev: b, enqueued: times[1]}},
				[2]copyText{{rev: a, enqueued: times[1]}, {rev: b, enqueued: times[1], finished: times[2]}},
			)
			for _, s := range statuses { // started in old, and not in new
				pairs = append(pairs,
					[2]copyText{{a, "running", times[1], times[2], ""}, {b, s, times[1], "", ""}},
					[2]copyText{{a, s, times[1], times[2], ""}, {b, "pending", times[1], "", ""}},
				)
			}
			for _, other := range times[:3] {
				pairs = append(pairs,
					[2]copyText{{a, "running", times[1], times[2], other}, {b, "pending", times[1], "", ""}},
					[2]copyText{{a, "running", times[1], times[2], ""}, {b, "pending", times[1], other, ""}},
					[2]copyText{{a, "running", times[1], times[2], ""}, {b, "pending", times[1], "", other}},
					[2]copyText{{a, "running", times[1], times[2], ""}, {b, "pending", other, "", ""}},
				)
			}
		}
	}
	for _, a := range statuses {
		for _, b := range statuses {
			for _, rev := range []string{"", "1"} {
				pairs = append(pairs, [2]copyText{{rev: rev, status: a, started: times[1]}, {rev: rev, status: b, started: times[1]}})
			}
		}
	}
	for chunk := range slices.Chunk(pairs, 400) {
		requireSameFreshness(t, rdb, chunk)
	}

	text := func(of []string) *rapid.Generator[string] {
		return rapid.OneOf(rapid.SampledFrom(of), rapid.String(), rapid.StringMatching(
			`(19|20|22|99)\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-6]\d(\.\d{0,10})?(Z|[+-][0-2]\d:[0-6]\d|)`))
	}
	copyOf := rapid.Custom(func(t *rapid.T) copyText {
		return copyText{
			rev:      rapid.OneOf(rapid.SampledFrom(revs), rapid.StringMatching(`\d{0,17}`)).Draw(t, "rev"),
			status:   rapid.SampledFrom(statuses).Draw(t, "status"),
			enqueued: text(times).Draw(t, "enqueued"), started: text(times).Draw(t, "started"),
			finished: text(times).Draw(t, "finished"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		old := copyOf.Draw(t, "old")
		pairs := [][2]copyText{{old, copyOf.Draw(t, "new")}, {old, old}}
		near := old
		near.finished = text(times).Draw(t, "other finished")
		pairs = append(pairs, [2]copyText{old, near}, [2]copyText{near, old})
		requireSameFreshness(t, rdb, pairs)
	})
}
