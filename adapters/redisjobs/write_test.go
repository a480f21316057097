package redisjobs_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

const (
	storedTime  = `^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$`
	theID       = "legacy:with:colons"
	theOldKey   = "ai:jobs:" + theID
	theNewKey   = "ai:job:acme:" + theID
	theQueue    = "ai:queue:pending"
	theIdemKey  = "ai:idempotency:acme:req 1"
	theIndex    = "ai:index:acme"
	otherNewKey = "ai:job:acme-eu:" + theID
)

// stored is what may lie under one of a job's two keys. The rules of the test know of each what it is by its name,
// not by reading it.
type stored struct {
	name string
	hash map[string]string // nil for nothing, or for another type where wrongType is set
	ttl  time.Duration

	wrongType, mine, foreign, breach bool
}

// whole is acme's job as the predecessor writes it, with changes; a value of "-" takes the field away.
func whole(changes ...string) map[string]string {
	h := map[string]string{
		"job_id": theID, "workspace_id": "acme", "status": "pending", "action_provider": "google",
		"action_name": "gmail.send", "params": `{"to": "a@example.com"}`, "result": "", "actor_id": "user-1",
		"enqueued_at": "2026-09-01T08:00:00.000001+00:00",
	}
	for i := 0; i < len(changes); i += 2 {
		if changes[i+1] == "-" {
			delete(h, changes[i])
		} else {
			h[changes[i]] = changes[i+1]
		}
	}
	return h
}

// eitherSchema are the contents that mean the same under both keys.
func eitherSchema() []stored {
	stub := map[string]string{"status": "completed", "result": `{"late": true}`, "finished_at": "2026-09-01T09:00:00.000000+00:00"}
	return []stored{
		{name: "absent"},
		{name: "wrong type", wrongType: true},
		{name: "stub", hash: stub},
		{name: "stub of empty texts", hash: whole("job_id", "", "workspace_id", "")},
		{name: "whole", hash: whole(), mine: true},
		{name: "whole, running since", hash: whole("status", "running", "started_at", "2026-09-01T08:00:01.000000+00:00"), mine: true},
		{name: "whole, expiring", hash: whole("actor_id", "user-2"), ttl: time.Hour, mine: true},
		{name: "whole, rev 3", hash: whole("rev", "3"), mine: true},
		{
			name: "whole, rev 3, otherwise, expiring", hash: whole("rev", "3", "enqueued_at", "2026-09-01T07:00:00.000000+00:00"),
			ttl: 2 * time.Hour, mine: true,
		},
		{name: "unknown status", hash: whole("status", "paused"), mine: true},
		{name: "two statuses", hash: whole("status", "running,pending"), mine: true},
		{name: "no status", hash: whole("status", "-", "enqueued_at", "2026-09-01T08:30:00.000001+00:00"), mine: true},
	}
}

func inOld() []stored {
	return append(eitherSchema(),
		stored{name: "another workspace's", hash: whole("workspace_id", "acme-eu"), foreign: true},
		stored{name: "nobody's: no workspace", hash: whole("workspace_id", "-"), foreign: true},
		stored{name: "nobody's: malformed workspace", hash: whole("workspace_id", "ACME Corp"), ttl: time.Hour, foreign: true},
		stored{name: "nobody's: no id", hash: whole("job_id", "-"), foreign: true},
		stored{name: "nobody's: another id", hash: whole("job_id", "legacy"), foreign: true},
	)
}

func inNew() []stored {
	return append(eitherSchema(),
		stored{name: "stub without workspace", hash: whole("workspace_id", "-"), ttl: time.Hour},
		stored{name: "stub without id", hash: whole("job_id", "")},
		stored{name: "another workspace's", hash: whole("workspace_id", "acme-eu"), breach: true},
		stored{name: "malformed workspace", hash: whole("workspace_id", "ACME Corp"), breach: true},
		stored{name: "another id", hash: whole("job_id", "legacy"), breach: true},
	)
}

