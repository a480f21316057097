package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/relay-jobs/relay/adapters/apikey"
	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

const startTimeout = 30 * time.Second

// stand is what is measured: one Redis server, the peer, and Relay in the phases asked for.
type stand struct {
	dir   string
	redis *redisserver.Server
	// acme and globex are tokens with both scopes for these workspaces.
	acme, globex string
	peer         service
	started      []*exec.Cmd
}

// newStand builds both programs, and starts Redis and the peer.
func newStand(ctx context.Context) (_ *stand, err error) {
	s := &stand{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "relay-bench-"); err != nil {
		return nil, fmt.Errorf("folder: %w", err)
	}
	for name, pkg := range map[string]string{"relay": "app/relay", "peer": "tests/bench/peer"} {
		build := exec.CommandContext(ctx, "go", "build", "-o", s.path(name), "github.com/relay-jobs/relay/"+pkg)
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
		}
	}
	if err := s.writeKeys(); err != nil {
		return nil, err
	}
	if s.redis, err = redisserver.Run(ctx); err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	peer := exec.CommandContext(ctx, s.path("peer"), s.redis.Addr)
	peer.Stderr = os.Stderr
	out, err := peer.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("peer: %w", err)
	}
	if err := s.start(peer); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("peer ended at its start: %w", err)
	}
	s.peer = service{addr: strings.TrimSpace(line), pid: peer.Process.Pid}
	return s, nil
}

func (s *stand) path(name string) string { return filepath.Join(s.dir, name) }

func (s *stand) writeKeys() error {
	content := "keys:\n"
	for _, key := range []struct {
		workspace string
		token     *string
	}{{"acme", &s.acme}, {"globex", &s.globex}} {
		token, entry, err := apikey.Generate()
		if err != nil {
			return fmt.Errorf("API key: %w", err)
		}
		entry.WorkspaceID, entry.ActorID = key.workspace, "bench"
		entry.Scopes = []string{string(access.ScopeExecute), string(access.ScopeJobsRead)}
		text, err := entry.YAML()
		if err != nil {
			return fmt.Errorf("API key: %w", err)
		}
		*key.token = token
		content += text
	}
	if err := os.WriteFile(s.path("keys.yaml"), []byte(content), 0o600); err != nil {
		return fmt.Errorf("API keys: %w", err)
	}
	return nil
}

func (s *stand) start(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	s.started = append(s.started, cmd)
	return nil
}

// stop ends all that was started and removes the folder.
func (s *stand) stop() error {
	var err error
	for _, cmd := range s.started {
		err = errors.Join(err, cmd.Process.Kill())
		_ = cmd.Wait() // killed
	}
	if s.redis != nil {
		err = errors.Join(err, s.redis.Stop())
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// service is a running peer, or a running `relay serve`, which alone has an admin listener.
type service struct {
	addr, admin string
	pid         int
}

// cpu gives the seconds that the process has used so far, 0 where the kernel does not tell.
func (s service) cpu() (float64, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("CPU time: %w", err)
	}
	fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
	var ticks [2]float64
	for i := range ticks {
		if ticks[i], err = strconv.ParseFloat(fields[11+i], 64); err != nil { // utime and stime
			return 0, fmt.Errorf("CPU time: %w", err)
		}
	}
	return (ticks[0] + ticks[1]) / 100, nil
}

// startRelay starts the real binary as an operator would: keys from a file, log to a file, metrics on.
func (s *stand) startRelay(ctx context.Context, phase migration.Phase) (service, error) {
	log, err := os.Create(s.path(strings.ReplaceAll(phase.String(), " ", "-") + ".log"))
	if err != nil {
		return service{}, fmt.Errorf("log: %w", err)
	}
	defer log.Close() //nolint:errcheck // the process has its own
	word := map[bool]string{true: "on", false: "off"}
	flags := phase.Flags()
	cmd := exec.CommandContext(ctx, s.path("relay"), "serve")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{
		"RELAY_HTTP_ADDR=127.0.0.1:0", "RELAY_ADMIN_ADDR=127.0.0.1:0",
		"REDIS_URL=" + s.redis.URL(), "RELAY_API_KEYS_FILE=" + s.path("keys.yaml"),
		"AI_JOBS_NEW_SCHEMA=" + word[flags.NewSchema], "AI_JOBS_OLD_SCHEMA=" + word[flags.OldSchema],
		"READ_PREFERS_NEW=" + word[flags.PrefersNew], "READ_FALLBACK_OLD=" + word[flags.FallbackOld],
	}
	if err := s.start(cmd); err != nil {
		return service{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		content, err := os.ReadFile(log.Name())
		if err != nil {
			return service{}, fmt.Errorf("log: %w", err)
		}
		for line := range strings.Lines(string(content)) {
			var serving struct {
				Msg   string `json:"msg"`
				HTTP  string `json:"http_addr"`
				Admin string `json:"admin_addr"`
			}
			if json.Unmarshal([]byte(line), &serving) == nil && serving.Msg == "serving" {
				return service{serving.HTTP, serving.Admin, cmd.Process.Pid}, nil
			}
		}
		select {
		case <-ctx.Done():
			return service{}, fmt.Errorf("relay serve does not start: %w\n%s", ctx.Err(), content)
		case <-tick.C:
		}
	}
}

// profile saves a CPU profile of the given length.
func (s service) profile(ctx context.Context, path string, length time.Duration) error {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", s.admin, int(length.Seconds()))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return nil
}
