package faults_test

import (
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/redisjobs/router"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/ports"
	"github.com/relay-jobs/relay/tests/contract"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// record is one hash as the model has it; expires is in milliseconds since 1970, 0 for never.
type record struct {
	fields  map[string]string
	expires int64
}

// model is what Redis should hold, worked out from the contract alone: no code of the core or of an adapter is asked.
type model struct {
	hashes map[string]record // by key
	queue  []string
	known  map[string]string // idempotency key to job id
}

// reads and writes tell what a phase does with the two schemas.
func reads(p migration.Phase) (inOld, inNew bool) {
	switch p {
	case migration.Legacy, migration.Canary:
		return true, false
	case migration.ReadRouting, migration.DualWrite:
		return true, true
	}
	return false, true
}

func writes(p migration.Phase) (toOld, toNew bool) {
	switch p {
	case migration.Legacy, migration.ReadRouting:
		return true, false
	case migration.NewOnly:
		return false, true
	}
	return true, true
}

// looks tells what a write looks at before it writes.
func looks(p migration.Phase) (inOld, inNew bool) {
	return p != migration.NewOnly, p != migration.Legacy
}

// copies gives the copies that a workspace owns, nil for none. foreign tells that the old key holds another's record.
func (m model) copies(ws, id string, inOld, inNew bool) (oldCopy, newCopy *record, foreign bool) {
	if h, ok := m.hashes[oldKey(id)]; ok && inOld {
		if h.fields["job_id"] == id && h.fields["workspace_id"] == ws {
			oldCopy = &h
		} else {
			foreign = h.fields["job_id"] != "" || h.fields["workspace_id"] != ""
		}
	}
	if h, ok := m.hashes[newKey(ws, id)]; ok && inNew && h.fields["job_id"] != "" && h.fields["workspace_id"] != "" {
		newCopy = &h
	}
	return oldCopy, newCopy, foreign
}

// fresher chooses between two copies as the contract says.
func fresher(oldCopy, newCopy *record) *record {
	if oldCopy == nil {
		return newCopy
	}
	if newCopy == nil {
		return oldCopy
	}
	revOld, revNew := number(oldCopy.fields["rev"]), number(newCopy.fields["rev"])
	switch {
	case revOld > revNew:
		return oldCopy
	case revOld < revNew:
		return newCopy
	case revOld > 0:
		// Whoever does not know rev and changes a job changes its status or one of its times: that tells that the
		// copies' contents differ, and it is all that a read looks at.
		for _, name := range []string{"status", "enqueued_at", "started_at", "finished_at"} {
			if oldCopy.fields[name] != newCopy.fields[name] {
				return oldCopy
			}
		}
		return newCopy
	}
	lastOld, lastNew := last(oldCopy.fields), last(newCopy.fields)
	further := map[string]int{"pending": 1, "running": 2, "completed": 3, "failed": 3}
	switch {
	case lastOld.After(lastNew):
		return oldCopy
	case lastNew.After(lastOld):
		return newCopy
	case further[oldCopy.fields["status"]] > further[newCopy.fields["status"]]:
		return oldCopy
	}
	return newCopy
}

// startedFrom chooses the copy that a write starts from: a write sees results and errors, too, and loses none that a
// writer without rev left in the old copy alone.
func startedFrom(oldCopy, newCopy *record) *record {
	if oldCopy != nil && newCopy != nil {
		rev := number(oldCopy.fields["rev"])
		differ := oldCopy.fields["result"] != newCopy.fields["result"] || oldCopy.fields["error"] != newCopy.fields["error"]
		if rev > 0 && rev == number(newCopy.fields["rev"]) && differ {
			return oldCopy
		}
	}
	return fresher(oldCopy, newCopy)
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

func last(fields map[string]string) time.Time {
	var latest time.Time
	for _, name := range []string{"enqueued_at", "started_at", "finished_at"} {
		if at, err := time.Parse(time.RFC3339Nano, fields[name]); err == nil && at.After(latest) {
			latest = at
		}
	}
	return latest
}

// shown is what a server in a phase shows of a job.
func (m model) shown(p migration.Phase, ws, id string) *record {
	inOld, inNew := reads(p)
	oldCopy, newCopy, _ := m.copies(ws, id, inOld, inNew)
	return fresher(oldCopy, newCopy)
}

// machine runs the model beside servers on one Redis.
type machine struct {
	model
	store   store
	servers map[migration.Phase]ports.JobRepository
	phases  []migration.Phase
	keep    time.Duration // the servers' retention
	ids     []string
	spaces  []string
	t       *testing.T
}

func (m *machine) server(rt *rapid.T) migration.Phase {
	return rapid.SampledFrom(m.phases).Draw(rt, "server")
}

func (m *machine) id(rt *rapid.T) string { return rapid.SampledFrom(m.ids).Draw(rt, "id") }

func (m *machine) space(rt *rapid.T) string { return rapid.SampledFrom(m.spaces).Draw(rt, "workspace") }

// stamped takes over a time that Redis set, once it was found to be one of now.
func (m *machine) stamped(rt *rapid.T, key, field string) string {
	at := m.store.rdb.HGet(m.t.Context(), key, field).Val()
	requireTime(rt, at)
	return at
}

func (m *machine) enqueue(rt *rapid.T) {
	p, ws, id := m.server(rt), m.space(rt), m.id(rt)
	key := rapid.SampledFrom([]string{"", "k1", "k2"}).Draw(rt, "client_request_id")
	d := job.Draft{
		ID: parseJobID(m.t, id), Workspace: parseWorkspace(m.t, ws), Provider: "google", Name: "gmail.send",
		Params: `{"a":1}`, Actor: actor,
	}
	if key != "" {
		d.ClientRequestID = parseKey(m.t, key)
	}
	made, err := m.servers[p].Enqueue(m.t.Context(), d)

	at := "ai:idempotency:" + ws + ":" + key
	if known, ok := m.known[at]; ok && known != id {
		if oldCopy, newCopy, _ := m.copies(ws, known, true, true); oldCopy != nil || newCopy != nil {
			require.NoError(rt, err)
			require.True(rt, made.Replayed)
			require.Equal(rt, known, made.Job.ID.String())
			return
		}
	}
	inOld, inNew := looks(p)
	oldCopy, newCopy, foreign := m.copies(ws, id, inOld, inNew)
	toOld, toNew := writes(p)
	switch {
	case key != "" && m.known[at] == id, oldCopy != nil, newCopy != nil: // a repetition after a lost reply
		require.NoError(rt, err)
		require.False(rt, made.Replayed)
		require.Equal(rt, id, made.Job.ID.String())
		return
	case foreign && !toNew:
		require.Equal(rt, fault.Conflict.String(), fault.KindOf(err).String())
		return
	}
	require.NoError(rt, err)
	require.False(rt, made.Replayed)
	require.Equal(rt, id, made.Job.ID.String())
	fields := map[string]string{
		"job_id": id, "workspace_id": ws, "status": "pending", "action_provider": "google", "action_name": "gmail.send",
		"params": `{"a":1}`, "actor_id": actor, "result": "", "rev": "1",
	}
	if key != "" {
		fields["client_request_id"] = key
		m.known[at] = id
	}
	var keys []string
	if toOld && !foreign {
		keys = append(keys, oldKey(id))
	}
	if toNew {
		keys = append(keys, newKey(ws, id))
	}
	fields["enqueued_at"] = m.stamped(rt, keys[0], "enqueued_at")
	for _, k := range keys {
		m.hashes[k] = record{fields: maps.Clone(fields)}
	}
	entry := id
	if !toOld || foreign { // who takes a bare id looks at the old key, which is not this job's
		entry = ws + ":" + id
	}
	m.queue = append(m.queue, entry)
}

func (m *machine) move(rt *rapid.T) {
	p, ws, id := m.server(rt), m.space(rt), m.id(rt)
	to := rapid.SampledFrom([]job.Move{
		{To: job.Running},
		{To: job.Pending},
		{To: job.Completed, Result: `{"ok":1}`},
		{To: job.Completed},
		{To: job.Failed, Error: "no"},
		{To: job.Failed, Error: "no", Result: `[1]`},
	}).Draw(rt, "move")
	err := m.servers[p].Move(m.t.Context(), parseWorkspace(m.t, ws), parseJobID(m.t, id), to)

	inOld, inNew := looks(p)
	oldCopy, newCopy, foreign := m.copies(ws, id, inOld, inNew)
	toOld, toNew := writes(p)
	toOld = toOld && !foreign
	base := startedFrom(oldCopy, newCopy)
	if base == nil || !toOld && !toNew {
		require.Equal(rt, fault.NotFound.String(), fault.KindOf(err).String())
		return
	}
	is := base.fields["status"]
	if is == string(to.To) && base.fields["result"] == string(to.Result) && base.fields["error"] == to.Error {
		require.NoError(rt, err)
		return
	}
	legal := map[string][]job.Status{"pending": {job.Running, job.Failed}, "running": {job.Pending, job.Completed, job.Failed}}
	if !slices.Contains(legal[is], to.To) {
		require.Equal(rt, fault.Conflict.String(), fault.KindOf(err).String())
		return
	}
	require.NoError(rt, err)
	after := record{fields: maps.Clone(base.fields), expires: base.expires}
	after.fields["status"] = string(to.To)
	after.fields["rev"] = strconv.Itoa(number(base.fields["rev"]) + 1)
	var keys []string
	if toOld {
		keys = append(keys, oldKey(id))
	}
	if toNew {
		keys = append(keys, newKey(ws, id))
	}
	switch to.To {
	case job.Running:
		after.fields["started_at"] = m.stamped(rt, keys[0], "started_at")
	case job.Pending:
		delete(after.fields, "started_at")
	case job.Completed, job.Failed:
		after.fields["finished_at"] = m.stamped(rt, keys[0], "finished_at")
		if m.keep > 0 {
			left := m.store.rdb.PTTL(m.t.Context(), keys[0]).Val()
			require.InDelta(rt, m.keep.Seconds(), left.Seconds(), 10)
			after.expires = m.store.rdb.PExpireTime(m.t.Context(), keys[0]).Val().Milliseconds()
			m.expireApart(rt, p, ws, id, after.expires)
		}
	}
	if to.Result != "" {
		after.fields["result"] = string(to.Result)
	}
	if to.Error != "" {
		after.fields["error"] = to.Error
	}
	for _, k := range keys {
		m.hashes[k] = record{fields: maps.Clone(after.fields), expires: after.expires}
	}
}

// expireApart has the copy of a job that its phase does not write go with the others.
func (m *machine) expireApart(rt *rapid.T, p migration.Phase, ws, id string, expires int64) {
	toOld, toNew := writes(p)
	apart := newKey(ws, id)
	if toNew {
		apart = oldKey(id)
	}
	r, stored := m.hashes[apart]
	if toOld == toNew || !stored || r.fields["job_id"] != id || r.fields["workspace_id"] != ws {
		return
	}
	at := m.store.rdb.PExpireTime(m.t.Context(), apart).Val().Milliseconds()
	require.InDelta(rt, expires, at, 1000) // two commands of a script, each at its own time; more would be a difference to verify
	r.expires = at
	m.hashes[apart] = r
}

func (m *machine) get(rt *rapid.T) {
	p, ws, id := m.server(rt), m.space(rt), m.id(rt)
	got, err := m.servers[p].Get(m.t.Context(), parseWorkspace(m.t, ws), parseJobID(m.t, id))
	want := m.shown(p, ws, id)
	if want == nil {
		require.Equal(rt, fault.NotFound.String(), fault.KindOf(err).String())
		return
	}
	require.NoError(rt, err)
	requireShown(rt, want, got)
}

// requireShown checks a job against the copy that is to be shown.
func requireShown(rt *rapid.T, want *record, got job.Job) {
	shown := map[string]string{
		"job_id": got.ID.String(), "workspace_id": got.Workspace.String(), "status": string(got.Status),
		"action_provider": got.Provider, "action_name": got.Name, "params": string(got.Params), "actor_id": got.Actor,
		"result": string(got.Result), "error": got.Error,
	}
	for field, value := range shown {
		require.Equal(rt, want.fields[field], value, field)
	}
	require.EqualValues(rt, number(want.fields["rev"]), got.Rev)
	for field, at := range map[string]time.Time{
		"enqueued_at": got.EnqueuedAt, "started_at": got.StartedAt, "finished_at": got.FinishedAt,
	} {
		stored, err := time.Parse(time.RFC3339Nano, want.fields[field])
		require.Equal(rt, err != nil, at.IsZero(), field)
		require.True(rt, err != nil || stored.Equal(at), field)
	}
}

func (m *machine) list(rt *rapid.T) {
	p, ws := m.server(rt), m.space(rt)
	q := job.Query{
		Limit:  rapid.IntRange(1, 6).Draw(rt, "limit"),
		Status: rapid.SampledFrom(append(job.Statuses(), "", "")).Draw(rt, "status"),
	}
	got := make(map[string]job.Job)
	for pages := 0; ; pages++ {
		require.Less(rt, pages, 1000, "the walk does not end")
		page, err := m.servers[p].List(m.t.Context(), parseWorkspace(m.t, ws), q)
		require.NoError(rt, err)
		require.LessOrEqual(rt, len(page.Jobs), q.Limit)
		for _, j := range page.Jobs {
			got[j.ID.String()] = j
		}
		if page.Next.IsZero() {
			break
		}
		q.Cursor = page.Next
	}
	want := 0
	for _, id := range m.ids {
		shown := m.shown(p, ws, id)
		if shown == nil || q.Status != "" && shown.fields["status"] != string(q.Status) {
			continue
		}
		want++
		require.Contains(rt, got, id)
		requireShown(rt, shown, got[id])
	}
	require.Len(rt, got, want)
}

// The rest is what the predecessor and other outside hands do, with plain commands.

// hset writes to a hash, whatever is there.
func (m *machine) hset(key string, fields map[string]string) {
	require.NoError(m.t, m.store.rdb.HSet(m.t.Context(), key, fields).Err())
	h, ok := m.hashes[key]
	if !ok {
		h = record{fields: map[string]string{}}
	}
	maps.Copy(h.fields, fields)
	m.hashes[key] = h
}

// atSomeTime gives a time that the predecessor's clock showed.
func atSomeTime(rt *rapid.T) string {
	ahead := rapid.IntRange(-3, 3).Draw(rt, "seconds ahead")
	return time.Now().UTC().Add(time.Duration(ahead) * time.Second).Format("2006-01-02T15:04:05.000000-07:00")
}

func (m *machine) predecessorExecute(rt *rapid.T) {
	ws, id := m.space(rt), m.id(rt)
	for key := range m.hashes {
		if key == oldKey(id) || slices.ContainsFunc(m.spaces, func(ws string) bool { return key == newKey(ws, id) }) {
			rt.Skip("the predecessor's ids are its own")
		}
	}
	fields := map[string]string{
		"job_id": id, "workspace_id": ws, "status": "pending", "action_provider": "slack", "action_name": "chat.post",
		"params": `{"b": 2}`, "actor_id": "user-1", "result": "", "enqueued_at": atSomeTime(rt),
	}
	m.hset(oldKey(id), fields)
	if rapid.Bool().Draw(rt, "dual") {
		m.hset(newKey(ws, id), fields)
	}
	require.NoError(m.t, m.store.rdb.RPush(m.t.Context(), "ai:queue:pending", id).Err())
	m.queue = append(m.queue, id)
}

// predecessorUpdate knows no rev, no legal moves, and does not look whether the job is there.
func (m *machine) predecessorUpdate(rt *rapid.T) {
	ws, id := m.space(rt), m.id(rt)
	fields := rapid.SampledFrom([]map[string]string{
		{"status": "running", "started_at": ""},
		{"status": "completed", "result": `{"late": true}`, "finished_at": ""},
		{"status": "failed", "error": "late", "finished_at": ""},
		{"status": "paused", "started_at": ""},
	}).Draw(rt, "update")
	fields = maps.Clone(fields)
	at := atSomeTime(rt)
	for _, name := range []string{"started_at", "finished_at"} {
		if _, ok := fields[name]; ok {
			fields[name] = at
		}
	}
	m.hset(oldKey(id), fields)
	if rapid.Bool().Draw(rt, "dual") {
		m.hset(newKey(ws, id), fields)
	}
}

// copyKey draws one of a job's keys that holds something.
func (m *machine) copyKey(rt *rapid.T) string {
	keys := slices.Sorted(maps.Keys(m.hashes))
	if len(keys) == 0 {
		rt.Skip("nothing there")
	}
	return rapid.SampledFrom(keys).Draw(rt, "key")
}

func (m *machine) remove(rt *rapid.T) {
	key := m.copyKey(rt)
	require.NoError(m.t, m.store.rdb.Del(m.t.Context(), key).Err())
	delete(m.hashes, key)
}

func (m *machine) expire(rt *rapid.T) {
	key := m.copyKey(rt)
	at := time.Now().Add(time.Duration(rapid.IntRange(1, 5).Draw(rt, "hours")) * time.Hour)
	require.NoError(m.t, m.store.rdb.PExpireAt(m.t.Context(), key, at).Err())
	h := m.hashes[key]
	h.expires = at.UnixMilli()
	m.hashes[key] = h
}

// disown leaves a record that is nobody's in the old schema, and a stub in the new one.
func (m *machine) disown(rt *rapid.T) {
	key := m.copyKey(rt)
	if len(m.hashes[key].fields) == 1 {
		rt.Skip("an empty hash is none")
	}
	require.NoError(m.t, m.store.rdb.HDel(m.t.Context(), key, "workspace_id").Err())
	delete(m.hashes[key].fields, "workspace_id")
}

// check compares all that Redis holds.
func (m *machine) check(rt *rapid.T) {
	ctx := m.t.Context()
	hashes, expiries := make(map[string]*redis.MapStringStringCmd), make(map[string]*redis.DurationCmd)
	known := make(map[string]*redis.StringCmd)
	var queue *redis.StringSliceCmd
	_, err := m.store.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for key := range m.hashes {
			hashes[key], expiries[key] = pipe.HGetAll(ctx, key), pipe.PExpireTime(ctx, key)
		}
		for key := range m.known {
			known[key] = pipe.Get(ctx, key)
		}
		queue = pipe.LRange(ctx, "ai:queue:pending", 0, -1)
		return nil
	})
	require.NoError(rt, err)
	for key, want := range m.hashes {
		require.Equal(rt, want.fields, hashes[key].Val(), key)
		require.Equal(rt, want.expires, max(0, expiries[key].Val().Milliseconds()), key)
	}
	for key, want := range m.known {
		require.Equal(rt, want, known[key].Val(), key)
	}
	require.True(rt, slices.Equal(m.queue, queue.Val()), "queue %v, should be %v", queue.Val(), m.queue)
	require.Len(rt, m.store.keys(m.t, "ai:job"), len(m.hashes), "keys that nothing should have made")
	require.Len(rt, m.store.keys(m.t, "ai:idempotency:"), len(m.known))
}

