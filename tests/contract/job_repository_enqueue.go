package contract

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

// hostileIDs are job ids that a key, a pattern, a script or a cursor could trip over. Each holds unique.
func hostileIDs(unique string, other workspace.ID) map[string]string {
	return map[string]string{
		"colons":           ":" + unique + "::",
		"another's":        other.String() + ":" + unique,
		"old key":          "ai:jobs:" + unique,
		"cursor":           "new:1:old:2:after:" + unique,
		"spaces":           "  " + unique + " ",
		"slashes":          "../" + unique + "/./",
		"percent":          "%2F%" + unique + "%zz",
		"plus":             "+" + unique + "+",
		"glob":             "*?[" + unique + "]^\\",
		"braces":           "{" + unique + "}",
		"quotes":           `"'` + unique + "`",
		"newline":          unique + "\n",
		"carriage return":  "\r\n" + unique,
		"zero byte":        "\x00" + unique + "\x00",
		"not UTF-8":        "\xff\xfe" + unique + "\xc3",
		"beyond ASCII":     "задание-" + unique + "-🙂",
		"case":             strings.ToLower(unique),
		"digits":           "12345678901234567890" + strings.Repeat("0", 10) + unique,
		"longest":          unique + strings.Repeat("x", 256-len(unique)),
		"longest of bytes": unique + strings.Repeat("\xff", 256-len(unique)),
		"plain":            unique,
	}
}

// exactParams are texts that must come back byte by byte.
func exactParams() map[string]job.JSON {
	return map[string]job.JSON{
		"empty":         `{}`,
		"spacing":       "{ \"a\" :\t1 ,\n \"b\":[ ] }",
		"order":         `{"b":1,"a":2}`,
		"numbers":       `{"n":[1.0,1e400,-0,12345678901234567890123,0.10]}`,
		"escapes":       `{"s":"\u0061\/\n\u0000<>&\u2028"}`,
		"beyond ASCII":  `{"ключ":"🙂"}`,
		"nulls":         `{"a":null,"b":{},"c":[]}`,
		"looks like Go": `{"%s":"%!d(MISSING)"}`,
		"large":         job.JSON(`{"s":"` + strings.Repeat("0123456789abcdef", 16<<10) + `"}`),
	}
}

