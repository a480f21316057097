package observability_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/ports"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/conformance"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// deployment is a Redis server and what runs on it. Alerts tell deployments apart by a label of their targets.
type deployment struct {
	name  string
	redis *redisserver.Server
	rdb   *redis.Client

	url, token string           // of its server
	client     *http.Client     // for its API
	process    *harness.Process // the server, where it is the binary
	observer   ports.Observer   // the server's, where it is served in this process
	known      string           // a job
	redisGone  bool
	targets    map[string][]string

	mu      sync.Mutex
	answers map[int]int // how many of each status
	slow    bool        // whether one took as long as RelayLatencyHigh is about
}

func (d *deployment) startRedis(t *testing.T, args ...string) {
	t.Helper()
	d.redis = redisserver.Start(t, args...)
	d.rdb = d.redis.Client(t)
}

func (d *deployment) environment(t *testing.T, phase migration.Phase) map[string]string {
	t.Helper()
	d.client = conformance.Client(t)
	keys := harness.NewKeys(t)
	d.token = keys.Token(t, "acme")
	env := harness.PhaseEnvironment(phase)
	maps.Copy(env, map[string]string{"REDIS_URL": d.redis.URL(), "RELAY_API_KEYS_FILE": keys.Path})
	return env
}

// serve starts the binary.
func (d *deployment) serve(t *testing.T, phase migration.Phase) {
	t.Helper()
	d.process = harness.Start(t, d.environment(t, phase))
	d.url = d.process.URL
	harness.AwaitReady(t, d.url)
	d.target("relay", d.process.AdminURL)
}

// serveHere starts the service in this process, with parts of it replaced or borrowed.
func (d *deployment) serveHere(t *testing.T, phase migration.Phase, more ...fx.Option) {
	t.Helper()
	service := harness.Boot(t, d.environment(t, phase), more...)
	d.url = service.URL
	harness.AwaitReady(t, d.url)
	d.target("relay", service.AdminURL)
}

func (d *deployment) target(scrapeJob, url string) {
	if d.targets == nil {
		d.targets = map[string][]string{}
	}
	d.targets[scrapeJob] = append(d.targets[scrapeJob], strings.TrimPrefix(url, "http://"))
}

// backfill starts the command, which goes on until the test ends.
func (d *deployment) backfill(t *testing.T, args ...string) {
	t.Helper()
	var stderr harness.Buffer
	cmd := exec.CommandContext(t.Context(), harness.Binary(t),
		append([]string{"migrate", "backfill", "--execute", "--metrics-addr=127.0.0.1:0"}, args...)...)
	cmd.Env, cmd.Stderr = []string{"REDIS_URL=" + d.redis.OperatorURL()}, &stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.Error(t, cmd.Wait(), "the backfill came to its end too soon:\n%s", stderr.String())
	})
	said := regexp.MustCompile(`metrics at (http://\S+)/metrics\n`)
	require.Eventually(t, func() bool { return said.MatchString(stderr.String()) }, waitLimit, pollInterval)
	d.target("relay-backfill", said.FindStringSubmatch(stderr.String())[1])
}

// fetch sends a request.
func fetch(ctx context.Context, client *http.Client, method, url, token, body string) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("request: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// ask sends a request to the deployment's server and counts its answer.
func (d *deployment) ask(ctx context.Context, method, path, body string) (status int, answer []byte) {
	began := time.Now()
	status, answer, err := fetch(ctx, d.client, method, d.url+path, d.token, body)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slow = d.slow || time.Since(began) >= 500*time.Millisecond
	if err != nil {
		return 0, nil
	}
	if d.answers == nil {
		d.answers = map[int]int{}
	}
	d.answers[status]++
	return status, answer
}

// statuses tells how many answers of each status there were.
func (d *deployment) statuses() map[int]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.answers)
}

func (d *deployment) execute(ctx context.Context) (id string) {
	status, answer := d.ask(ctx, http.MethodPost, "/ai/execute", `{"action_provider":"google","action_name":"gmail.send"}`)
	var made struct {
		JobID string `json:"job_id"`
	}
	if status != http.StatusOK || json.Unmarshal(answer, &made) != nil {
		return ""
	}
	return made.JobID
}

func (d *deployment) get(ctx context.Context, id string) (status int) {
	status, _ = d.ask(ctx, http.MethodGet, "/ai/jobs/"+id, "")
	return status
}

func (d *deployment) list(ctx context.Context) (status int) {
	status, _ = d.ask(ctx, http.MethodGet, "/ai/jobs?limit=10", "")
	return status
}

// metric gives what a target exports where a pattern matches the beginning of a line, else nothing.
func (d *deployment) metric(ctx context.Context, scrapeJob, pattern string) string {
	_, answer, err := fetch(ctx, harness.Operators(), http.MethodGet, "http://"+d.targets[scrapeJob][0]+"/metrics", "", "")
	if err != nil {
		return ""
	}
	return regexp.MustCompile("(?m)^" + pattern + ".*$").FindString(string(answer))
}

func (d *deployment) awaitMetric(t *testing.T, scrapeJob, pattern string) {
	t.Helper()
	require.Eventually(t, func() bool { return d.metric(t.Context(), scrapeJob, pattern) != "" }, waitLimit, pollInterval, pattern)
}

// keep does something again and again until the test ends.
func keep(t *testing.T, do func(ctx context.Context)) {
	t.Helper()
	const pause = 15 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for ctx.Err() == nil {
			do(ctx)
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		ended.Wait()
	})
}

// plant stores jobs as the predecessor does, and gives their ids.
func (d *deployment) plant(t *testing.T, n int, status job.Status, enqueued time.Time) []string {
	t.Helper()
	ids := make([]string, n)
	at := enqueued.UTC().Format(job.TimeLayout)
	for some := range slices.Chunk(ids, 1000) {
		_, err := d.rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for i := range some {
				some[i] = uuid.NewString()
				p.HSet(t.Context(), "ai:jobs:"+some[i], fields(some[i], "acme", "enqueued_at", at, "status", string(status)))
				if status == job.Pending {
					p.RPush(t.Context(), "ai:queue:pending", some[i])
				}
			}
			return nil
		})
		require.NoError(t, err)
	}
	return ids
}

// fields are those of a stored job; more of them, in pairs, win.
func fields(id, workspace string, more ...string) map[string]string {
	all := map[string]string{
		"job_id": id, "workspace_id": workspace, "status": "pending", "action_provider": "google", "action_name": "gmail.send",
		"params": "{}", "actor_id": "tester", "result": "", "enqueued_at": "2026-01-02T03:04:05.000006+00:00",
	}
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return all
}

// store writes one hash beside Relay.
func (d *deployment) store(t *testing.T, key string, fields map[string]string) {
	t.Helper()
	require.NoError(t, d.rdb.HSet(t.Context(), key, fields).Err())
}
