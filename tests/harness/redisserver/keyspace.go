package redisserver

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// Keyspace is all that some keys hold, in a form of which two are equal where every value and expiry is: key to type,
// expiry and content. The bytes of DUMP would not do, because they depend on what was read since.
type Keyspace map[string]string

// AboutServers tells whether servers say something of themselves under a key. They do so by the clock, without a request.
func AboutServers(key string) bool {
	return key == "ai:servers" || strings.HasPrefix(key, "ai:server:") || key == "ai:phases-seen" || key == "ai:fallback-hits"
}

// Dump reads all keys that match a pattern, "*" for all, but for those that are AboutServers.
func Dump(tb testing.TB, rdb *redis.Client, pattern string) Keyspace {
	tb.Helper()
	out := Keyspace{}
	var keys []string
	for it := rdb.Scan(tb.Context(), 0, pattern, 1000).Iterator(); ; {
		if !it.Next(tb.Context()) {
			require.NoError(tb, it.Err())
			break
		}
		keys = append(keys, it.Val())
	}
	slices.Sort(keys)
	keys = slices.DeleteFunc(keys, AboutServers)
	for _, key := range slices.Compact(keys) {
		if content, ok := dumpKey(tb, rdb, key); ok {
			out[key] = content
		}
	}
	return out
}

// dumpKey gives false where the key went away since.
func dumpKey(tb testing.TB, rdb *redis.Client, key string) (string, bool) {
	tb.Helper()
	ctx := tb.Context()
	kind, err := rdb.Type(ctx, key).Result()
	require.NoError(tb, err)
	var content any
	switch kind {
	case "none":
		return "", false
	case "hash":
		content, err = rdb.HGetAll(ctx, key).Result() // a map is encoded in the order of its keys
	case "string":
		content, err = rdb.Get(ctx, key).Bytes()
	case "list":
		content, err = rdb.LRange(ctx, key, 0, -1).Result()
	case "set":
		var members []string
		members, err = rdb.SMembers(ctx, key).Result()
		slices.Sort(members)
		content = members
	case "zset":
		content, err = rdb.ZRangeWithScores(ctx, key, 0, -1).Result()
	case "stream":
		content, err = rdb.XRange(ctx, key, "-", "+").Result()
	default:
		content, err = rdb.Dump(ctx, key).Result()
	}
	require.NoError(tb, err, key)
	expiry, err := rdb.PExpireTime(ctx, key).Result()
	require.NoError(tb, err)
	return fmt.Sprintf("%s, expires %d: %q", kind, expiry.Milliseconds(), content), true
}

// Record is one line of a fixture.
type Record struct {
	Key   string          `json:"key"`
	Type  string          `json:"type"` // hash, string or list
	TTLms *int64          `json:"ttl_ms"`
	Value json.RawMessage `json:"value"`
}

// Hash gives the fields of a hash.
func (r Record) Hash(tb testing.TB) map[string]string {
	tb.Helper()
	var fields map[string]string
	require.NoError(tb, json.Unmarshal(r.Value, &fields), r.Key)
	return fields
}

// ReadFixture reads JSON lines.
func ReadFixture(tb testing.TB, path string) []Record {
	tb.Helper()
	file, err := os.Open(path)
	require.NoError(tb, err)
	defer file.Close() //nolint:errcheck // only read from
	var records []Record
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r Record
		require.NoError(tb, json.Unmarshal(lines.Bytes(), &r), "line "+strconv.Itoa(len(records)+1))
		records = append(records, r)
	}
	require.NoError(tb, lines.Err())
	require.NotEmpty(tb, records)
	return records
}

// Load writes records as they are, over what is there.
func Load(tb testing.TB, rdb *redis.Client, records []Record) {
	tb.Helper()
	ctx := tb.Context()
	_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, r := range records {
			p.Del(ctx, r.Key)
			switch r.Type {
			case "hash":
				p.HSet(ctx, r.Key, r.Hash(tb))
			case "string":
				var s string
				require.NoError(tb, json.Unmarshal(r.Value, &s), r.Key)
				p.Set(ctx, r.Key, s, 0)
			case "list":
				var items []string
				require.NoError(tb, json.Unmarshal(r.Value, &items), r.Key)
				for _, item := range items {
					p.RPush(ctx, r.Key, item)
				}
			default:
				require.FailNow(tb, "a fixture of a type that nobody wrote", "%s: %s", r.Key, r.Type)
			}
			if r.TTLms != nil {
				p.PExpire(ctx, r.Key, time.Duration(*r.TTLms)*time.Millisecond)
			}
		}
		return nil
	})
	require.NoError(tb, err)
}