// isFresher is the contract's rule for old against new.
func isFresher(old, new map[string]string) bool { //nolint:revive // the names of the two schemas
	revOf := func(h map[string]string) int {
		n, _ := strconv.Atoi(h["rev"]) // absent is 0
		return n
	}
	latest := func(h map[string]string) string { return max(h["enqueued_at"], h["started_at"], h["finished_at"]) }
	rank := map[string]int{"pending": 1, "running": 2, "completed": 3, "failed": 3}
	switch {
	case revOf(old) != revOf(new):
		return revOf(old) > revOf(new)
	case revOf(old) > 0:
		return !maps.Equal(old, new)
	case latest(old) != latest(new):
		return latest(old) > latest(new)
	}
	return rank[old["status"]] > rank[new["status"]]
}

// world is a server with one job's keys in some state, and bystanders that no write may touch.
type world struct {
	rdb    *redis.Client // the test's own
	relay  *redis.Client
	events *events
}

func newWorld(t *testing.T, redisArgs ...string) world {
	t.Helper()
	rdb := redisserver.Start(t, redisArgs...).Client(t)
	return world{rdb: rdb, relay: redisserver.AsServer(t, rdb), events: &events{}}
}

func put(t *testing.T, rdb *redis.Client, key string, s stored) {
	t.Helper()
	require.NoError(t, rdb.Del(t.Context(), key).Err())
	switch {
	case s.wrongType:
		require.NoError(t, rdb.RPush(t.Context(), key, "a", "b").Err())
	case s.hash != nil:
		require.NoError(t, rdb.HSet(t.Context(), key, s.hash).Err())
	}
	if s.ttl > 0 {
		require.NoError(t, rdb.PExpire(t.Context(), key, s.ttl).Err())
	}
}

// requireCopy checks one copy: all fields, of those named a time only its form, and when it expires.
func requireCopy(t *testing.T, rdb *redis.Client, key string, want map[string]string, stamped string, expiry time.Duration) {
	t.Helper()
	got, err := rdb.HGetAll(t.Context(), key).Result()
	require.NoError(t, err)
	require.Regexp(t, storedTime, got[stamped])
	want = maps.Clone(want)
	want[stamped] = got[stamped]
	require.Equal(t, want, got, key)
	at, err := rdb.PExpireTime(t.Context(), key).Result()
	require.NoError(t, err)
	require.Equal(t, expiry, at, key)
}

// requireUntouched checks that nothing but the given keys differs from before.
func requireUntouched(t *testing.T, rdb *redis.Client, before redisserver.Keyspace, written ...string) {
	t.Helper()
	after := redisserver.Dump(t, rdb, "*")
	for _, key := range written {
		delete(after, key)
		before = maps.Clone(before)
		delete(before, key)
	}
	require.Equal(t, before, after)
}

// eachState calls f for each phase and each pair of contents, with a keyspace that holds that pair.
func eachState(t *testing.T, f func(t *testing.T, w world, phase migration.Phase, o, n stored)) {
	t.Helper()
	for _, phase := range migration.Phases() {
		t.Run(phase.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			require.NoError(t, w.rdb.HSet(t.Context(), otherNewKey, whole("workspace_id", "acme-eu", "actor_id", "user-9")).Err())
			for _, o := range inOld() {
				for _, n := range inNew() {
					put(t, w.rdb, theOldKey, o)
					put(t, w.rdb, theNewKey, n)
					require.NoError(t, w.rdb.Del(t.Context(), theQueue, theIdemKey, theIndex).Err())
					w.events = &events{}
					if !t.Run(o.name+" beside "+n.name, func(t *testing.T) { f(t, w, phase, o, n) }) {
						return
					}
				}
			}
		})
	}
}

func (w world) repository(phase migration.Phase) *redisjobs.Repository {
	return redisjobs.New(w.relay, phase, redisjobs.Options{Observer: w.events})
}

// seen gives what a phase's plan lets a write see.
func seen(phase migration.Phase, o, n stored) (stored, stored) {
	if !phase.WritesOld() && !phase.ReadsOld() {
		o = stored{}
	}
	if !phase.WritesNew() && !phase.ReadsNew() {
		n = stored{}
	}
	return o, n
}

