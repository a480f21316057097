package redisjobs

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

func facts(t *testing.T, m *MigrationState, entries int64) migration.Facts {
	t.Helper()
	f, err := m.Facts(t.Context(), entries, true)
	require.NoError(t, err)
	return f
}

func reasons(g migration.Gate, f migration.Facts) (out []migration.Condition) {
	for _, r := range migration.Decide(g, f).Reasons {
		out = append(out, r.Condition)
	}
	return out
}

// TestHeartbeats: two servers live, one of them in another phase; that one dies without a word, and the other leaves.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	rdb := redisserver.Start(t).Client(t)
	ctx := t.Context()
	serving, m := NewMigrationState(redisserver.AsServer(t, rdb)), NewMigrationState(redisserver.AsOperator(t, rdb))
	require.Empty(t, facts(t, m, 0).Servers)

	a := migration.Server{ID: "a", Phase: migration.StrictNew, Version: "v1", Started: time.UnixMicro(1_000_001).UTC()}
	b := migration.Server{ID: "b", Phase: migration.Canary, Version: "v0", Started: time.UnixMicro(2_000_002).UTC()}
	for _, s := range []migration.Server{a, b, a} {
		require.NoError(t, serving.Beat(ctx, s))
	}
	f := facts(t, m, 0)
	require.ElementsMatch(t, []migration.Server{a, b}, f.Servers)
	require.Contains(t, reasons(migration.GateFallbackOff, f), migration.ConditionServers)
	for _, s := range f.Servers {
		left := rdb.PTTL(ctx, serverKey(s.ID)).Val()
		require.True(t, left > migration.ServerBeat && left <= migration.ServerLife, "%s", left)
	}
	value := rdb.Get(ctx, serverKey("b")).Val()
	require.NoError(t, serving.Beat(ctx, b))
	require.Equal(t, value, rdb.Get(ctx, serverKey("b")).Val(), "what a server says never changes")

	require.NoError(t, rdb.PExpire(ctx, serverKey("b"), time.Millisecond).Err())
	require.Eventually(t, func() bool { return rdb.Exists(ctx, serverKey("b")).Val() == 0 }, 5*time.Second, time.Millisecond)
	f = facts(t, m, 0)
	require.Equal(t, []migration.Server{a}, f.Servers, "the dead one counts no longer")
	require.NotContains(t, reasons(migration.GateFallbackOff, f), migration.ConditionServers)
	require.WithinDuration(t, f.Now, f.Seen[migration.Canary].Last, 10*time.Second, "when its phase was last seen is kept")

	require.NoError(t, rdb.Set(ctx, serverKey("a"), `{"phase": "of a later version"}`, time.Minute).Err())
	f = facts(t, m, 0)
	require.Equal(t, []migration.Server{{ID: "a"}}, f.Servers, "one that cannot be read lives, in no phase")
	require.Contains(t, reasons(migration.GateFallbackOff, f), migration.ConditionServers)

	require.NoError(t, serving.Leave(ctx, a))
	require.Empty(t, facts(t, m, 0).Servers)
	require.Zero(t, rdb.Exists(ctx, serverKey("a")).Val())
	require.NoError(t, rdb.ZAdd(ctx, serversKey, redis.Z{Score: float64(time.Now().Add(-2 * time.Hour).Unix()), Member: "old"}).Err())
	require.NoError(t, serving.Beat(ctx, a))
	require.ElementsMatch(t, []string{"a", "b"}, rdb.ZRange(ctx, serversKey, 0, -1).Val(), "ids of the dead do not pile up")
}

// TestPhasesSeen: a phase is seen since the first beat that no gap longer than a server's life follows.
func TestPhasesSeen(t *testing.T) {
	t.Parallel()
	rdb := redisserver.Start(t).Client(t)
	ctx := t.Context()
	serving, m := NewMigrationState(redisserver.AsServer(t, rdb)), NewMigrationState(redisserver.AsOperator(t, rdb))
	s := migration.Server{ID: "a", Phase: migration.DualWrite}
	require.NoError(t, serving.Beat(ctx, s))
	seen := facts(t, m, 0).Seen
	require.Len(t, seen, 1)
	begun := seen[migration.DualWrite]
	require.Equal(t, begun.Since, begun.Last)
	require.WithinDuration(t, rdb.Time(ctx).Val(), begun.Last, 10*time.Second)

	// shift moves what was seen back in time.
	shift := func(d time.Duration) time.Time {
		at := facts(t, m, 0).Now.Add(-d).Truncate(time.Microsecond)
		require.NoError(t, rdb.HSet(ctx, phasesSeenKey,
			"dual write:since", at.Add(-time.Hour).UnixMicro(), "dual write:last", at.UnixMicro()).Err())
		return at
	}
	at := shift(migration.ServerLife - 20*time.Second)
	require.NoError(t, serving.Beat(ctx, s))
	now := facts(t, m, 0).Seen[migration.DualWrite]
	require.Equal(t, at.Add(-time.Hour), now.Since)
	require.True(t, now.Last.After(at))

	at = shift(migration.ServerLife + time.Second)
	require.NoError(t, serving.Beat(ctx, s))
	now = facts(t, m, 0).Seen[migration.DualWrite]
	require.True(t, now.Since.After(at), "behind a gap it begins anew")
	require.Equal(t, now.Since, now.Last)
}

