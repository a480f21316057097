package faults_test

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/faults/redisproxy"
	"github.com/relay-jobs/relay/tests/harness"
)

// run starts the real binary.
func run(t *testing.T, redisURL string, p migration.Phase, more map[string]string) (api, *harness.Process) {
	t.Helper()
	keys := harness.NewKeys(t)
	token := keys.Token(t, home)
	process := harness.Start(t, harness.Environment(harness.PhaseEnvironment(p), map[string]string{
		"REDIS_URL": redisURL, "RELAY_API_KEYS_FILE": keys.Path,
	}, more))
	harness.AwaitReady(t, process.URL)
	return newAPI(t, process.URL, token), process
}

// TestKilledProcessLeavesWholeJobs: kill -9 under load. Every job that was answered is there, and so is nothing but
// whole jobs.
func TestKilledProcessLeavesWholeJobs(t *testing.T) {
	t.Parallel()
	for _, p := range []migration.Phase{migration.DualWrite, migration.NewOnly} {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			const workers, enough = 16, 200
			s := newStore(t)
			a, process := run(t, s.URL(), p, nil)
			var mu sync.Mutex
			answered := make(map[string]string)
			var wrong atomic.Int64
			var done sync.WaitGroup
			for w := range workers {
				done.Go(func() {
					for i := 0; ; i++ {
						r := sendMail("request-" + strconv.Itoa(w) + "-" + strconv.Itoa(i))
						got, err := a.send(t.Context(), http.MethodPost, "/ai/execute", r)
						if err != nil {
							return // the process is dead
						}
						if got.status != http.StatusOK {
							wrong.Add(1)
							return
						}
						mu.Lock()
						answered[got.jobID] = r.Key
						mu.Unlock()
					}
				})
			}
			require.Eventually(t, func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(answered) >= enough
			}, patience, time.Millisecond)
			process.Kill(t)
			done.Wait()
			require.Zero(t, wrong.Load(), "%s", process.Log)

			made := make(map[string]string)
			for _, entry := range s.queue(t) {
				id := strings.TrimPrefix(entry, queueEntry(p, home, ""))
				made[id] = s.requireWhole(t, p, home, id)["client_request_id"]
			}
			s.requireMade(t, []migration.Phase{p}, made)
			for id, key := range answered {
				require.Equal(t, key, made[id])
			}
			require.LessOrEqual(t, len(made), len(answered)+workers, "one request of each worker was not answered")
		})
	}
}

// TestStoppedProcessAnswersWhatItBegan: requests stand at Redis when the signal comes.
func TestStoppedProcessAnswersWhatItBegan(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			const requests, commands = 12, 12 + 12/3 // every third one is a read, of two copies
			s := newStore(t)
			proxy := redisproxy.Start(t, s.URL())
			a, process := run(t, proxy.URL(), migration.DualWrite, map[string]string{
				"RELAY_REDIS_READ_TIMEOUT": "2m", "RELAY_HTTP_WRITE_TIMEOUT": "2m", "RELAY_REDIS_POOL_SIZE": "32",
			})
			kept := a.execute(t, sendMail("before")) // leaves an idle connection, which must not keep the process
			require.Equal(t, http.StatusOK, kept.status)

			hold := proxy.Arm(redisproxy.Plan{Point: redisproxy.AfterCommand, How: redisproxy.Hold, Command: 1, Repeat: true})
			defer hold.Release()
			got, errs := make([]answer, requests), make([]error, requests)
			var done sync.WaitGroup
			for i := range requests {
				done.Go(func() {
					if i%3 == 0 {
						got[i], errs[i] = a.send(t.Context(), http.MethodGet, "/ai/jobs/"+kept.jobID, nil)
						return
					}
					got[i], errs[i] = a.send(t.Context(), http.MethodPost, "/ai/execute", sendMail("request-"+strconv.Itoa(i)))
				})
			}
			require.Eventually(t, func() bool { return hold.Times() >= commands }, patience, pollInterval)
			process.Signal(t, signal)
			at, err := url.Parse(process.URL)
			require.NoError(t, err)
			require.Eventually(t, func() bool {
				conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", at.Host)
				if err == nil {
					_ = conn.Close()
				}
				return errors.Is(err, syscall.ECONNREFUSED)
			}, patience, pollInterval, "new connections are refused")
			hold.Release()
			done.Wait()
			made := map[string]string{kept.jobID: "before"}
			for i := range requests {
				require.NoError(t, errs[i], "request %d", i)
				require.Equal(t, http.StatusOK, got[i].status, "%s", got[i].body)
				if i%3 != 0 {
					made[got[i].jobID] = "request-" + strconv.Itoa(i)
				}
			}
			require.Zero(t, process.Wait(t), "%s", process.Log)
			s.requireMade(t, []migration.Phase{migration.DualWrite}, made)
			lines := 0
			for _, line := range process.Log.Lines(t) {
				if line["status"] == 200.0 && line["route"] != "/readyz" {
					lines++
				}
			}
			require.Equal(t, 1+requests, lines, "access lines are written to the end")
		})
	}
}

// TestStoppedProcessDoesNotWaitForever: requests that outlast the grace are cut off, and the exit code says so.
func TestStoppedProcessDoesNotWaitForever(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	proxy := redisproxy.Start(t, s.URL())
	a, process := run(t, proxy.URL(), migration.DualWrite, map[string]string{
		"RELAY_REDIS_READ_TIMEOUT": "30s", "RELAY_SHUTDOWN_GRACE": "100ms",
	})
	hold := proxy.Arm(redisproxy.Plan{Point: redisproxy.AfterCommand, How: redisproxy.Hold, Command: 1, Repeat: true})
	defer hold.Release()
	failed := make(chan error, 1)
	go func() {
		_, err := a.send(t.Context(), http.MethodPost, "/ai/execute", sendMail("request"))
		failed <- err
	}()
	awaitClosed(t, hold.Struck())
	require.Equal(t, 3, process.Stop(t))
	require.Error(t, <-failed)
	require.Contains(t, process.Log.String(), "cut off")
}
