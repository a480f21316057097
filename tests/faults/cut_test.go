package faults_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/tests/faults/redisproxy"
)

// TestCutExecuteWithClientRequestIDMakesOneJob cuts at each command of a first execute and of a repeated one.
func TestCutExecuteWithClientRequestIDMakesOneJob(t *testing.T) {
	t.Parallel()
	eachCutWorld(t, func(t *testing.T, w cutWorld) {
		t.Helper()
		t.Run("first", func(t *testing.T) {
			w.each(t, exchanges{scripts: true, prepare: func(*testing.T) {}, clean: func(t *testing.T) {
				t.Helper()
				require.Equal(t, http.StatusOK, w.executeUntilDone(t, sendMail(random())).status)
			}, under: func(t *testing.T, c *redisproxy.Fault) {
				t.Helper()
				r := sendMail(random())
				first := w.execute(t, r)
				if first.status == http.StatusOK {
					require.False(t, first.replayed, "the library's second try is the same request")
				} else {
					requireUnavailable(t, first)
					require.False(t, w.kind.covers(), "%s", w.log)
				}
				done := w.executeUntilDone(t, r)
				if first.status == http.StatusOK {
					require.Equal(t, first.jobID, done.jobID)
					require.True(t, done.replayed)
				}
				awaitClosed(t, c.Over()) // a command that was held back has arrived too
				w.requireOnly(t, w.phase, done.jobID, r)
				again := w.executeUntilDone(t, r)
				require.Equal(t, done.jobID, again.jobID)
				require.True(t, again.replayed)
				w.requireOnly(t, w.phase, done.jobID, r)
			}})
		})
		t.Run("repeated", func(t *testing.T) {
			r := sendMail(random())
			var made string
			w.each(t, exchanges{scripts: true, prepare: func(t *testing.T) {
				t.Helper()
				made = w.executeUntilDone(t, r).jobID
			}, clean: func(t *testing.T) {
				t.Helper()
				require.Equal(t, made, w.executeUntilDone(t, r).jobID)
			}, under: func(t *testing.T, c *redisproxy.Fault) {
				t.Helper()
				again := w.executeUntilDone(t, r)
				require.Equal(t, made, again.jobID)
				require.True(t, again.replayed)
				awaitClosed(t, c.Over())
				w.requireOnly(t, w.phase, made, r)
			}})
		})
	})
}

// TestCutExecuteWithoutClientRequestIDMakesNoSecondJob: only the client library may try again.
func TestCutExecuteWithoutClientRequestIDMakesNoSecondJob(t *testing.T) {
	t.Parallel()
	eachCutWorld(t, func(t *testing.T, w cutWorld) {
		t.Helper()
		r := sendMail("")
		w.each(t, exchanges{scripts: true, prepare: func(*testing.T) {}, clean: func(t *testing.T) {
			t.Helper()
			w.executeUntilDone(t, r)
		}, under: func(t *testing.T, c *redisproxy.Fault) {
			t.Helper()
			got := w.execute(t, r)
			awaitClosed(t, c.Over())
			if got.status == http.StatusOK {
				w.requireOnly(t, w.phase, got.jobID, r)
				return
			}
			requireUnavailable(t, got)
			require.False(t, w.kind.covers(), "%s", w.log)
			// The caller cannot know whether there is a job; if there is one, it is whole.
			if queued := w.queue(t); len(queued) > 0 {
				require.Len(t, queued, 1)
				id := queued[0]
				if prefix := queueEntry(w.phase, home, ""); prefix != "" {
					id = id[len(prefix):]
				}
				w.requireOnly(t, w.phase, id, r)
			} else {
				require.Empty(t, w.keys(t, "ai:"))
			}
		}})
	})
}

// statusChange is a legal move, with what it changes in a hash besides rev.
type statusChange struct {
	before []job.Move
	move   job.Move
	sets   map[string]string // an empty value removes the field
	stamps string
}

func statusChanges() map[string]statusChange {
	running := job.Move{To: job.Running}
	return map[string]statusChange{
		"pending to running": {
			move: running, sets: map[string]string{"status": "running"}, stamps: "started_at",
		},
		"running to completed": {
			before: []job.Move{running}, move: job.Move{To: job.Completed, Result: `{"id": "<1>"}`},
			sets: map[string]string{"status": "completed", "result": `{"id": "<1>"}`}, stamps: "finished_at",
		},
		"running to failed": {
			before: []job.Move{running}, move: job.Move{To: job.Failed, Error: "no such\nmailbox"},
			sets: map[string]string{"status": "failed", "error": "no such\nmailbox"}, stamps: "finished_at",
		},
		"running to pending": {
			before: []job.Move{running}, move: job.Move{To: job.Pending},
			sets: map[string]string{"status": "pending", "started_at": ""},
		},
	}
}