// TestMoveMakesNoPartialHash: whatever lies under a job's keys, a move leaves the keyspace as it was, or one whole copy
// in every schema that is written, equal in fields and expiry.
func TestMoveMakesNoPartialHash(t *testing.T) {
	eachState(t, func(t *testing.T, w world, phase migration.Phase, o, n stored) {
		t.Helper()
		before := redisserver.Dump(t, w.rdb, "*")
		expires := func(key string) time.Duration {
			at, err := w.rdb.PExpireTime(t.Context(), key).Result()
			require.NoError(t, err)
			return at
		}
		oldExpires, newExpires := expires(theOldKey), expires(theNewKey)
		err := w.repository(phase).Move(t.Context(), acme(t), jobID(t, theID), job.Move{To: job.Running})

		o, n = seen(phase, o, n)
		refused := func(kind fault.Kind) {
			require.Error(t, err)
			require.Equal(t, kind.String(), fault.KindOf(err).String(), "%v", err)
			requireUntouched(t, w.rdb, before)
			require.Zero(t, w.events.collisions)
		}
		require.Equal(t, n.breach, w.events.breaches > 0, "an isolation breach is observed")
		writesOld, writesNew := phase.WritesOld() && !o.foreign, phase.WritesNew()
		switch {
		case o.wrongType || n.wrongType || n.breach:
			refused(fault.Internal)
			return
		case !o.mine && !n.mine, !writesOld && !writesNew:
			refused(fault.NotFound)
			return
		}
		base, expiry := n.hash, newExpires
		if o.mine && (!n.mine || isFresher(o.hash, n.hash)) {
			base, expiry = o.hash, oldExpires
		}
		switch base["status"] {
		case "running":
			require.NoError(t, err)
			requireUntouched(t, w.rdb, before)
			return
		case "pending":
		default:
			refused(fault.Conflict)
			return
		}
		require.NoError(t, err)
		want := maps.Clone(base)
		want["status"] = "running"
		rev, _ := strconv.Atoi(base["rev"]) // absent is 0
		want["rev"] = strconv.Itoa(rev + 1)
		var written []string
		if writesOld {
			written = append(written, theOldKey)
		}
		if writesNew {
			written = append(written, theNewKey)
		}
		require.Equal(t, phase.WritesOld() && o.foreign, w.events.collisions > 0, "a collision is observed")
		for _, key := range written {
			requireCopy(t, w.rdb, key, want, "started_at", expiry)
		}
		requireEqualCopies(t, w.rdb, written)
		requireEntries(t, w.rdb, theID, base["enqueued_at"], "r")
		requireUntouched(t, w.rdb, before, append(written, theIndex, "ai:writer-without-rev")...)
	})
}

// requireEntries checks that the index holds a job's entries under its place, and nothing else.
func requireEntries(t *testing.T, rdb *redis.Client, id, enqueuedAt, letter string) {
	t.Helper()
	micros := max(0, job.ParseTime(enqueuedAt).UnixMicro()) // a missing time counts as the first
	place := make([]byte, 8, 64)
	binary.BigEndian.PutUint64(place, uint64(micros/1_000_000))
	place = append(fmt.Appendf(place[3:], "%06d\x00", micros%1_000_000), id...)
	entries, err := rdb.ZRange(t.Context(), theIndex, 0, -1).Result()
	require.NoError(t, err)
	require.Equal(t, []string{letter + string(place), "z" + string(place)}, entries)
}

func requireEqualCopies(t *testing.T, rdb *redis.Client, keys []string) {
	t.Helper()
	all := redisserver.Dump(t, rdb, "*")
	for _, key := range keys {
		require.Equal(t, all[keys[0]], all[key])
	}
}

func draft(t *testing.T, id, request string) job.Draft {
	t.Helper()
	d := job.Draft{
		ID: jobID(t, id), Workspace: acme(t), Provider: "microsoft", Name: "outlook.send",
		Params: `{"to":"b@example.com"}`, Actor: "user-7",
	}
	if request != "" {
		var err error
		d.ClientRequestID, err = job.ParseClientRequestID(request)
		require.NoError(t, err)
	}
	return d
}

