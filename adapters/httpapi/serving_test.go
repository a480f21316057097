package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/httpapi"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

// enqueued sends a request for an action and gives the draft that reached the repository.
func enqueued(t *testing.T, a ask) job.Draft {
	t.Helper()
	e := newEdge(t)
	var got job.Draft
	e.jobs.EXPECT().Enqueue(gomock.Any(), gomock.Any()).DoAndReturn(
		func(_ context.Context, d job.Draft) (job.Enqueued, error) {
			got = d
			return job.Enqueued{Job: job.Job{ID: d.ID, Workspace: d.Workspace}}, nil
		})
	w := e.do(a)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.JSONEq(t, `{"job_id":"`+newJobID+`","status":"enqueued"}`, w.Body.String())
	require.Equal(t, "/ai/jobs/"+newJobID, w.Header().Get("Location"))
	require.Empty(t, w.Header().Values("Idempotency-Replayed"))
	return got
}

func TestExecutePassesOnWhatWasSent(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	got := enqueued(t, execute(` { "params" : { "n" : 1.50e+400, "big": 123456789012345678901234567890, "s":"\u00e9é\/<&>",
		"list": [ true , null ] }, "client_request_id":"k", "workspace_id":"acme", "action_name":"gmail.send",
		"action_provider":"google" } `).with("traceparent", parent))
	key, err := job.ParseClientRequestID("k")
	require.NoError(t, err)
	require.Equal(t, job.Draft{
		ID: jobID(t, newJobID), Workspace: workspaceID(t, "acme"), Provider: "google", Name: "gmail.send", Actor: "ada",
		Params: `{"n":1.50e+400,"big":123456789012345678901234567890,"s":"\u00e9é\/<&>",` +
			`"list":[true,null]}`,
		ClientRequestID: key, TraceParent: parent,
	}, got)

	got = enqueued(t, execute(`{"action_provider":"p","action_name":"n"}`).with("Idempotency-Key", "from the header"))
	require.Equal(t, job.JSON("{}"), got.Params)
	require.Equal(t, "from the header", got.ClientRequestID.String())
	require.Empty(t, got.TraceParent)
}

func TestTraceParent(t *testing.T) {
	t.Parallel()
	const ids = "-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for name, test := range map[string]struct {
		sent []string
		want string
	}{
		"none":                {nil, ""},
		"valid":               {[]string{"00" + ids}, "00" + ids},
		"of a later version":  {[]string{"cc" + ids + "-what-the-future-brings"}, "00" + ids},
		"version 00 and more": {[]string{"00" + ids + "-more"}, ""},
		"later, run together": {[]string{"cc" + ids + "more"}, ""},
		"version ff":          {[]string{"ff" + ids}, ""},
		"capitals":            {[]string{"00" + strings.ToUpper(ids)}, ""},
		"no trace":            {[]string{"00-00000000000000000000000000000000-b7ad6b7169203331-01"}, ""},
		"no parent":           {[]string{"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"}, ""},
		"too short":           {[]string{"00" + ids[:50]}, ""},
		"other separators":    {[]string{"00" + strings.ReplaceAll(ids, "-", "_")}, ""},
		"twice":               {[]string{"00" + ids, "00" + ids}, ""},
		"empty":               {[]string{""}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := execute(`{"action_provider":"p","action_name":"n"}`)
			if test.sent != nil {
				a = a.with("traceparent", test.sent...)
			}
			require.Equal(t, test.want, enqueued(t, a).TraceParent)
		})
	}
}

func TestExecuteReplayed(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.jobs.EXPECT().Enqueue(gomock.Any(), gomock.Any()).DoAndReturn(
		func(_ context.Context, d job.Draft) (job.Enqueued, error) {
			return job.Enqueued{Replayed: true, Job: job.Job{
				ID: jobID(t, "an/old id+"), Workspace: d.Workspace, Provider: "p", Name: "n", Params: `{"a":1.0,"b":[]}`,
			}}, nil
		}).Times(2)
	again := `{"action_provider":"p","action_name":"n","client_request_id":"k","params":{"b":[],"a":1}}`
	w := e.do(execute(again))
	require.Equal(t, http.StatusOK, w.Code)
	require.JSONEq(t, `{"job_id":"an/old id+","status":"enqueued"}`, w.Body.String())
	require.Equal(t, "true", w.Header().Get("Idempotency-Replayed"))
	require.Equal(t, "/ai/jobs/an%2Fold%20id+", w.Header().Get("Location"))

	w = e.do(execute(strings.Replace(again, `"a":1`, `"a":2`, 1)))
	require.Equal(t, http.StatusUnprocessableEntity, w.Code)
	require.EqualValues(t, "idempotency_key_reuse", problemIn(t, w).Code)
}

