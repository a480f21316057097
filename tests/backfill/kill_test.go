package backfill_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/tests/faults/redisproxy"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// childURL names the Redis server to the process that is to be killed: this test's own binary.
const childURL = "RELAY_TEST_BACKFILL_URL"

const killBatch = 10

func TestMain(m *testing.M) {
	if url := os.Getenv(childURL); url != "" {
		if err := child(url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child makes one pass in this process.
func child(url string) error {
	rdb, err := redisjobs.Connect(redisjobs.ConnectOptions{URL: url, PoolSize: 1, ReadTimeout: time.Minute})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer rdb.Close() //nolint:errcheck // the process ends
	_, _, err = backfillOf(redisjobs.NewCopies(rdb)).Do(
		context.Background(), usecase.BackfillInput{To: migration.New, Batch: killBatch}, nil)
	return err
}

func childProcess(url string) *exec.Cmd {
	cmd := exec.Command(os.Args[0]) //nolint:noctx // this binary; the test ends it
	cmd.Env = append(os.Environ(), childURL+"="+url)
	cmd.Stderr = os.Stderr
	return cmd
}

// TestKilledPassGoesOn: a process is killed with SIGKILL between any two commands, or between a command and its reply, a
// step's script and its position included. The next one goes on from the position, does at most the one step again, and
// leaves no difference.
func TestKilledPassGoesOn(t *testing.T) {
	jobs := sized(300, 2000)
	total := commandsOfAPass(t, jobs)
	random := rand.New(rand.NewPCG(uint64(total), 7))
	resumed := 0
	for range sized(5, 200) {
		point := redisproxy.BeforeCommand
		if random.IntN(2) == 0 {
			point = redisproxy.AfterCommand
		}
		command := 1 + random.IntN(total)
		t.Run(fmt.Sprint(point, " ", command), func(t *testing.T) { resumed += killAt(t, jobs, point, command) })
	}
	require.Positive(t, resumed, "some went on from a position")
}

func commandsOfAPass(t *testing.T, jobs int) int {
	t.Helper()
	server := redisserver.Start(t)
	plain(t, server.Client(t), jobs)
	proxy := redisproxy.Start(t, server.OperatorURL())
	require.NoError(t, childProcess(proxy.URL()).Run())
	require.Equal(t, jobs, requireEqualCopies(t, server.Client(t)))
	return proxy.Commands()
}

// killAt gives 1 where the second process had a position to go on from.
func killAt(t *testing.T, jobs int, point redisproxy.Point, command int) (resumed int) {
	t.Helper()
	server := redisserver.Start(t)
	rdb := server.Client(t)
	plain(t, rdb, jobs)
	proxy := redisproxy.Start(t, server.OperatorURL())
	fault := proxy.Arm(redisproxy.Plan{Point: point, How: redisproxy.Hold, Command: command})
	process := childProcess(proxy.URL())
	require.NoError(t, process.Start())
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	select {
	case <-fault.Struck():
		require.NoError(t, process.Process.Kill())
		require.Error(t, <-ended)
	case err := <-ended:
		require.NoError(t, err, "it takes a few commands less than another did")
	}
	fault.Release()
	require.Eventually(t, func() bool { // what the process had sent has arrived by then
		clients, err := rdb.ClientList(t.Context()).Result()
		return err == nil && !strings.Contains(clients, "laddr=127.0.0.1")
	}, waitTimeout, pollInterval)

	copies := redisjobs.NewCopies(redisserver.AsOperator(t, rdb))
	kept, err := copies.Checkpoint(t.Context(), migration.New)
	require.NoError(t, err)
	again, done := 0, 0 // jobs that had been done before, and all
	_, whole, err := backfillOf(copies).Do(t.Context(), usecase.BackfillInput{To: migration.New, Batch: killBatch},
		func(p usecase.BackfillProgress) {
			done += len(p.Copied)
			for _, c := range p.Copied {
				if c.Outcome == migration.CopyIdentical {
					again++
				}
			}
		})
	require.NoError(t, err)
	require.True(t, whole)
	require.Equal(t, jobs, requireEqualCopies(t, rdb))
	left, err := copies.Checkpoint(t.Context(), migration.New)
	require.NoError(t, err)
	require.True(t, left.IsZero())
	if kept.IsZero() && again == jobs {
		return 0 // it had come to its end
	}
	// SCAN gives a few keys more than it is asked for.
	require.LessOrEqual(t, again, 2*killBatch, "one step at most is done again")
	require.Equal(t, int64(jobs), kept.Counts.Scanned+int64(done), "each job is counted once")
	if kept.IsZero() {
		return 0
	}
	return 1
}
