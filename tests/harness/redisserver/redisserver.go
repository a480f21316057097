// Package redisserver runs real Redis servers for tests: each has its own process, folder, free port and socket, and
// keeps nothing. Its users are those of configs/redis/users.acl, and what they ask for without a right fails the test.
package redisserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/require"
)

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 10 * time.Second
	patience     = time.Minute
	pollInterval = 5 * time.Millisecond
	portAttempts = 5
	aclLogLength = 128 // as many entries as Redis keeps
)

// The users of configs/redis/users.acl, and their password on these servers. The tests' own clients are the default
// user, who may do everything here and nothing there.
const (
	ServerUser   = "relay-server"
	OperatorUser = "relay-operator"

	Password = "open-sesame-of-a-test"
)

// ErrNotInstalled says how to get a Redis server. Tests that need one fail without it.
var ErrNotInstalled = errors.New("redis-server is not in PATH: run `make redis-server`, which installs it with " +
	"apt-get where it may, or install Redis 6.2 or later yourself")

// Server is a running Redis server.
type Server struct {
	// Addr is 127.0.0.1 and the port.
	Addr string
	// Socket is the path of the unix socket.
	Socket string

	dir    string
	args   []string
	held   net.PacketConn // its port
	output *os.File
	cmd    *exec.Cmd
	exited chan struct{}
	denies bool // the test denies something on purpose
}

// Start runs a server until the test ends. The arguments are added to its command line: "--maxmemory", "1mb". A test that
// ends fails where the server denied something to anybody.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	s, err := Run(context.Background(), args...)
	require.NoError(tb, err)
	tb.Cleanup(func() {
		defer func() { require.NoError(tb, s.Stop()) }()
		if s.denies || s.ended() {
			return
		}
		denied, err := s.Denied(context.Background()) // the test's own context is over
		require.NoError(tb, err)
		require.Empty(tb, denied, "configs/redis/users.acl lacks a right")
	})
	return s
}

// DeniesOnPurpose is what a test calls whose server denies something, as the test wants.
func (s *Server) DeniesOnPurpose() { s.denies = true }

// Run starts a server for callers that are no test; they must call Stop.
func Run(ctx context.Context, args ...string) (*Server, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, ErrNotInstalled
	}
	var last error
	for range portAttempts { // another process may take the free port first
		s, err := start(ctx, args)
		if err == nil {
			return s, nil
		}
		last = err
	}
	return nil, last
}

func start(ctx context.Context, args []string) (*Server, error) {
	dir, err := os.MkdirTemp("", "relay-redis-")
	if err != nil {
		return nil, fmt.Errorf("folder of a Redis server: %w", err)
	}
	output, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return nil, fmt.Errorf("output of a Redis server: %w", errors.Join(err, os.RemoveAll(dir)))
	}
	held, err := freePort(ctx)
	if err != nil {
		return nil, errors.Join(err, output.Close(), os.RemoveAll(dir))
	}
	s := &Server{
		Addr: held.LocalAddr().String(), Socket: filepath.Join(dir, "redis.sock"),
		dir: dir, held: held, output: output,
	}
	acl := filepath.Join(dir, "users.acl")
	host, port, err := net.SplitHostPort(s.Addr)
	s.args = append([]string{
		"--bind", host, "--port", port, "--unixsocket", s.Socket, "--dir", dir,
		"--save", "", "--appendonly", "no", "--aclfile", acl,
	}, args...)
	if err == nil {
		err = writeUsers(acl)
	}
	if err == nil {
		err = s.launch(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// writeUsers writes configs/redis/users.acl with passwords, and with a default user who may do everything.
func writeUsers(path string) error {
	_, here, _, _ := runtime.Caller(0)
	content, err := os.ReadFile(filepath.Join(filepath.Dir(here), "..", "..", "..", "configs", "redis", "users.acl"))
	if err != nil {
		return fmt.Errorf("users of a Redis server: %w", err)
	}
	users := strings.NewReplacer(
		"user default off resetpass ", "user default on nopass ", " resetpass ", " >"+Password+" ",
	).Replace(string(content))
	if err := os.WriteFile(path, []byte(users), 0o600); err != nil {
		return fmt.Errorf("users of a Redis server: %w", err)
	}
	return nil
}

func (s *Server) launch(ctx context.Context) error {
	// The process outlives ctx, which bounds its start alone.
	s.cmd = exec.Command("redis-server", s.args...) //nolint:noctx // stopped by Stop
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	s.cmd.SysProcAttr = dieWithParent()
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start redis-server: %w", err)
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		defer close(exited)
		_ = cmd.Wait() // how it ended is told by its output
	}(s.cmd, s.exited)
	return s.awaitPing(ctx)
}

func (s *Server) awaitPing(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := s.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("redis-server ended at its start:\n%s", s.said())
		case <-ctx.Done():
			return fmt.Errorf("redis-server does not answer: %w\n%s", err, s.said())
		case <-tick.C:
		}
	}
}

// ping speaks for itself, because the client library writes a line for each connection that is refused.
func (s *Server) ping(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", s.Socket)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close() //nolint:errcheck // nothing is lost with it
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	const pong = "+PONG\r\n"
	reply := make([]byte, len(pong))
	if _, err := io.ReadFull(conn, reply); err != nil || string(reply) != pong {
		return fmt.Errorf("ping is answered %q: %w", reply, err)
	}
	return nil
}

