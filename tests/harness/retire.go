package harness

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// Retire moves what a Redis holds to the new schema and removes the old copies as an operator does: each step by the
// binary, no gate forced. accept has the differences that nobody can mend, as verify takes them. It gives the old keys
// that are left.
func Retire(tb testing.TB, redis *redisserver.Server, accept ...string) []string {
	tb.Helper()
	migrate := func(p migration.Phase, args ...string) (code int, said string) {
		env := PhaseEnvironment(p)
		env["REDIS_URL"] = redis.OperatorURL()
		code, stdout, stderr := Run(tb, env, append([]string{"migrate"}, args...)...)
		return code, strings.Join(args, " ") + ": " + stdout + stderr
	}
	done := []int{app.ExitOK, app.ExitDiffers} // the latter where something is left, as verify tells
	code, said := migrate(migration.DualWrite, "backfill", "--execute", "--rate=0")
	require.Contains(tb, done, code, said)

	const queue = "ai:queue:pending"
	rdb, ctx := redis.Client(tb), tb.Context()
	entries, err := rdb.LRange(ctx, queue, 0, -1).Result()
	require.NoError(tb, err)
	for _, entry := range entries { // the predecessor's workers take what they know
		if !strings.Contains(entry, ":") {
			require.NoError(tb, rdb.LRem(ctx, queue, 1, entry).Err())
		}
	}
	verify := []string{"verify", "--rate=0", "--index-lag=0", "--record"}
	for _, known := range accept {
		verify = append(verify, "--accept="+known)
	}
	for range 2 {
		code, said = migrate(migration.NewOnly, verify...)
		require.Equal(tb, app.ExitOK, code, said)
	}
	code, said = migrate(migration.NewOnly, "retire", "--execute", "--rate=0")
	require.Contains(tb, done, code, said)
	return slices.Sorted(maps.Keys(redisserver.Dump(tb, rdb, "ai:jobs:*")))
}
