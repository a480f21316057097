package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/redisjobs/router"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/contract"
	"github.com/relay-jobs/relay/tests/faults/redisproxy"
	"github.com/relay-jobs/relay/tests/harness"
)

const pollInterval = 5 * time.Millisecond

func boot(t *testing.T, url string, p migration.Phase, more map[string]string) (api, *harness.Service) {
	t.Helper()
	keys := harness.NewKeys(t)
	token := keys.Token(t, home)
	service := harness.Boot(t, harness.Environment(harness.PhaseEnvironment(p), map[string]string{
		"REDIS_URL": url, "RELAY_API_KEYS_FILE": keys.Path,
	}, more))
	return newAPI(t, service.URL, token), service
}

// ready gives /readyz' status, and whether it says that Redis is there.
func (a api) ready(t *testing.T) (status int, redisThere bool) {
	t.Helper()
	got := a.ask(t, http.MethodGet, "/readyz", nil)
	var body struct {
		Checks []struct {
			Name string `json:"name"`
			Ok   bool   `json:"ok"`
		} `json:"checks"`
	}
	require.NoError(t, json.Unmarshal(got.body, &body), "%s", got.body)
	for _, c := range body.Checks {
		if c.Name == "redis" {
			return got.status, c.Ok
		}
	}
	require.FailNow(t, "/readyz does not ask Redis", "%s", got.body)
	return 0, false
}

// requireAway checks what callers see while Redis cannot be asked.
func (a api) requireAway(t *testing.T, known string, r request) {
	t.Helper()
	requireUnavailable(t, a.execute(t, r))
	requireUnavailable(t, a.execute(t, sendMail("")))
	requireUnavailable(t, a.get(t, known))
	requireUnavailable(t, a.get(t, "absent"))
	requireUnavailable(t, a.ask(t, http.MethodGet, "/ai/jobs", nil))
	status, there := a.ready(t)
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.False(t, there)
	require.Equal(t, http.StatusOK, a.ask(t, http.MethodGet, "/livez", nil).status)
}

// requireBack waits until the service is ready again, by itself.
func (a api) requireBack(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		status, there := a.ready(t)
		return status == http.StatusOK && there
	}, patience, pollInterval)
}

// keepsData are the arguments of a server that answers only once a write is on the disk. By default it may be two
// seconds behind where the disk is slow.
func keepsData() []string { return []string{"--appendonly", "yes", "--appendfsync", "always"} }

func TestKilledRedisIsSurvivedWithoutRestart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		kept bool
	}{
		"comes back empty":         {},
		"comes back with its data": {args: keepsData(), kept: true},
	} {
		for _, p := range []migration.Phase{migration.DualWrite, migration.NewOnly} {
			t.Run(p.String()+" "+name, func(t *testing.T) {
				t.Parallel()
				s := newStore(t, c.args...)
				a, _ := boot(t, s.URL(), p, nil)
				first, second := sendMail("first"), sendMail("second")
				made := a.execute(t, first)
				require.Equal(t, http.StatusOK, made.status)
				require.Equal(t, http.StatusOK, a.get(t, made.jobID).status)
				a.requireBack(t)

				require.NoError(t, s.Kill())
				a.requireAway(t, made.jobID, second)
				require.NoError(t, s.Restart(t.Context()))
				a.requireBack(t)

				got, again := a.get(t, made.jobID), a.execute(t, first)
				require.Equal(t, http.StatusOK, again.status, "scripts that the server lost are sent again")
				require.Equal(t, c.kept, again.replayed)
				require.Equal(t, c.kept, again.jobID == made.jobID)
				if c.kept {
					require.Equal(t, http.StatusOK, got.status)
				} else {
					require.Equal(t, http.StatusNotFound, got.status)
				}
				s.forgetScripts(t)
				other := a.execute(t, second)
				require.Equal(t, http.StatusOK, other.status)
				require.False(t, other.replayed)
				s.forgetScripts(t)
				require.Equal(t, other.jobID, a.execute(t, second).jobID)
				s.requireMade(t, []migration.Phase{p}, map[string]string{again.jobID: "first", other.jobID: "second"})
			})
		}
	}
}

