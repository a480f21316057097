package job_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
)

func parseID(t require.TestingT, text string) job.ID {
	id, err := job.ParseID(text)
	require.NoError(t, err)
	return id
}

func TestParseID(t *testing.T) {
	for name, text := range map[string]string{
		"one byte": "a", "uuid": "0199a1b2-0000-7000-8000-000000000000", "newline": "a\n", "zero byte": "\x00",
		"not UTF-8": "\xff\xfe", "colons": ":::", "glob": "*", "spaces": "  ", "256 bytes": strings.Repeat("x", 256),
	} {
		id, err := job.ParseID(text)
		require.NoError(t, err, name)
		require.Equal(t, text, id.String(), name)
		require.False(t, id.IsZero(), name)
	}
	for name, text := range map[string]string{
		"empty": "", "257 bytes": strings.Repeat("x", 257), "129 characters of two bytes": strings.Repeat("é", 129),
	} {
		id, err := job.ParseID(text)
		require.Equal(t, fault.NotFound, fault.KindOf(err), name)
		require.Equal(t, fault.CodeJobNotFound, fault.CodeOf(err), name)
		require.Equal(t, job.ErrNotFound().Error(), err.Error(), "%s: as an absent job", name)
		require.True(t, id.IsZero(), name)
	}
}

func TestParseClientRequestID(t *testing.T) {
	for _, text := range []string{"a", " ", "~", ":", "*", `"`, strings.Repeat("k", 200), "0199a1b2-0000"} {
		key, err := job.ParseClientRequestID(text)
		require.NoError(t, err, "%q", text)
		require.Equal(t, text, key.String())
		require.False(t, key.IsZero())
	}
	for _, text := range []string{"", strings.Repeat("k", 201), "a\n", "\t", "a\x00", "\x7f", "é", "\xff", "a\u00a0b"} {
		key, err := job.ParseClientRequestID(text)
		require.Equal(t, fault.Invalid, fault.KindOf(err), "%q", text)
		require.Equal(t, fault.CodeInvalidParameter, fault.CodeOf(err))
		require.True(t, key.IsZero())
		require.Empty(t, key.String())
	}
}

func TestClientRequestIDIsPrintableASCII(t *testing.T) {
	for c := range 256 {
		_, err := job.ParseClientRequestID(string([]byte{'a', byte(c), 'a'}))
		require.Equal(t, c >= 0x20 && c <= 0x7e, err == nil, "byte %#x", c)
	}
}

func TestDuration(t *testing.T) {
	at := time.Date(2026, 11, 21, 19, 28, 54, 0, time.UTC)
	for name, c := range map[string]struct {
		started, finished time.Time
		want              time.Duration
		ok                bool
	}{
		"neither":       {time.Time{}, time.Time{}, 0, false},
		"not finished":  {at, time.Time{}, 0, false},
		"never started": {time.Time{}, at, 0, false},
		"both":          {at, at.Add(1500 * time.Microsecond), 1500 * time.Microsecond, true},
		"at once":       {at, at, 0, true},
		"clock went":    {at, at.Add(-time.Second), 0, true},
	} {
		d, ok := job.Job{StartedAt: c.started, FinishedAt: c.finished}.Duration()
		require.Equal(t, c.ok, ok, name)
		require.Equal(t, c.want, d, name)
	}
}

func TestNewer(t *testing.T) {
	at := time.Date(2026, 11, 21, 19, 28, 54, 0, time.UTC)
	want := []job.Job{
		{ID: parseID(t, "a"), EnqueuedAt: at.Add(time.Microsecond)},
		{ID: parseID(t, "\xff"), EnqueuedAt: at},
		{ID: parseID(t, "b"), EnqueuedAt: at},
		{ID: parseID(t, "aa"), EnqueuedAt: at},
		{ID: parseID(t, "a"), EnqueuedAt: at},
		{ID: parseID(t, "B"), EnqueuedAt: at},
		{ID: parseID(t, "z")}, // no time
		{ID: parseID(t, "y")},
	}
	for i, a := range want {
		for k, b := range want {
			require.Equal(t, sign(i-k), sign(job.Newer(a, b)), "%d against %d", i, k)
		}
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, job.Newer)
	require.Equal(t, want, got)
}

func sign(n int) int { return max(-1, min(1, n)) }

func TestDraftAsks(t *testing.T) {
	made := job.Job{Provider: "google", Name: "gmail.send", Params: `{"a":1,"b":[true]}`}
	same := job.Draft{Provider: "google", Name: "gmail.send", Params: `{"b": [true], "a": 1.0}`}
	require.True(t, same.Asks(made))
	for name, change := range map[string]func(*job.Draft){
		"provider":      func(d *job.Draft) { d.Provider = "Google" },
		"name":          func(d *job.Draft) { d.Name = "gmail.send " },
		"params":        func(d *job.Draft) { d.Params = `{"a":1}` },
		"swapped names": func(d *job.Draft) { d.Provider, d.Name = d.Name, d.Provider },
	} {
		d := same
		change(&d)
		require.False(t, d.Asks(made), name)
	}
	// The same letters in two forms of Unicode are not the same bytes.
	require.False(t, job.Draft{Provider: "e\u0301", Params: `{}`}.Asks(job.Job{Provider: "é", Params: `{}`}))
}

func TestCopyNames(t *testing.T) {
	require.Equal(t, "miss", job.CopyNone.String())
	require.Equal(t, "old", job.CopyOld.String())
	require.Equal(t, "new", job.CopyNew.String())
	require.Equal(t, "miss", job.Copy(9).String())
}