// enqueuedHash is the form in which the predecessor stores a new job, and rev.
func enqueuedHash(d job.Draft) map[string]string {
	h := map[string]string{
		"job_id": d.ID.String(), "workspace_id": d.Workspace.String(), "status": "pending",
		"action_provider": d.Provider, "action_name": d.Name, "params": string(d.Params), "result": "",
		"actor_id": d.Actor, "rev": "1",
	}
	if !d.ClientRequestID.IsZero() {
		h["client_request_id"] = d.ClientRequestID.String()
	}
	if d.TraceParent != "" {
		h["traceparent"] = d.TraceParent
	}
	return h
}

const forEver = time.Duration(-1) // what PEXPIRETIME says of a key that does not expire

// requireMade checks the copies of a new job that a phase writes, and its queue entry.
func requireMade(t *testing.T, rdb *redis.Client, phase migration.Phase, d job.Draft, writesOld bool) (written []string) {
	t.Helper()
	if writesOld {
		written = append(written, "ai:jobs:"+d.ID.String())
	}
	if phase.WritesNew() {
		written = append(written, "ai:job:acme:"+d.ID.String())
	}
	for _, key := range written {
		requireCopy(t, rdb, key, enqueuedHash(d), "enqueued_at", forEver)
	}
	requireEqualCopies(t, rdb, written)
	entry := d.ID.String()
	if !writesOld { // a bare id would name what the old key holds, if anything
		entry = "acme:" + entry
	}
	queue, err := rdb.LRange(t.Context(), theQueue, 0, -1).Result()
	require.NoError(t, err)
	require.Equal(t, []string{entry}, queue)
	enqueuedAt, err := rdb.HGet(t.Context(), written[0], "enqueued_at").Result()
	require.NoError(t, err)
	requireEntries(t, rdb, d.ID.String(), enqueuedAt, "p")
	return append(written, theQueue, theIndex)
}

// TestEnqueueMakesNoPartialHash: whatever lies under the keys of the id that a job is to have.
func TestEnqueueMakesNoPartialHash(t *testing.T) {
	eachState(t, func(t *testing.T, w world, phase migration.Phase, o, n stored) {
		t.Helper()
		before := redisserver.Dump(t, w.rdb, "*")
		d := draft(t, theID, "")
		made, err := w.repository(phase).Enqueue(t.Context(), d)

		o, n = seen(phase, o, n)
		refused := func(kind fault.Kind) {
			require.Error(t, err)
			require.Equal(t, kind.String(), fault.KindOf(err).String(), "%v", err)
			requireUntouched(t, w.rdb, before)
		}
		require.Equal(t, n.breach, w.events.breaches > 0, "an isolation breach is observed")
		switch {
		case n.mine, o.mine && !n.breach && !n.wrongType:
			require.NoError(t, err)
			require.Equal(t, d.ID, made.Job.ID)
			requireUntouched(t, w.rdb, before)
		case n.breach, n.wrongType, o.wrongType:
			refused(fault.Internal)
		case o.foreign && !phase.WritesNew():
			refused(fault.Conflict)
		default:
			require.NoError(t, err)
			require.False(t, made.Replayed)
			require.Equal(t, o.foreign, w.events.collisions > 0, "a collision is observed")
			written := requireMade(t, w.rdb, phase, d, phase.WritesOld() && !o.foreign)
			requireUntouched(t, w.rdb, before, written...)
		}
	})
}