func TestFallbackHitsAreAddedUp(t *testing.T) {
	t.Parallel()
	rdb := redisserver.Start(t).Client(t)
	serving, m := NewMigrationState(redisserver.AsServer(t, rdb)), NewMigrationState(redisserver.AsOperator(t, rdb))
	f := facts(t, m, 0)
	require.Zero(t, f.FallbackHits)
	require.True(t, f.LastFallback.IsZero())
	require.NoError(t, serving.AddHits(t.Context(), 3))
	before := facts(t, m, 0)
	require.NoError(t, serving.AddHits(t.Context(), 4))
	f = facts(t, m, 0)
	require.Equal(t, int64(7), f.FallbackHits)
	require.True(t, f.LastFallback.After(before.LastFallback))
	require.WithinDuration(t, f.Now, f.LastFallback, 10*time.Second)
	require.Contains(t, reasons(migration.GateNewOnly, f), migration.ConditionFallback)
}

func TestPassesAreKept(t *testing.T) {
	t.Parallel()
	rdb := redisserver.Start(t).Client(t)
	ctx := t.Context()
	m := NewMigrationState(redisserver.AsOperator(t, rdb))
	now, process, err := m.Now(ctx)
	require.NoError(t, err)
	require.Equal(t, processOf(rdb.Info(ctx, "server").Val()), process)
	require.NotEmpty(t, process)
	var want []migration.RecordedPass
	for i := range 25 {
		p := migration.RecordedPass{
			Kind: migration.PassVerify, Phase: migration.DualWrite, Process: process, Whole: true, Clean: i%2 == 0, Jobs: int64(i),
			Started: now.Add(time.Duration(i) * time.Second), Ended: now.Add(time.Duration(i)*time.Second + time.Microsecond),
			Counts: map[string]int64{"missing": int64(i)}, Accepted: map[string]int64{"foreign": 2}, Since: now, WithoutRev: 3,
		}
		require.NoError(t, m.RecordPass(ctx, p))
		want = append(want, p)
	}
	slices.Reverse(want)
	f := facts(t, m, 0)
	require.Equal(t, want[:20], f.Passes)
	require.Equal(t, process, f.Process)
	require.Equal(t, int64(20), rdb.LLen(ctx, passesKey).Val())

	copied := want[0]
	copied.Kind = migration.PassToNew
	for i := range int64(22) {
		copied.Jobs = i
		require.NoError(t, m.RecordPass(ctx, copied))
	}
	f = facts(t, m, 0)
	require.Len(t, f.Passes, 40)
	require.Equal(t, want[:20], f.Passes[20:], "those of another kind push none out")
	require.Equal(t, int64(21), f.Passes[0].Jobs)
	require.Equal(t, int64(2), f.Passes[19].Jobs)

	require.NoError(t, rdb.LPush(ctx, passesKey, `{"kind": "of a later version"}`).Err())
	_, err = m.Facts(ctx, 0, true)
	require.Equal(t, fault.Internal, fault.KindOf(err), "no gate is decided past a record that cannot be read")
	for _, key := range []string{passesKey, serversKey, phasesSeenKey, fallbackKey} {
		require.NoError(t, rdb.Del(ctx, passesKey).Err())
		require.NoError(t, rdb.Set(ctx, key, "odd", 0).Err())
		_, err = m.Facts(ctx, 0, true)
		require.Equal(t, fault.Internal, fault.KindOf(err), key)
		require.NoError(t, rdb.Del(ctx, key).Err())
	}
	gone, leave := context.WithCancel(ctx)
	leave()
	_, err = m.Facts(gone, 0, true)
	require.Equal(t, fault.Canceled, fault.KindOf(err))
	require.Equal(t, 1, strings.Count(err.Error(), "The request was canceled"), "%v", err)
}

func TestAudit(t *testing.T) {
	t.Parallel()
	rdb := redisserver.Start(t).Client(t)
	ctx := t.Context()
	m := NewMigrationState(redisserver.AsOperator(t, rdb))
	e := migration.AuditEntry{
		Who: migration.Operator{User: "root", Host: "ops-1"}, Action: migration.AuditForce, Detail: "relay migrate …\nreason: it's late",
	}
	require.NoError(t, m.Audit(ctx, e))
	trail, err := rdb.XRange(ctx, auditKey, "-", "+").Result()
	require.NoError(t, err)
	require.Len(t, trail, 1)
	require.Equal(t, map[string]any{
		"user": "root", "host": "ops-1", "action": "force", "detail": "relay migrate …\nreason: it's late",
	}, trail[0].Values)

	_, err = rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range keptAudit + 500 {
			p.XAdd(ctx, &redis.XAddArgs{Stream: auditKey, Values: []string{"n", strconv.Itoa(i)}})
		}
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, m.Audit(ctx, e))
	kept := rdb.XLen(ctx, auditKey).Val()
	require.True(t, kept >= keptAudit && kept < keptAudit+500, "%d", kept)
}

