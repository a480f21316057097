package faults_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/redisjobs/router"
	"github.com/relay-jobs/relay/adapters/uuidv7"
	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/ports"
	"github.com/relay-jobs/relay/tests/contract"
	"github.com/relay-jobs/relay/tests/faults/redisproxy"
	"github.com/relay-jobs/relay/tests/harness"
)

// maxTries is more often than a caller has to ask after one fault.
const maxTries = 20

// callers are how many ask for the same at once.
const callers = 64

// anyone lets every credential in as home's tester: what is tried here comes behind that.
type anyone struct{}

func (anyone) Authenticate(context.Context, string) (access.Principal, error) {
	return access.Principal{
		Workspace: home, Actor: actor, Scopes: []access.Scope{access.ScopeExecute, access.ScopeJobsRead},
	}, nil
}

// server is one of several that stand on the same Redis, without its HTTP edge.
func server(t *testing.T, url string, p migration.Phase) (usecase.Execute, ports.JobRepository) {
	t.Helper()
	rdb, err := redisjobs.Connect(redisjobs.ConnectOptions{URL: url, ReadTimeout: patience, PoolSize: 2 * callers})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, rdb.Close()) })
	jobs := router.New(rdb, p, redisjobs.Options{Observer: contract.Unobserved{}})
	return usecase.Execute{
		Gate: usecase.Gate{Auth: anyone{}, Observer: contract.Unobserved{}}, Jobs: jobs, IDs: uuidv7.JobIDs{},
	}, jobs
}

func servers(t *testing.T, url string, phases ...migration.Phase) []usecase.Execute {
	t.Helper()
	var all []usecase.Execute
	for _, p := range phases {
		execute, _ := server(t, url, p)
		all = append(all, execute)
	}
	return all
}

func inputOf(t *testing.T, r request) func() (usecase.ExecuteInput, error) {
	t.Helper()
	in := usecase.ExecuteInput{Provider: r.Provider, Name: r.Name, Params: job.JSONOf(string(r.Params))}
	if r.Key != "" {
		in.ClientRequestID = parseKey(t, r.Key)
	}
	return func() (usecase.ExecuteInput, error) { return in, nil }
}

// atOnce calls f n times at the same time.
func atOnce(n int, f func(i int)) {
	var done sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		done.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	done.Wait()
}

// TestSixtyFourAtOnceMakeOneJob: groups of identical executes, over servers in one phase and in several.
func TestSixtyFourAtOnceMakeOneJob(t *testing.T) {
	t.Parallel()
	for _, storm := range []struct {
		name   string
		phases []migration.Phase
		groups int
	}{
		{"dual write", []migration.Phase{migration.DualWrite, migration.DualWrite}, 1000},
		{"new only", []migration.Phase{migration.NewOnly, migration.NewOnly}, 100},
		{"canary beside dual write and strict new", []migration.Phase{migration.Canary, migration.DualWrite, migration.StrictNew}, 100},
		{"all phases", migration.Phases(), 100},
	} {
		t.Run(storm.name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			all := servers(t, s.URL(), storm.phases...)
			made := make(map[string]string) // job to client_request_id
			for g := range storm.groups {
				r := sendMail("group-" + strconv.Itoa(g))
				out, errs := make([]usecase.ExecuteOutput, callers), make([]error, callers)
				in := inputOf(t, r)
				atOnce(callers, func(i int) { out[i], errs[i] = all[i%len(all)].Do(t.Context(), "", in) })
				firsts := 0
				for i := range out {
					require.NoError(t, errs[i])
					require.Equal(t, out[0].ID, out[i].ID)
					if !out[i].Replayed {
						firsts++
					}
				}
				require.Equal(t, 1, firsts, "answers that are not replayed")
				require.NotContains(t, made, out[0].ID.String())
				made[out[0].ID.String()] = r.Key
			}
			s.requireMade(t, storm.phases, made)
		})
	}
}