// TestEnqueueOfAKnownRequest: whatever lies under the keys of the job that an idempotency key names. It is gone only
// where neither schema holds it, whatever the phase.
func TestEnqueueOfAKnownRequest(t *testing.T) {
	eachState(t, func(t *testing.T, w world, phase migration.Phase, o, n stored) {
		t.Helper()
		require.NoError(t, w.rdb.Set(t.Context(), theIdemKey, theID, time.Hour).Err())
		before := redisserver.Dump(t, w.rdb, "*")
		d := draft(t, "fresh", "req 1")
		defer func() { require.NoError(t, w.rdb.Del(t.Context(), "ai:jobs:fresh", "ai:job:acme:fresh").Err()) }()
		made, err := w.repository(phase).Enqueue(t.Context(), d)

		breach := n.breach && !o.mine
		require.Equal(t, breach, w.events.breaches > 0, "an isolation breach is observed")
		switch {
		case breach:
			require.Equal(t, fault.Internal, fault.KindOf(err))
			requireUntouched(t, w.rdb, before)
		case o.mine || n.mine:
			require.NoError(t, err)
			require.True(t, made.Replayed)
			require.Equal(t, job.Job{
				ID: jobID(t, theID), Workspace: acme(t), Provider: "google", Name: "gmail.send", Params: `{"to": "a@example.com"}`,
			}, made.Job)
			requireUntouched(t, w.rdb, before)
		default:
			require.NoError(t, err)
			require.False(t, made.Replayed)
			written := requireMade(t, w.rdb, phase, d, phase.WritesOld())
			requireUntouched(t, w.rdb, before, append(written, theIdemKey)...)
			require.Equal(t, "fresh", w.rdb.Get(t.Context(), theIdemKey).Val())
			require.InDelta(t, 86_400, w.rdb.TTL(t.Context(), theIdemKey).Val().Seconds(), 60)
		}
	})
}

// TestEnqueuedHashIsThePredecessors: every field that Relay writes into a new job has the predecessor's form, and the
// predecessor finds no field missing.
func TestEnqueuedHashIsThePredecessors(t *testing.T) {
	server := redisserver.Start(t)
	rdb := server.Client(t)
	var pending map[string]string
	for _, r := range redisserver.ReadFixture(t, "../../tests/migration/testdata/predecessor.jsonl") {
		if r.Type == "hash" && strings.HasPrefix(r.Key, "ai:job:") && r.Hash(t)["status"] == "pending" {
			pending = r.Hash(t)
		}
	}
	require.Regexp(t, storedTime, pending["enqueued_at"])
	for _, phase := range migration.Phases() {
		d := draft(t, "golden "+phase.String(), "golden "+phase.String())
		d.TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		d.Params = "{\"ü\": \"\\u00fc — \\\"quoted\\\"\", \"n\": 1.0e2,   \"a\":[ ]}" // stored as it is given
		_, err := redisjobs.New(redisserver.AsServer(t, rdb), phase, redisjobs.Options{Observer: &events{}}).Enqueue(t.Context(), d)
		require.NoError(t, err)
		for key, isWritten := range map[string]bool{
			"ai:jobs:" + d.ID.String(): phase.WritesOld(), "ai:job:acme:" + d.ID.String(): phase.WritesNew(),
		} {
			hash := rdb.HGetAll(t.Context(), key).Val()
			if !isWritten {
				require.Empty(t, hash, key)
				continue
			}
			requireCopy(t, rdb, key, enqueuedHash(d), "enqueued_at", forEver)
			for _, own := range []string{"rev", "client_request_id", "traceparent"} {
				delete(hash, own)
			}
			require.ElementsMatch(t, slices.Collect(maps.Keys(pending)), slices.Collect(maps.Keys(hash)))
			require.Equal(t, pending["result"], hash["result"])
		}
	}
}

// TestUnknownStatusIsNeverMoved: also where it reads like some that are known.
func TestUnknownStatusIsNeverMoved(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	for _, phase := range migration.Phases() {
		for _, status := range []string{"running,pending", "pending,running", ",", "", "paused", "Pending", "pending ", "\xff"} {
			put(t, rdb, theOldKey, stored{hash: whole("status", status)})
			put(t, rdb, theNewKey, stored{hash: whole("status", status)})
			before := redisserver.Dump(t, rdb, "*")
			for _, to := range job.Statuses() {
				err := repositoryOf(t, rdb, phase).Move(t.Context(), acme(t), jobID(t, theID), job.Move{To: to})
				require.Equal(t, fault.Conflict, fault.KindOf(err), "%q to %s: %v", status, to, err)
			}
			require.Equal(t, before, redisserver.Dump(t, rdb, "*"))
		}
	}
}

