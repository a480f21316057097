// Package phases_test takes one store through the phases and back, as a rolling deploy of two servers does: the real
// binary, under load, beside a predecessor that knows the old schema alone. A ledger holds the acknowledged truth of
// every job. Plain `go test` does it in small; RELAY_SOAK=full at a size that an operator would ask for.
package phases_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/redisjobs/router"
	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/tests/contract"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/conformance"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// sized gives the size of a test.
func sized(small, full int) int {
	if os.Getenv("RELAY_SOAK") == "full" {
		return full
	}
	return small
}

const (
	// patience is for what happens soon unless it never does. At full size a share takes its time.
	patience     = 5 * time.Minute
	pollInterval = 2 * time.Millisecond
	queueKey     = "ai:queue:pending"
)

// workspaces are neighbours: one's name begins another's.
func workspaces() []string { return []string{"acme", "acme-eu", "acme_labs"} }

// kind is a kind of work that a server does.
type kind int

const (
	executes kind = iota
	reads
	walks
	moves
	kinds
)

// targets are how often each server has to do each kind of work between two steps of a deploy.
func targets() [kinds]int64 {
	return [kinds]int64{
		executes: int64(sized(12, 300)), reads: int64(sized(30, 2000)), walks: int64(sized(1, 5)), moves: int64(sized(6, 120)),
	}
}

// server is one of the two that consumers reach, and a worker in the same phase beside it.
type server struct {
	*harness.Process

	phase  migration.Phase
	update usecase.UpdateStatus
	done   [kinds]atomic.Int64 // since the last step of the deploy
}

// world is one store, those who serve it and those who use it.
type world struct {
	*testing.T
	*ledger

	redis  *redisserver.Server
	rdb    *redis.Client
	keys   string // the file of API keys
	tokens map[string]string
	http   *http.Client

	// Load goes on under the read lock, each piece of it to its end; who looks at rest, or changes servers, takes the write
	// lock.
	running sync.RWMutex
	step    string
	servers [2]*server
	theirs  *predecessor // nil while it is stopped
	indexed bool         // lists go by the index

	kept   sync.Mutex
	spares []*life         // running jobs whose worker was lost
	asked  []request       // that may be repeated
	waited map[string]bool // jobs that waited in new only, and that old did not hold so

	count   atomic.Int64 // makes contents differ
	strange bool         // the store holds keys that are no jobs
	stopped chan struct{}
	failing context.CancelCauseFunc
	ctx     context.Context //nolint:containedctx // of the load, which lasts as long as the world
	load    sync.WaitGroup
}

// request is an execute that was asked for with an idempotency key.
type request struct {
	ws, key, provider, name string
	params                  job.JSON
	id                      string
}

// newWorld starts Redis, lets fill put in what was there before Relay, and starts two servers and the load.
func newWorld(t *testing.T, phase migration.Phase, fill func(w *world)) *world {
	t.Helper()
	w := &world{T: t, ledger: newLedger(), redis: redisserver.Start(t), tokens: map[string]string{}, stopped: make(chan struct{})}
	w.rdb = w.redis.Client(t)
	keys := harness.NewKeys(t)
	w.keys = keys.Path
	w.http = conformance.Client(t)
	w.http.Timeout = patience
	w.step = phase.String()
	fill(w)
	for _, ws := range w.workspaces() {
		w.tokens[ws] = keys.Token(t, ws)
	}
	for i := range w.servers {
		w.servers[i] = w.start(phase)
	}
	w.indexed = w.rdb.Exists(t.Context(), "ai:index-state").Val() > 0
	ctx, failing := context.WithCancelCause(t.Context())
	w.ctx, w.failing = ctx, failing
	t.Cleanup(func() {
		failing(nil)
		w.load.Wait()
	})
	if len(w.all) == 0 {
		require.NoError(t, w.execute(ctx))
	}
	for range 4 {
		w.keep(w.stopped, w.call)
	}
	for range 2 {
		w.keep(w.stopped, w.work)
	}
	return w
}

