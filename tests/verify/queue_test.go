package verify_test

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
)

// TestQueueWalkMissesNothing: what names no job is found though the queue moves on under the walk, and what is gone
// when it is asked about again is not told.
func TestQueueWalkMissesNothing(t *testing.T) {
	t.Parallel()
	p := planterOn(t)
	p.fillQueue(150)
	p.do("RPUSH", "ai:queue:pending", "stays", "goes")
	p.fillQueue(50)
	gone := false
	var found []migration.Difference
	_, err := p.verifier().Do(t.Context(), input(), func(v usecase.VerifyProgress) {
		found = append(found, v.Found...)
		if v.Part != usecase.VerifyQueue {
			return
		}
		if v.Suspects > 1 && !gone {
			gone = true
			p.do("LREM", "ai:queue:pending", 1, "goes")
		}
		p.turnQueue(5)
	})
	require.NoError(t, err)
	require.True(t, gone)
	require.Len(t, found, 1, "%v", found)
	require.Equal(t, "stays", found[0].Entry)
}

// TestQueueWalkEnds: a queue that is taken from and pushed to faster than it is walked through keeps no pass from its end.
func TestQueueWalkEnds(t *testing.T) {
	t.Parallel()
	p := planterOn(t)
	p.fillQueue(100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	steps := 0
	report, err := p.verifier().Do(ctx, input(), func(v usecase.VerifyProgress) {
		if v.Part != usecase.VerifyQueue || v.Waiting {
			return
		}
		if steps++; steps > 100 {
			cancel()
		}
		p.turnQueue(20)
	})
	require.NoError(t, err)
	require.Equal(t, 10, steps)
	require.Equal(t, int64(100), report.QueueEntries)
	require.True(t, report.Clean(nil), "%v", report.Differences)
}

// fillQueue pushes entries of jobs that are there.
func (p *planter) fillQueue(n int) {
	p.t.Helper()
	for range n {
		id, _ := p.job("acme")
		p.do("RPUSH", "ai:queue:pending", id)
	}
}

// turnQueue takes entries off the queue and pushes them anew.
func (p *planter) turnQueue(n int) {
	p.t.Helper()
	for range n {
		p.do("LMOVE", "ai:queue:pending", "ai:queue:pending", "LEFT", "RIGHT")
	}
}

// TestLongQueue: a few entries among many that name no job are found wherever they stand, and where the queue moved on by
// far until they are asked about again; no command looks at more than a few of them.
func TestLongQueue(t *testing.T) {
	t.Parallel()
	p := planterOn(t)
	ids := make([]any, 100)
	for n := range ids {
		ids[n], _ = p.job("acme")
	}
	wrong := []string{"first", "quarter", "middle", "last"}
	fill := func() (entries int64) {
		t.Helper()
		p.do("DEL", "ai:queue:pending")
		size := sized(8_000, 1_000_000)
		for n := 0; n < size; n += len(ids) {
			switch n {
			case 0:
				p.do("RPUSH", "ai:queue:pending", wrong[0])
			case size / 4:
				p.do("RPUSH", "ai:queue:pending", wrong[1])
			case size / 2:
				p.do("RPUSH", "ai:queue:pending", ids[0], wrong[2])
			}
			p.do(slices.Concat([]any{"RPUSH", "ai:queue:pending"}, ids)...)
		}
		p.do("RPUSH", "ai:queue:pending", wrong[3])
		entries, err := p.rdb.LLen(t.Context(), "ai:queue:pending").Result()
		require.NoError(t, err)
		return entries
	}
	expect := func(entries ...string) {
		p.want = map[thing]bool{}
		for _, entry := range entries {
			p.expect(migration.DifferenceQueue, "ai:queue:pending", entry)
		}
	}
	size := fill()
	began := time.Now()
	report, found := verify(t, p.rdb, usecase.VerifyInput{Phase: migration.DualWrite, Batch: 100})
	took := time.Since(began)
	expect(wrong...)
	requireThings(t, p.want, things(found))
	require.Equal(t, size, report.QueueEntries)

	taken := false
	got := map[thing]migration.Difference{}
	fill()
	_, err := p.verifier().Do(t.Context(), usecase.VerifyInput{Phase: migration.DualWrite}, func(v usecase.VerifyProgress) {
		if v.Suspects > 0 && !taken {
			taken = true
			p.do("LTRIM", "ai:queue:pending", size/2, -1)
		}
		for _, d := range v.Found {
			got[thing{d.Class, d.Key, d.Entry}] = d
		}
	})
	require.NoError(t, err)
	require.True(t, taken)
	expect(wrong[2:]...)
	requireThings(t, p.want, things(got))

	stats, err := p.rdb.Info(t.Context(), "commandstats").Result()
	require.NoError(t, err)
	mean := regexp.MustCompile(`cmdstat_(l[a-z]+):.*usec_per_call=([0-9.]+)`).FindAllStringSubmatch(stats, -1)
	require.NotEmpty(t, mean)
	t.Logf("%d entries in %s; commands of lists and their microseconds: %v", size, took, mean)
	for _, m := range mean {
		if micros, err := strconv.ParseFloat(m[2], 64); sized(0, 1) == 1 && m[1] != "ltrim" {
			require.NoError(t, err)
			require.Less(t, micros, 1000.0, m[1])
		}
	}
}