// requireMade checks that the server holds these jobs of home, made by servers in these phases, whole, each with one
// queue entry and the idempotency key that names it, and no other job.
func (s store) requireMade(t *testing.T, phases []migration.Phase, made map[string]string) {
	t.Helper()
	queued := make(map[string]bool)
	for _, entry := range s.queue(t) {
		id := strings.TrimPrefix(entry, home+":")
		require.False(t, queued[id], "queued twice")
		queued[id] = true
	}
	require.Len(t, queued, len(made))
	held := make(map[string][]string)
	for _, key := range s.keys(t, "ai:job") {
		id := key[strings.LastIndex(key, ":")+1:]
		held[id] = append(held[id], key)
	}
	require.Len(t, held, len(made))
	require.Len(t, s.keys(t, "ai:idempotency:"), len(made))
	for id, key := range made {
		require.True(t, queued[id])
		require.Equal(t, id, s.rdb.Get(t.Context(), "ai:idempotency:"+home+":"+key).Val())
		fits := false
		for _, p := range phases {
			if want := copyKeys(p, home, id); len(want) == len(held[id]) && s.rdb.Exists(t.Context(), want...).Val() == int64(len(want)) {
				require.Equal(t, key, s.requireWhole(t, p, home, id)["client_request_id"])
				fits = true
				break
			}
		}
		require.True(t, fits, "no phase leaves these keys: %v", held[id])
	}
}

// TestSixtyFourAtOnceMakeOneJobOverBreakingConnections: replies get lost, the library tries again, and so do callers.
func TestSixtyFourAtOnceMakeOneJobOverBreakingConnections(t *testing.T) {
	t.Parallel()
	for _, p := range []migration.Phase{migration.DualWrite, migration.NewOnly} {
		for _, point := range redisproxy.Points() {
			t.Run(p.String()+" "+point.String(), func(t *testing.T) {
				t.Parallel()
				s := newStore(t)
				proxy := redisproxy.Start(t, s.URL())
				all := servers(t, proxy.URL(), p, p)
				breaks := proxy.Arm(redisproxy.Plan{Point: point, How: redisproxy.RST, Command: 7, Repeat: true})
				defer breaks.Release()
				made := make(map[string]string)
				for g := range 10 {
					r := sendMail("group-" + strconv.Itoa(g))
					in := inputOf(t, r)
					out, failed := make([]usecase.ExecuteOutput, callers), make([]error, callers)
					var lost atomic.Int64
					atOnce(callers, func(i int) {
						for range maxTries {
							if out[i], failed[i] = all[i%len(all)].Do(t.Context(), "", in); failed[i] == nil {
								return
							}
							lost.Add(1)
						}
					})
					firsts := 0
					for i := range out {
						require.NoError(t, failed[i])
						require.Equal(t, out[0].ID, out[i].ID)
						if !out[i].Replayed {
							firsts++
						}
					}
					// Where even the library's last try was cut, the caller's next one finds its own job.
					require.LessOrEqual(t, firsts, 1)
					require.True(t, firsts == 1 || lost.Load() > 0, "nobody made the job")
					made[out[0].ID.String()] = r.Key
				}
				require.Greater(t, breaks.Times(), 100)
				s.requireMade(t, []migration.Phase{p}, made)
			})
		}
	}
}

// TestSixtyFourAtOnceOverHTTP is the same through two whole services.
func TestSixtyFourAtOnceOverHTTP(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	keys := harness.NewKeys(t)
	token := keys.Token(t, home)
	phases := []migration.Phase{migration.DualWrite, migration.StrictNew}
	var apis []api
	for _, p := range phases {
		service := harness.Boot(t, harness.Environment(harness.PhaseEnvironment(p), map[string]string{
			"REDIS_URL": s.URL(), "RELAY_API_KEYS_FILE": keys.Path,
		}))
		apis = append(apis, newAPI(t, service.URL, token))
	}
	made := make(map[string]string)
	for g := range 25 {
		r := sendMail("group-" + strconv.Itoa(g))
		got, errs := make([]answer, callers), make([]error, callers)
		atOnce(callers, func(i int) { got[i], errs[i] = apis[i%len(apis)].send(t.Context(), http.MethodPost, "/ai/execute", r) })
		firsts := 0
		for i := range got {
			require.NoError(t, errs[i])
			require.Equal(t, http.StatusOK, got[i].status, "%s", got[i].body)
			require.Equal(t, got[0].jobID, got[i].jobID)
			if !got[i].replayed {
				firsts++
			}
		}
		require.Equal(t, 1, firsts, "answers that are not replayed")
		made[got[0].jobID] = r.Key
	}
	s.requireMade(t, phases, made)
}

