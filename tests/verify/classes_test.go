package verify_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// planter makes jobs that are right, and then spoils each in one way.
type planter struct {
	t     *testing.T
	rdb   *redis.Client
	repo  *redisjobs.Repository
	round int
	n     int
	want  map[thing]bool
}

// job makes a job that is right, and is in no queue.
func (p *planter) job(ws string) (id string, place string) {
	p.t.Helper()
	p.n++
	id = fmt.Sprintf("a%07x-0000-7000-8000-%012x", p.round, p.n)
	p.enqueue(workspaceOf(p.t, ws), id, id)
	hash, err := p.rdb.HGetAll(p.t.Context(), "ai:jobs:"+id).Result()
	require.NoError(p.t, err)
	return id, placeOf(p.t, timeOf(p.t, hash["enqueued_at"]), id)
}

func (p *planter) enqueue(ws workspace.ID, id, entry string) {
	p.t.Helper()
	_, err := p.repo.Enqueue(p.t.Context(), job.Draft{
		ID: idOf(p.t, id), Workspace: ws, Provider: "google", Name: "gmail.send", Params: `{"to":"a"}`, Actor: "user:1",
	})
	require.NoError(p.t, err)
	require.Equal(p.t, int64(1), p.rdb.LRem(p.t.Context(), "ai:queue:pending", -1, entry).Val())
}

// do runs a command.
func (p *planter) do(args ...any) {
	p.t.Helper()
	require.NoError(p.t, p.rdb.Do(p.t.Context(), args...).Err())
}

func (p *planter) expect(class migration.DifferenceClass, key string, entry ...string) {
	p.t.Helper()
	e := ""
	if len(entry) > 0 {
		e = entry[0]
	}
	require.False(p.t, p.want[thing{class, key, e}])
	p.want[thing{class, key, e}] = true
}

