package isolation_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// Two workspaces of which one's name begins the other's, and one without any job.
const (
	acme     = "acme"
	acmeEU   = "acme-eu"
	stranger = "stranger"
)

func tenants() []string { return []string{acme, acmeEU} }

// neighbour gives the workspace that must not be seen.
func neighbour(workspace string) string {
	if workspace == acmeEU {
		return acme
	}
	return acmeEU
}

// phase is one legal row of flags, as the operator's documents have it. It is written out here and not taken from the
// code under test.
type phase struct {
	name                                     string
	env                                      map[string]string
	writesOld, writesNew, readsOld, readsNew bool
	retired                                  bool // the store was moved, and its old copies removed
}

func phases(tb testing.TB) []phase {
	tb.Helper()
	row := func(name, newSchema, oldSchema, prefersNew, fallbackOld string) phase {
		return phase{
			name: name,
			env: map[string]string{
				"AI_JOBS_NEW_SCHEMA": newSchema, "AI_JOBS_OLD_SCHEMA": oldSchema,
				"READ_PREFERS_NEW": prefersNew, "READ_FALLBACK_OLD": fallbackOld,
			},
			writesOld: oldSchema == "on", writesNew: newSchema == "on",
			readsOld: fallbackOld == "on", readsNew: prefersNew == "on",
		}
	}
	all := []phase{
		row("legacy", "off", "on", "off", "on"),
		row("canary", "on", "on", "off", "on"),
		row("read routing", "off", "on", "on", "on"),
		row("dual write", "on", "on", "on", "on"),
		row("strict new", "on", "on", "on", "off"),
		row("new only", "on", "off", "on", "off"),
	}
	require.Len(tb, migration.Phases(), len(all), "a legal set of flags that these tests do not know")
	return all
}

func phaseNamed(tb testing.TB, name string) phase {
	tb.Helper()
	all := phases(tb)
	i := slices.IndexFunc(all, func(p phase) bool { return p.name == name })
	require.GreaterOrEqual(tb, i, 0, name)
	return all[i]
}

// mark is a text that occurs nowhere else, and that holds no workspace's name.
func mark(what, workspace string) string {
	sum := sha256.Sum256([]byte(what + " of " + workspace))
	return what + hex.EncodeToString(sum[:6])
}

// contentMark is in everything that a workspace's jobs hold, idMark in every job id of its own.
func contentMark(workspace string) string { return mark("content", workspace) }
func idMark(workspace string) string      { return mark("id", workspace) }

// requestMark is in every client_request_id.
func requestMark() string { return mark("key", "everybody") }

const (
	oldSchema = "old"
	newSchema = "new"
)

// stored is one copy of a job.
type stored struct {
	schema, workspace, id string
	changes               map[string]string // of its usual fields
}

func oldKey(id string) string            { return "ai:jobs:" + id }
func newKey(workspace, id string) string { return "ai:job:" + workspace + ":" + id }
func idempotencyKey(workspace, clientRequestID string) string {
	return "ai:idempotency:" + workspace + ":" + clientRequestID
}

func indexKey(workspace string) string { return "ai:index:" + workspace }

const queueKey = "ai:queue:pending"

func (s stored) key() string {
	if s.schema == oldSchema {
		return oldKey(s.id)
	}
	return newKey(s.workspace, s.id)
}

func provider(workspace string) string { return contentMark(workspace) + "-provider" }
func actionName(workspace string) string {
	return contentMark(workspace) + "-name"
}

// params names the job that it belongs to.
func params(workspace, id string) map[string]any {
	return map[string]any{"mark": contentMark(workspace), "of": id}
}

func paramsText(tb testing.TB, workspace, id string) string {
	tb.Helper()
	raw, err := json.Marshal(params(workspace, id))
	require.NoError(tb, err)
	return string(raw)
}

// fields are those of a finished job. Copies of one job are alike.
func (s stored) fields(tb testing.TB) map[string]string {
	tb.Helper()
	f := map[string]string{
		"job_id": s.id, "workspace_id": s.workspace, "status": "completed",
		"action_provider": provider(s.workspace), "action_name": actionName(s.workspace),
		"params": paramsText(tb, s.workspace, s.id), "actor_id": actorOf(s.workspace),
		"result": `{"result":"` + contentMark(s.workspace) + `"}`, "error": contentMark(s.workspace) + "-error",
		"enqueued_at": "2026-11-21T19:28:54.017837+00:00", "started_at": "2026-11-21T19:28:55.017837+00:00",
		"finished_at": "2026-11-21T19:28:56.017837+00:00", "rev": "3",
	}
	for name, value := range s.changes {
		if f[name] = value; value == "" {
			delete(f, name)
		}
	}
	return f
}

