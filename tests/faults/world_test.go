// Package faults_test breaks what Relay stands on while it works (connections, the Redis server, Relay's own process)
// and then looks at every key.
package faults_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"maps"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/redisjobs/router"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
	"github.com/relay-jobs/relay/tests/contract"
	"github.com/relay-jobs/relay/tests/faults/redisproxy"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/conformance"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

const (
	home  = "acme" // the workspace of most tests
	actor = "tester"
	// patience is for what happens at once unless it never does.
	patience = 30 * time.Second
	// dayOfKeys is how long an idempotency key is kept.
	dayOfKeys = 86_400 * time.Second
)

// store is a Redis server of the test's own, looked at without Relay's code.
type store struct {
	*redisserver.Server
	rdb *redis.Client
}

func newStore(t *testing.T, args ...string) store {
	t.Helper()
	s := redisserver.Start(t, args...)
	return store{Server: s, rdb: s.Client(t)}
}

// hash gives what a key holds, nil for nothing.
func (s store) hash(t *testing.T, key string) map[string]string {
	t.Helper()
	fields, err := s.rdb.HGetAll(t.Context(), key).Result()
	require.NoError(t, err)
	if len(fields) == 0 {
		return nil
	}
	return fields
}

// keys gives the keys with a prefix, but for what servers say of themselves.
func (s store) keys(t *testing.T, prefix string) []string {
	t.Helper()
	seen := make(map[string]bool)
	all := s.rdb.Scan(t.Context(), 0, prefix+"*", 1000).Iterator()
	for all.Next(t.Context()) {
		if !redisserver.AboutServers(all.Val()) {
			seen[all.Val()] = true
		}
	}
	require.NoError(t, all.Err())
	return slices.Collect(maps.Keys(seen))
}

func (s store) queue(t *testing.T) []string {
	t.Helper()
	entries, err := s.rdb.LRange(t.Context(), "ai:queue:pending", 0, -1).Result()
	require.NoError(t, err)
	return entries
}

// clear removes all keys of a server that only this test has.
func (s store) clear(t *testing.T) {
	t.Helper()
	if keys := s.keys(t, ""); len(keys) > 0 {
		require.NoError(t, s.rdb.Unlink(t.Context(), keys...).Err())
	}
}

// forgetScripts makes the next script a cold one.
func (s store) forgetScripts(t *testing.T) {
	t.Helper()
	require.NoError(t, s.rdb.ScriptFlush(t.Context()).Err())
}

// redisKeys gives all keys with what they hold.
func redisKeys(t *testing.T, s store) redisserver.Keyspace {
	t.Helper()
	return redisserver.Dump(t, s.rdb, "*")
}

func oldKey(id string) string { return "ai:jobs:" + id }

func newKey(ws, id string) string { return "ai:job:" + ws + ":" + id }

// copyKeys are the keys that a phase writes a job to.
func copyKeys(p migration.Phase, ws, id string) []string {
	switch p {
	case migration.Legacy, migration.ReadRouting:
		return []string{oldKey(id)}
	case migration.NewOnly:
		return []string{newKey(ws, id)}
	}
	return []string{oldKey(id), newKey(ws, id)}
}

func queueEntry(p migration.Phase, ws, id string) string {
	if p == migration.NewOnly {
		return ws + ":" + id
	}
	return id
}

// requireWhole checks that a phase's copies of a job are there, equal in fields and expiry, and gives the fields.
func (s store) requireWhole(t *testing.T, p migration.Phase, ws, id string) map[string]string {
	t.Helper()
	var fields map[string]string
	var expiry time.Duration
	for i, key := range copyKeys(p, ws, id) {
		got, expires := s.hash(t, key), s.rdb.PExpireTime(t.Context(), key).Val()
		require.NotNil(t, got, key)
		if i == 0 {
			fields, expiry = got, expires
			continue
		}
		require.Equal(t, fields, got, "the copies differ")
		require.Equal(t, expiry, expires, "the copies expire at different times")
	}
	for _, name := range []string{
		"job_id", "workspace_id", "status", "action_provider", "action_name", "params", "actor_id", "enqueued_at", "rev",
	} {
		require.NotEmpty(t, fields[name], "%s of %s", name, id)
	}
	require.Equal(t, ws, fields["workspace_id"])
	require.Equal(t, id, fields["job_id"])
	return fields
}

