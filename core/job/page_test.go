package job_test

import (
	"encoding/json"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
)

func TestCursorTexts(t *testing.T) {
	at := time.UnixMicro(1_795_289_334_017_837).UTC()
	id := func(text string) job.ID { return parseID(t, text) }
	for text, c := range map[string]job.Cursor{
		"new:0:old:0":                           job.ScanCursor(0, 0, job.ID{}),
		"new:10:old:5":                          job.ScanCursor(10, 5, job.ID{}),
		"new:0:old:7":                           job.ScanCursor(0, 7, job.ID{}),
		"new:18446744073709551615:old:1":        job.ScanCursor(math.MaxUint64, 1, job.ID{}),
		"new:1:old:0:after:plain-._~Az09":       job.ScanCursor(1, 0, id("plain-._~Az09")),
		"new:1:old:0:after:a%3Ab":               job.ScanCursor(1, 0, id("a:b")),
		"new:0:old:2:after:%20%2B%25%2F%3F%2A":  job.ScanCursor(0, 2, id(" +%/?*")),
		"new:0:old:2:after:%0A%00%FF":           job.ScanCursor(0, 2, id("\n\x00\xff")),
		"new:0:old:2:after:%C3%A9":              job.ScanCursor(0, 2, id("é")),
		"at:1795289334017837:a%3Ab":             job.OrderCursor(job.Job{EnqueuedAt: at, ID: id("a:b")}.Place()),
		"at:0:a":                                job.OrderCursor(job.Job{ID: id("a")}.Place()),
		"at:1795289334017837:" + longID("%FF"):  job.OrderCursor(job.Job{EnqueuedAt: at, ID: id(longID("\xff"))}.Place()),
		"new:1:old:2:after:" + longID("%3A"):    job.ScanCursor(1, 2, id(longID(":"))),
		"new:0:old:0:after:new%3A1%3Aold%3A2":   job.ScanCursor(0, 0, id("new:1:old:2")),
		"at:9223372036854775807:after%3A1":      orderCursor(t, "at:9223372036854775807:after%3A1"),
		"new:9007199254740993:old:1:after:%25A": job.ScanCursor(9007199254740993, 1, id("%A")),
	} {
		t.Run(text, func(t *testing.T) {
			require.Equal(t, text, c.String())
			require.False(t, c.IsZero())
			parsed, err := job.ParseCursor(text)
			require.NoError(t, err)
			require.Equal(t, c, parsed)
			encoded, err := json.Marshal(c)
			require.NoError(t, err)
			require.JSONEq(t, `"`+text+`"`, string(encoded))
		})
	}
}

func longID(of string) string { return strings.Repeat(of, 256) }

func orderCursor(t *testing.T, text string) job.Cursor {
	t.Helper()
	c, err := job.ParseCursor(text)
	require.NoError(t, err)
	return c
}

func TestPredecessorsCursor(t *testing.T) {
	for text, pos := range map[string]uint64{"0": 0, "10": 10, "18446744073709551615": math.MaxUint64} {
		c, err := job.ParseCursor(text)
		require.NoError(t, err)
		require.Equal(t, job.ScanCursor(pos, 0, job.ID{}), c)
		require.Equal(t, "new:"+text+":old:0", c.String())
	}
}

func TestParseCursorRefuses(t *testing.T) {
	for _, text := range []string{
		"", " ", ":", "::", "a", "-1", "+1", "1 ", " 1", "1\n", "00", "01", "1.0", "1e3", "0x1", "１", "٣",
		"18446744073709551616", strings.Repeat("9", 1000),
		"new:1", "new:1:old", "new:1:old:", "new::old:1", "new:1:old:2:", "new:1:old:2:after", "new:1:old:2:after:",
		"new:1:old:2:after:a:b", "new:1:old:2:before:a", "old:1:new:2", "NEW:1:old:2", "new:1:OLD:2", "new:1:old:2\n",
		"new:01:old:2", "new:1:old:02", "new:+1:old:2", "new:-1:old:2", "new:1:old:-2", "new: 1:old:2", "xnew:1:old:2",
		"new:18446744073709551616:old:0", "new:0:old:18446744073709551616", "new:1.5:old:2", "new:1:old:2:3",
		"new:1:old:2:after:%", "new:1:old:2:after:%3", "new:1:old:2:after:%zz", "new:1:old:2:after:%3a",
		"new:1:old:2:after:a b", "new:1:old:2:after:a+b", "new:1:old:2:after:a/b", "new:1:old:2:after:%61",
		"new:1:old:2:after:é", "new:1:old:2:after:a%2Db", "new:1:old:2:after:\xff", "new:1:old:2:after:a\n",
		"new:1:old:2:after:" + strings.Repeat("a", 257), "new:1:old:2:AFTER:a",
		"at:", "at:1", "at:1:", "at::a", "at:-1:a", "at:-0:a", "at:+1:a", "at:01:a", "at:1:a:b", "at:1:%3a",
		"at:9223372036854775808:a", "at:1.0:a", "AT:1:a", "at:1:a\n", "at:1:" + strings.Repeat("a", 257),
		"null", "undefined", "bmV3OjE6b2xkOjI=",
	} {
		c, err := job.ParseCursor(text)
		require.Equal(t, fault.Invalid, fault.KindOf(err), "%q", text)
		require.Equal(t, fault.CodeInvalidCursor, fault.CodeOf(err))
		require.Zero(t, c)
		var e *fault.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, "Invalid cursor", e.Error(), "the text is not repeated")
		require.Len(t, e.Violations, 1)
		require.Equal(t, "cursor", e.Violations[0].Parameter)
	}
}