// workspaces are those that own jobs, and those of the load.
func (w *world) workspaces() []string {
	all := workspaces()
	for _, of := range w.all {
		if !slices.Contains(all, of.ws) {
			all = append(all, of.ws)
		}
	}
	return all
}

func (w *world) environment(phase migration.Phase) map[string]string {
	return harness.Environment(harness.PhaseEnvironment(phase), map[string]string{
		"REDIS_URL": w.redis.URL(), "RELAY_API_KEYS_FILE": w.keys, "RELAY_INDEX_SWEEP": "2s",
	})
}

// start starts a server and waits until it is ready.
func (w *world) start(phase migration.Phase) *server {
	w.Helper()
	rdb, err := redisjobs.Connect(redisjobs.ConnectOptions{URL: w.redis.URL()})
	require.NoError(w, err)
	w.Cleanup(func() { require.NoError(w, rdb.Close()) })
	s := &server{Process: harness.Start(w.T, w.environment(phase)), phase: phase, update: usecase.UpdateStatus{
		Jobs: router.New(rdb, phase, redisjobs.Options{Observer: contract.Unobserved{}}),
	}}
	harness.AwaitReady(w.T, s.URL)
	return s
}

// rest looks at the world while nobody uses it.
func (w *world) rest(look func()) {
	w.Helper()
	w.running.Lock()
	defer w.running.Unlock()
	require.NoError(w, context.Cause(w.ctx))
	look()
}

// until waits for what the load brings about.
func (w *world) until(what string, there func() bool) {
	w.Helper()
	deadline, tick := time.After(patience), time.NewTicker(pollInterval)
	defer tick.Stop()
	for !there() {
		select {
		case <-w.ctx.Done():
			require.NoError(w, context.Cause(w.ctx))
		case <-deadline:
			require.FailNow(w, "it does not come to this", "%s: %s", w.step, what)
		case <-tick.C:
		}
	}
}

// roll takes one server after the other to another phase, and looks at everything in between and behind.
func (w *world) roll(to migration.Phase) {
	w.Helper()
	from := w.servers[0].phase
	for i := range w.servers {
		next := w.start(to)
		w.deploy(i, next, fmt.Sprintf("%s → %s, %d of 2", from, to, i+1))
		w.until("each server has done its share", func() bool {
			w.running.RLock()
			defer w.running.RUnlock()
			return w.shared()
		})
		w.rest(func() {
			w.giveBackLost(len(w.spares) * (i + 1) / len(w.servers))
			w.requireTruth()
		})
	}
}

// giveBackLost lets some of the running jobs wait again whose worker was lost.
func (w *world) giveBackLost(n int) {
	w.Helper()
	for _, of := range w.spares[:n] {
		require.NoError(w, w.giveBack(w.Context(), of))
	}
	w.spares = w.spares[n:]
}

// deploy gives the place of a server to another, and stops it once nobody uses it any more.
func (w *world) deploy(i int, next *server, step string) {
	w.Helper()
	before := w.servers[i]
	w.rest(func() {
		w.servers[i], w.step = next, step
		for _, s := range w.servers {
			for k := range s.done {
				s.done[k].Store(0)
			}
		}
		if w.theirs != nil {
			w.theirs.made.Store(0)
			w.theirs.taken.Store(0)
		}
	})
	w.requireNoAlarm(before)
	w.http.CloseIdleConnections() // a server waits for some seconds for what comes on connections that brought nothing yet
	require.Zero(w, before.Stop(w.T), "%s", before.Log)
}

// requireNoAlarm checks that a server has counted and logged nothing that an operator is woken for.
func (w *world) requireNoAlarm(s *server) {
	w.Helper()
	text := harness.Admin(w, s.AdminURL+"/metrics")
	require.Contains(w, text, "\nrelay_isolation_breach_total{")
	alarm := regexp.MustCompile(
		`(?m)^relay_(isolation_breach|job_id_collision|record_invalid|dual_write_attempt)_total\{(result="failed",)?workspace_id="[^"]*"\} [^0]`)
	require.Empty(w, alarm.FindAllString(text, -1), "%s", w.step)
	for _, line := range s.Log.Lines(w) {
		require.NotEqual(w, "error", line["level"], "%s: %v", w.step, line)
	}
}