// TestMoveOfExpiredCopies: a copy that expired is absent, and no write brings it back.
func TestMoveOfExpiredCopies(t *testing.T) {
	for _, phase := range migration.Phases() {
		t.Run(phase.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			short := stored{hash: whole(), ttl: time.Millisecond}
			put(t, w.rdb, theOldKey, short)
			put(t, w.rdb, theNewKey, short)
			require.Eventually(t, func() bool {
				return w.rdb.Exists(t.Context(), theOldKey, theNewKey).Val() == 0
			}, 5*time.Second, time.Millisecond)
			err := w.repository(phase).Move(t.Context(), acme(t), jobID(t, theID), job.Move{To: job.Running})
			require.Equal(t, fault.NotFound, fault.KindOf(err), "%v", err)
			require.Empty(t, redisserver.Dump(t, w.rdb, "*"))
		})
	}
}

// TestRetentionIsOnEveryCopy: a final move sets one expiry, also over copies that differed in theirs, and on one that the
// phase does not write: that one must not come back where it is read. A record that is another's is left alone.
func TestRetentionIsOnEveryCopy(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	for _, phase := range migration.Phases() {
		put(t, rdb, theOldKey, stored{hash: whole("rev", "2"), ttl: time.Hour})
		put(t, rdb, theNewKey, stored{hash: whole("rev", "2")})
		r := redisjobs.New(redisserver.AsServer(t, rdb), phase, redisjobs.Options{Observer: &events{}, Retention: 5 * time.Hour})
		require.NoError(t, r.Move(t.Context(), acme(t), jobID(t, theID), job.Move{To: job.Failed, Error: "no"}))
		var written []string
		if phase.WritesOld() {
			written = append(written, theOldKey)
		}
		if phase.WritesNew() {
			written = append(written, theNewKey)
		}
		for _, key := range []string{theOldKey, theNewKey} {
			require.InDelta(t, 5*time.Hour, rdb.PTTL(t.Context(), key).Val(), float64(time.Minute), "%s: %s", phase, key)
		}
		for _, key := range written {
			require.Equal(t, "no", rdb.HGet(t.Context(), key, "error").Val())
		}
		requireEqualCopies(t, rdb, written)

		if phase.LooksAtOld() && phase.LooksAtNew() {
			continue
		}
		mine, others := theOldKey, theNewKey
		if phase.WritesNew() {
			mine, others = theNewKey, theOldKey
		}
		put(t, rdb, mine, stored{hash: whole()})
		put(t, rdb, others, stored{hash: whole("workspace_id", "acme-eu")})
		require.NoError(t, r.Move(t.Context(), acme(t), jobID(t, theID), job.Move{To: job.Failed}))
		require.Positive(t, rdb.PTTL(t.Context(), mine).Val(), "%s", phase)
		require.EqualValues(t, -1, rdb.PTTL(t.Context(), others).Val(), "%s", phase)
	}
}

// TestWrongTypesInTheWay: a queue, an idempotency key or an index of another type stops an enqueue before anything is written.
func TestWrongTypesInTheWay(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	for _, phase := range migration.Phases() {
		for _, key := range []string{theQueue, theIdemKey, theIndex} {
			t.Run(fmt.Sprint(phase, " ", key), func(t *testing.T) {
				require.NoError(t, rdb.SAdd(t.Context(), key, "a set").Err())
				before := redisserver.Dump(t, rdb, "*")
				r := redisjobs.New(redisserver.AsServer(t, rdb), phase, redisjobs.Options{Observer: &events{}})
				_, err := r.Enqueue(t.Context(), draft(t, "fresh", "req 1"))
				require.Equal(t, fault.Internal, fault.KindOf(err), "%v", err)
				require.Equal(t, before, redisserver.Dump(t, rdb, "*"))
				require.NoError(t, rdb.Del(t.Context(), key).Err())
			})
		}
	}
}