// TestCutStatusChangeIsMadeOnce cuts at each command of every legal move; who made it then makes it again until it is
// answered as done.
func TestCutStatusChangeIsMadeOnce(t *testing.T) {
	t.Parallel()
	eachCutWorld(t, func(t *testing.T, w cutWorld) {
		t.Helper()
		ws := parseWorkspace(t, home)
		update := usecase.UpdateStatus{Jobs: w.jobs}
		for name, change := range statusChanges() {
			t.Run(name, func(t *testing.T) {
				r := sendMail(random())
				var id job.ID
				var before map[string]string
				w.each(t, exchanges{scripts: true, prepare: func(t *testing.T) {
					t.Helper()
					id = parseJobID(t, random())
					_, err := w.steady.Enqueue(t.Context(), job.Draft{
						ID: id, Workspace: ws, Provider: r.Provider, Name: r.Name, Params: job.JSONOf(string(r.Params)), Actor: actor,
					})
					require.NoError(t, err)
					for _, m := range change.before {
						require.NoError(t, w.steady.Move(t.Context(), ws, id, m))
					}
					before = w.requireWhole(t, w.phase, home, id.String())
				}, clean: func(t *testing.T) {
					t.Helper()
					updateUntilDone(t, update, ws, id, change.move)
				}, under: func(t *testing.T, c *redisproxy.Fault) {
					t.Helper()
					err := update.Do(t.Context(), ws, id, change.move)
					if err != nil {
						requireLost(t, err)
						require.False(t, w.kind.covers(), "%v", err)
					}
					updateUntilDone(t, update, ws, id, change.move)
					awaitClosed(t, c.Over())

					after := w.requireWhole(t, w.phase, home, id.String())
					want := with(before, change.sets)
					rev, err := strconv.Atoi(before["rev"])
					require.NoError(t, err)
					want["rev"] = strconv.Itoa(rev + 1)
					if change.stamps != "" {
						requireTime(t, after[change.stamps])
						want[change.stamps] = after[change.stamps]
					}
					require.Equal(t, want, after)
					require.Equal(t, []string{queueEntry(w.phase, home, id.String())}, w.queue(t))
					require.ElementsMatch(t, append(copyKeys(w.phase, home, id.String()), "ai:queue:pending", "ai:index:"+home), w.keys(t, "ai:"))
				}})
			})
		}
	})
}

// updateUntilDone makes a move again until it is answered as done.
func updateUntilDone(t *testing.T, u usecase.UpdateStatus, ws workspace.ID, id job.ID, m job.Move) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		err := u.Do(t.Context(), ws, id, m)
		if err == nil {
			return
		}
		requireLost(t, err)
	}
	require.FailNow(t, "never done")
}

// TestCutReadIsNeverNotFound cuts at each command of a read by id and of a list.
func TestCutReadIsNeverNotFound(t *testing.T) {
	t.Parallel()
	eachCutWorld(t, func(t *testing.T, w cutWorld) {
		t.Helper()
		ws := parseWorkspace(t, home)
		var id job.ID
		prepare := func(t *testing.T) {
			t.Helper()
			id = parseJobID(t, random())
			_, err := w.steady.Enqueue(t.Context(), job.Draft{
				ID: id, Workspace: ws, Provider: "google", Name: "gmail.send", Params: `{}`, Actor: actor,
			})
			require.NoError(t, err)
			require.NoError(t, w.steady.Move(t.Context(), ws, id, job.Move{To: job.Running}))
			if w.phase.ReadsOld() && w.phase.ReadsNew() && w.phase.WritesNew() {
				// A stale new copy makes the read take its second trip.
				require.NoError(t, w.rdb.HSet(t.Context(), newKey(home, id.String()), "status", "pending", "rev", "1").Err())
			}
		}
		requireRunning := func(t *testing.T, one json.RawMessage) {
			t.Helper()
			var got struct {
				JobID  string `json:"job_id"`
				Status string `json:"status"`
			}
			require.NoError(t, json.Unmarshal(one, &got))
			require.Equal(t, id.String(), got.JobID)
			require.Equal(t, "running", got.Status)
		}
		requireListed := func(t *testing.T, body []byte) {
			t.Helper()
			var page struct {
				Jobs       []json.RawMessage `json:"jobs"`
				NextCursor *string           `json:"next_cursor"`
			}
			require.NoError(t, json.Unmarshal(body, &page))
			require.Len(t, page.Jobs, 1)
			require.Nil(t, page.NextCursor)
			requireRunning(t, page.Jobs[0])
		}
		for path, check := range map[string]func(t *testing.T, body []byte){
			"/ai/jobs/{job_id}": func(t *testing.T, body []byte) { t.Helper(); requireRunning(t, body) },
			"/ai/jobs":          requireListed,
		} {
			t.Run(path, func(t *testing.T) {
				read := func(t *testing.T) answer {
					t.Helper()
					if path == "/ai/jobs" {
						return w.ask(t, http.MethodGet, path, nil)
					}
					return w.get(t, id.String())
				}
				readUntilDone := func(t *testing.T) answer {
					t.Helper()
					for end := time.Now().Add(patience); time.Now().Before(end); {
						got := read(t)
						if got.status == http.StatusOK {
							return got
						}
						requireUnavailable(t, got)
					}
					require.FailNow(t, "never done")
					return answer{}
				}
				w.each(t, exchanges{prepare: prepare, clean: func(t *testing.T) {
					t.Helper()
					check(t, readUntilDone(t).body)
				}, under: func(t *testing.T, c *redisproxy.Fault) {
					t.Helper()
					before := redisKeys(t, w.store)
					got := read(t)
					if got.status != http.StatusOK {
						requireUnavailable(t, got)
						require.False(t, w.kind.covers(), "%s", w.log)
						got = readUntilDone(t)
					}
					check(t, got.body)
					awaitClosed(t, c.Over())
					require.Equal(t, before, redisKeys(t, w.store), "a read writes nothing")
				}})
			})
		}
	})
}
