package redisjobs

import (
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

func TestDecode(t *testing.T) {
	acme, id := workspaceID(t, "acme"), jobID(t, "legacy:with:colons")
	at := time.Date(2026, 11, 21, 19, 28, 54, 17_837_000, time.UTC)
	whole := map[string]string{
		"job_id": "legacy:with:colons", "workspace_id": "acme", "status": "completed", "action_provider": "google",
		"action_name": "gmail.send", "params": `{"a": 1}`, "result": `{"b": [2]}`, "error": "no", "actor_id": "user-1",
		"enqueued_at": "2026-11-21T19:28:54.017837+00:00", "started_at": "2026-11-21T20:28:54.017837+01:00",
		"finished_at": "2026-11-21T19:28:55Z", "client_request_id": "req-1", "traceparent": "00-a-b-01", "rev": "7",
		"attempts": "3", "something_new": "x",
	}
	want := job.Job{
		ID: id, Workspace: acme, Status: job.Completed, Provider: "google", Name: "gmail.send", Params: `{"a": 1}`,
		Result: `{"b": [2]}`, Error: "no", Actor: "user-1", ClientRequestID: "req-1", TraceParent: "00-a-b-01",
		EnqueuedAt: at, StartedAt: at, FinishedAt: at.Truncate(time.Second).Add(time.Second), Rev: 7,
	}
	got, ok := decode(whole)
	require.True(t, ok)
	require.Equal(t, want, got)

	for name, c := range map[string]struct {
		field, stored string
		change        func(*job.Job)
	}{
		"params that are no JSON":  {"params", `{"to": `, func(j *job.Job) { j.Params = `"{\"to\": "` }},
		"params of two values":     {"params", `1 2`, func(j *job.Job) { j.Params = `"1 2"` }},
		"result that is no JSON":   {"result", "not json", func(j *job.Job) { j.Result = `"not json"` }},
		"result of Python":         {"result", "NaN", func(j *job.Job) { j.Result = `"NaN"` }},
		"result that is not UTF-8": {"result", "\"\xff\"", func(j *job.Job) { j.Result = `"\"\ufffd\""` }},
		"empty result":             {"result", "", func(j *job.Job) { j.Result = "" }},
		"naive time":               {"enqueued_at", "2026-11-21T19:28:54.017837", func(j *job.Job) { j.EnqueuedAt = time.Time{} }},
		"no time":                  {"started_at", "soon", func(j *job.Job) { j.StartedAt = time.Time{} }},
		"unknown status":           {"status", "paused", func(j *job.Job) { j.Status = "paused" }},
		"rev that is no number":    {"rev", "seven", func(j *job.Job) { j.Rev = 0 }},
	} {
		hash, want := map[string]string{}, want
		for f, v := range whole {
			hash[f] = v
		}
		hash[c.field] = c.stored
		c.change(&want)
		got, ok := decode(hash)
		require.True(t, ok, name)
		require.Equal(t, want, got, name)
	}

	for name, change := range map[string]func(map[string]string){
		"no status":           func(h map[string]string) { delete(h, "status") },
		"empty status":        func(h map[string]string) { h["status"] = "" },
		"no workspace":        func(h map[string]string) { delete(h, "workspace_id") },
		"malformed workspace": func(h map[string]string) { h["workspace_id"] = "ACME Corp" },
		"no id":               func(h map[string]string) { delete(h, "job_id") },
	} {
		hash := maps.Clone(whole)
		change(hash)
		_, ok := decode(hash)
		require.False(t, ok, name)
	}

	theirs := maps.Clone(whole)
	theirs["workspace_id"], theirs["job_id"] = "globex", "another"
	got, ok = decode(theirs)
	require.True(t, ok)
	require.Equal(t, workspaceID(t, "globex"), got.Workspace, "a record that slipped past the adapter still says whose it is")
	require.Equal(t, jobID(t, "another"), got.ID)
}

func TestParseRev(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "0": 0, "1": 1, "007": 7, "999999999999999": 999_999_999_999_999, "1000000000000000": 0, "-1": 0, "+1": 0,
		" 1": 0, "1 ": 0, "1.0": 0, "1e3": 0, "0x10": 0, "1_000": 0, "\u0661": 0, "one": 0,
	} {
		require.Equal(t, want, parseRev(text), "%q", text)
	}
	rapid.Check(t, func(t *rapid.T) {
		require.GreaterOrEqual(t, parseRev(rapid.String().Draw(t, "rev")), int64(0))
	})
}

// TestOwnership: a record is shown to the workspace that it names, under the key that it names, and to nobody else.
func TestOwnership(t *testing.T) {
	acme, eu, id := workspaceID(t, "acme"), workspaceID(t, "acme-eu"), jobID(t, "j")
	for name, c := range map[string]struct {
		id, workspace string
		inOld, inNew  ownership
		owner         workspace.ID
	}{
		"whole":                  {"j", "acme", mine, mine, workspace.ID{}},
		"neighbour's":            {"j", "acme-eu", foreign, foreign, eu},
		"nothing":                {"", "", vacant, vacant, workspace.ID{}},
		"no id":                  {"", "acme", foreign, vacant, workspace.ID{}},
		"no workspace":           {"j", "", foreign, vacant, workspace.ID{}},
		"another id":             {"k", "acme", foreign, foreign, workspace.ID{}},
		"another id, neighbour":  {"k", "acme-eu", foreign, foreign, workspace.ID{}},
		"malformed workspace":    {"j", "ACME Corp", foreign, foreign, workspace.ID{}},
		"workspace with newline": {"j", "acme\n", foreign, foreign, workspace.ID{}},
		"id with newline":        {"j\n", "acme", foreign, foreign, workspace.ID{}},
	} {
		h := head{id: c.id, workspace: c.workspace}
		o, owner := h.inOld(acme, id)
		require.Equal(t, c.inOld, o, name)
		require.Equal(t, c.owner, owner, name)
		require.Equal(t, c.inNew, h.inNew(acme, id), name)
	}
}