// requireOnly checks that the server holds one job, of home, just made by r, and no other trace of any.
func (s store) requireOnly(t *testing.T, p migration.Phase, id string, r request) {
	t.Helper()
	want := map[string]string{
		"job_id": id, "workspace_id": home, "status": "pending", "action_provider": r.Provider, "action_name": r.Name,
		"actor_id": actor, "result": "", "rev": "1",
	}
	keys := append(copyKeys(p, home, id), "ai:queue:pending", "ai:index:"+home)
	if r.Key != "" {
		want["client_request_id"] = r.Key
		keys = append(keys, "ai:idempotency:"+home+":"+r.Key)
	}
	require.ElementsMatch(t, keys, s.keys(t, "ai:"))
	fields := s.requireWhole(t, p, home, id)
	require.JSONEq(t, string(r.Params), fields["params"])
	requireTime(t, fields["enqueued_at"])
	delete(fields, "params")
	delete(fields, "enqueued_at")
	require.Equal(t, want, fields)
	require.Equal(t, time.Duration(-1), s.rdb.PTTL(t.Context(), copyKeys(p, home, id)[0]).Val())
	require.Equal(t, []string{queueEntry(p, home, id)}, s.queue(t))
	if r.Key != "" {
		require.Equal(t, id, s.rdb.Get(t.Context(), "ai:idempotency:"+home+":"+r.Key).Val())
		left := s.rdb.PTTL(t.Context(), "ai:idempotency:"+home+":"+r.Key).Val()
		require.True(t, left > dayOfKeys-patience && left <= dayOfKeys, "kept for %s", left)
	}
}

// requireTime checks a stored time's form, and that it is a time of now.
func requireTime(t require.TestingT, stored string) {
	at, err := time.Parse("2006-01-02T15:04:05.000000-07:00", stored)
	require.NoError(t, err)
	require.Regexp(t, `\.\d{6}\+00:00$`, stored)
	require.WithinDuration(t, time.Now(), at, time.Minute)
}

// request is one action asked for. Key is the client_request_id, empty for none.
type request struct {
	Provider string          `json:"action_provider"`
	Name     string          `json:"action_name"`
	Params   json.RawMessage `json:"params"`
	Key      string          `json:"client_request_id,omitempty"`
}

func sendMail(key string) request {
	return request{Provider: "google", Name: "gmail.send", Params: json.RawMessage(`{"to": "a@example.com", "n": 1.50}`), Key: key}
}

// answer is what came back over HTTP.
type answer struct {
	status     int
	jobID      string
	replayed   bool
	code       string
	retryAfter string
	body       []byte
}

// api is the service as a caller of home sees it.
type api struct {
	url, token string
	http       *http.Client
}

func newAPI(t *testing.T, url, token string) api {
	t.Helper()
	client := conformance.Client(t)
	client.Timeout = patience
	return api{url: url, token: token, http: client}
}

// send gives the error of a request that was not answered. It may be called beside the test's goroutine.
func (a api) send(ctx context.Context, method, path string, body any) (answer, error) {
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			return answer{}, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, &content)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := a.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close() //nolint:errcheck // only read from
	out := answer{
		status: res.StatusCode, retryAfter: res.Header.Get("Retry-After"),
		replayed: res.Header.Get("Idempotency-Replayed") == "true",
	}
	if out.body, err = io.ReadAll(res.Body); err != nil {
		return answer{}, err
	}
	var known struct {
		JobID string `json:"job_id"`
		Code  string `json:"code"`
	}
	err = json.Unmarshal(out.body, &known)
	out.jobID, out.code = known.JobID, known.Code
	return out, err
}

// ask fails the test where no answer comes.
func (a api) ask(t *testing.T, method, path string, body any) answer {
	t.Helper()
	got, err := a.send(t.Context(), method, path, body)
	require.NoError(t, err)
	return got
}

func (a api) execute(t *testing.T, r request) answer {
	t.Helper()
	return a.ask(t, http.MethodPost, "/ai/execute", r)
}

