package redisproxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/tests/faults/redisproxy"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// connect gives a client with one connection, no second tries and a short patience.
func connect(t *testing.T, p *redisproxy.Proxy, timeout time.Duration) *redis.Client {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{
		Addr: p.Addr, PoolSize: 1, MaxRetries: -1, DialerRetries: 1, ReadTimeout: timeout, DisableIdentity: true,
	})
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	return rdb
}

func TestProxyPassesEveryKindOfReply(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	p := redisproxy.Start(t, server.URL())
	direct, through := server.Client(t), connect(t, p, 5*time.Second)
	ctx := t.Context()
	big := strings.Repeat("x", 1<<20) + "\r\n$5\r\nhello\r\n"
	require.NoError(t, direct.HSet(ctx, "h", "a", big, "b", "").Err())
	for _, command := range [][]any{
		{"PING"},
		{"GET", "none"},
		{"HGETALL", "h"},
		{"HMGET", "h", "a", "none"},
		{"SET", "s", big},
		{"INCR", "n"},
		{"SADD", "set", "m"},
		{"SMEMBERS", "set"},
		{"ZADD", "z", "1.5", "m"},
		{"ZRANGE", "z", "0", "-1", "WITHSCORES"},
		{"DEBUG", "PROTOCOL", "true"},
		{"DEBUG", "PROTOCOL", "double"},
		{"DEBUG", "PROTOCOL", "null"},
		{"DEBUG", "PROTOCOL", "map"},
		{"DEBUG", "PROTOCOL", "bignum"},
		{"DEBUG", "PROTOCOL", "verbatim"},
		{"EVAL", "return {1, {'a', {}}, redis.error_reply('no')}", "0"},
		{"NO-SUCH-COMMAND"},
		{"LRANGE", "none", "0", "-1"},
	} {
		want, wantErr := direct.Do(ctx, command...).Result()
		got, err := through.Do(ctx, command...).Result()
		if n, ok := want.(int64); ok && command[0] != "DEBUG" { // INCR counts, SADD and ZADD do once
			require.NotEqual(t, n == 1, got == int64(1), command)
			continue
		}
		require.Equal(t, fmt.Sprint(want, wantErr), fmt.Sprint(got, err), command)
	}
	cmds, err := through.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for range 500 {
			pipe.HGet(ctx, "h", "b")
		}
		return nil
	})
	require.NoError(t, err)
	require.Len(t, cmds, 500)
	require.Equal(t, p.Commands(), p.Replies())
	require.Greater(t, p.Commands(), 500)
}

func TestProxyStrikesWhereItWasTold(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	p := redisproxy.Start(t, server.URL())
	direct := server.Client(t)
	executed := map[redisproxy.Point]bool{
		redisproxy.BeforeCommand: false, redisproxy.AfterCommand: true, redisproxy.InReply: true, redisproxy.AfterReply: true,
	}
	for _, point := range redisproxy.Points() {
		for _, how := range []redisproxy.How{redisproxy.FIN, redisproxy.RST} {
			t.Run(point.String()+" "+how.String(), func(t *testing.T) {
				rdb := connect(t, p, 5*time.Second)
				require.NoError(t, rdb.Set(t.Context(), "k", "before", 0).Err())
				replies := p.Replies()
				fault := p.Arm(redisproxy.Plan{Point: point, How: how, Command: 2})
				defer fault.Release()
				require.NoError(t, rdb.Get(t.Context(), "k").Err(), "the first command is not struck")
				err := rdb.Set(t.Context(), "k", "after", 0).Err()
				await(t, fault.Over())
				if point == redisproxy.AfterReply {
					require.NoError(t, err)
				} else {
					require.True(t, errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET), "%v", err)
				}
				want := map[bool]string{false: "before", true: "after"}[executed[point]]
				require.Equal(t, want, direct.Get(t.Context(), "k").Val())
				require.NoError(t, rdb.Get(t.Context(), "k").Err(), "the next connection works")
				require.Equal(t, 1, fault.Times())
				require.Equal(t, map[bool]int{false: 2, true: 3}[point == redisproxy.AfterReply], p.Replies()-replies)
			})
		}
	}
}

// TestProxyCutsAsTCPDoes looks at the connection without a client library, which may hide how it ended.
func TestProxyCutsAsTCPDoes(t *testing.T) {
	t.Parallel()
	p := redisproxy.Start(t, redisserver.Start(t).URL())
	for how, want := range map[redisproxy.How]error{redisproxy.FIN: io.EOF, redisproxy.RST: syscall.ECONNRESET} {
		for _, point := range redisproxy.Points() {
			fault := p.Arm(redisproxy.Plan{Point: point, How: how, Command: 1})
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.Addr)
			require.NoError(t, err)
			require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
			_, err = conn.Write([]byte("*2\r\n$3\r\nGET\r\n$4\r\nnone\r\n"))
			require.NoError(t, err)
			await(t, fault.Over())
			var got []byte
			for buf := make([]byte, 64); err == nil; {
				var n int
				n, err = conn.Read(buf)
				got = append(got, buf[:n]...)
			}
			require.ErrorIs(t, err, want, point)
			reply := map[redisproxy.Point]string{redisproxy.InReply: "$-", redisproxy.AfterReply: "$-1\r\n"}[point]
			require.Equal(t, reply, string(got), point)
			require.NoError(t, conn.Close())
		}
	}
}

func TestProxyHoldsBackAndDeliversLate(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	p := redisproxy.Start(t, server.URL())
	direct := server.Client(t)
	for _, point := range []redisproxy.Point{redisproxy.BeforeCommand, redisproxy.AfterCommand} {
		rdb := connect(t, p, 500*time.Millisecond)
		require.NoError(t, direct.Set(t.Context(), "k", "first", 0).Err())

		// The client gives up; the command arrives all the same.
		fault := p.Arm(redisproxy.Plan{Point: point, How: redisproxy.Hold, Command: 1})
		var timeout net.Error
		require.ErrorAs(t, rdb.Set(t.Context(), "k", "late", 0).Err(), &timeout)
		require.True(t, timeout.Timeout())
		await(t, fault.Over())
		require.Equal(t, "late", direct.Get(t.Context(), "k").Val())
		fault.Release()

		// The client waits; the command and its reply go on their way once they may.
		patient := connect(t, p, time.Minute)
		require.NoError(t, patient.Set(t.Context(), "k", "first", 0).Err())
		fault = p.Arm(redisproxy.Plan{Point: point, How: redisproxy.Hold, Command: 1, Repeat: true})
		answered := make(chan error, 1)
		go func() { answered <- patient.Set(context.WithoutCancel(t.Context()), "k", "held", 0).Err() }()
		await(t, fault.Struck())
		if point == redisproxy.BeforeCommand {
			require.Equal(t, "first", direct.Get(t.Context(), "k").Val())
		}
		require.Empty(t, answered)
		fault.Release()
		require.NoError(t, <-answered)
		require.Equal(t, "held", patient.Get(t.Context(), "k").Val())
	}
}

func TestProxyStrikesAgainAndAgain(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	p := redisproxy.Start(t, server.URL())
	rdb := connect(t, p, 5*time.Second)
	fault := p.Arm(redisproxy.Plan{Point: redisproxy.AfterCommand, Command: 3, Repeat: true})
	failed := 0
	for range 12 {
		if rdb.Incr(t.Context(), "n").Err() != nil {
			failed++
		}
	}
	require.Equal(t, 4, failed)
	require.Equal(t, 4, fault.Times())
	require.Equal(t, "12", server.Client(t).Get(t.Context(), "n").Val())
}

func await(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		require.FailNow(t, "did not happen")
	}
}