// TestPausedRedisTimesOut: what was sent to a server that hangs is executed once it goes on; it makes no second job.
func TestPausedRedisTimesOut(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	a, service := boot(t, s.URL(), migration.DualWrite, map[string]string{"RELAY_REDIS_READ_TIMEOUT": "50ms"})
	known := a.executeUntilDone(t, sendMail("known"))
	r := sendMail("request")
	require.NoError(t, s.Pause())
	requireUnavailable(t, a.execute(t, r))
	requireUnavailable(t, a.execute(t, r))
	requireUnavailable(t, a.get(t, known.jobID))
	requireUnavailable(t, a.ask(t, http.MethodGet, "/ai/jobs", nil))
	status, there := a.ready(t)
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.False(t, there)
	require.NoError(t, s.Resume())
	a.requireBack(t)
	done := a.executeUntilDone(t, r)
	s.requireMade(t, []migration.Phase{migration.DualWrite}, map[string]string{known.jobID: "known", done.jobID: "request"})
	require.NoError(t, service.Stop())
	require.NotEmpty(t, service.Log.Message(t, "Failed to enqueue job for workspace (job_id logged internally)"))
	require.NotContains(t, service.Log.String(), a.token)
}

// TestOutageIsAnsweredInTime: a server that cannot be reached is dialled once for each try of a command, so that the
// tries end, and with them the request, before the HTTP server's write timeout.
func TestOutageIsAnsweredInTime(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	rdb, err := redisjobs.Connect(redisjobs.ConnectOptions{URL: s.URL()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	dials := &dialCounter{}
	rdb.AddHook(dials)
	require.NoError(t, s.Kill())
	jobs := router.New(rdb, migration.DualWrite, redisjobs.Options{Observer: contract.Unobserved{}})
	_, err = jobs.Get(t.Context(), parseWorkspace(t, home), parseJobID(t, "absent"))
	requireLost(t, err)
	o := rdb.Options()
	require.LessOrEqual(t, int(dials.n.Load()), 2*(1+o.MaxRetries), "the library may dial once more in the background")
	require.Less(t, time.Duration(1+o.MaxRetries)*(o.DialTimeout+o.MaxRetryBackoff), 15*time.Second)
}

// TestGoneCallerIsNoOutage: a caller that gives up is answered as such, wherever the request stands.
func TestGoneCallerIsNoOutage(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	proxy := redisproxy.Start(t, s.URL())
	rdb, err := redisjobs.Connect(redisjobs.ConnectOptions{URL: proxy.URL(), ReadTimeout: time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	jobs := router.New(rdb, migration.DualWrite, redisjobs.Options{Observer: contract.Unobserved{}})
	ws := parseWorkspace(t, home)
	calls := map[string]func(ctx context.Context, id job.ID) error{
		"enqueue": func(ctx context.Context, id job.ID) error {
			_, err := jobs.Enqueue(ctx, job.Draft{ID: id, Workspace: ws, Provider: "p", Name: "n", Params: "{}", Actor: actor})
			return err
		},
		"get": func(ctx context.Context, id job.ID) error {
			_, err := jobs.Get(ctx, ws, id)
			return err
		},
		"list": func(ctx context.Context, _ job.ID) error {
			_, err := jobs.List(ctx, ws, job.Query{Limit: 1})
			return err
		},
		"move": func(ctx context.Context, id job.ID) error { return jobs.Move(ctx, ws, id, job.Move{To: job.Running}) },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			id := parseJobID(t, random())
			before := redisKeys(t, s)
			gone, leave := context.WithCancel(t.Context())
			leave()
			require.Equal(t, fault.Canceled, fault.KindOf(call(gone, id)))
			late, end := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
			defer end()
			require.Equal(t, fault.Timeout, fault.KindOf(call(late, id)))
			require.Equal(t, before, redisKeys(t, s))

			hold := proxy.Arm(redisproxy.Plan{Point: redisproxy.BeforeCommand, How: redisproxy.Hold, Command: 1, Repeat: true})
			defer hold.Release()
			waiting, leave := context.WithCancel(t.Context())
			defer leave()
			answered := make(chan error, 1)
			go func() { answered <- call(waiting, id) }()
			awaitClosed(t, hold.Struck())
			leave()
			require.Equal(t, fault.Canceled, fault.KindOf(<-answered))

			short, end := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer end()
			require.Equal(t, fault.Timeout, fault.KindOf(call(short, id)))
		})
	}
	t.Run("over HTTP", func(t *testing.T) {
		a, service := boot(t, proxy.URL(), migration.DualWrite, map[string]string{"RELAY_REDIS_READ_TIMEOUT": "1s"})
		hold := proxy.Arm(redisproxy.Plan{Point: redisproxy.BeforeCommand, How: redisproxy.Hold, Command: 1, Repeat: true})
		defer hold.Release()
		waiting, leave := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(waiting, http.MethodGet, a.url+"/ai/jobs/absent", http.NoBody)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+a.token)
		left := make(chan error, 1)
		go func() {
			res, err := a.http.Do(req)
			if err == nil {
				_ = res.Body.Close()
			}
			left <- err
		}()
		awaitClosed(t, hold.Struck())
		leave()
		require.ErrorIs(t, <-left, context.Canceled)
		require.NoError(t, service.Stop())
		var statuses []any
		for _, line := range service.Log.Lines(t) {
			if line["route"] == "/ai/jobs/{job_id}" {
				statuses = append(statuses, line["status"])
			}
		}
		require.Equal(t, []any{499.0}, statuses)
	})
}

// dialCounter is a hook of the client library.
type dialCounter struct{ n atomic.Int64 }

// DialHook counts.
func (d *dialCounter) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		d.n.Add(1)
		return next(ctx, network, addr)
	}
}