// TestKnownRequestAndItsJob says when an idempotency key leads to the job that it names.
func TestKnownRequestAndItsJob(t *testing.T) {
	t.Parallel()
	const known = "0197-known"
	whole := func(ws, id string) []any {
		return []any{
			"job_id", id, "status", "running", "action_provider", "google", "action_name", "gmail.send",
			"params", `{"to":"a@example.com","n":1.5}`, "workspace_id", ws, "actor_id", "user-1", "result", "",
			"enqueued_at", "2026-09-01T08:07:03.868114+00:00",
		}
	}
	type outcome uint8
	const (
		replayed outcome = iota
		makesNew
		breach
	)
	for name, c := range map[string]struct {
		value  string // what the idempotency key holds
		hashes map[string][]any
		others func(t *testing.T, s store)
		want   outcome
	}{
		"held by both": {
			value: known, want: replayed,
			hashes: map[string][]any{oldKey(known): whole(home, known), newKey(home, known): whole(home, known)},
		},
		"held by old alone": {value: known, want: replayed, hashes: map[string][]any{oldKey(known): whole(home, known)}},
		"held by new alone": {value: known, want: replayed, hashes: map[string][]any{newKey(home, known): whole(home, known)}},
		"held by none":      {value: known, want: makesNew},
		"expired": {
			value: known, want: makesNew,
			hashes: map[string][]any{oldKey(known): whole(home, known), newKey(home, known): whole(home, known)},
			others: func(t *testing.T, s store) {
				t.Helper()
				for _, key := range []string{oldKey(known), newKey(home, known)} {
					require.NoError(t, s.rdb.PExpire(t.Context(), key, time.Millisecond).Err())
				}
				require.Eventually(t, func() bool {
					return s.rdb.Exists(t.Context(), oldKey(known), newKey(home, known)).Val() == 0
				}, patience, time.Millisecond)
			},
		},
		"a stub is all that is left": {
			value: known, want: makesNew,
			hashes: map[string][]any{newKey(home, known): {"status", "completed", "result", "{}"}},
		},
		"another workspace's in old": {
			value: known, want: makesNew, hashes: map[string][]any{oldKey(known): whole("acme-eu", known)},
		},
		"another workspace's in new": {
			value: known, want: makesNew, hashes: map[string][]any{newKey("acme-eu", known): whole("acme-eu", known)},
		},
		"of this workspace in new, another's in old": {
			value: known, want: replayed,
			hashes: map[string][]any{newKey(home, known): whole(home, known), oldKey(known): whole("acme-eu", known)},
		},
		"a new hash that contradicts its key": {
			value: known, want: breach, hashes: map[string][]any{newKey(home, known): whole("acme-eu", known)},
		},
		"wrong types under the job's keys": {
			value: known, want: makesNew, others: func(t *testing.T, s store) {
				t.Helper()
				require.NoError(t, s.rdb.Set(t.Context(), oldKey(known), "text", 0).Err())
				require.NoError(t, s.rdb.RPush(t.Context(), newKey(home, known), "entry").Err())
			},
		},
		"held by new, a wrong type in old": {
			value: known, want: replayed, hashes: map[string][]any{newKey(home, known): whole(home, known)},
			others: func(t *testing.T, s store) {
				t.Helper()
				require.NoError(t, s.rdb.Set(t.Context(), oldKey(known), "text", 0).Err())
			},
		},
		"an empty value":       {value: "", want: makesNew},
		"a value of 256 bytes": {value: strings.Repeat("\xff", 256), want: makesNew},
		"a value of 257 bytes": {value: strings.Repeat("x", 257), want: makesNew},
		"a value of 1 MiB":     {value: strings.Repeat("x", 1<<20), want: makesNew},
		"bytes of all kinds":   {value: "\x00\r\n*?[a]:{}:" + home + ":", want: makesNew},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			for _, p := range migration.Phases() {
				s.clear(t)
				execute, _ := server(t, s.URL(), p)
				r := sendMail("request")
				key := "ai:idempotency:" + home + ":" + r.Key
				require.NoError(t, s.rdb.Set(t.Context(), key, c.value, time.Hour).Err())
				for at, fields := range c.hashes {
					require.NoError(t, s.rdb.HSet(t.Context(), at, fields...).Err())
				}
				if c.others != nil {
					c.others(t, s)
				}
				before := redisKeys(t, s)
				out, err := execute.Do(t.Context(), "", inputOf(t, r))
				switch c.want {
				case replayed:
					require.NoError(t, err, p)
					require.Equal(t, usecase.ExecuteOutput{ID: parseJobID(t, known), Replayed: true}, out, p)
					require.Equal(t, before, redisKeys(t, s), p)
				case breach:
					require.Equal(t, fault.Internal, fault.KindOf(err), p)
					require.Equal(t, before, redisKeys(t, s), p)
				case makesNew:
					require.NoError(t, err, p)
					require.False(t, out.Replayed, p)
					s.requireWhole(t, p, home, out.ID.String())
					require.Equal(t, []string{queueEntry(p, home, out.ID.String())}, s.queue(t), p)
					require.Equal(t, out.ID.String(), s.rdb.Get(t.Context(), key).Val(), p)
					require.Greater(t, s.rdb.TTL(t.Context(), key).Val(), 23*time.Hour, p)
					for at := range c.hashes {
						require.Equal(t, before[at], redisKeys(t, s)[at], "%s: what is there stays", p)
					}
				}
			}
		})
	}
	t.Run("a key of another type", func(t *testing.T) {
		t.Parallel()
		s := newStore(t)
		require.NoError(t, s.rdb.RPush(t.Context(), "ai:idempotency:"+home+":request", "x").Err())
		before := redisKeys(t, s)
		for _, p := range migration.Phases() {
			execute, _ := server(t, s.URL(), p)
			_, err := execute.Do(t.Context(), "", inputOf(t, sendMail("request")))
			require.Equal(t, fault.Internal, fault.KindOf(err), p)
			require.Equal(t, before, redisKeys(t, s), p)
		}
	})
}

