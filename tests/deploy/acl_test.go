// Package deploy_test holds what an operator deploys with, the files in configs and the Dockerfile, to what the service
// does and to the repository.
package deploy_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/tests/contract"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

const aclFile = "../../configs/redis/users.acl"

// rights gives the rules of each user by name.
func rights(t *testing.T) map[string][]string {
	t.Helper()
	users := map[string][]string{}
	for line := range strings.Lines(read(t, aclFile)) {
		words := strings.Fields(line)
		require.Greater(t, len(words), 2)
		require.Equal(t, "user", words[0], "Redis takes no comment here")
		require.NotContains(t, users, words[1])
		users[words[1]] = words[2:]
	}
	return users
}

// TestUsersStartWithNothing: as the file stands, nobody is admitted, and each right is one command.
func TestUsersStartWithNothing(t *testing.T) {
	t.Parallel()
	users := rights(t)
	require.Len(t, users, 3)
	require.Equal(t, []string{"off", "resetpass", "~*", "&*", "+@all"}, users["default"], "by its rights Redis replays its log")
	for name, keys := range map[string]string{
		redisserver.ServerUser: `^~ai:[a-z-]+(:\*|:pending)?$`, redisserver.OperatorUser: `^~ai:\*$`,
	} {
		const fixed = 5
		require.Equal(t, []string{"on", "resetpass", "resetkeys", "resetchannels", "-@all"}, users[name][:fixed], name)
		rules := users[name][fixed:]
		first := slices.IndexFunc(rules, func(rule string) bool { return strings.HasPrefix(rule, "+") })
		require.Positive(t, first)
		for i, rule := range rules {
			if i < first {
				require.Regexp(t, keys, rule)
			} else {
				require.Regexp(t, `^\+[a-z]+(\|[a-z]+)?$`, rule)
			}
		}
		require.True(t, slices.IsSorted(rules[:first]), name)
		require.IsIncreasing(t, rules[first:])
	}
}

// TestEachRightIsUsed: one that nothing in the sources, nor the runbook, asks for is one too many. Which user asks is not
// told apart.
func TestEachRightIsUsed(t *testing.T) {
	t.Parallel()
	var sources strings.Builder
	for command := range strings.Lines(read(t, "../../configs/RUNBOOK.md")) {
		if _, asked, ok := strings.Cut(command, "XREVRANGE "); ok {
			sources.WriteString(".XRevRange(" + asked)
		}
	}
	for _, pattern := range []string{"*.go", "script/*.lua"} {
		files, err := filepath.Glob("../../adapters/redisjobs/" + pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				sources.WriteString(read(t, file))
			}
		}
	}
	bySomethingElse := map[string]string{ // what stands for the command
		"eval": "redis.NewScript(", "evalsha": "redis.NewScript(", "script|load": "script.Load(",
		"multi": ".TxPipelined(", "exec": ".TxPipelined(",
		"hello": "redis.NewClient(", "select": "redis.NewClient(", // the client library opens a connection with them
	}
	users := rights(t)
	delete(users, "default") // whom nobody can be
	for name, rules := range users {
		for _, rule := range rules {
			command, isRight := strings.CutPrefix(rule, "+")
			if !isRight {
				continue
			}
			if other, ok := bySomethingElse[command]; ok {
				require.Contains(t, sources.String(), other, "%s %s", name, rule)
				continue
			}
			whole, part, _ := strings.Cut(command, "|")
			asked := regexp.MustCompile(`(?i)call\('` + whole + `'|\.` + whole + part + `(N|Count|WithScores)?\(|"` + whole + `", "` + part + `"`)
			require.True(t, asked.MatchString(sources.String()), "%s may do what nothing does: %s", name, rule)
		}
	}
}

// TestUsersMayDoNothingElse asks a Redis for what neither is for.
func TestUsersMayDoNothingElse(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	server.DeniesOnPurpose()
	admin := server.Client(t)
	require.NoError(t, admin.Set(t.Context(), "others:key", "v", 0).Err())
	for user, c := range map[string]struct {
		rdb  *redis.Client
		more []string
	}{
		redisserver.ServerUser: {redisserver.AsServer(t, admin), []string{
			"XADD ai:migration-audit * a b", "DEL ai:migration-audit", "SET ai:backfill-checkpoint:new x",
			"SET ai:k v", "DUMP ai:jobs:k", "MULTI", "LTRIM ai:queue:pending 0 1",
		}},
		redisserver.OperatorUser: {redisserver.AsOperator(t, admin), []string{"SETEX ai:k 1 v", "HINCRBY ai:k f 1", "HDEL ai:k f"}},
	} {
		require.NoError(t, c.rdb.Ping(t.Context()).Err())
		for _, command := range append(c.more,
			"KEYS *", "FLUSHALL", "FLUSHDB", "CONFIG GET *", "ACL LIST", "ACL SETUSER x", "SHUTDOWN", "MONITOR",
			"REPLICAOF NO ONE", "CLIENT KILL TYPE normal", "SCRIPT FLUSH", "BGSAVE", "RENAME ai:k ai:l", "PUBLISH ai:c m", "SUBSCRIBE ai:c",
			"GET others:key", "SET others:key w", "COPY others:key ai:k", "EVAL return(redis.call('GET','others:key')) 0",
			"EVAL return(redis.call('FLUSHALL')) 0",
		) {
			var words []any
			for word := range strings.FieldsSeq(command) {
				words = append(words, word)
			}
			err := c.rdb.Do(t.Context(), words...).Err()
			require.Error(t, err, "%s: %s", user, command)
			require.Regexp(t, "NOPERM|no permissions|ACL failure|can't run|can't access", err.Error(), "%s: %s", user, command)
		}
	}
	require.Equal(t, "v", admin.Get(t.Context(), "others:key").Val())
	require.EqualValues(t, 1, admin.DBSize(t.Context()).Val())
}

