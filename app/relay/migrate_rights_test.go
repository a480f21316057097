package main_test

import (
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// TestMigrateNeedsTheRightsThatAreNamed: those of its user are enough for every command, in both directions.
func TestMigrateNeedsTheRightsThatAreNamed(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	rdb := server.Client(t)
	redisserver.Load(t, rdb, redisserver.ReadFixture(t, "../../tests/migration/testdata/predecessor.jsonl"))
	require.NoError(t, rdb.ZAdd(t.Context(), "ai:servers", redis.Z{Member: "a server that is asked for"}).Err())
	env := dualWrite(server.OperatorURL())
	for _, step := range []struct {
		args string
		code int
	}{
		{"status", app.ExitOK},
		{"backfill --dry-run --rate=0", app.ExitDiffers},
		{"backfill --execute --rate=0 --batch-size=20", app.ExitDiffers}, // in steps, with a position between
		{"index --execute --rate=0", app.ExitOK},
		{"verify --rate=0 --index-lag=0", app.ExitDiffers},
		{"backfill --to=old --execute --rate=0", app.ExitOK},
		{"status --exact", app.ExitOK},
	} {
		if strings.HasPrefix(step.args, "backfill --to=old") {
			old, err := rdb.Keys(t.Context(), "ai:jobs:*").Result()
			require.NoError(t, err)
			require.NoError(t, rdb.Del(t.Context(), old...).Err()) // as after new only: the copies and entries are made anew
		}
		code, stdout, stderr := harness.Run(t, env, append([]string{"migrate"}, strings.Fields(step.args)...)...)
		require.Equal(t, step.code, code, "%s: %s%s", step.args, stdout, stderr)
	}
}