// TestBareEntries: who takes an entry takes it as a bare id first, whatever it looks like.
func TestBareEntries(t *testing.T) {
	t.Parallel()
	rdb := redisserver.Start(t).Client(t)
	ctx := t.Context()
	m := NewMigrationState(redisserver.AsOperator(t, rdb))
	require.Equal(t, migration.Queue{}, facts(t, m, 100).Queue)
	require.NoError(t, rdb.HSet(ctx, "ai:jobs:acme:held", record(fieldID, "acme:held")).Err())
	for entry, bare := range map[string]int64{
		"acme:x": 0, "acme-eu:x:y:z": 0, "acme::": 0, "acme:ai:jobs:1": 0,
		"x": 1, "5b199405-6771-46da-b117-e86e428530a2": 1, "acme:held": 1, "ACME:x": 1, "acme:": 1, ":x": 1, "": 1,
	} {
		require.NoError(t, rdb.Del(ctx, queueKey).Err())
		require.NoError(t, rdb.RPush(ctx, queueKey, entry).Err())
		require.Equal(t, migration.Queue{Entries: 1, Looked: 1, Bare: bare}, facts(t, m, 100).Queue, "%q", entry)
	}

	require.NoError(t, rdb.Del(ctx, queueKey).Err())
	for i := range 2500 {
		entry := fmt.Sprintf("acme:%d", i)
		if i%100 == 0 {
			entry = strconv.Itoa(i)
		}
		require.NoError(t, rdb.RPush(ctx, queueKey, entry).Err())
	}
	require.Equal(t, migration.Queue{Entries: 2500, Looked: 2500, Bare: 25}, facts(t, m, 1_000_000).Queue)
	require.Equal(t, migration.Queue{Entries: 2500, Looked: 2500, Bare: 25}, facts(t, m, 2500).Queue)
	require.Equal(t, migration.Queue{Entries: 2500, Looked: 1100, Bare: 11}, facts(t, m, 1100).Queue)
	require.Equal(t, migration.Queue{Entries: 2500}, facts(t, m, 0).Queue)
	require.NoError(t, rdb.Set(ctx, queueKey, "odd", 0).Err())
	_, err := m.Facts(ctx, 10, true)
	require.Equal(t, fault.Internal, fault.KindOf(err))
}

// TestPredecessorsWorkersShow: a connection that waits for entries, and one that took one last; not Relay's, and none
// where the server does not tell.
func TestPredecessorsWorkersShow(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	rdb := server.Client(t)
	ctx := t.Context()
	serving, m := NewMigrationState(redisserver.AsServer(t, rdb)), NewMigrationState(redisserver.AsOperator(t, rdb))
	require.NoError(t, serving.Beat(ctx, migration.Server{ID: "a", Phase: migration.NewOnly}))
	f := facts(t, m, 0)
	require.True(t, f.WorkersKnown)
	require.Empty(t, f.Workers)

	worker := server.Client(t)
	waiting, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- worker.BLPop(waiting, 0, queueKey).Err() }()
	require.Eventually(t, func() bool { return len(facts(t, m, 0).Workers) == 1 }, 5*time.Second, 5*time.Millisecond)
	require.Contains(t, reasons(migration.GateRetire, facts(t, m, 0)), migration.ConditionWorkers)
	stop()
	require.NoError(t, rdb.RPush(ctx, queueKey, "x").Err())
	require.NotErrorIs(t, <-ended, redis.Nil)
	require.NoError(t, worker.Close())
	require.Eventually(t, func() bool { return len(facts(t, m, 0).Workers) == 0 }, 5*time.Second, 5*time.Millisecond)

	poller := server.Client(t)
	require.NoError(t, poller.RPush(ctx, queueKey, "y").Err())
	require.NoError(t, poller.LPop(ctx, queueKey).Err())
	require.Len(t, facts(t, m, 0).Workers, 1)
	f, err := m.Facts(ctx, 0, false)
	require.NoError(t, err)
	require.Empty(t, f.Workers, "they are looked for only where that is asked for")
	require.False(t, f.WorkersKnown)
	require.NoError(t, poller.Close())

	other := func() *redis.Client {
		c := redis.NewClient(&redis.Options{Addr: server.Addr, DB: 5})
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		return c
	}
	elsewhere := other()
	require.NoError(t, elsewhere.RPush(ctx, queueKey, "z").Err())
	require.NoError(t, elsewhere.LPop(ctx, queueKey).Err())
	require.Empty(t, facts(t, m, 0).Workers, "one of another database takes nothing of ours")
	require.Len(t, facts(t, NewMigrationState(other()), 0).Workers, 1, "whichever is ours")

	server.DeniesOnPurpose()
	require.NoError(t, rdb.Do(ctx, "ACL", "SETUSER", redisserver.OperatorUser, "-client|list").Err())
	f = facts(t, m, 0)
	require.False(t, f.WorkersKnown)
	require.Contains(t, reasons(migration.GateNewOnly, f), migration.ConditionWorkers)
}
