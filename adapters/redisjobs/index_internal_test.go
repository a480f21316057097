package redisjobs

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

func placedIDs() []string {
	return []string{
		"0192e4a1-7c3d-7e21-9f00-0123456789ab", "0192E4A1-7C3D-7E21-9F00-0123456789AB", "0192e4a1-7c3d-7e21-9f00-0123456789aB",
		"0092e4a1-7c3d-7e21-9f00-0123456789ab", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
		"0192e4a17c3d7e219f000123456789ab", "0192e4a1-7c3d-7e21-9f00-0123456789a", "0192e4a1-7c3d-7e21-9f00-0123456789abc",
		"0192e4a1-7c3d-7e21-9f00-0123456789ag", "0192e4a1+7c3d-7e21-9f00-0123456789ab", "{192e4a1-7c3d-7e21-9f00-0123456789a}",
		"sixteen bytes id", "fifteen bytes i", "a", "b", "aa", "\x00", "\x00\x00", "\xff", "\xff\xff", "legacy:with:colons", "\n", " ",
		"ü", "日本", "%", "*", strings.Repeat("i", 256), strings.Repeat("\xff", 256), strings.Repeat("\x00", 256), strings.Repeat("\x00", 15),
		"000000", "123456",
	}
}

func idGenerator() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.SampledFrom(placedIDs()), rapid.StringMatching(`[0-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, 256), func(b []byte) string { return string(b) }),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 15, 16), func(b []byte) string { return string(b) }),
	)
}

func parsedID(t require.TestingT, text string) job.ID {
	id, err := job.ParseID(text)
	require.NoError(t, err)
	return id
}

const lastMicros = 253_402_300_799_999_999 // of the year 9999

func placedMicros() []int64 {
	at := time.Date(2026, 11, 21, 19, 28, 54, 17_837_000, time.UTC).UnixMicro()
	return []int64{
		0, 1, 999_999, 1_000_000, 255_999_999, 256_000_000, 65_536_000_000, 1<<32*1_000_000 - 1, 1 << 32 * 1_000_000,
		at, at + 1, at - 1, at + 1_000_000, lastMicros - 1, lastMicros,
	}
}

// TestPlaceBytes: the bytes of a place sort as places compare, are read back as the same place, and hold all of it.
func TestPlaceBytes(t *testing.T) {
	var places []job.Place
	for _, micros := range placedMicros() {
		for _, id := range placedIDs() {
			places = append(places, job.Place{Micros: micros, ID: parsedID(t, id)})
		}
	}
	for _, p := range places {
		b := placeBytes(p)
		got, ok := parsePlace(b)
		require.True(t, ok, "%q", b)
		require.Equal(t, p, got)
		for _, q := range places {
			require.Equal(t, p.Compare(q), strings.Compare(b, placeBytes(q)), "%v against %v", p, q)
		}
	}
	place := rapid.Custom(func(t *rapid.T) job.Place {
		micros := rapid.OneOf(rapid.SampledFrom(placedMicros()), rapid.Int64Range(0, lastMicros)).Draw(t, "µs")
		return job.Place{Micros: micros, ID: parsedID(t, idGenerator().Draw(t, "id"))}
	})
	rapid.Check(t, func(t *rapid.T) {
		p, q := place.Draw(t, "one"), place.Draw(t, "other")
		got, ok := parsePlace(placeBytes(p))
		require.True(t, ok)
		require.Equal(t, p, got)
		require.Equal(t, p.Compare(q), strings.Compare(placeBytes(p), placeBytes(q)))
	})
}

// TestPlacesThatRelayNeverWrote: what is read as a place is what placeBytes gives for it, byte for byte.
func TestPlacesThatRelayNeverWrote(t *testing.T) {
	whole := placeBytes(job.Place{Micros: 1_795_289_334_017_837, ID: parsedID(t, placedIDs()[0])})
	text := placeBytes(job.Place{Micros: 1_795_289_334_017_837, ID: parsedID(t, "a")})
	for n := range len(whole) {
		_, ok := parsePlace(whole[:n])
		require.False(t, ok, "%q", whole[:n])
	}
	for _, b := range []string{
		whole + "x", text[:len(text)-1], whole[:11] + "\x00" + strings.Repeat("i", 257), whole[:11] + "\x00" + placedIDs()[0],
		whole[:5] + "+17837" + whole[11:], whole[:5] + " 17837" + whole[11:], whole[:5] + "0x1234" + whole[11:],
		whole[:5] + "01783a" + whole[11:], whole[:5] + "1_7837" + whole[11:],
	} {
		_, ok := parsePlace(b)
		require.False(t, ok, "%q", b)
	}
	rapid.Check(t, func(t *rapid.T) {
		b := string(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes"))
		if rapid.Bool().Draw(t, "with digits") && len(b) > 11 {
			b = b[:5] + "123456" + b[11:]
		}
		if p, ok := parsePlace(b); ok {
			require.Equal(t, b, placeBytes(p))
			require.False(t, p.ID.IsZero())
		}
	})
}

// TestPlaceOfACursorBeyondAll: a caller may name any time. One that no place can hold stands at or behind each that a job
// can have, and keeps its length.
func TestPlaceOfACursorBeyondAll(t *testing.T) {
	last := placeBytes(job.Place{Micros: lastMicros, ID: parsedID(t, "ffffffff-ffff-ffff-ffff-ffffffffffff")})
	for _, micros := range []int64{lastMicros + 1, maxMicros - 1, maxMicros, maxMicros + 1, math.MaxInt64 - 1, math.MaxInt64} {
		b := placeBytes(job.Place{Micros: micros, ID: parsedID(t, "\x00")})
		require.Greater(t, b, last)
		require.Less(t, b, "\xff\xff\xff\xff\xff:")
		p, ok := parsePlace(b)
		require.True(t, ok)
		require.Equal(t, min(micros, maxMicros), p.Micros)
	}
}

// placesChunk gives the place of each pair of a stored time and the bytes that order an id.
const placesChunk = `
local out = {}
for i = 1, #ARGV, 2 do
  out[#out + 1] = place_of(ARGV[i], ARGV[i + 1])
  if ARGV[i] == '' and place_of(false, ARGV[i + 1]) ~= out[#out] then
    return {'an absent time'}
  end
end
return out`

func requireSamePlaces(t require.TestingT, rdb *redis.Client, times, ids []string) {
	var args []any
	var want []string
	for _, at := range times {
		for _, id := range ids {
			j := job.Job{ID: parsedID(t, id), EnqueuedAt: job.ParseTime(at)}
			args = append(args, at, j.ID.SortBytes())
			want = append(want, placeBytes(j.Place()))
		}
	}
	reply := runLua(t, rdb, versionSource+placeSource+statesSource+placesChunk, args...)
	require.Len(t, reply, len(want))
	for i, got := range reply {
		require.Equal(t, want[i], got, "stored as %q", args[2*i])
	}
}

// TestScriptsPlaceLikeTheCore: a script and the core give a job of whatever stored time one place.
func TestScriptsPlaceLikeTheCore(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	for times := range slices.Chunk(storedTimes(), 8) {
		requireSamePlaces(t, rdb, times, placedIDs())
	}
	var stamped []string
	for _, micros := range placedMicros() {
		stamped = append(stamped, time.UnixMicro(micros).UTC().Format(job.TimeLayout))
	}
	for year := 1970; year < 10_000; year += 97 {
		stamped = append(stamped, fmt.Sprintf("%d-03-01T00:00:00.000000+00:00", year), fmt.Sprintf("%d-12-31T23:59:59.999999+00:00", year))
	}
	requireSamePlaces(t, rdb, stamped, placedIDs()[:2])
	at := rapid.OneOf(rapid.SampledFrom(storedTimes()), rapid.String(), rapid.StringMatching(
		`(0\d|19|20|22|99)\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-6]\d([.,]\d{0,10})?(Z|[+-][0-2]\d:?[0-6]\d|)`))
	rapid.Check(t, func(t *rapid.T) {
		requireSamePlaces(t, rdb, rapid.SliceOfN(at, 1, 20).Draw(t, "stored times"), []string{idGenerator().Draw(t, "id")})
	})
}

// TestLettersOfTheScripts: the same letters on both sides, each below the one of all.
func TestLettersOfTheScripts(t *testing.T) {
	rdb := redisserver.Start(t).Client(t)
	for _, s := range job.Statuses() {
		reply := runLua(t, rdb, versionSource+placeSource+statesSource+"return {LETTER[ARGV[1]]}", string(s))
		require.Equal(t, []any{letterOf(s)}, reply)
		require.Less(t, letterOf(s), letterOfAll)
	}
	require.Equal(t, letterOfAll, letterOf(""))
}