// TestJobIDInPath: an id is decoded once, by the rules of a path.
func TestJobIDInPath(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"plain":                                "plain",
		"a%2Fb":                                "a/b",
		"a+b":                                  "a+b",
		"a%20b":                                "a b",
		"%2541":                                "%41",
		"acme:a":                               "acme:a",
		":job_id":                              ":job_id",
		"*":                                    "*",
		"..":                                   "..",
		"%2E%2E%2F":                            "../",
		"%00%ff%0a":                            "\x00\xff\n",
		"%C3%BC":                               "ü",
		strings.Repeat("%2F", 256):             strings.Repeat("/", 256),
		"a;b=c,d&e":                            "a;b=c,d&e",
		"a%3Fworkspace_id=acme-eu":             "a?workspace_id=acme-eu",
		"a?workspace_id=acme":                  "a",
		"a?workspace_id=%61cme":                "a",
		strings.Repeat("a", 256) + "?":         strings.Repeat("a", 256),
		"0198c5b2-7c1e-7f3a-9d55-0c6f3f6f0a11": newJobID,
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			e := newEdge(t)
			e.jobs.EXPECT().Get(gomock.Any(), workspaceID(t, "acme"), jobID(t, want)).
				Return(job.Job{ID: jobID(t, want), Workspace: workspaceID(t, "acme"), Status: job.Running}, nil)
			w := e.do(get(path))
			require.Equal(t, http.StatusOK, w.Code, w.Body)
			var got struct {
				JobID string `json:"job_id"`
			}
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
			require.Equal(t, strings.ToValidUTF8(want, "\ufffd"), got.JobID)
		})
	}
}

// TestNotFoundIsAlwaysTheSame: an absent job, another workspace's that a broken repository gives away, and what is no
// id differ in no byte of the answer.
func TestNotFoundIsAlwaysTheSame(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	acme := workspaceID(t, "acme")
	e.jobs.EXPECT().Get(gomock.Any(), acme, jobID(t, "absent")).Return(job.Job{}, job.ErrNotFound())
	e.jobs.EXPECT().Get(gomock.Any(), acme, jobID(t, "theirs")).Return(
		job.Job{ID: jobID(t, "theirs"), Workspace: workspaceID(t, "acme-eu"), Status: job.Completed, Result: `"secret"`}, nil)
	e.observer.EXPECT().IsolationBreach(acme)
	e.jobs.EXPECT().Get(gomock.Any(), acme, jobID(t, "mine")).Return(
		job.Job{ID: jobID(t, "mine"), Workspace: acme, Status: job.Completed}, nil)

	absent := e.do(get("absent").with("X-Request-Id", "same"))
	require.Equal(t, http.StatusNotFound, absent.Code)
	require.Equal(t, "Job not found", problemIn(t, absent).Detail)
	for _, id := range []string{"theirs", strings.Repeat("a", 257)} {
		w := e.do(get(id).with("X-Request-Id", "same"))
		require.Equal(t, absent.Code, w.Code)
		require.Equal(t, absent.Body.String(), w.Body.String())
		require.Equal(t, absent.Header(), w.Header())
	}
	require.Equal(t, http.StatusOK, e.do(get("mine")).Code)
}