// plant makes one of each class, and of some more ways to be of it.
func (p *planter) plant() {
	p.t.Helper()
	const ws, index = "acme", "ai:index:acme"
	oldKey := func(id string) string { return "ai:jobs:" + id }
	newKey := func(id string) string { return "ai:job:acme:" + id }
	mark := fmt.Sprintf("planted-%d", p.round)
	const later = "2099-01-01T00:00:00.000000+00:00"

	id, _ := p.job(ws)
	p.do("DEL", newKey(id))
	p.expect(migration.DifferenceMissing, oldKey(id))

	id, _ = p.job(ws)
	p.do("DEL", oldKey(id))
	p.expect(migration.DifferenceGhost, newKey(id))

	id, _ = p.job(ws)
	p.do("HSET", oldKey(id), "started_at", later)
	p.expect(migration.DifferenceStale, newKey(id))
	id, _ = p.job(ws)
	p.do("HSET", newKey(id), "rev", "2")
	p.expect(migration.DifferenceStale, oldKey(id))
	id, _ = p.job(ws)
	p.do("HSET", oldKey(id), "result", `"late"`)
	p.expect(migration.DifferenceStale, newKey(id))

	id, _ = p.job(ws)
	p.do("HSET", newKey(id), "rev", "5")
	p.do("HSET", oldKey(id), "started_at", later)
	p.expect(migration.DifferenceConflict, newKey(id))

	id, _ = p.job(ws)
	p.do("HDEL", newKey(id), "action_name")
	p.expect(migration.DifferencePartial, newKey(id))
	id, _ = p.job(ws)
	p.do("DEL", newKey(id))
	p.do("HSET", newKey(id), "result", "1")
	p.expect(migration.DifferencePartial, newKey(id))

	id, _ = p.job(ws)
	p.do("HSET", newKey(id), "colour", "red")
	p.expect(migration.DifferenceExtraField, oldKey(id))

	id, _ = p.job(ws)
	p.do("EXPIRE", newKey(id), "3600")
	p.expect(migration.DifferenceTTL, newKey(id))
	id, _ = p.job(ws)
	expires := time.Now().Add(time.Hour).Unix()
	p.do("EXPIREAT", newKey(id), strconv.FormatInt(expires, 10))
	p.do("EXPIREAT", oldKey(id), strconv.FormatInt(expires-2, 10))
	p.expect(migration.DifferenceTTL, newKey(id))

	p.do("SET", newKey(mark), "x")
	p.expect(migration.DifferenceWrongType, newKey(mark))
	p.do("RPUSH", oldKey(mark), "x")
	p.expect(migration.DifferenceWrongType, oldKey(mark))
	p.do("SET", "ai:index:"+mark, "x")
	p.expect(migration.DifferenceWrongType, "ai:index:"+mark)

	id, _ = p.job(ws)
	p.enqueue(workspaceOf(p.t, "acme-eu"), id, "acme-eu:"+id)
	p.expect(migration.DifferenceTwoWorkspaces, id)
	p.do("RPUSH", "ai:queue:pending", "acme-eu:"+id) // as it should be

	p.do("HSET", "ai:job:acme-eu:"+mark, "job_id", mark, "workspace_id", "acme", "status", "pending")
	p.expect(migration.DifferenceContradiction, "ai:job:acme-eu:"+mark)

	p.do("HSET", oldKey(mark+"-nobody"), "job_id", mark+"-nobody", "status", "pending")
	p.expect(migration.DifferenceInvalidWorkspace, oldKey(mark+"-nobody"))
	p.do("HSET", "ai:job:Not!:"+mark, "job_id", mark, "workspace_id", "Not!")
	p.expect(migration.DifferenceInvalidWorkspace, "ai:job:Not!:"+mark)
	p.do("ZADD", "ai:index:Not!"+mark, "0", "z")
	p.expect(migration.DifferenceInvalidWorkspace, "ai:index:Not!"+mark)

	long := string(slices.Repeat([]byte{'x'}, 257))
	p.do("HSET", oldKey(mark+long), "job_id", "1")
	p.expect(migration.DifferenceNotAJob, oldKey(mark+long))

	p.do("HSET", oldKey(mark+"-other"), "job_id", "another", "workspace_id", "acme")
	p.expect(migration.DifferenceOtherID, oldKey(mark+"-other"))

	id, place := p.job(ws)
	p.do("ZREM", index, "z"+place)
	p.expect(migration.DifferenceIndexMissing, index, id)
	id, place = p.job(ws)
	p.do("ZADD", index, "0", "c"+place)
	p.expect(migration.DifferenceIndexExtra, index, id)
	id, place = p.job(ws)
	p.do("ZREM", index, "p"+place)
	p.do("ZADD", index, "0", "r"+place)
	p.expect(migration.DifferenceIndexMisplaced, index, id)
	at := time.Unix(1_000_000, 0)
	id, _ = p.job(ws)
	p.do("ZADD", index, "0", "z"+placeOf(p.t, at, id))
	p.expect(migration.DifferenceIndexMisplaced, index, "z"+placeOf(p.t, at, id))
	p.do("ZADD", index, "0", "f"+placeOf(p.t, at, mark), "0", "z"+placeOf(p.t, at, mark+"2"), "0", "?"+mark)
	p.do("ZADD", index, "0", "z"+placeOf(p.t, at, mark+"3"), "0", "c"+placeOf(p.t, at, mark+"3"))
	p.expect(migration.DifferenceIndexExtra, index, "f"+placeOf(p.t, at, mark))
	p.expect(migration.DifferenceIndexExtra, index, "z"+placeOf(p.t, at, mark+"2"))
	p.expect(migration.DifferenceIndexGone, index, "z"+placeOf(p.t, at, mark+"3"))
	p.expect(migration.DifferenceIndexExtra, index, "?"+mark)

	p.do("SET", "ai:idempotency:acme:"+mark, mark+"-gone", "EX", "86400")
	p.expect(migration.DifferenceIdempotency, "ai:idempotency:acme:"+mark)
	p.do("SET", "ai:idempotency:Not!:"+mark, id, "EX", "86400")
	p.expect(migration.DifferenceIdempotencyForeign, "ai:idempotency:Not!:"+mark)
	other, _ := p.job("acme-eu")
	p.do("ZADD", index, "0", "z"+placeOf(p.t, at, other), "0", "c"+placeOf(p.t, at, other))
	p.expect(migration.DifferenceIndexExtra, index, "z"+placeOf(p.t, at, other))
	p.do("SET", "ai:idempotency:acme:"+mark+"-other", other, "EX", "86400")
	p.expect(migration.DifferenceIdempotencyForeign, "ai:idempotency:acme:"+mark+"-other")
	p.do("SET", "ai:idempotency:acme:"+mark+"-none", "", "EX", "86400")
	p.expect(migration.DifferenceIdempotencyForeign, "ai:idempotency:acme:"+mark+"-none")
	p.do("RPUSH", "ai:idempotency:acme:"+mark+"-list", "1")
	p.expect(migration.DifferenceWrongType, "ai:idempotency:acme:"+mark+"-list")

	p.do("RPUSH", "ai:queue:pending", mark+"-gone", "acme:"+mark+"-gone", "acme-eu:"+id)
	p.expect(migration.DifferenceQueue, "ai:queue:pending", mark+"-gone")
	p.expect(migration.DifferenceQueue, "ai:queue:pending", "acme:"+mark+"-gone")
	p.expect(migration.DifferenceQueue, "ai:queue:pending", "acme-eu:"+id)
}