func (a api) get(t *testing.T, id string) answer {
	t.Helper()
	return a.ask(t, http.MethodGet, "/ai/jobs/"+id, nil)
}

// requireUnavailable checks the only way in which a lost storage may show.
func requireUnavailable(t *testing.T, a answer) {
	t.Helper()
	require.Equal(t, http.StatusInternalServerError, a.status, "%s", a.body)
	require.Equal(t, "storage_unavailable", a.code)
	seconds, err := strconv.Atoi(a.retryAfter)
	require.NoError(t, err, "Retry-After")
	require.Positive(t, seconds)
}

// executeUntilDone asks again until there is an answer, as callers with a client_request_id may.
func (a api) executeUntilDone(t *testing.T, r request) answer {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		got := a.execute(t, r)
		if got.status == http.StatusOK {
			return got
		}
		requireUnavailable(t, got)
	}
	require.FailNow(t, "never done")
	return answer{}
}

// cutKind is how a world's connections break, and who tries again.
type cutKind struct {
	name string
	// retries tells whether the client library tries again by itself, as it does in production.
	retries bool
	hows    []redisproxy.How
	timeout time.Duration // of the library for an answer
}

// cutKinds are the kinds of worlds that each phase is tried in. Connections that are held take the library's timeout,
// which then is so short that it may strike elsewhere too on a busy machine.
func cutKinds() []cutKind {
	const short = 60 * time.Millisecond
	cut, hold := []redisproxy.How{redisproxy.FIN, redisproxy.RST}, []redisproxy.How{redisproxy.Hold}
	return []cutKind{
		{name: "cut, library retries", retries: true, hows: cut, timeout: patience},
		{name: "cut, no library retries", hows: cut, timeout: patience},
		{name: "held, library retries", retries: true, hows: hold, timeout: short},
		{name: "held, no library retries", hows: hold, timeout: short},
	}
}

// covers tells whether the library's retries make up for one fault, so that callers see none.
func (k cutKind) covers() bool { return k.retries && k.timeout == patience }

// cutWorld is the service and, beside it, its repository, both behind a proxy.
type cutWorld struct {
	store
	api
	kind  cutKind
	phase migration.Phase
	proxy *redisproxy.Proxy
	log   *harness.Buffer
	// jobs goes through the proxy, steady does not.
	jobs, steady ports.JobRepository
}

func newCutWorld(t *testing.T, p migration.Phase, kind cutKind) cutWorld {
	t.Helper()
	w := cutWorld{store: newStore(t), phase: p, kind: kind}
	w.proxy = redisproxy.Start(t, w.URL())
	keys := harness.NewKeys(t)
	token := keys.Token(t, home)
	env := []map[string]string{harness.PhaseEnvironment(p), {
		"REDIS_URL": w.proxy.URL(), "RELAY_API_KEYS_FILE": keys.Path, "RELAY_REDIS_READ_TIMEOUT": kind.timeout.String(),
	}}
	var options []fx.Option
	connect := func() *redis.Client {
		rdb, err := redisjobs.Connect(redisjobs.ConnectOptions{URL: w.proxy.URL(), ReadTimeout: kind.timeout})
		require.NoError(t, err)
		return rdb
	}
	if !kind.retries {
		connect = func() *redis.Client {
			o, err := redis.ParseURL(w.proxy.URL())
			require.NoError(t, err)
			o.MaxRetries, o.DialerRetries, o.ReadTimeout, o.ContextTimeoutEnabled = -1, 1, kind.timeout, true
			return redis.NewClient(o)
		}
		rdb := connect()
		t.Cleanup(func() { require.NoError(t, rdb.Close()) })
		options = append(options, fx.Decorate(func(*redis.Client) *redis.Client { return rdb }))
	}
	service := harness.Boot(t, harness.Environment(env...), options...)
	w.api, w.log = newAPI(t, service.URL, token), service.Log

	through := connect()
	t.Cleanup(func() { require.NoError(t, through.Close()) })
	w.jobs = router.New(through, p, redisjobs.Options{Observer: contract.Unobserved{}})
	w.steady = router.New(redisserver.AsServer(t, w.rdb), p, redisjobs.Options{Observer: contract.Unobserved{}})
	return w
}

