package httpapi

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

func encoded(t require.TestingT, v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	require.NoError(t, enc.Encode(v))
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// anyText draws what a stored field may hold: any bytes, with those that grow when they are encoded more often.
func anyText(maxBytes int) *rapid.Generator[string] {
	growing := rapid.SampledFrom([]string{"\x00", "\x1f", "\"", "\\", "\xff", "\u2028", "\u2029", "\ufffd", "<", "\n", "ü", "a"})
	return rapid.OneOf(
		rapid.StringN(-1, -1, maxBytes),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, maxBytes), func(b []byte) string { return string(b) }),
		rapid.Map(rapid.SliceOfN(growing, 0, maxBytes/3), func(parts []string) string {
			var b bytes.Buffer
			for _, p := range parts {
				b.WriteString(p)
			}
			return b.String()
		}),
	)
}

func anyTime() *rapid.Generator[time.Time] {
	return rapid.Map(rapid.Int64Range(-62135596800000000, 253402300799999999), func(micros int64) time.Time {
		return time.UnixMicro(micros).UTC()
	})
}

// TestSizeBoundsWhatAJobTakes: a page is measured by job.Job.Size, so no job may take more than that.
func TestSizeBoundsWhatAJobTakes(t *testing.T) {
	t.Parallel()
	ids := rapid.Map(anyText(256), func(s string) job.ID {
		id, err := job.ParseID(s[:min(len(s), 256)])
		if err != nil {
			id, _ = job.ParseID("\x00")
		}
		return id
	})
	texts := rapid.OneOf(rapid.Just(""), anyText(300))
	values := rapid.Map(texts, job.JSONOf)
	longest, err := workspace.Parse("a23456789-123456789_123456789-12")
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		draw := func(g *rapid.Generator[string], name string) string { return g.Draw(t, name) }
		j := job.Job{
			ID: ids.Draw(t, "id"), Workspace: longest, Status: job.Status(draw(texts, "status")),
			Provider: draw(texts, "provider"), Name: draw(texts, "name"),
			Params: values.Draw(t, "params"), Result: values.Draw(t, "result"),
			Error: draw(texts, "error"), Actor: draw(texts, "actor"),
			EnqueuedAt: anyTime().Draw(t, "enqueued"), StartedAt: anyTime().Draw(t, "started"),
			FinishedAt: anyTime().Draw(t, "finished"),
		}
		one := len(encoded(t, wirePage(job.Page{Jobs: []job.Job{j}})))
		two := len(encoded(t, wirePage(job.Page{Jobs: []job.Job{j, j}})))
		if taken := two - one; taken > j.Size() {
			t.Fatalf("%d bytes taken, %d foreseen", taken, j.Size())
		}
		if !json.Valid(encoded(t, wireJob(&j))) {
			t.Fatal("not JSON")
		}
	})
}

// TestSizeBoundsTheLongest: all times given and the duration as long as it gets, all else absent.
func TestSizeBoundsTheLongest(t *testing.T) {
	t.Parallel()
	id, err := job.ParseID("a")
	require.NoError(t, err)
	ws, err := workspace.Parse("a")
	require.NoError(t, err)
	j := job.Job{
		ID: id, Workspace: ws, EnqueuedAt: time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC),
		StartedAt:  time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC),
		FinishedAt: time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC),
	}
	require.LessOrEqual(t, len(encoded(t, wireJob(&j)))+len(","), j.Size())
}

// TestSizeIsNear: a bound that is far too high would make pages short.
func TestSizeIsNear(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 21, 19, 28, 54, 17837000, time.UTC)
	id, err := job.ParseID("0198c5b2-7c1e-7f3a-9d55-0c6f3f6f0a11")
	require.NoError(t, err)
	ws, err := workspace.Parse("acme")
	require.NoError(t, err)
	j := job.Job{
		ID: id, Workspace: ws, Status: job.Completed, Provider: "google", Name: "gmail.send", Params: `{"to":"ada"}`,
		Result: `{}`, Actor: "ada", EnqueuedAt: at, StartedAt: at, FinishedAt: at.Add(time.Second),
	}
	taken := len(encoded(t, wireJob(&j)))
	require.Less(t, j.Size()-taken, 40)
}

func benchmarkJob(b *testing.B) job.Job {
	b.Helper()
	at := time.Date(2026, 11, 21, 19, 28, 54, 17837000, time.UTC)
	id, err := job.ParseID("0198c5b2-7c1e-7f3a-9d55-0c6f3f6f0a11")
	require.NoError(b, err)
	ws, err := workspace.Parse("acme")
	require.NoError(b, err)
	return job.Job{
		ID: id, Workspace: ws, Status: job.Completed, Provider: "google", Name: "gmail.send",
		Params: `{"to":"ada@example.com","subject":"Hello","body":"Some words that make a mail of it."}`,
		Result: `{"message_id":"m-77"}`, Actor: "ada", EnqueuedAt: at, StartedAt: at, FinishedAt: at.Add(time.Second),
	}
}

func BenchmarkEncodeJob(b *testing.B) {
	j := benchmarkJob(b)
	b.ReportAllocs()
	for b.Loop() {
		encoded(b, wireJob(&j))
	}
}

func BenchmarkDecodeExecute(b *testing.B) {
	body := []byte(`{"action_provider":"google","action_name":"gmail.send","client_request_id":"order-1815",` +
		`"params":{"to":"ada@example.com","subject":"Hello","body":"Some words that make a mail of it."}}`)
	b.ReportAllocs()
	for b.Loop() {
		request, err := decodeExecute(body)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := executeInput(request); err != nil {
			b.Fatal(err)
		}
	}
}