// short gives the servers that have not done their share of a kind.
func (w *world) short(k kind) []*server {
	var out []*server
	for _, s := range w.servers {
		if s.done[k].Load() < targets()[k] {
			out = append(out, s)
		}
	}
	return out
}

// shared tells whether everybody has done their share. Until then the load goes at full speed, and then at leisure.
func (w *world) shared() bool {
	for k := range kinds {
		if len(w.short(k)) > 0 {
			return false
		}
	}
	return w.theirs == nil || w.theirs.shared()
}

// requireTruth holds everything that is stored, at rest, against the ledger: on both servers each workspace's list has
// each job once and as it is, and no other; on one of them so have the lists by state. Some jobs are read by id, too.
func (w *world) requireTruth() {
	w.Helper()
	ctx := w.Context()
	if w.indexed {
		w.sweep()
	} else {
		w.settle()
	}
	byState := w.either()
	for _, s := range w.servers {
		where := fmt.Sprintf("%s: %s", w.step, s.phase)
		for _, ws := range w.workspaces() {
			seen, err := w.walk(ctx, ws, "", 1000, func() *server { return s })
			require.NoError(w, err, where)
			owed := w.of(ws, w.now(), false)
			for id, times := range seen {
				require.True(w, owed[id], "%s: %q of %s is shown and was never made", where, id, ws)
				require.Equal(w, 1, times, "%s: %q of %s is shown so often", where, id, ws)
			}
			for id := range owed {
				require.Positive(w, seen[id], "%s: %q of %s (%s) is in no list", where, id, ws, w.lives[id].since)
			}
			if s == byState && (w.indexed || ws == workspaces()[0]) { // by SCAN each of them goes through all keys
				w.requireByState(s, ws, seen)
			}
		}
		for range sized(20, 200) {
			require.NoError(w, w.read(ctx, s, w.pick()), where)
		}
	}
	if w.theirs != nil {
		w.requireOldTruth()
	}
}

// requireByState checks that the lists of all states show together what the whole list has shown, each job once.
func (w *world) requireByState(s *server, ws string, shown map[string]int) {
	w.Helper()
	for _, status := range job.Statuses() {
		some, err := w.walk(w.Context(), ws, status, 1000, func() *server { return s })
		require.NoError(w, err, "%s: %s", w.step, s.phase)
		for id, times := range some {
			require.Equal(w, 1, times, "%s: %s: %s is shown so often among the %s", w.step, s.phase, w.said(id), status)
			delete(shown, id)
		}
	}
	require.Empty(w, shown, "%s: %s: in no list of their state", w.step, s.phase)
}

// requireOldTruth checks that who knows the old schema alone finds every job as it is.
func (w *world) requireOldTruth() {
	w.Helper()
	copies := make([]*redis.MapStringStringCmd, len(w.all))
	_, err := w.rdb.Pipelined(w.Context(), func(p redis.Pipeliner) error {
		for i, of := range w.all {
			copies[i] = p.HGetAll(w.Context(), "ai:jobs:"+of.id)
		}
		return nil
	})
	require.NoError(w, err)
	for i, of := range w.all {
		f, last := copies[i].Val(), w.last(of)
		require.True(w, last.is(f["status"], json.RawMessage(job.JSONOf(f["result"])), f["error"], f["started_at"], f["finished_at"]),
			"%s: the predecessor finds %q (%s) as %v; it is %s", w.step, of.id, of.since, f, last)
		require.Equal(w, of.ws, f["workspace_id"])
	}
}

// sweep does what servers do from time to time: after it the predecessor's jobs are in lists.
func (w *world) sweep() {
	w.Helper()
	_, err := w.pass(migration.IndexOld)
	require.NoError(w, err)
	for _, of := range w.all {
		of.listed = true
	}
}