// eachCutWorld runs f for every phase and kind.
func eachCutWorld(t *testing.T, f func(t *testing.T, w cutWorld)) {
	t.Helper()
	for _, p := range migration.Phases() {
		for _, kind := range cutKinds() {
			t.Run(p.String()+", "+kind.name, func(t *testing.T) {
				t.Parallel()
				f(t, newCutWorld(t, p, kind))
			})
		}
	}
}

// exchanges is what is tried under faults. All its functions find the world as prepare left it.
type exchanges struct {
	prepare func(t *testing.T)
	clean   func(t *testing.T)                      // does it without a fault
	under   func(t *testing.T, c *redisproxy.Fault) // does it with the fault armed
	scripts bool                                    // it runs scripts, which the server may not know
}

// each tries every fault at each command that a clean exchange sends, with known and with unknown scripts.
func (w cutWorld) each(t *testing.T, e exchanges) {
	t.Helper()
	for _, cold := range []bool{false, true} {
		if cold && (!e.scripts || w.kind.hows[0] == redisproxy.Hold) {
			break // the same once more, or a long time for little
		}
		start := func(t *testing.T) {
			t.Helper()
			w.clear(t)
			e.prepare(t)
			if cold {
				w.forgetScripts(t)
			}
		}
		commands := math.MaxInt
		for range 3 { // more come where Redis does not know the scripts yet, or the library repeats one
			start(t)
			before := w.proxy.Commands()
			e.clean(t)
			commands = min(commands, w.proxy.Commands()-before)
		}
		require.Positive(t, commands)
		hows := w.kind.hows
		if cold {
			hows = hows[:1]
		}
		for _, plan := range plans(commands, hows) {
			name := plan.How.String() + " " + plan.Point.String() + " " + strconv.Itoa(plan.Command)
			if cold {
				name += " of unknown scripts"
			}
			t.Run(name, func(t *testing.T) {
				start(t)
				c := w.proxy.Arm(plan)
				defer c.Release()
				e.under(t, c)
				awaitClosed(t, c.Struck())
			})
		}
	}
	w.clear(t)
}

// plans are all faults at each of n commands. To hold what has begun to arrive is the same as to hold the whole reply,
// and what has arrived cannot be held.
func plans(n int, hows []redisproxy.How) []redisproxy.Plan {
	var all []redisproxy.Plan
	for command := 1; command <= n; command++ {
		for _, point := range redisproxy.Points() {
			for _, how := range hows {
				if how != redisproxy.Hold || point == redisproxy.BeforeCommand || point == redisproxy.AfterCommand {
					all = append(all, redisproxy.Plan{Point: point, How: how, Command: command})
				}
			}
		}
	}
	return all
}

func awaitClosed(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		require.FailNow(t, "did not happen")
	}
}

func parseJobID(t *testing.T, text string) job.ID {
	t.Helper()
	id, err := job.ParseID(text)
	require.NoError(t, err)
	return id
}

func parseWorkspace(t *testing.T, text string) workspace.ID {
	t.Helper()
	id, err := workspace.Parse(text)
	require.NoError(t, err)
	return id
}

func parseKey(t *testing.T, text string) job.ClientRequestID {
	t.Helper()
	key, err := job.ParseClientRequestID(text)
	require.NoError(t, err)
	return key
}

// requireLost checks that an error says no more than that the storage could not be asked.
func requireLost(t *testing.T, err error) {
	t.Helper()
	kind := fault.KindOf(err)
	require.Contains(t, []fault.Kind{fault.Unavailable, fault.Timeout}, kind, "%v", err)
	require.Equal(t, fault.CodeStorageUnavailable, fault.CodeOf(err))
}

// with gives a copy of fields with others over it; an empty value removes the field.
func with(fields, over map[string]string) map[string]string {
	out := maps.Clone(fields)
	maps.Copy(out, over)
	maps.DeleteFunc(out, func(name, _ string) bool {
		value, given := over[name]
		return given && value == ""
	})
	return out
}

// random gives a text that nothing else has.
func random() string { return strings.ToLower(rand.Text()) }
