// Package backfill_test moves stored jobs from one schema to the other while others write, while processes are killed
// and servers fail over. Each test is small by default; with RELAY_SOAK=full it has the size that an operator would ask for.
package backfill_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
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

const (
	waitTimeout  = 30 * time.Second
	pollInterval = 5 * time.Millisecond
)

// quiet takes what reads and writes tell.
type quiet struct{ ports.Observer }

func (quiet) JobRead(workspace.ID, job.ID, job.Copy) {}
func (quiet) StaleCopyRead(workspace.ID)             {}
func (quiet) DualWritten(workspace.ID, bool)         {}

// backfillOf makes a pass over a server.
func backfillOf(copies *redisjobs.Copies) usecase.Backfill {
	return usecase.Backfill{Copies: copies, Load: copies, Clock: systemclock.Clock{}}
}

// run makes one whole pass at full speed.
func run(t *testing.T, rdb *redis.Client, in usecase.BackfillInput) migration.BackfillCounts {
	t.Helper()
	if in.To == 0 {
		in.To = migration.New
	}
	counts, done, err := backfillOf(redisjobs.NewCopies(redisserver.AsOperator(t, rdb))).Do(t.Context(), in, nil)
	require.NoError(t, err)
	require.True(t, done)
	return counts
}

func acme(t testing.TB) workspace.ID {
	t.Helper()
	ws, err := workspace.Parse("acme")
	require.NoError(t, err)
	return ws
}

const fixture = "../migration/testdata/predecessor.jsonl"

// multiplied gives the fixture's jobs again and again under other ids, until there are so many old ones, and its odd keys
// once.
func multiplied(t *testing.T, rdb *redis.Client, jobs int) {
	t.Helper()
	records := redisserver.ReadFixture(t, fixture)
	redisserver.Load(t, rdb, records)
	uuid := regexp.MustCompile(`^[0-9a-f-]{36}$`)
	ctx, have := t.Context(), 0
	for _, r := range records {
		if r.Type == "hash" && strings.HasPrefix(r.Key, "ai:jobs:") {
			have++
		}
	}
	pipe := rdb.Pipeline()
	for round := 1; have < jobs; round++ {
		for _, r := range records {
			if r.Type != "hash" {
				continue
			}
			prefix, id := "ai:jobs:", strings.TrimPrefix(r.Key, "ai:jobs:")
			if id == r.Key {
				ws, rest, _ := strings.Cut(strings.TrimPrefix(r.Key, "ai:job:"), ":")
				prefix, id = "ai:job:"+ws+":", rest
			} else {
				have++
			}
			other := fmt.Sprintf("%s.%d", id, round)
			if uuid.MatchString(id) {
				other = fmt.Sprintf("%s%08x", id[:28], round)
			}
			fields := r.Hash(t)
			if fields["job_id"] == id {
				fields["job_id"] = other
			}
			pipe.HSet(ctx, prefix+other, fields)
		}
		if pipe.Len() > 5000 || have >= jobs {
			_, err := pipe.Exec(ctx)
			require.NoError(t, err)
		}
	}
}

// digest is one for every keyspace of the same content; expiries count as there or not.
func digest(t *testing.T, rdb *redis.Client) string {
	t.Helper()
	text, err := rdb.Do(t.Context(), "DEBUG", "DIGEST").Text()
	require.NoError(t, err)
	return text
}

// startDebuggable starts a server that tells its digest, which takes seconds where there is much.
func startDebuggable(t *testing.T) *redis.Client {
	t.Helper()
	server := redisserver.Start(t, "--enable-debug-command", "yes")
	rdb := redis.NewClient(&redis.Options{Network: "unix", Addr: server.Socket, ReadTimeout: 5 * time.Minute})
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	return rdb
}

// hashes reads hashes in one round trip; what is none is empty.
func hashes(t *testing.T, rdb *redis.Client, keys []string) []map[string]string {
	t.Helper()
	replies := make([]*redis.MapStringStringCmd, len(keys))
	_, _ = rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error { // a key of another type gives an error
		for i, key := range keys {
			replies[i] = p.HGetAll(t.Context(), key)
		}
		return nil
	})
	out := make([]map[string]string, len(keys))
	for i, reply := range replies {
		if err := reply.Err(); err != nil {
			require.ErrorContains(t, err, "WRONGTYPE", keys[i])
		}
		out[i] = reply.Val()
	}
	return out
}

// requireEqualCopies checks every old record that is a workspace's against its new copy, and returns how many.
func requireEqualCopies(t *testing.T, rdb *redis.Client) int {
	t.Helper()
	missing, n := differences(t, rdb)
	require.Empty(t, missing)
	return n
}

// differences gives the old keys whose new copy is not the same, and how many old keys are a workspace's.
func differences(t *testing.T, rdb *redis.Client) (wrong []string, jobs int) {
	t.Helper()
	seen := map[string]bool{} // SCAN may give a key twice
	for at, began := uint64(0), false; at != 0 || !began; began = true {
		keys, next, err := rdb.Scan(t.Context(), at, "ai:jobs:*", 1000).Result()
		require.NoError(t, err)
		at = next
		var theirs []map[string]string
		var copies []string
		for i, old := range hashes(t, rdb, keys) {
			ws, err := workspace.Parse(old["workspace_id"])
			if err == nil && "ai:jobs:"+old["job_id"] == keys[i] && !seen[keys[i]] {
				seen[keys[i]] = true
				theirs, copies = append(theirs, old), append(copies, "ai:job:"+ws.String()+":"+old["job_id"])
			}
		}
		for i, newer := range hashes(t, rdb, copies) {
			if !maps.Equal(theirs[i], newer) {
				wrong = append(wrong, copies[i])
			}
		}
	}
	return wrong, len(seen)
}

// plain fills Redis with jobs as the predecessor makes them, and gives their ids.
func plain(t *testing.T, rdb *redis.Client, jobs int) []string {
	t.Helper()
	ctx, ids := t.Context(), make([]string, jobs)
	pipe := rdb.Pipeline()
	for i := range ids {
		ids[i] = fmt.Sprintf("%08x-0000-4000-8000-%012x", i, i)
		pipe.HSet(ctx, "ai:jobs:"+ids[i], "job_id", ids[i], "status", "pending", "action_provider", "google", "action_name",
			"gmail.send", "params", `{"to":"a@example.com"}`, "workspace_id", "acme", "actor_id", "user:1", "result", "",
			"enqueued_at", stamp(time.Now()))
		if pipe.Len() > 5000 || i == jobs-1 {
			_, err := pipe.Exec(ctx)
			require.NoError(t, err)
		}
	}
	return ids
}

func stamp(at time.Time) string { return at.UTC().Format(job.TimeLayout) }

// headed tells which jobs are just being copied.
type headed struct {
	*redisjobs.Copies

	head  atomic.Pointer[[]migration.JobRef]
	steps atomic.Int64
	meet  func() // called before each step
}

func (h *headed) Copy(
	ctx context.Context, jobs []migration.JobRef, to migration.Schema, dry bool,
) ([]migration.Copied, error) {
	h.head.Store(&jobs)
	h.steps.Add(1)
	if h.meet != nil {
		h.meet()
	}
	return h.Copies.Copy(ctx, jobs, to, dry)
}