func TestJobOnTheWire(t *testing.T) {
	t.Parallel()
	acme := workspaceID(t, "acme")
	at := time.Date(2026, 11, 21, 19, 28, 54, 17837000, time.UTC)
	for name, test := range map[string]struct {
		stored job.Job
		want   string
	}{
		"whole": {
			job.Job{
				Status: job.Failed, Provider: "google", Name: "gmail.send", Params: `{"n":1.0,"t":"<&>"}`,
				Result: `[1e400,9007199254740993]`, Error: "broke <here>", Actor: "ada", ClientRequestID: "not shown",
				TraceParent: "not shown", EnqueuedAt: at, StartedAt: at.Add(time.Second),
				FinishedAt: at.Add(2*time.Second + 1999*time.Microsecond), Rev: 3,
			},
			`{"job_id":"j","workspace_id":"acme","status":"failed","action_provider":"google","action_name":"gmail.send",` +
				`"params":{"n":1.0,"t":"<&>"},"result":[1e400,9007199254740993],"error":"broke <here>","actor_id":"ada",` +
				`"enqueued_at":"2026-11-21T19:28:54.017837Z","started_at":"2026-11-21T19:28:55.017837Z",` +
				`"finished_at":"2026-11-21T19:28:56.019836Z","duration_ms":1001}`,
		},
		"least": {
			job.Job{Status: "odd"},
			`{"job_id":"j","workspace_id":"acme","status":"odd","action_provider":null,"action_name":null,"params":null,` +
				`"result":null,"error":null,"actor_id":null,"enqueued_at":null,"started_at":null,"finished_at":null,` +
				`"duration_ms":null}`,
		},
		"texts that are no JSON, times that run backwards or have another zone": {
			job.Job{
				Status: job.Completed, Params: job.JSONOf("{'a': 1}"), Result: job.JSONOf("a \"b\""),
				EnqueuedAt: at.In(time.FixedZone("", 3600)), StartedAt: at.Add(time.Hour), FinishedAt: at.Truncate(time.Second),
			},
			`{"job_id":"j","workspace_id":"acme","status":"completed","action_provider":null,"action_name":null,` +
				`"params":"{'a': 1}","result":"a \"b\"","error":null,"actor_id":null,` +
				`"enqueued_at":"2026-11-21T19:28:54.017837Z","started_at":"2026-11-21T20:28:54.017837Z",` +
				`"finished_at":"2026-11-21T19:28:54.000000Z","duration_ms":0}`,
		},
		"a time that four digits cannot date": {
			job.Job{Status: job.Pending, EnqueuedAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
			`{"job_id":"j","workspace_id":"acme","status":"pending","action_provider":null,"action_name":null,"params":null,` +
				`"result":null,"error":null,"actor_id":null,"enqueued_at":null,"started_at":null,"finished_at":null,` +
				`"duration_ms":null}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEdge(t)
			test.stored.ID, test.stored.Workspace = jobID(t, "j"), acme
			e.jobs.EXPECT().Get(gomock.Any(), acme, jobID(t, "j")).Return(test.stored, nil)
			e.jobs.EXPECT().List(gomock.Any(), acme, gomock.Any()).Return(job.Page{Jobs: []job.Job{test.stored}}, nil)
			require.Equal(t, test.want+"\n", e.do(get("j")).Body.String())
			require.Equal(t, `{"jobs":[`+test.want+`],"count":1,"next_cursor":null}`+"\n", e.do(list("")).Body.String())
		})
	}
}

func TestListPassesOnTheQuery(t *testing.T) {
	t.Parallel()
	cursor := job.ScanCursor(7, 0, jobID(t, "a b/"))
	for target, want := range map[string]job.Query{
		"": {Limit: 100},
		query(map[string]string{
			"status": "failed", "limit": "7", "cursor": cursor.String(), "workspace_id": "acme",
		}): {
			Status: job.Failed, Limit: 7, Cursor: cursor,
		},
		"?cursor=17&limit=1000": {Limit: 1000, Cursor: job.ScanCursor(17, 0, job.ID{})},
	} {
		e := newEdge(t)
		e.jobs.EXPECT().List(gomock.Any(), workspaceID(t, "acme"), want).Return(job.Page{Next: cursor}, nil)
		w := e.do(list(target))
		require.Equal(t, http.StatusOK, w.Code)
		require.JSONEq(t, `{"jobs":[],"count":0,"next_cursor":"new:7:old:0:after:a%20b%2F"}`, w.Body.String())
	}
}

// TestKinds: each kind of failure has one status and code, and what the storage says reaches nobody.
func TestKinds(t *testing.T) {
	t.Parallel()
	const inside = "dial tcp redis.internal:6379: ai:job:acme-eu:7"
	cause := errors.New(inside)
	executed, read, listed := execute(`{"action_provider":"p","action_name":"n"}`), get("a"), list("")
	for name, test := range map[string]struct {
		asked  ask
		err    error
		status int
		code   string
		detail string
	}{
		"invalid": {
			listed, fault.BadInput(fault.CodeInvalidCursor, "Invalid cursor", fault.Violation{Parameter: "cursor", Detail: "is old"}),
			400, "invalid_cursor", "Invalid cursor",
		},
		"mismatch":         {executed, fault.Wrap(cause, fault.Mismatch, fault.CodeIdempotencyKeyReuse, "Used"), 422, "idempotency_key_reuse", "Used"},
		"too large":        {executed, fault.Wrap(cause, fault.TooLarge, fault.Code(httpapi.ErrorCodeParamsTooLarge), "Large"), 413, "params_too_large", "Large"},
		"canceled":         {executed, fault.Wrap(cause, fault.Canceled, fault.CodeCanceled, inside), 499, "canceled", "The request was canceled"},
		"canceled context": {executed, context.Canceled, 499, "canceled", "The request was canceled"},
		"unavailable": {
			executed, fault.Wrap(cause, fault.Unavailable, fault.CodeStorageUnavailable, inside),
			500, "storage_unavailable", "The storage is unavailable, try again",
		},
		"timeout": {
			executed, fault.Wrap(cause, fault.Timeout, fault.CodeStorageUnavailable, inside),
			500, "storage_unavailable", "The storage is unavailable, try again",
		},
		"deadline": {executed, context.DeadlineExceeded, 500, "storage_unavailable", "The storage is unavailable, try again"},
		"credentials cannot be checked": {
			executed, fault.Wrap(cause, fault.Unavailable, fault.CodeAuthUnavailable, inside),
			500, "auth_unavailable", "Credentials cannot be checked right now, try again",
		},
		"record": {
			read, fault.Wrap(cause, fault.Internal, fault.CodeRecordInvalid, inside),
			500, "record_invalid", "The stored record of this job cannot be read",
		},
		"internal":      {executed, fault.Wrap(cause, fault.Internal, fault.CodeInternal, inside), 500, "internal", "Internal error"},
		"no fault":      {executed, cause, 500, "internal", "Internal error"},
		"unlisted code": {executed, fault.Wrap(cause, fault.Mismatch, "unheard_of", "No"), 500, "internal", "Internal error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEdge(t)
			e.jobs.EXPECT().Enqueue(gomock.Any(), gomock.Any()).Return(job.Enqueued{}, test.err).AnyTimes()
			e.jobs.EXPECT().Get(gomock.Any(), gomock.Any(), gomock.Any()).Return(job.Job{}, test.err).AnyTimes()
			e.jobs.EXPECT().List(gomock.Any(), gomock.Any(), gomock.Any()).Return(job.Page{}, test.err).AnyTimes()
			w := e.do(test.asked)
			p := problemIn(t, w)
			require.Equal(t, test.status, w.Code)
			require.EqualValues(t, test.code, p.Code)
			require.Equal(t, test.detail, p.Detail)
			require.NotContains(t, w.Body.String(), "redis")
			if strings.HasSuffix(test.code, "_unavailable") {
				require.Equal(t, "1", w.Header().Get("Retry-After"))
			} else {
				require.Empty(t, w.Header().Get("Retry-After"))
			}
			failures := e.logs.FilterMessage("request failed").All()
			if test.status == 500 {
				require.Len(t, failures, 1)
				require.Contains(t, failures[0].ContextMap()["reason"], test.err.Error())
			} else {
				require.Empty(t, failures)
			}
		})
	}
}

func TestPanicIsAnAnswer(t *testing.T) {
	t.Parallel()
	for name, panics := range map[string]func(){
		"with a secret": func() { panic("relay_sk_secret") },
		"of the runtime": func() {
			var none map[workspace.ID]int
			none[workspace.ID{}] = 1 //nolint:staticcheck // to panic is what it is for
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEdge(t)
			e.jobs.EXPECT().Get(gomock.Any(), gomock.Any(), gomock.Any()).DoAndReturn(
				func(context.Context, workspace.ID, job.ID) (job.Job, error) {
					panics()
					return job.Job{}, nil
				})
			w := e.do(get("a"))
			require.Equal(t, http.StatusInternalServerError, w.Code)
			require.EqualValues(t, "internal", problemIn(t, w).Code)
			require.NotContains(t, w.Body.String(), "goroutine")
			require.Len(t, e.logs.FilterMessage("panic").All(), 1)
			require.Empty(t, e.logs.FilterMessage("request failed").All(), "one failure, one line")
			require.NotContains(t, fmt.Sprint(e.logs.All()), "relay_sk_secret")
			require.Equal(t, []served{{"/ai/jobs/{job_id}", "GET", 500}}, e.served)
		})
	}
}