func TestCursorParts(t *testing.T) {
	var start job.Cursor
	require.True(t, start.IsZero())
	require.Empty(t, start.String())
	encoded, err := json.Marshal(start)
	require.NoError(t, err)
	require.Equal(t, "null", string(encoded))
	newPos, oldPos, after, ok := start.Scan()
	require.True(t, ok, "a walk by SCAN begins at the start")
	require.Zero(t, newPos+oldPos)
	require.True(t, after.IsZero())
	_, ok = start.Order()
	require.False(t, ok)

	id := parseID(t, "a")
	newPos, oldPos, after, ok = job.ScanCursor(3, 4, id).Scan()
	require.True(t, ok)
	require.Equal(t, []uint64{3, 4}, []uint64{newPos, oldPos})
	require.Equal(t, id, after)
	_, ok = job.ScanCursor(3, 4, id).Order()
	require.False(t, ok)

	at := time.UnixMicro(12).Add(999 * time.Nanosecond)
	place, ok := job.OrderCursor(job.Job{EnqueuedAt: at, ID: id}.Place()).Order()
	require.True(t, ok)
	require.Equal(t, job.Place{Micros: 12, ID: id}, place)
	_, _, _, ok = job.OrderCursor(job.Place{ID: id}).Scan()
	require.False(t, ok)
	require.Zero(t, job.Job{EnqueuedAt: time.UnixMicro(-5), ID: id}.Place().Micros, "no place lies before 1970")
}

func TestCursorsComeBack(t *testing.T) {
	ids := rapid.Custom(func(t *rapid.T) job.ID {
		return parseID(t, string(rapid.SliceOfN(rapid.Byte(), 1, 256).Draw(t, "id")))
	})
	rapid.Check(t, func(t *rapid.T) {
		after := job.ID{}
		if rapid.Bool().Draw(t, "in part") {
			after = ids.Draw(t, "after")
		}
		micros := rapid.Int64Min(0).Draw(t, "micros")
		for _, c := range []job.Cursor{
			job.ScanCursor(rapid.Uint64().Draw(t, "new"), rapid.Uint64().Draw(t, "old"), after),
			job.OrderCursor(job.Job{EnqueuedAt: time.UnixMicro(micros), ID: ids.Draw(t, "job")}.Place()),
		} {
			require.Regexp(t, `^[a-zA-Z0-9:%._~-]+$`, c.String(), "it goes into a URL as it is")
			parsed, err := job.ParseCursor(c.String())
			require.NoError(t, err)
			require.Equal(t, c, parsed)
		}
	})
}

var digits = regexp.MustCompile(`\A(0|[1-9][0-9]*)\z`)

func FuzzParseCursor(f *testing.F) {
	for _, seed := range []string{
		"", "0", "10", "new:10:old:5", "new:0:old:7:after:a%3Ab", "at:1795289334017837:%FF", "new:1:old:2:after:%3a",
		"at:01:a", "new:1:old:2:after:a+b", "18446744073709551616",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := job.ParseCursor(text)
		switch {
		case err != nil:
			require.Equal(t, fault.Invalid, fault.KindOf(err))
			require.Zero(t, c)
		case digits.MatchString(text):
			require.Equal(t, "new:"+text+":old:0", c.String())
		default:
			require.Equal(t, text, c.String())
		}
	})
}

func TestListPath(t *testing.T) {
	for _, c := range []struct {
		copies []job.Copy
		want   job.ListPath
		name   string
	}{
		{nil, job.ListMiss, "miss"},
		{[]job.Copy{job.CopyNone}, job.ListMiss, "miss"},
		{[]job.Copy{job.CopyOld}, job.ListOld, "old"},
		{[]job.Copy{job.CopyOld, job.CopyNone, job.CopyOld}, job.ListOld, "old"},
		{[]job.Copy{job.CopyNew, job.CopyNew}, job.ListNew, "new"},
		{[]job.Copy{job.CopyNew, job.CopyNone}, job.ListNew, "new"},
		{[]job.Copy{job.CopyNew, job.CopyOld}, job.ListMixed, "mixed"},
		{[]job.Copy{job.CopyOld, job.CopyNew}, job.ListMixed, "mixed"},
		{[]job.Copy{job.CopyOld, job.CopyNew, job.CopyNew, job.CopyOld, job.CopyNone}, job.ListMixed, "mixed"},
	} {
		var p job.ListPath
		for _, served := range c.copies {
			p = p.With(served)
		}
		require.Equal(t, c.want, p, "%v", c.copies)
		require.Equal(t, c.name, p.String())
	}
	require.Equal(t, "miss", job.ListPath(9).String())
}

func TestQueryMatches(t *testing.T) {
	for _, stored := range append(job.Statuses(), "paused", "") {
		j := job.Job{Status: stored}
		require.True(t, job.Query{}.Matches(j), "no filter takes %q", stored)
		for _, asked := range job.Statuses() {
			require.Equal(t, asked == stored, job.Query{Status: asked}.Matches(j), "%q for %q", stored, asked)
		}
	}
}
