package redisjobs

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/ports"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

var _ ports.Backlog = Backlog{}

func TestBacklogTellsHowLongTheNextJobWaits(t *testing.T) {
	t.Parallel()
	rdb := redisserver.Start(t).Client(t)
	ctx := t.Context()
	b := NewBacklog(rdb)
	backlog := func() job.Backlog {
		got, err := b.Backlog(ctx)
		require.NoError(t, err)
		return got
	}
	waits := func(atLeast time.Duration) {
		t.Helper()
		got := backlog()
		require.True(t, got.Known)
		require.InDelta(t, atLeast, got.Waited, float64(20*time.Second))
	}
	next := func(entry string) {
		require.NoError(t, rdb.Del(ctx, queueKey).Err())
		require.NoError(t, rdb.RPush(ctx, queueKey, entry, "one behind it").Err())
	}
	enqueued := func(key string, ago time.Duration) {
		at := rdb.Time(ctx).Val().UTC().Add(-ago).Format(job.TimeLayout)
		require.NoError(t, rdb.HSet(ctx, key, fieldEnqueuedAt, at).Err())
	}
	require.Equal(t, job.Backlog{Known: true}, backlog(), "nothing waits")

	enqueued("ai:jobs:bare", time.Hour)
	next("bare")
	require.Equal(t, int64(2), backlog().Entries)
	waits(time.Hour)
	enqueued("ai:job:acme:scoped", 2*time.Hour)
	next("acme:scoped")
	waits(2 * time.Hour)
	enqueued("ai:jobs:acme:scoped", 3*time.Hour)
	waits(3 * time.Hour) // an entry is a bare id first
	enqueued("ai:jobs:ahead", -time.Hour)
	next("ahead")
	waits(0)
	require.GreaterOrEqual(t, backlog().Waited, time.Duration(0))

	require.NoError(t, rdb.HSet(ctx, "ai:jobs:timeless", fieldEnqueuedAt, "soon").Err())
	require.NoError(t, rdb.Set(ctx, "ai:jobs:text", "x", 0).Err())
	for _, entry := range []string{"gone", "acme:gone", "ACME:scoped", "timeless", "text", ""} {
		next(entry)
		require.Equal(t, job.Backlog{Entries: 2}, backlog(), entry)
	}
	require.NoError(t, rdb.Del(ctx, queueKey).Err())
	require.NoError(t, rdb.Set(ctx, queueKey, "no list", 0).Err())
	require.Equal(t, job.Backlog{Known: true}, backlog())
}