func TestMoveTable(t *testing.T) {
	legal := map[job.Status][]job.Status{
		job.Pending:   {job.Running, job.Failed},
		job.Running:   {job.Completed, job.Failed, job.Pending},
		job.Completed: {},
		job.Failed:    {},
		"paused":      {},
		"":            {},
	}
	for from, targets := range legal {
		for _, to := range append(job.Statuses(), "paused", "") {
			j := job.Job{Status: from, Result: `"before"`, Error: "before"}
			m := job.Move{To: to}
			want := job.Refuse
			if slices.Contains(targets, to) {
				want = job.Apply
			}
			require.Equal(t, want, m.Decide(j), "%q to %q", from, to)
			require.Equal(t, want == job.Apply, slices.Contains(to.Sources(), from), "%q to %q", from, to)
		}
		require.Equal(t, from == job.Completed || from == job.Failed, from.Final(), from)
		require.Equal(t, slices.Contains(job.Statuses(), from), from.Known(), from)
		require.Equal(t, from.Final(), from.Stamp() == job.StampFinished, from)
		require.Equal(t, from.Known(), from.Stamp() != job.StampNone, from)
	}
	require.Equal(t, job.StampStarted, job.Running.Stamp())
	require.Equal(t, job.StampWaiting, job.Pending.Stamp())
	require.Len(t, job.Statuses(), 4)
	require.False(t, job.Status("Pending").Known())
	require.False(t, job.Status("pending ").Known())
}

func TestDecideTheSameOutcomeAgain(t *testing.T) {
	for _, c := range []struct {
		stored job.Job
		move   job.Move
		want   job.Decision
	}{
		{job.Job{Status: job.Pending}, job.Move{To: job.Pending}, job.Done},
		{job.Job{Status: job.Running}, job.Move{To: job.Running}, job.Done},
		{job.Job{Status: job.Completed, Result: `1`}, job.Move{To: job.Completed, Result: `1`}, job.Done},
		{job.Job{Status: job.Completed, Result: `1`}, job.Move{To: job.Completed, Result: `2`}, job.Refuse},
		{job.Job{Status: job.Completed, Result: `1`}, job.Move{To: job.Completed}, job.Refuse},
		{job.Job{Status: job.Completed}, job.Move{To: job.Failed}, job.Refuse},
		{job.Job{Status: job.Failed, Error: "no"}, job.Move{To: job.Failed, Error: "no"}, job.Done},
		{job.Job{Status: job.Failed, Error: "no"}, job.Move{To: job.Failed, Error: "other"}, job.Refuse},
		{job.Job{Status: job.Failed, Error: "no", Result: `1`}, job.Move{To: job.Failed, Error: "no"}, job.Refuse},
		{job.Job{Status: job.Failed}, job.Move{To: job.Completed}, job.Refuse},
	} {
		require.Equal(t, c.want, c.move.Decide(c.stored), "%+v to %+v", c.stored, c.move)
	}
}

func TestFinalStatesAreNeverLeft(t *testing.T) {
	text := rapid.SampledFrom([]string{"", `1`, `{"a":1}`})
	rapid.Check(t, func(t *rapid.T) {
		m := job.Move{
			To:     rapid.SampledFrom(append(job.Statuses(), "paused")).Draw(t, "to"),
			Result: job.JSON(text.Draw(t, "result")), Error: text.Draw(t, "error"),
		}
		j := job.Job{
			Status: rapid.SampledFrom([]job.Status{job.Completed, job.Failed, "paused"}).Draw(t, "from"),
			Result: job.JSON(text.Draw(t, "stored result")), Error: text.Draw(t, "stored error"),
		}
		require.NotEqual(t, job.Apply, m.Decide(j))
	})
}

func TestMoveValidate(t *testing.T) {
	for name, c := range map[string]struct {
		move job.Move
		ok   bool
	}{
		"to pending":               {job.Move{To: job.Pending}, true},
		"to running":               {job.Move{To: job.Running}, true},
		"completed":                {job.Move{To: job.Completed}, true},
		"completed with a result":  {job.Move{To: job.Completed, Result: `{"a":1}`}, true},
		"completed with null":      {job.Move{To: job.Completed, Result: `null`}, true},
		"failed":                   {job.Move{To: job.Failed}, true},
		"failed with an error":     {job.Move{To: job.Failed, Error: "no"}, true},
		"failed with both":         {job.Move{To: job.Failed, Error: "no", Result: `[]`}, true},
		"nowhere":                  {job.Move{}, false},
		"unknown":                  {job.Move{To: "paused"}, false},
		"capitals":                 {job.Move{To: "Failed"}, false},
		"result of a running job":  {job.Move{To: job.Running, Result: `1`}, false},
		"result of a pending job":  {job.Move{To: job.Pending, Result: `1`}, false},
		"result that is no JSON":   {job.Move{To: job.Completed, Result: `{`}, false},
		"result of two values":     {job.Move{To: job.Completed, Result: `1 2`}, false},
		"result that is not UTF-8": {job.Move{To: job.Failed, Result: "\"\xff\""}, false},
		"error of a success":       {job.Move{To: job.Completed, Error: "no"}, false},
		"error of a running job":   {job.Move{To: job.Running, Error: "no"}, false},
	} {
		err := c.move.Validate()
		if c.ok {
			require.NoError(t, err, name)
			continue
		}
		require.Equal(t, fault.Invalid, fault.KindOf(err), name)
		require.Equal(t, fault.CodeInvalidParameter, fault.CodeOf(err), name)
	}
	require.Equal(t, fault.Conflict, fault.KindOf(job.ErrState()))
	require.Equal(t, fault.CodeJobState, fault.CodeOf(job.ErrState()))
}
