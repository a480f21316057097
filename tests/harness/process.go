package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/tests/harness/conformance"
)

const (
	processTimeout = 2 * time.Minute
	pollInterval   = 5 * time.Millisecond
	// stopPatience is how long a process that nobody stopped may take to write its last lines.
	stopPatience = 2 * time.Second
)

//nolint:gochecknoglobals // "once in a test process" is a fact about the process
var (
	binaryDir string // set by Main
	binary    = sync.OnceValues(func() (string, error) {
		path := filepath.Join(binaryDir, "relay")
		build := exec.Command("go", "build", "-o", path, "github.com/relay-jobs/relay/app/relay")
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go build: %w\n%s", err, out)
		}
		return path, nil
	})
)

// Main runs a package's tests and removes the binary that they used. A package that calls Binary, Start or Run has
//
//	func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "relay-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binaryDir = dir
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Binary builds the command where that was not done yet in this process, and gives its path.
func Binary(tb testing.TB) string {
	tb.Helper()
	require.NotEmpty(tb, binaryDir, "the package has no TestMain that calls harness.Main")
	path, err := binary()
	require.NoError(tb, err)
	return path
}

// Process is the real binary, serving.
type Process struct {
	// URL and AdminURL are the base URLs of the two listeners.
	URL, AdminURL string
	// Log is what it wrote to standard error, Output to standard output.
	Log, Output *Buffer

	cmd    *exec.Cmd
	exited chan struct{}
}

// Start runs `relay serve` with an environment of only these variables, on free ports, until the test ends. Its log must
// be clean then, as RequireCleanLog has it.
func Start(tb testing.TB, env map[string]string, args ...string) *Process {
	tb.Helper()
	p := &Process{Log: &Buffer{}, Output: &Buffer{}, exited: make(chan struct{})}
	p.cmd = exec.Command(Binary(tb), append([]string{"serve"}, args...)...) //nolint:noctx // stopped by Stop
	p.cmd.Stdout, p.cmd.Stderr = p.Output, p.Log
	p.cmd.Env = []string{} // nothing of the tests' own environment
	keepSecrets(env)
	for name, value := range Environment(env) {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	require.NoError(tb, p.cmd.Start())
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // ExitCode tells how it ended
	}()
	tb.Cleanup(func() {
		p.Signal(tb, syscall.SIGTERM)
		select {
		case <-p.exited:
		case <-time.After(stopPatience):
			p.Kill(tb)
		}
		RequireCleanLog(tb, p.Log.String())
	})
	p.awaitAddresses(tb)
	return p
}

// awaitAddresses waits for the line that tells where the listeners are.
func (p *Process) awaitAddresses(tb testing.TB) {
	tb.Helper()
	deadline, tick := time.After(processTimeout), time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		for line := range strings.Lines(p.Log.String()) {
			var serving struct {
				Msg   string `json:"msg"`
				HTTP  string `json:"http_addr"`
				Admin string `json:"admin_addr"`
			}
			if json.Unmarshal([]byte(line), &serving) == nil && serving.Msg == "serving" {
				p.URL, p.AdminURL = "http://"+serving.HTTP, "http://"+serving.Admin
				return
			}
		}
		select {
		case <-p.exited:
			require.FailNow(tb, "relay serve ended at its start", "%s%s", p.Output, p.Log)
		case <-deadline:
			require.FailNow(tb, "relay serve does not start", "%s%s", p.Output, p.Log)
		case <-tick.C:
		}
	}
}

// AwaitReady waits until the server at url is ready: Redis has told it whether it is empty, and that it lives.
func AwaitReady(tb testing.TB, url string) {
	tb.Helper()
	client := conformance.Client(tb)
	require.Eventually(tb, func() bool {
		r, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, url+"/readyz", http.NoBody)
		if err != nil {
			return false
		}
		answer, err := client.Do(r)
		return err == nil && answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
	}, processTimeout, pollInterval, "not ready")
}

// Stop sends SIGTERM and gives the exit code.
func (p *Process) Stop(tb testing.TB) int {
	tb.Helper()
	p.Signal(tb, syscall.SIGTERM)
	return p.Wait(tb)
}

// Kill ends the process as kill -9 does; one that has ended is left alone.
func (p *Process) Kill(tb testing.TB) {
	tb.Helper()
	p.Signal(tb, syscall.SIGKILL)
	p.Wait(tb)
}

// Signal sends a signal to a process that may have ended.
func (p *Process) Signal(tb testing.TB, s os.Signal) {
	tb.Helper()
	if err := p.cmd.Process.Signal(s); !errors.Is(err, os.ErrProcessDone) {
		require.NoError(tb, err)
	}
}

// Wait gives the exit code once the process has ended, -1 where a signal ended it.
func (p *Process) Wait(tb testing.TB) int {
	tb.Helper()
	select {
	case <-p.exited:
	case <-time.After(processTimeout):
		require.FailNow(tb, "relay serve does not end", "%s", p.Log)
	}
	return p.cmd.ProcessState.ExitCode()
}

// Run runs the binary with an environment of only these variables until it ends by itself.
func Run(tb testing.TB, env map[string]string, args ...string) (code int, stdout, stderr string) {
	tb.Helper()
	var out, errs Buffer
	path := Binary(tb)                                               // building it is not part of its time
	ctx, cancel := context.WithTimeout(tb.Context(), processTimeout) // a command that serves after all must not last
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = []string{}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.WaitDelay = processTimeout
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		require.NoError(tb, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}