// TestMemoryReached: a server that may take no more memory refuses every write whole, and still reads.
func TestMemoryReached(t *testing.T) {
	for _, phase := range migration.Phases() {
		t.Run(phase.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
			r := w.repository(phase)
			// A copy that only the other schema holds would have to be made whole first.
			put(t, w.rdb, theOldKey, stored{hash: whole("rev", "2")})
			put(t, w.rdb, theNewKey, stored{hash: whole("rev", "1")})
			_, err := r.Enqueue(t.Context(), draft(t, "before", ""))
			require.NoError(t, err)
			filler := strings.Repeat("x", 64<<10)
			for i := 0; err == nil; i++ {
				require.Less(t, i, 1000, "the server takes ever more")
				err = w.rdb.Append(t.Context(), "filler", filler).Err()
			}
			require.ErrorContains(t, err, "OOM")
			before := redisserver.Dump(t, w.rdb, "*")

			_, err = r.Enqueue(t.Context(), draft(t, "fresh", "req 1"))
			require.Equal(t, fault.Unavailable, fault.KindOf(err), "%v", err)
			for _, to := range []job.Move{{To: job.Running}, {To: job.Failed, Error: "no"}} {
				err = r.Move(t.Context(), acme(t), jobID(t, theID), to)
				require.Equal(t, fault.Unavailable, fault.KindOf(err), "%v", err)
			}
			require.Equal(t, before, redisserver.Dump(t, w.rdb, "*"))
			_, err = r.Get(t.Context(), acme(t), jobID(t, theID))
			require.NoError(t, err)
			if phase.WritesBoth() {
				require.Equal(t, 3, w.events.failedWrites, "each is a dual write that the storage failed")
			}

			require.NoError(t, w.rdb.Del(t.Context(), "filler").Err())
			require.NoError(t, r.Move(t.Context(), acme(t), jobID(t, theID), job.Move{To: job.Running}))
		})
	}
}

// events counts what a test asks for.
type events struct {
	breaches, collisions, failedWrites, stale, wrongTypes, invalid int
}

func (*events) JobRead(workspace.ID, job.ID, job.Copy)             {}
func (*events) JobsListed(workspace.ID, job.ListPath, int)         {}
func (*events) EnqueueFailed(workspace.ID, fault.Kind)             {}
func (*events) WorkspaceMismatch(workspace.ID, workspace.ID)       {}
func (*events) OtherWorkspaceRequested(workspace.ID, workspace.ID) {}
func (e *events) StaleCopyRead(workspace.ID)                       { e.stale++ }
func (e *events) IsolationBreach(workspace.ID)                     { e.breaches++ }
func (e *events) IDCollision(workspace.ID)                         { e.collisions++ }
func (e *events) WrongTypeRead(workspace.ID)                       { e.wrongTypes++ }
func (e *events) IndexNotMended(workspace.ID)                      {}
func (e *events) RecordInvalid(workspace.ID)                       { e.invalid++ }
func (e *events) DualWritten(_ workspace.ID, ok bool) {
	if !ok {
		e.failedWrites++
	}
}

func acme(t *testing.T) workspace.ID { t.Helper(); return workspaceID(t, "acme") }

func workspaceID(t *testing.T, text string) workspace.ID {
	t.Helper()
	ws, err := workspace.Parse(text)
	require.NoError(t, err)
	return ws
}

func jobID(t *testing.T, text string) job.ID {
	t.Helper()
	id, err := job.ParseID(text)
	require.NoError(t, err)
	return id
}

// TestMoveKeepsAResultThatAnotherWriterLeftAlone: a writer that knows no rev set the result of the old copy, and
// nothing else. The move starts from that copy, whose content differs at an equal rev.
func TestMoveKeepsAResultThatAnotherWriterLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	jobs := w.repository(migration.DualWrite)
	d := draft(t, "left alone", "")
	_, err := jobs.Enqueue(t.Context(), d)
	require.NoError(t, err)
	require.NoError(t, jobs.Move(t.Context(), d.Workspace, d.ID, job.Move{To: job.Running}))
	require.NoError(t, w.rdb.HSet(t.Context(), "ai:jobs:left alone", "result", `{"theirs": 1}`).Err())
	require.NoError(t, jobs.Move(t.Context(), d.Workspace, d.ID, job.Move{To: job.Completed}))
	for _, key := range []string{"ai:jobs:left alone", "ai:job:acme:left alone"} {
		require.Equal(t, `{"theirs": 1}`, w.rdb.HGet(t.Context(), key, "result").Val(), key)
	}
}
