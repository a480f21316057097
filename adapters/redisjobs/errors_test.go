package redisjobs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/contract"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// answering runs a server that answers every command with one error reply, connection set-up aside.
func answering(t *testing.T, reply string) *redis.Client {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go answer(conn, reply)
		}
	}()
	return open(t, ConnectOptions{URL: "redis://" + l.Addr().String()})
}

func answer(conn net.Conn, reply string) {
	defer conn.Close() //nolint:errcheck // nothing is lost with it
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSpace(line[1:]))
		if err != nil {
			return
		}
		words := make([]string, 0, n)
		for range n {
			length, err := in.ReadString('\n')
			if err != nil {
				return
			}
			size, err := strconv.Atoi(strings.TrimSpace(length[1:]))
			if err != nil {
				return
			}
			word := make([]byte, size+2)
			if _, err := io.ReadFull(in, word); err != nil {
				return
			}
			words = append(words, string(word[:size]))
		}
		said := "-" + reply
		switch strings.ToUpper(words[0]) {
		case "HELLO":
			said = "-ERR unknown command 'HELLO'"
		case "CLIENT":
			said = "+OK"
		}
		if _, err := fmt.Fprintf(conn, "%s\r\n", said); err != nil {
			return
		}
	}
}

// open connects; it does not wait between tries.
func open(t *testing.T, o ConnectOptions) *redis.Client {
	t.Helper()
	rdb, err := Connect(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	return rdb
}

// attempts are the ways to ask Redis for something.
func attempts(t *testing.T, rdb *redis.Client) map[string]func(context.Context) error {
	t.Helper()
	r := New(rdb, migration.DualWrite, Options{Observer: contract.Unobserved{}})
	ws, id := workspaceID(t, "acme"), jobID(t, "j")
	return map[string]func(context.Context) error{
		"enqueue": func(ctx context.Context) error {
			_, err := r.Enqueue(ctx, job.Draft{ID: id, Workspace: ws, Provider: "p", Name: "n", Params: `{}`})
			return err
		},
		"get":    func(ctx context.Context) error { _, err := r.Get(ctx, ws, id); return err },
		"list":   func(ctx context.Context) error { _, err := r.List(ctx, ws, job.Query{Limit: 10}); return err },
		"move":   func(ctx context.Context) error { return r.Move(ctx, ws, id, job.Move{To: job.Running}) },
		"health": NewHealthCheck(rdb).Check,
	}
}

// requireKind checks the kind of an error, and that what callers are shown says nothing of Redis.
func requireKind(t *testing.T, want fault.Kind, err error, what string) {
	t.Helper()
	require.Error(t, err, what)
	require.Equal(t, want.String(), fault.KindOf(err).String(), "%s: %v", what, err)
	var f *fault.Error
	require.ErrorAs(t, err, &f)
	require.Contains(t, []string{
		"The request was canceled", "The job storage did not answer in time", "Internal error",
		"The job storage is not available", "Job not found",
	}, f.Msg)
}

func TestErrorReplies(t *testing.T) {
	const in62 = "ERR Error running script (call to f_6b1bf486c81ceb7edf3c093f4c48582e38c0e791): "
	for reply, want := range map[string]fault.Kind{
		"LOADING Redis is loading the dataset in memory":                                                    fault.Unavailable,
		"READONLY You can't write against a read only replica.":                                             fault.Unavailable,
		"READONLY You can't write against a read only replica. script: 6b1b, on @user_script:7.":            fault.Unavailable,
		"OOM command not allowed when used memory > 'maxmemory'.":                                           fault.Unavailable,
		"MISCONF Redis is configured to save RDB snapshots, but is currently unable to persist":             fault.Unavailable,
		"NOREPLICAS Not enough good replicas to write.":                                                     fault.Unavailable,
		"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.":                  fault.Unavailable,
		"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.":            fault.Unavailable,
		"NOAUTH Authentication required.":                                                                   fault.Unavailable,
		"NOPERM this user has no permissions to run the 'evalsha' command":                                  fault.Unavailable,
		"ERR max number of clients reached":                                                                 fault.Unavailable,
		"TRYAGAIN Multiple keys request during rehashing of slot":                                           fault.Unavailable,
		in62 + "@user_script:3: @user_script: 3: -OOM command not allowed when used memory > 'maxmemory'. ": fault.Unavailable,
		in62 + "@user_script:3: @user_script: 3: -READONLY You can't write against a read only replica. ":   fault.Unavailable,
		in62 + "@user_script:3: @user_script: 3: -MISCONF Redis is configured to save RDB snapshots ":       fault.Unavailable,
		in62 + "@user_script:3: @user_script: 3: -NOREPLICAS Not enough good replicas to write. ":           fault.Unavailable,

		"ERR unknown command 'COPY'":                                                                fault.Internal,
		"ERR value is not an integer or out of range script: 6b1b":                                  fault.Internal,
		"ERR Error compiling script (new function): user_script:1: '=' near":                        fault.Internal,
		in62 + "@user_script:3: WRONGTYPE Operation against a key holding the wrong kind of value ": fault.Internal,
		in62 + "@user_script:3: user_script:3: attempt to index a nil value ":                       fault.Internal,
	} {
		t.Run(reply[:strings.IndexByte(reply, ' ')], func(t *testing.T) {
			t.Parallel()
			rdb := answering(t, reply)
			for name, attempt := range attempts(t, rdb) {
				requireKind(t, want, attempt(t.Context()), name)
				if strings.Contains(reply, "WRONGTYPE") {
					break
				}
			}
		})
	}
}

func TestErrorsOfTheWay(t *testing.T) {
	t.Run("refused connection", func(t *testing.T) {
		t.Parallel()
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		require.NoError(t, l.Close())
		for name, attempt := range attempts(t, open(t, ConnectOptions{URL: "redis://" + l.Addr().String()})) {
			requireKind(t, fault.Unavailable, attempt(t.Context()), name)
		}
	})
	t.Run("killed server", func(t *testing.T) {
		t.Parallel()
		server := redisserver.Start(t)
		rdb := open(t, ConnectOptions{URL: server.URL()})
		require.NoError(t, rdb.Ping(t.Context()).Err())
		require.NoError(t, server.Kill())
		for name, attempt := range attempts(t, rdb) {
			requireKind(t, fault.Unavailable, attempt(t.Context()), name)
		}
	})
	t.Run("no answer in time", func(t *testing.T) {
		t.Parallel()
		server := redisserver.Start(t)
		rdb := open(t, ConnectOptions{URL: server.URL(), ReadTimeout: 20 * time.Millisecond})
		require.Eventually(t, func() bool { return rdb.Ping(t.Context()).Err() == nil }, 10*time.Second, 10*time.Millisecond)
		require.NoError(t, server.Pause())
		for name, attempt := range attempts(t, rdb) {
			err := attempt(t.Context())
			requireKind(t, fault.Timeout, err, name)
			require.Equal(t, fault.CodeStorageUnavailable, fault.CodeOf(err), name)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		for name, attempt := range attempts(t, rdb) {
			requireKind(t, fault.Timeout, attempt(ctx), name)
		}
		require.NoError(t, server.Resume())
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		server := redisserver.Start(t)
		rdb := open(t, ConnectOptions{URL: server.URL()})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for name, attempt := range attempts(t, rdb) {
			requireKind(t, fault.Canceled, attempt(ctx), name)
		}
	})
	t.Run("no credential", func(t *testing.T) {
		t.Parallel()
		server := redisserver.Start(t)
		server.DeniesOnPurpose()
		require.NoError(t, server.Client(t).ConfigSet(t.Context(), "requirepass", "sesame").Err())
		for name, attempt := range attempts(t, open(t, ConnectOptions{URL: "redis://" + server.Addr})) {
			requireKind(t, fault.Unavailable, attempt(t.Context()), name)
		}
		with := open(t, ConnectOptions{URL: "redis://:sesame@" + server.Addr})
		require.NoError(t, attempts(t, with)["enqueue"](t.Context()))
		wrong := open(t, ConnectOptions{URL: "redis://:wrong@" + server.Addr})
		for name, attempt := range attempts(t, wrong) {
			err := attempt(t.Context())
			requireKind(t, fault.Unavailable, err, name)
			require.NotContains(t, err.Error(), ":wrong@", name)
		}
	})
	t.Run("rights of the connection", func(t *testing.T) {
		t.Parallel()
		server := redisserver.Start(t)
		server.DeniesOnPurpose()
		admin := server.Client(t)
		require.NoError(t, admin.Do(t.Context(), "ACL", "SETUSER", "weak", "on", ">sesame", "~*", "+@connection", "+eval", "+evalsha").Err())
		weak := attempts(t, open(t, ConnectOptions{URL: "redis://weak:sesame@" + server.Addr}))
		for _, name := range []string{"enqueue", "get", "list", "move"} {
			requireKind(t, fault.Unavailable, weak[name](t.Context()), name)
		}
		require.NoError(t, weak["health"](t.Context()))
		require.Zero(t, admin.DBSize(t.Context()).Val())
	})
	t.Run("replica", func(t *testing.T) {
		t.Parallel()
		server := redisserver.Start(t, "--replicaof", "127.0.0.1 1")
		tries := attempts(t, open(t, ConnectOptions{URL: server.URL()}))
		requireKind(t, fault.Unavailable, tries["enqueue"](t.Context()), "enqueue")
		requireKind(t, fault.NotFound, tries["get"](t.Context()), "get")
	})
	t.Run("too few replicas", func(t *testing.T) {
		t.Parallel()
		server := redisserver.Start(t, "--min-replicas-to-write", "1")
		tries := attempts(t, open(t, ConnectOptions{URL: server.URL()}))
		requireKind(t, fault.Unavailable, tries["enqueue"](t.Context()), "enqueue")
		requireKind(t, fault.NotFound, tries["get"](t.Context()), "get")
	})
	t.Run("scripts forgotten", func(t *testing.T) {
		t.Parallel()
		server := redisserver.Start(t)
		rdb := open(t, ConnectOptions{URL: server.URL()})
		for _, name := range []string{"enqueue", "move"} {
			require.NoError(t, server.Client(t).ScriptFlush(t.Context()).Err())
			require.NoError(t, attempts(t, rdb)[name](t.Context()), "NOSCRIPT is no failure")
		}
	})
}

func TestTranslateKeepsTheCause(t *testing.T) {
	require.NoError(t, translate(nil))
	cause := errors.New("dial tcp 10.0.0.7:6379: connect: no route to host")
	err := translate(fmt.Errorf("pool: %w", cause))
	require.ErrorIs(t, err, cause)
	requireKind(t, fault.Unavailable, err, "unknown error")
}