// TestRouterAgainstTheModel: random calls of servers in one phase, then in all phases on one Redis, among the writes
// of outside hands.
func TestRouterAgainstTheModel(t *testing.T) {
	t.Parallel()
	groups := map[string][]migration.Phase{"all phases at once": migration.Phases()}
	for _, p := range migration.Phases() {
		groups[p.String()] = []migration.Phase{p}
	}
	for name, phases := range groups {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			relay := redisserver.AsServer(t, s.rdb)
			rapid.Check(t, func(rt *rapid.T) {
				s.clear(t)
				m := &machine{
					model: model{hashes: make(map[string]record), known: make(map[string]string)},
					store: s, servers: make(map[migration.Phase]ports.JobRepository), phases: phases,
					keep: rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(rt, "retention"),
					ids:  []string{"a", "b", "c:d", "*"}, spaces: []string{home, home + "-eu"}, t: t,
				}
				for _, p := range phases {
					m.servers[p] = router.New(relay, p, redisjobs.Options{Observer: contract.Unobserved{}, Retention: m.keep})
				}
				rt.Repeat(map[string]func(*rapid.T){
					"enqueue": m.enqueue, "enqueue again": m.enqueue, "move": m.move, "move again": m.move, "move once more": m.move,
					"get": m.get, "list": m.list,
					"predecessor executes": m.predecessorExecute, "predecessor updates": m.predecessorUpdate,
					"delete": m.remove, "expire": m.expire, "disown": m.disown,
					"": m.check,
				})
			})
		})
	}
}
