package redisjobs

import (
	"math/bits"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestCutPositions: a mark holds the end of every stretch that SCAN with COUNT 1 can give, in tables of every size, and
// stands in no bit that SCAN looks at.
func TestCutPositions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 40).Draw(t, "bits of the table")
		from := rapid.Uint64Range(0, 1<<size-1).Draw(t, "bucket, in the order of the walk")
		steps := rapid.Uint64Range(1, 1<<timesBits-1).Draw(t, "buckets") // more than one where a table is being resized
		to := min(from+steps, 1<<size)                                   // 1<<size is the end
		at := func(bucket uint64) uint64 { return bits.Reverse64(bucket << (64 - size)) }
		pos, end := at(from), at(to)
		if to == 1<<size {
			end = 0
		}
		marked := joinPosition(pos, end)
		require.Equal(t, pos, marked&(1<<positionBits-1))
		require.NotEqual(t, uint64(oldFromStart), marked)
		require.NotZero(t, marked, "a cut position is never taken for a walk that has not begun")
		gotPos, gotEnd, ok := splitPosition(marked)
		require.True(t, ok)
		require.Equal(t, pos, gotPos)
		require.Equal(t, end, gotEnd)
		require.True(t, within(end, end))
		next := at(min(from+1, 1<<size-1))
		require.True(t, within(next, end))
		require.Equal(t, end == 0, within(0, end), "the end of the walk is behind every other end")
	})
	for _, odd := range [][2]uint64{{1 << 60, 0}, {0, bits.Reverse64((1<<timesBits + 1) << 20)}} {
		pos, _, ok := splitPosition(joinPosition(odd[0], odd[1]))
		require.False(t, ok, "%d to %d is no stretch of Redis'", odd[0], odd[1])
		require.Zero(t, pos)
	}
	rapid.Check(t, func(t *rapid.T) { // whatever a caller makes up
		pos, _, _ := splitPosition(rapid.Uint64().Draw(t, "position"))
		require.Less(t, pos, uint64(1)<<positionBits)
	})
}