// world is what one server's Redis holds.
type world struct {
	rdb     *redis.Client
	phase   phase
	copies  []stored
	expires time.Time // of the idempotency keys
}

func store(tb testing.TB, rdb *redis.Client, copies ...stored) {
	tb.Helper()
	_, err := rdb.Pipelined(tb.Context(), func(p redis.Pipeliner) error {
		for _, s := range copies {
			p.Del(tb.Context(), s.key())
			p.HSet(tb.Context(), s.key(), s.fields(tb))
		}
		return nil
	})
	require.NoError(tb, err)
}

// Ids that both workspaces have, in different schemas.
const (
	sharedA = "shared-1" // acme's in new, acme-eu's in old
	sharedB = "shared-2" // the other way round
)

// id of a workspace's job.
func id(workspace, what string) string { return idMark(workspace) + "-" + what }

// odd is an id of bytes that mean something elsewhere.
func odd(workspace string) string {
	return idMark(workspace) + "/../%2F?x=1&#*[a-z]{}:\r\n\x00\té\u2028 +"
}

// populate fills an empty Redis.
func populate(tb testing.TB, rdb *redis.Client, p phase) *world {
	tb.Helper()
	w := &world{rdb: rdb, phase: p, expires: time.Now().Add(12 * time.Hour)}
	for _, ws := range tenants() {
		for _, what := range []string{"old", "both", "pending"} {
			w.copies = append(w.copies, stored{schema: oldSchema, workspace: ws, id: id(ws, what)})
		}
		for _, what := range []string{"new", "both", "pending"} {
			w.copies = append(w.copies, stored{schema: newSchema, workspace: ws, id: id(ws, what)})
		}
		w.copies = append(w.copies, stored{schema: oldSchema, workspace: ws, id: odd(ws)}, stored{schema: newSchema, workspace: ws, id: odd(ws)})
	}
	for i := range w.copies {
		if strings.HasSuffix(w.copies[i].id, "-pending") {
			w.copies[i].changes = map[string]string{"status": "pending", "started_at": "", "finished_at": "", "result": "", "error": ""}
		}
	}
	w.copies = append(w.copies,
		stored{schema: newSchema, workspace: acme, id: sharedA}, stored{schema: oldSchema, workspace: acmeEU, id: sharedA},
		stored{schema: oldSchema, workspace: acme, id: sharedB}, stored{schema: newSchema, workspace: acmeEU, id: sharedB},
	)
	store(tb, rdb, w.copies...)
	ctx := tb.Context()
	_, err := rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, ws := range tenants() {
			for _, known := range w.knownKeys(ws) {
				w.remember(ctx, pipe, ws, known)
			}
			pipe.RPush(ctx, queueKey, id(ws, "pending"), ws+":"+id(ws, "pending"))
		}
		return nil
	})
	require.NoError(tb, err)
	return w
}

// remember stores an idempotency key as it was in the beginning.
func (w *world) remember(ctx context.Context, pipe redis.Pipeliner, ws string, known knownKey) {
	pipe.Set(ctx, idempotencyKey(ws, known.key), known.job, 0)
	pipe.PExpireAt(ctx, idempotencyKey(ws, known.key), w.expires)
}

// knownKey is a client_request_id that was used in a workspace, for a job that the workspace may not have.
type knownKey struct {
	key, job string
	held     bool // by the workspace itself, in any schema
}

func (w *world) knownKeys(ws string) []knownKey {
	known := func(what, job string, held bool) knownKey {
		return knownKey{key: requestMark() + " " + mark("request", ws) + " " + what, job: job, held: held}
	}
	return []knownKey{
		known("old", id(ws, "old"), true), known("new", id(ws, "new"), true), known("both", id(ws, "both"), true),
		known("shared", sharedA, true), known("odd", odd(ws), true),
		known("gone", id(ws, "gone"), false),
		known("of the neighbour's job", id(neighbour(ws), "both"), false),
	}
}