// TestUsersMayWorkInAnyDatabase: REDIS_URL may end in a number.
func TestUsersMayWorkInAnyDatabase(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	for _, url := range []string{server.URL(), server.OperatorURL()} {
		rdb, err := redisjobs.Connect(redisjobs.ConnectOptions{URL: strings.TrimSuffix(url, "/0") + "/3"})
		require.NoError(t, err)
		require.NoError(t, rdb.Set(t.Context(), "ai:index-state", "v", 0).Err())
		require.NoError(t, rdb.Close())
	}
	require.Zero(t, server.Client(t).Exists(t.Context(), "ai:index-state").Val())
}

// TestJobsOutliveARestartOfRedis, as README starts it: most versions replay by the default user's rights what scripts wrote,
// and start without what that one may not do. Nobody can log in as that user.
func TestJobsOutliveARestartOfRedis(t *testing.T) {
	t.Parallel()
	users, start, _, socket := redisOfReadme(t)
	start += " --save ''" // what it brings back is from its log alone
	run, stop := context.WithCancel(t.Context())
	startRedis(run, t, users+start, socket, nil)
	connect := func() *redis.Client {
		rdb, err := redisjobs.Connect(redisjobs.ConnectOptions{
			URL: "unix://relay-server:" + strings.TrimSpace(read(t, filepath.Join(filepath.Dir(socket), "server.password"))) + "@" + socket,
		})
		require.NoError(t, err)
		t.Cleanup(func() { _ = rdb.Close() })
		return rdb
	}
	ws, err := workspace.Parse("acme")
	require.NoError(t, err)
	repo := redisjobs.New(connect(), migration.DualWrite, redisjobs.Options{Observer: contract.Unobserved{}})
	var ids []job.ID
	for _, text := range []string{"1", "2", "3"} {
		id, err := job.ParseID(text)
		require.NoError(t, err)
		_, err = repo.Enqueue(t.Context(), job.Draft{ID: id, Workspace: ws, Provider: "google", Name: "gmail.send", Params: "{}"})
		require.NoError(t, err)
		ids = append(ids, id)
	}
	require.NoError(t, repo.Move(t.Context(), ws, ids[0], job.Move{To: job.Running}))
	stored := func(rdb *redis.Client) (all []any) {
		for _, id := range ids {
			for _, key := range []string{"ai:jobs:" + id.String(), "ai:job:acme:" + id.String()} {
				fields := rdb.HGetAll(t.Context(), key).Val()
				require.NotEmpty(t, fields, key)
				all = append(all, fields)
			}
		}
		entries, queue := rdb.ZRange(t.Context(), "ai:index:acme", 0, -1).Val(), rdb.LRange(t.Context(), "ai:queue:pending", 0, -1).Val()
		require.Len(t, entries, 2*len(ids))
		require.Len(t, queue, len(ids))
		return append(all, entries, queue)
	}
	before := stored(connect())

	stop()
	require.Eventually(t, func() bool {
		conn, err := new(net.Dialer).DialContext(t.Context(), "unix", socket)
		return err != nil || conn.Close() != nil
	}, 20*time.Second, 5*time.Millisecond)
	startRedis(t.Context(), t, start, socket, nil)
	again := connect()
	require.Eventually(t, func() bool { return again.Ping(t.Context()).Err() == nil }, 20*time.Second, 5*time.Millisecond, "the log is loaded")
	require.Equal(t, before, stored(again))

	for credentials, refusal := range map[string]string{"": "NOAUTH", "default:@": "NOAUTH", "default:x@": "WRONGPASS"} {
		options, err := redis.ParseURL("unix://" + credentials + socket)
		require.NoError(t, err)
		stranger := redis.NewClient(options)
		require.ErrorContains(t, stranger.Get(t.Context(), "ai:index-state").Err(), refusal, credentials)
		require.NoError(t, stranger.Close())
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(content)
}
