package isolation_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// retired is new only on a store that came there from the old schema and has no old copies any more.
func retired(tb testing.TB) phase {
	tb.Helper()
	p := phaseNamed(tb, "new only")
	p.name, p.retired = "new only, retired", true
	return p
}

// retire moves the world: each workspace's jobs are in new alone then, those of a shared id too.
func (w *world) retire(tb testing.TB, redis *redisserver.Server) {
	tb.Helper()
	require.Empty(tb, harness.Retire(tb, redis, "two-workspaces=2", "idempotency-foreign=2"))
	var moved []stored
	for _, s := range w.copies {
		s.schema = newSchema
		if !slices.ContainsFunc(moved, func(m stored) bool { return m.key() == s.key() }) {
			moved = append(moved, s)
		}
	}
	w.copies = moved
}

// predecessors gives what the predecessor stored, and the old keys among it that are nobody's job. The tests' own
// workspaces have other names there: a test knows all that its workspaces hold.
func predecessors(tb testing.TB) (records []redisserver.Record, nobodys []string) {
	tb.Helper()
	records = redisserver.ReadFixture(tb, "../migration/testdata/predecessor.jsonl")
	renamed := map[string]string{acme: "moved", acmeEU: "moved-eu"}
	valid := regexp.MustCompile(`\A[a-z0-9][a-z0-9_-]{0,31}\z`)
	for i, r := range records {
		for _, prefix := range []string{"ai:job:", "ai:idempotency:"} {
			if rest, ok := strings.CutPrefix(r.Key, prefix); ok {
				ws, name, _ := strings.Cut(rest, ":")
				if other, ours := renamed[ws]; ours {
					records[i].Key = prefix + other + ":" + name
				}
			}
		}
		var fields map[string]string
		if r.Type == "hash" {
			fields = r.Hash(tb)
			if other, ours := renamed[fields["workspace_id"]]; ours {
				fields["workspace_id"] = other
			}
			var err error
			records[i].Value, err = json.Marshal(fields)
			require.NoError(tb, err)
		}
		if id, ok := strings.CutPrefix(r.Key, "ai:jobs:"); ok && (!valid.MatchString(fields["workspace_id"]) || fields["job_id"] != id) {
			nobodys = append(nobodys, r.Key)
		}
	}
	slices.Sort(nobodys)
	return records, nobodys
}

// movedStore is the predecessor's store, moved and retired once in this process: its keys as DUMP has them.
//
//nolint:gochecknoglobals // "once in a test process" is a fact about the process
var movedStore struct {
	once sync.Once
	keys map[string]moved
}

type moved struct {
	content string
	expires int64 // milliseconds since 1970, 0 for never
}

// loadRetired fills a Redis with the predecessor's store behind the last step of the migration. Of the old keys only those
// are left that were reported and accepted.
func loadRetired(t *testing.T, rdb *redis.Client) {
	t.Helper()
	movedStore.once.Do(func() { movedStore.keys = moveStore(t) })
	require.NotEmpty(t, movedStore.keys, "another test failed to move it")
	_, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		for key, k := range movedStore.keys {
			p.Do(t.Context(), "RESTORE", key, k.expires, k.content, "ABSTTL")
		}
		return nil
	})
	require.NoError(t, err)
}

func moveStore(t *testing.T) map[string]moved {
	t.Helper()
	server := redisserver.Start(t)
	rdb := server.Client(t)
	records, nobodys := predecessors(t)
	redisserver.Load(t, rdb, records)
	require.Len(t, nobodys, 4)
	require.Equal(t, nobodys, harness.Retire(t, server, "wrong-type=2", "invalid-workspace=2"),
		"what was reported and accepted stays, and nothing else of the old schema")
	keys := map[string]moved{}
	for key := range redisserver.Dump(t, rdb, "*") {
		content, err := rdb.Dump(t.Context(), key).Result()
		require.NoError(t, err)
		expires, err := rdb.PExpireTime(t.Context(), key).Result()
		require.NoError(t, err)
		keys[key] = moved{content, max(0, expires.Milliseconds())}
	}
	return keys
}