func (w *world) pass(scope migration.IndexScope) (migration.IndexCounts, error) {
	index := usecase.IndexJobs{Index: redisjobs.New(w.rdb, 0, redisjobs.Options{}), Clock: systemclock.Clock{}}
	return index.Do(w.Context(), usecase.IndexJobsInput{Scope: scope}, nil)
}

// settle ends a resize of Redis' table, during which SCAN may give a key twice: each look-up moves a bucket.
func (w *world) settle() {
	w.Helper()
	keys, err := w.rdb.DBSize(w.Context()).Result()
	require.NoError(w, err)
	_, err = w.rdb.Pipelined(w.Context(), func(p redis.Pipeliner) error {
		for range 2 * keys {
			p.Exists(w.Context(), "nothing")
		}
		return nil
	})
	require.NoError(w, err)
}

// migrate runs a command of the migration in the phase of the servers.
func (w *world) migrate(code int, args ...string) string {
	w.Helper()
	env := w.environment(w.servers[0].phase)
	env["REDIS_URL"] = w.redis.OperatorURL()
	got, stdout, stderr := harness.Run(w.T, env, append([]string{"migrate"}, args...)...)
	require.Equal(w, code, got, "%s: %v: %s%s", w.step, args, stdout, stderr)
	return stdout
}

// backfill makes passes until one makes and repairs nothing; what is no job stays what it is.
func (w *world) backfill(to migration.Schema) (made int) {
	w.Helper()
	code := app.ExitOK
	if w.strange {
		code = app.ExitDiffers
	}
	const most = 5
	for range most {
		var told struct {
			Jobs map[string]int `json:"jobs"`
			Done bool           `json:"done"`
		}
		out := w.migrate(code, "backfill", "--execute", "--rate=0", "--json", "--to="+to.String())
		require.NoError(w, json.Unmarshal([]byte(out), &told))
		require.True(w, told.Done)
		for _, left := range []migration.CopyOutcome{
			migration.CopyConflict, migration.CopyForeign, migration.CopyContradiction, migration.CopyWrongType,
		} {
			require.Zero(w, told.Jobs[left.String()], "%s: %s", w.step, left)
		}
		made += told.Jobs[migration.CopyMade.String()]
		if told.Jobs[migration.CopyMade.String()]+told.Jobs[migration.CopyRepaired.String()]+told.Jobs[migration.CopyTTL.String()] == 0 {
			return made
		}
	}
	require.FailNow(w, "there is always something to repair", "%s", w.step)
	return 0
}

// prove verifies twice for the gates.
func (w *world) prove() {
	w.Helper()
	args := []string{"verify", "--record", "--rate=0", "--index-lag=0"}
	if w.strange {
		args = append(args, "--accept=wrong-type=2", "--accept=invalid-workspace=2")
	}
	for range 2 {
		w.migrate(app.ExitOK, args...)
	}
}

// requireMet checks that a gate is not kept closed by some conditions. Those about servers and about reads that fell back
// ask for more time than a test has.
func (w *world) requireMet(g migration.Gate, conditions ...migration.Condition) {
	w.Helper()
	var told struct {
		Gates []struct {
			Gate    string `json:"gate"`
			Reasons []struct {
				Condition string `json:"condition"`
				Text      string `json:"text"`
			} `json:"reasons"`
		} `json:"gates"`
	}
	require.NoError(w, json.Unmarshal([]byte(w.migrate(app.ExitOK, "status", "--json", "--exact")), &told))
	for _, c := range conditions {
		require.Contains(w, g.Conditions(), c)
		for _, state := range told.Gates {
			if state.Gate != g.String() {
				continue
			}
			for _, reason := range state.Reasons {
				require.NotEqual(w, c.String(), reason.Condition, "%s: gate %s: %s", w.step, g, reason.Text)
			}
		}
	}
}

// end stops the load, the predecessor included.
func (w *world) end() {
	w.Helper()
	close(w.stopped)
	close(w.theirs.stopped)
	w.load.Wait()
	require.NoError(w, context.Cause(w.ctx))
}

var errBroken = errors.New("a promise is broken")