func enqueueTopic(t *testing.T, s JobStorage) {
	t.Helper()
	t.Run("every field comes back", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		d := newDraft(t, w.acme)
		d.Provider, d.Name = "goo\x00gle\r\n%s", "gmail.\"send\" 🙂"
		d.Actor, d.TraceParent = "user:*?[1]", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
		d.ClientRequestID = newRequestID(t)
		made, err := w.Jobs.Enqueue(t.Context(), d)
		require.NoError(t, err)
		require.False(t, made.Replayed)
		requireRequest(t, d, made.Job)

		got := w.get(t, w.acme, d.ID)
		require.Equal(t, job.Job{
			ID: d.ID, Workspace: w.acme, Status: job.Pending, Provider: d.Provider, Name: d.Name, Params: d.Params,
			Actor: d.Actor, ClientRequestID: d.ClientRequestID.String(), TraceParent: d.TraceParent,
			EnqueuedAt: got.EnqueuedAt, Rev: 1,
		}, got)
		requireStamp(t, got.EnqueuedAt)
		w.requireJobs(t, []job.Job{got}, w.list(t, w.acme))
	})

	t.Run("any job id", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		var all []job.Job
		for name, text := range hostileIDs(rand.Text(), w.acmeEU) {
			d := newDraft(t, w.acme)
			d.ID = jobID(t, text)
			got := w.enqueue(t, d)
			require.Equal(t, text, got.ID.String(), name)
			all = append(all, w.move(t, w.acme, d.ID, job.Move{To: job.Running}))
		}
		// One a page, so that each id has its turn in a cursor.
		w.requireJobs(t, all, w.walk(t, w.acme, job.Query{Limit: 1}, nil))
		for _, other := range w.neighbours() {
			require.Empty(t, w.list(t, other))
		}
	})

	t.Run("params byte by byte", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		var all []job.Job
		for name, params := range exactParams() {
			d := newDraft(t, w.acme)
			d.Params = params
			got := w.enqueue(t, d)
			require.True(t, params == got.Params, name) //nolint:testifylint // a failure need not print them
			all = append(all, got)
		}
		w.requireJobs(t, all, w.list(t, w.acme))
	})

	t.Run("enqueued_at never goes back", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		var last time.Time
		for range 20 {
			got := w.enqueue(t, newDraft(t, w.acme))
			requireStamp(t, got.EnqueuedAt)
			require.False(t, got.EnqueuedAt.Before(last), "%s after %s", got.EnqueuedAt, last)
			last = got.EnqueuedAt
		}
	})

	t.Run("a repetition is answered as made", func(t *testing.T) {
		for name, key := range map[string]job.ClientRequestID{"without a key": {}, "with a key": newRequestID(t)} {
			t.Run(name, func(t *testing.T) {
				w := newJobWorld(t, s, 0)
				d := newDraft(t, w.acme)
				d.ClientRequestID = key
				before := w.enqueue(t, d)
				requireRepeated(t, w, d)
				require.Equal(t, before, w.get(t, w.acme, d.ID))

				moved := w.move(t, w.acme, d.ID, job.Move{To: job.Running})
				requireRepeated(t, w, d)
				require.Equal(t, moved, w.get(t, w.acme, d.ID), "a repetition does not set a job back")
				w.requireJobs(t, []job.Job{moved}, w.list(t, w.acme))
			})
		}
	})

	t.Run("repetitions at once make one job", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		d := newDraft(t, w.acme)
		d.ClientRequestID = newRequestID(t)
		made, errs := make([]job.Enqueued, 16), make([]error, 16)
		atOnce(len(made), func(i int) { made[i], errs[i] = w.Jobs.Enqueue(t.Context(), d) })
		for i := range made {
			require.NoError(t, errs[i])
			require.False(t, made[i].Replayed, "it is the caller's own first request")
			requireRequest(t, d, made[i].Job)
		}
		got := w.get(t, w.acme, d.ID)
		require.Equal(t, int64(1), got.Rev)
		w.requireJobs(t, []job.Job{got}, w.list(t, w.acme))
	})

	t.Run("an id that another workspace holds", func(t *testing.T) {
		w := newJobWorld(t, s, 0)
		before := w.enqueue(t, newDraft(t, w.acme))
		for _, other := range w.neighbours() {
			d := newDraft(t, other)
			d.ID, d.Name = before.ID, "theirs"
			// Whether there is room for both depends on the schemas; the first job is untouched either way.
			made, err := w.Jobs.Enqueue(t.Context(), d)
			if err != nil {
				requireKind(t, fault.Conflict, err)
				_, err = w.Jobs.Get(t.Context(), other, d.ID)
				requireKind(t, fault.NotFound, err)
				require.Empty(t, w.list(t, other))
			} else {
				requireRequest(t, d, made.Job)
				// Where the schema that has room for both is written but not read yet, the made job is not seen.
				if got, err := w.Jobs.Get(t.Context(), other, d.ID); err == nil {
					requireRequest(t, d, got)
				} else {
					requireKind(t, fault.NotFound, err)
				}
			}
			require.Equal(t, before, w.get(t, w.acme, before.ID))
			w.requireJobs(t, []job.Job{before}, w.list(t, w.acme))
		}
	})
}

// requireStamp checks the form of a time that the storage set.
func requireStamp(t *testing.T, at time.Time) {
	t.Helper()
	require.False(t, at.IsZero())
	require.Equal(t, time.UTC, at.Location())
	require.Zero(t, at.Nanosecond()%int(time.Microsecond))
}

// requireRequest checks what Enqueued promises of its job.
func requireRequest(t *testing.T, want job.Draft, got job.Job) {
	t.Helper()
	require.Equal(t,
		job.Job{ID: want.ID, Workspace: want.Workspace, Provider: want.Provider, Name: want.Name, Params: want.Params},
		job.Job{ID: got.ID, Workspace: got.Workspace, Provider: got.Provider, Name: got.Name, Params: got.Params})
}

func requireRepeated(t *testing.T, w jobWorld, d job.Draft) {
	t.Helper()
	again, err := w.Jobs.Enqueue(t.Context(), d)
	require.NoError(t, err)
	require.False(t, again.Replayed, "the draft's own job is no earlier request's")
	requireRequest(t, d, again.Job)
}