// URL is the server's TCP address as the REDIS_URL of `relay serve`.
func (s *Server) URL() string { return urlOf(ServerUser, s.Addr) }

// OperatorURL is the server's TCP address as the REDIS_URL of `relay migrate`.
func (s *Server) OperatorURL() string { return urlOf(OperatorUser, s.Addr) }

func urlOf(user, addr string) string { return "redis://" + user + ":" + Password + "@" + addr + "/0" }

// SocketURL is the server's unix socket as the REDIS_URL of `relay serve`.
func (s *Server) SocketURL() string { return "unix://" + ServerUser + ":" + Password + "@" + s.Socket }

// Client connects to the server as a user who may do everything, until the test ends.
func (s *Server) Client(tb testing.TB) *redis.Client {
	tb.Helper()
	return connect(tb, &redis.Options{Network: "unix", Addr: s.Socket})
}

// AsServer connects to where another client is, with the rights of `relay serve`, until the test ends.
func AsServer(tb testing.TB, rdb *redis.Client) *redis.Client {
	tb.Helper()
	return as(tb, rdb, ServerUser)
}

// AsOperator connects to where another client is, with the rights of `relay migrate`, until the test ends.
func AsOperator(tb testing.TB, rdb *redis.Client) *redis.Client {
	tb.Helper()
	return as(tb, rdb, OperatorUser)
}

func as(tb testing.TB, rdb *redis.Client, user string) *redis.Client {
	tb.Helper()
	o := rdb.Options()
	return connect(tb, &redis.Options{Network: o.Network, Addr: o.Addr, Username: user, Password: Password})
}

// connect sends nothing but what is asked for: some Redis servers deny the rest, and so would their logs tell. A command is
// not sent again because a busy machine takes long for it.
func connect(tb testing.TB, o *redis.Options) *redis.Client {
	tb.Helper()
	o.DisableIdentity = true
	o.ReadTimeout, o.WriteTimeout = patience, patience
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	rdb := redis.NewClient(o)
	tb.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// Denied tells what the server denied to whom since its start.
func (s *Server) Denied(ctx context.Context) ([]string, error) {
	rdb := redis.NewClient(&redis.Options{Network: "unix", Addr: s.Socket, DisableIdentity: true})
	defer rdb.Close() //nolint:errcheck // nothing is lost with it
	entries, err := rdb.ACLLog(ctx, aclLogLength).Result()
	if err != nil {
		return nil, fmt.Errorf("ACL LOG: %w", err)
	}
	var denied []string
	for _, e := range entries {
		denied = append(denied, fmt.Sprintf("%s: %s %q, %s", e.Username, e.Reason, e.Object, e.Context))
	}
	return denied, nil
}

// Kill ends the process as kill -9 does. Its data are lost; Restart brings an empty server back.
func (s *Server) Kill() error { return s.end(syscall.SIGKILL) }

// Restart starts the server again with the same addresses, after Kill.
func (s *Server) Restart(ctx context.Context) error { return s.launch(ctx) }

// Pause stops the process from answering, with its connections open, until Resume.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT) }

// Stop ends the process and removes its folder. It may be called twice.
func (s *Server) Stop() error {
	err := s.end(syscall.SIGTERM)
	for _, c := range []io.Closer{s.output, s.held} {
		if e := c.Close(); !errors.Is(e, os.ErrClosed) && !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// said gives what the process wrote, for error messages.
func (s *Server) said() []byte {
	content, err := os.ReadFile(s.output.Name())
	if err != nil {
		return []byte(err.Error())
	}
	return content
}

func (s *Server) signal(sig os.Signal) error {
	if s.exited == nil {
		return nil // it never started
	}
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal redis-server: %w", err)
	}
	return nil
}

// ended tells whether the process is gone, because a test killed it.
func (s *Server) ended() bool {
	select {
	case <-s.exited:
		return true
	default:
		return false
	}
}

func (s *Server) end(sig os.Signal) error {
	if err := errors.Join(s.signal(sig), s.signal(syscall.SIGCONT)); err != nil || s.exited == nil {
		return err
	}
	select {
	case <-s.exited:
		return nil
	case <-time.After(stopTimeout):
		err := s.signal(syscall.SIGKILL)
		<-s.exited
		return errors.Join(err, fmt.Errorf("redis-server had to be killed:\n%s", s.said()))
	}
}

// freePort draws one from below those that systems give to outgoing connections, and holds it by the UDP port of the same
// number: neither a connection nor another test takes the port of a server that is killed before it starts again.
func freePort(ctx context.Context) (held net.PacketConn, err error) {
	const lowest, highest, draws = 15_000, 32_000, 100
	var config net.ListenConfig
	for range draws {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(lowest+rand.IntN(highest-lowest)))
		if held, err = config.ListenPacket(ctx, "udp", addr); err != nil {
			continue
		}
		var l net.Listener
		if l, err = config.Listen(ctx, "tcp", addr); err == nil {
			return held, l.Close()
		}
		err = errors.Join(err, held.Close())
	}
	return nil, fmt.Errorf("no free port: %w", err)
}
