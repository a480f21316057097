// Package verify_test holds verify to finding all that is wrong with the stored jobs, and nothing else, while others write.
// Each test is small by default; with RELAY_SOAK=full it has the size that an operator would ask for.
package verify_test

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// sized gives the size of a test.
func sized(small, full int) int {
	if os.Getenv("RELAY_SOAK") == "full" {
		return full
	}
	return small
}

// quiet takes what reads and writes tell.
type quiet struct{ ports.Observer }

func (quiet) DualWritten(workspace.ID, bool) {}
func (quiet) IDCollision(workspace.ID)       {}

func workspaceOf(tb testing.TB, text string) workspace.ID {
	tb.Helper()
	ws, err := workspace.Parse(text)
	require.NoError(tb, err)
	return ws
}

func idOf(tb testing.TB, text string) job.ID {
	tb.Helper()
	id, err := job.ParseID(text)
	require.NoError(tb, err)
	return id
}

// startServer starts one that tells its digest.
func startServer(t *testing.T) *redis.Client {
	t.Helper()
	return redisserver.Start(t, "--enable-debug-command", "yes").Client(t)
}

func digest(t *testing.T, rdb *redis.Client) string {
	t.Helper()
	text, err := rdb.Do(t.Context(), "DEBUG", "DIGEST").Text()
	require.NoError(t, err)
	return text
}

// thing is what a difference names.
type thing struct {
	class      migration.DifferenceClass
	key, entry string
}

// verify makes one pass at full speed, and gives all that it found.
func verify(t *testing.T, rdb *redis.Client, in usecase.VerifyInput) (migration.VerifyReport, map[thing]migration.Difference) {
	t.Helper()
	if in.Batch == 0 {
		in.Batch = 200
	}
	copies := redisjobs.NewCopies(redisserver.AsOperator(t, rdb))
	found := map[thing]migration.Difference{}
	total := int64(0)
	v := usecase.Verify{
		Copies: copies, Comparison: copies, Index: redisjobs.New(rdb, in.Phase, redisjobs.Options{Observer: quiet{}}), Load: copies,
		Clock: systemclock.Clock{},
	}
	report, err := v.Do(t.Context(), in,
		func(p usecase.VerifyProgress) {
			for _, d := range p.Found {
				require.NotZero(t, d.Class)
				found[thing{d.Class, d.Key, d.Entry}] = d
			}
		})
	require.NoError(t, err)
	for class, tally := range report.Differences {
		require.Positive(t, tally.Count)
		require.Contains(t, found, thing{class, tally.Example.Key, tally.Example.Entry})
		total += tally.Count
	}
	require.Equal(t, int64(len(found)), total, "each is told once")
	info, err := rdb.Info(t.Context(), "server").Result()
	require.NoError(t, err)
	require.NotEmpty(t, report.Process)
	require.Contains(t, info, "run_id:"+report.Process)
	require.False(t, report.Ended.Before(report.Started))
	return report, found
}

// placeOf spells where the index has a job.
func placeOf(t *testing.T, at time.Time, id string) string {
	t.Helper()
	seconds := binary.BigEndian.AppendUint64(nil, uint64(at.Unix()))[3:]
	sorted := "\x00" + id
	if digits := strings.ReplaceAll(id, "-", ""); len(id) == 36 && len(digits) == 32 {
		bytes, err := hex.DecodeString(digits)
		require.NoError(t, err)
		sorted = string(bytes)
	}
	return string(seconds) + at.Format(".000000")[1:] + sorted
}

const storedTime = "2006-01-02T15:04:05.000000-07:00"

func timeOf(t *testing.T, stored string) time.Time {
	t.Helper()
	at, err := time.Parse(storedTime, stored)
	require.NoError(t, err)
	return at.UTC()
}