// things names an id in two workspaces by the id: which of its keys is told is open.
func things(found map[thing]migration.Difference) map[thing]bool {
	out := map[thing]bool{}
	for th, d := range found {
		if th.class == migration.DifferenceTwoWorkspaces {
			th.key = d.Job.ID.String()
		}
		out[th] = true
	}
	return out
}

// requireThings holds what was found against what was planted.
func requireThings(t *testing.T, want map[thing]bool, got map[thing]bool) {
	t.Helper()
	var missed, untrue []string
	for th := range want {
		if !got[th] {
			missed = append(missed, fmt.Sprintf("%s: %q %q", th.class, th.key, th.entry))
		}
	}
	for th := range got {
		if !want[th] {
			untrue = append(untrue, fmt.Sprintf("%s: %q %q", th.class, th.key, th.entry))
		}
	}
	slices.Sort(missed)
	slices.Sort(untrue)
	require.Empty(t, missed, "not found")
	require.Empty(t, untrue, "found, though nothing is wrong")
}

// TestEachClassAloneOnAQuietServer: a plain verify finds each that was planted and changes nothing, whatever the batch.
func TestEachClassAloneOnAQuietServer(t *testing.T) {
	t.Parallel()
	rdb := startServer(t)
	repo := redisjobs.New(redisserver.AsServer(t, rdb), migration.DualWrite, redisjobs.Options{Observer: quiet{}})
	p := &planter{t: t, rdb: rdb, repo: repo, want: map[thing]bool{}}
	for range 50 {
		p.job("acme")
	}
	p.plant()
	classes := map[migration.DifferenceClass]bool{}
	for th := range p.want {
		classes[th.class] = true
	}
	require.Len(t, classes, len(migration.DifferenceClasses()), "one of each is planted")
	before := digest(t, rdb)
	for _, batch := range []int{1, 1000} {
		report, found := verify(t, rdb, usecase.VerifyInput{Phase: migration.DualWrite, Batch: batch})
		requireThings(t, p.want, things(found))
		accepted := map[migration.DifferenceClass]int64{}
		for th := range p.want {
			accepted[th.class]++
		}
		require.True(t, report.Clean(accepted))
		accepted[migration.DifferenceStale]--
		require.False(t, report.Clean(accepted))
	}
	require.Equal(t, before, digest(t, rdb))

	_, found := verify(t, rdb, usecase.VerifyInput{Phase: migration.DualWrite, Workspace: workspaceOf(t, "acme-eu")})
	only := map[thing]bool{}
	for th := range p.want {
		if th.class == migration.DifferenceTwoWorkspaces || th.class == migration.DifferenceContradiction ||
			th.class == migration.DifferenceQueue && th.entry[:8] == "acme-eu:" {
			only[th] = true
		}
	}
	requireThings(t, only, things(found))

	all, _ := verify(t, rdb, usecase.VerifyInput{Phase: migration.DualWrite})
	sampled, found := verify(t, rdb, usecase.VerifyInput{Phase: migration.DualWrite, Sample: 3})
	require.Equal(t, all.Jobs/3, sampled.Jobs)
	for th := range maps.Keys(things(found)) {
		require.Contains(t, p.want, th)
	}
}