// TestRepeatedExecutesWhileJobsAreDeleted: an outside hand deletes a job's copies while callers repeat their request.
// Every job that was answered was made with one queue entry, and none was made beside a living one. A caller to whom the
// key named another job too often is told that the storage is not available.
func TestRepeatedExecutesWhileJobsAreDeleted(t *testing.T) {
	t.Parallel()
	for _, p := range migration.Phases() {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			all := servers(t, s.URL(), p, p)
			in := inputOf(t, sendMail("request"))
			var mu sync.Mutex
			firsts, answered := make(map[string]int), make(map[string]bool)
			var deleted atomic.Int64
			stop := make(chan struct{})
			var hand sync.WaitGroup
			hand.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					id := s.rdb.Get(t.Context(), "ai:idempotency:"+home+":request").Val()
					if id != "" && s.rdb.Del(t.Context(), oldKey(id), newKey(home, id)).Val() > 0 {
						deleted.Add(1)
					}
				}
			})
			errs, end := make([]error, 16), time.Now().Add(patience)
			atOnce(len(errs), func(i int) {
				for n := 0; n < 60 || deleted.Load() == 0 && time.Now().Before(end); n++ {
					out, err := all[i%len(all)].Do(t.Context(), "", in)
					if fault.KindOf(err) == fault.Unavailable {
						continue // overtaken by a deletion each time it followed the key: nothing was made for it
					}
					if err != nil {
						errs[i] = err
						return
					}
					mu.Lock()
					answered[out.ID.String()] = true
					if !out.Replayed {
						firsts[out.ID.String()]++
					}
					mu.Unlock()
				}
			})
			close(stop)
			hand.Wait()
			for _, err := range errs {
				require.NoError(t, err)
			}
			require.Positive(t, deleted.Load())
			require.NotEmpty(t, answered)
			require.Len(t, firsts, len(answered))
			require.LessOrEqual(t, len(firsts), int(deleted.Load())+1, "a job was made beside a living one")
			var queued []string
			for id, n := range firsts {
				require.Equal(t, 1, n, "answered twice as made")
				queued = append(queued, queueEntry(p, home, id))
			}
			require.ElementsMatch(t, queued, s.queue(t))
			for _, key := range s.keys(t, "ai:job") {
				require.NotEmpty(t, s.hash(t, key)["job_id"], "partial hash %s", key)
			}
		})
	}
}