// ProcessHook leaves commands as they are.
func (*dialCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook leaves pipelines as they are.
func (*dialCounter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// insist asks until there is an answer, however long the storage is away.
func (a api) insist(ctx context.Context, r request) (jobID string, err error) {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		got, err := a.send(ctx, http.MethodPost, "/ai/execute", r)
		switch {
		case err != nil:
			return "", err
		case got.status == http.StatusOK:
			return got.jobID, nil
		case got.code != "storage_unavailable" || got.retryAfter == "":
			return "", fmt.Errorf("status %d: %s", got.status, got.body)
		}
	}
	return "", errors.New("never done")
}

// TestRedisKilledUnderLoadLosesNothing: callers ask again until they are answered, over the death of a server that
// keeps its data. It dies once only: where it dies in the middle of writing a script's effects, Redis 7.0 leaves the
// torn transaction's beginning in its file, and a second start would take it for whole.
func TestRedisKilledUnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	for _, p := range []migration.Phase{migration.DualWrite, migration.NewOnly} {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			const workers, each = 8, 40
			s := newStore(t, keepsData()...)
			a, _ := boot(t, s.URL(), p, nil)
			var mu sync.Mutex
			made := make(map[string]string)
			count := func() int {
				mu.Lock()
				defer mu.Unlock()
				return len(made)
			}
			var done sync.WaitGroup
			failures := make(chan error, workers)
			for w := range workers {
				done.Go(func() {
					for i := range each {
						r := sendMail("request-" + strconv.Itoa(w*each+i))
						id, err := a.insist(t.Context(), r)
						if err != nil {
							failures <- err
							return
						}
						mu.Lock()
						made[id] = r.Key
						mu.Unlock()
					}
				})
			}
			require.Eventually(t, func() bool { return count() >= workers*each/2 }, patience, time.Millisecond)
			require.NoError(t, s.Kill())
			require.NoError(t, s.Restart(t.Context()))
			done.Wait()
			close(failures)
			for err := range failures {
				require.NoError(t, err)
			}
			require.Len(t, made, workers*each)
			s.requireMade(t, []migration.Phase{p}, made)
		})
	}
}
