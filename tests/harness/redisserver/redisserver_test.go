package redisserver_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

func TestServersAreApartAndGoAway(t *testing.T) {
	t.Parallel()
	a, err := redisserver.Run(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Stop()) })
	b := redisserver.Start(t, "--maxmemory", "64mb")

	require.NoError(t, a.Client(t).Set(t.Context(), "ai:index-state", "v", 0).Err())
	require.ErrorIs(t, b.Client(t).Get(t.Context(), "ai:index-state").Err(), redis.Nil)
	memory, err := b.Client(t).ConfigGet(t.Context(), "maxmemory").Result()
	require.NoError(t, err)
	require.Equal(t, "67108864", memory["maxmemory"])

	for _, url := range []string{a.URL(), a.SocketURL(), a.OperatorURL()} {
		options, err := redis.ParseURL(url)
		require.NoError(t, err)
		rdb := redis.NewClient(options)
		require.Equal(t, "v", rdb.Get(t.Context(), "ai:index-state").Val(), url)
		require.NoError(t, rdb.Close())
	}
	require.NoError(t, a.Stop())
	require.NoError(t, a.Stop(), "twice")
	_, err = os.Stat(a.Socket)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestKilledServerComesBackEmptyAtItsAddress(t *testing.T) {
	t.Parallel()
	s := redisserver.Start(t)
	rdb := s.Client(t)
	require.NoError(t, rdb.Set(t.Context(), "k", "v", 0).Err())
	require.NoError(t, s.Kill())
	require.Error(t, rdb.Ping(t.Context()).Err())
	require.NoError(t, s.Restart(t.Context()))
	require.ErrorIs(t, rdb.Get(t.Context(), "k").Err(), redis.Nil)
}

// watched takes a test's failure for the test that provokes it.
type watched struct {
	testing.TB
	said []string
}

func (w *watched) Errorf(format string, args ...any) {
	w.said = append(w.said, fmt.Sprintf(format, args...))
}

func (*watched) FailNow() {}

func TestADeniedCommandFailsTheTest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ask       func(ctx context.Context, rdb *redis.Client) error
		onPurpose bool
		said      string
	}{
		"nothing":   {func(ctx context.Context, rdb *redis.Client) error { return rdb.Ping(ctx).Err() }, false, ""},
		"a command": {func(ctx context.Context, rdb *redis.Client) error { return rdb.FlushAll(ctx).Err() }, false, `relay-server: command "flushall"`},
		"a key":     {func(ctx context.Context, rdb *redis.Client) error { return rdb.Get(ctx, "k").Err() }, false, `relay-server: key "k"`},
		"purpose":   {func(ctx context.Context, rdb *redis.Client) error { return rdb.Get(ctx, "k").Err() }, true, ""},
	} {
		w := &watched{TB: t}
		t.Cleanup(func() {
			require.Equal(t, c.said != "", len(w.said) > 0, name)
			require.Contains(t, strings.Join(w.said, ""), c.said, name)
		})
		s := redisserver.Start(w) // whose end comes before
		err := c.ask(t.Context(), redisserver.AsServer(t, s.Client(t)))
		require.Equal(t, c.said != "" || c.onPurpose, err != nil, "%v", err)
		if c.onPurpose {
			s.DeniesOnPurpose()
		}
	}
}

func TestRunFailsWhereRedisRefusesItsArguments(t *testing.T) {
	t.Parallel()
	_, err := redisserver.Run(t.Context(), "--no-such-option", "1")
	require.ErrorContains(t, err, "redis-server ended at its start")
}

func TestDumpSeesEveryChangeAndNoRead(t *testing.T) {
	t.Parallel()
	rdb := redisserver.Start(t).Client(t)
	ctx := t.Context()
	for _, fill := range []func() error{
		func() error { return rdb.HSet(ctx, "h", "f", "v", "g", string(make([]byte, 100))).Err() },
		func() error { return rdb.Set(ctx, "s", "\xff", time.Hour).Err() },
		func() error { return rdb.RPush(ctx, "l", "a", "b").Err() },
		func() error { return rdb.SAdd(ctx, "set", "b", "a").Err() },
		func() error { return rdb.ZAdd(ctx, "z", redis.Z{Score: 1, Member: "m"}).Err() },
		func() error {
			return rdb.XAdd(ctx, &redis.XAddArgs{Stream: "x", ID: "1-1", Values: []string{"a", "b"}}).Err()
		},
	} {
		require.NoError(t, fill())
	}
	before := redisserver.Dump(t, rdb, "*")
	require.Len(t, before, 6)
	require.NoError(t, rdb.HGetAll(ctx, "h").Err())
	require.Equal(t, before, redisserver.Dump(t, rdb, "*"))
	require.Len(t, redisserver.Dump(t, rdb, "s*"), 2)

	for name, change := range map[string]func() error{
		"a field":   func() error { return rdb.HSet(ctx, "h", "f", "w").Err() },
		"a value":   func() error { return rdb.Set(ctx, "s", "\xfe", redis.KeepTTL).Err() },
		"an expiry": func() error { return rdb.PExpire(ctx, "s", 30*time.Minute).Err() },
		"an order":  func() error { return rdb.LMove(ctx, "l", "l", "left", "right").Err() },
		"a member":  func() error { return rdb.SRem(ctx, "set", "b").Err() },
		"a score":   func() error { return rdb.ZIncrBy(ctx, "z", 1, "m").Err() },
		"an entry":  func() error { return rdb.XDel(ctx, "x", "1-1").Err() },
		"a key":     func() error { return rdb.Set(ctx, "new", "", 0).Err() },
	} {
		earlier := redisserver.Dump(t, rdb, "*")
		require.NoError(t, change())
		require.NotEqual(t, earlier, redisserver.Dump(t, rdb, "*"), name)
	}
}

func TestFixtureIsLoadedAsItIs(t *testing.T) {
	t.Parallel()
	rdb := redisserver.Start(t).Client(t)
	records := redisserver.ReadFixture(t, "../../migration/testdata/predecessor.jsonl")
	redisserver.Load(t, rdb, records)
	require.Len(t, records, 875)
	n, err := rdb.DBSize(t.Context()).Result()
	require.NoError(t, err)
	require.EqualValues(t, len(records), n)
	for _, r := range records {
		require.Equal(t, r.Type, rdb.Type(t.Context(), r.Key).Val(), r.Key)
		if r.Type == "hash" {
			require.Equal(t, r.Hash(t), rdb.HGetAll(t.Context(), r.Key).Val())
		}
		ttl := rdb.PTTL(t.Context(), r.Key).Val()
		require.Equal(t, r.TTLms != nil, ttl > 0, r.Key)
	}
}