// ids lists every job id of the world once.
func (w *world) ids() []string {
	var ids []string
	for _, s := range w.copies {
		ids = append(ids, s.id)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// visible tells whether a workspace is shown a job: only copies of its own that the phase reads.
func (w *world) visible(ws, id string) bool {
	return slices.ContainsFunc(w.copies, func(s stored) bool {
		return s.id == id && s.workspace == ws && (s.schema == oldSchema && w.phase.readsOld || s.schema == newSchema && w.phase.readsNew)
	})
}

func (w *world) visibleIDs(ws string) []string {
	return slices.DeleteFunc(w.ids(), func(id string) bool { return !w.visible(ws, id) })
}

// oldHolder gives whose the old copy is, empty for none.
func (w *world) oldHolder(id string) string {
	for _, s := range w.copies {
		if s.id == id && s.schema == oldSchema {
			return s.workspace
		}
	}
	return ""
}

// pathOf gives the path of a job.
func pathOf(id string) string { return "/ai/jobs/" + url.PathEscape(id) }

// commands tells how many commands the Redis server was given so far, this question included.
func (w *world) commands(tb testing.TB) int64 {
	tb.Helper()
	return commandsOf(tb, w.rdb)
}

// commandsOf counts all commands but those by which servers tell of themselves, which come by the clock. Each of their
// scripts runs a command that nobody else does.
func commandsOf(tb testing.TB, rdb *redis.Client) int64 {
	tb.Helper()
	const beat, flush = 7, 4 // commands of one, with the call of its script
	info, err := rdb.Info(tb.Context(), "all").Result()
	require.NoError(tb, err)
	number := func(before string) (n int64) {
		if _, rest, ok := strings.Cut(info, before); ok {
			_, err := fmt.Sscanf(rest, "%d", &n)
			require.NoError(tb, err)
		}
		return n
	}
	total := number("total_commands_processed:")
	require.Positive(tb, total)
	_, evalsha, _ := strings.Cut(info, "cmdstat_evalsha:")
	evalsha, _, _ = strings.Cut(evalsha, "\n")
	var unknown int64 // scripts that Redis was not given before; they come again, whole
	if _, failed, ok := strings.Cut(evalsha, "failed_calls="); ok {
		_, err := fmt.Sscanf(failed, "%d", &unknown)
		require.NoError(tb, err)
	}
	total -= number("cmdstat_hello:calls=") // of a new connection, which a beat may have opened; whatever comes over it counts
	return total - unknown - beat*number("cmdstat_zremrangebyscore:calls=") - flush*number("cmdstat_hincrby:calls=")
}

// digestSource reads every key of jobs, index, idempotency and queue at once. The bytes of DUMP would not do: they depend on
// what was read since.
const digestSource = `
local keys, cursor = {}, '0'
repeat
  local reply = redis.call('SCAN', cursor, 'MATCH', 'ai:*', 'COUNT', '1000')
  cursor = reply[1]
  for _, key in ipairs(reply[2]) do
    -- What servers say of themselves comes by the clock.
    if not (string.find(key, '^ai:server') or key == 'ai:phases-seen' or key == 'ai:fallback-hits') then
      keys[#keys + 1] = key
    end
  end
until cursor == '0'
table.sort(keys)
local out = {}
for i, key in ipairs(keys) do
  if key ~= keys[i - 1] then
    local kind, held = redis.call('TYPE', key).ok, {}
    if kind == 'hash' then
      local flat = redis.call('HGETALL', key)
      for f = 1, #flat, 2 do held[#held + 1] = #flat[f] .. ' ' .. flat[f] .. ' ' .. flat[f + 1] end
      table.sort(held)
    elseif kind == 'list' then held = redis.call('LRANGE', key, 0, -1)
    elseif kind == 'string' then held = {redis.call('GET', key)}
    elseif kind == 'zset' then held = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    else held = {redis.call('DUMP', key)} end
    out[#out + 1] = key .. ' ' .. kind .. ' ' .. redis.call('PEXPIRETIME', key) .. ' ' .. table.concat(held, ' ')
  end
end
return redis.sha1hex(table.concat(out, '\n'))`

// digest is equal for equal contents and expiries of all job data, the neighbour's and the queue included.
func (w *world) digest(tb testing.TB) string {
	tb.Helper()
	sum, err := w.rdb.Eval(tb.Context(), digestSource, nil).Text()
	require.NoError(tb, err)
	return sum
}

// dump is what a failure shows the difference of.
func (w *world) dump(tb testing.TB) redisserver.Keyspace {
	tb.Helper()
	return redisserver.Dump(tb, w.rdb, "ai:*")
}
