package redisjobs

import (
	"context"
	"math/bits"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

const (
	// minScanCount and maxScanCount bound how many keys one SCAN of a walk looks at.
	minScanCount = 16
	maxScanCount = 512
	// maxScanned bounds the keys that a page looks at: a page that finds little ends early and has a next one.
	maxScanned = 10 * 1024
	// maxScans bounds the SCANs of a page, for a keyspace whose batches must be cut small.
	maxScans = 64
	// fetchBatch bounds how many bodies are read at once, so that large jobs are not read far past a page's end.
	fetchBatch = 32
	// oldFromStart is position 0 of the old walk where the new one has ended; plain 0 says there that the old walk
	// has not begun. SCAN ignores bits above its table's size, so that both name one place.
	oldFromStart = 1 << 63
	// noOldWalk stands in the place of the old walk's position where none follows, because the phase that began the
	// walk does not read old. A server that continues it under another phase knows from this what was left out.
	noOldWalk = 1<<64 - 1
)

// listByScan gives a page by SCAN: first through the new keys, then through the old ones. Where both are read, the new
// walk leaves out a job that has an old copy of the same workspace, and the old walk gives it.
//
// A page takes the jobs of whole SCAN positions. A position that does not fit is scanned again with half the count,
// down to one bucket of the table; a bucket alone that does not fit an empty page is given in part, in byte order of
// its ids, and the cursor says behind which and where that bucket ends, so that the next page knows what was given
// whatever became of the table meanwhile.
func (r *Repository) listByScan(ctx context.Context, ws workspace.ID, q job.Query) (job.Page, error) {
	w := r.startWalk(ws, q)
	if err := w.run(ctx); err != nil {
		return job.Page{}, err
	}
	slices.SortFunc(w.page.Jobs, job.Newer)
	return w.page, nil
}

// walk is the state of one page.
type walk struct {
	*Repository
	ws    workspace.ID
	query job.Query
	page  job.Page
	bytes int

	inNew   bool   // which of the two walks this position belongs to
	pos     uint64 // its SCAN position
	oldPos  uint64 // where the old walk goes on, or noOldWalk, while inNew
	after   job.ID // up to end, only what lies behind it; zero for all
	end     uint64 // the position behind the cut one
	ends    bool   // whether end is known
	count   int64
	scanned int64
	scans   int
}

func (r *Repository) startWalk(ws workspace.ID, q job.Query) *walk {
	newPos, oldPos, after, _ := q.Cursor.Scan()
	w := &walk{Repository: r, ws: ws, query: q, after: after, count: min(max(int64(q.Limit), minScanCount), maxScanCount)}
	switch {
	case r.phase.ReadsNew() && (newPos != 0 || oldPos == 0 || oldPos == noOldWalk):
		w.inNew, w.pos, w.oldPos = true, newPos, oldPos
		if q.Cursor.IsZero() && !r.phase.ReadsOld() {
			w.oldPos = noOldWalk
		}
	default:
		// A walk that had reached the old keys goes on there in every phase: what is served follows the read plan.
		w.pos = oldStart(oldPos)
		if newPos != 0 {
			w.after = job.ID{}
		}
	}
	if !w.after.IsZero() {
		w.pos, w.end, w.ends = splitPosition(w.pos)
	}
	return w
}

// oldStart gives the SCAN position that a cursor's position of the old walk stands for.
func oldStart(pos uint64) uint64 {
	if pos == noOldWalk || pos == oldFromStart {
		return 0
	}
	return pos
}

// cursor names the place that the walk has reached.
func (w *walk) cursor() job.Cursor {
	pos := w.pos
	if !w.after.IsZero() {
		pos = joinPosition(pos, w.end)
	}
	if w.inNew {
		return job.ScanCursor(pos, w.oldPos, w.after)
	}
	if pos == 0 && w.phase.ReadsNew() {
		pos = oldFromStart
	}
	return job.ScanCursor(0, pos, w.after)
}

// SCAN goes through a table by the reversed bits of its positions, whatever the table's size: from one position to
// the next it gives the keys of one stretch of that order. A cut position is written with its stretch: how long it
// is, as a small number times a power of two, stands in bits that SCAN ignores.
const (
	positionBits = 44 // more buckets than any server has
	timesBits    = 12
	powerShift   = positionBits + timesBits // of the power, below the bit of oldFromStart
)

// joinPosition marks pos with the end of its stretch; a stretch that is none of Redis' own stays unmarked.
func joinPosition(pos, end uint64) uint64 {
	length := bits.Reverse64(end) - bits.Reverse64(pos) // 0 for the whole table
	power := bits.TrailingZeros64(length)
	times := length >> power
	if pos >= 1<<positionBits || times >= 1<<timesBits {
		return pos % (1 << positionBits)
	}
	return pos | times<<positionBits | uint64(power)<<powerShift //nolint:gosec // 0 to 64
}

// splitPosition undoes joinPosition; ok is false where there is no mark.
func splitPosition(marked uint64) (pos, end uint64, ok bool) {
	pos = marked % (1 << positionBits)
	times, power := marked>>positionBits&(1<<timesBits-1), marked>>powerShift&0x7f
	return pos, bits.Reverse64(bits.Reverse64(pos) + times<<power), power > 0
}

// within tells whether a stretch that begins in another and ends at next ends no later than that other one at end.
func within(next, end uint64) bool {
	return bits.Reverse64(next)-1 <= bits.Reverse64(end)-1 // 0 is behind all
}

// run fills the page and leaves in page.Next where the next one starts, the zero Cursor at the end.
func (w *walk) run(ctx context.Context) error {
	for w.scanned < maxScanned && w.scans < maxScans {
		if !w.after.IsZero() {
			w.count = 1 // the position was cut inside one bucket
		}
		ids, next, err := w.scan(ctx)
		if err != nil {
			return err
		}
		met, fits, err := w.read(ctx, ids)
		if err != nil {
			return err
		}
		switch {
		case fits:
			w.take(met)
			if w.advance(next) {
				return nil
			}
			w.count = min(2*w.count, maxScanCount)
		case w.count > 1:
			w.count /= 2
			continue
		case len(w.page.Jobs) == 0:
			w.take(met)
			w.after, w.end, w.ends = w.page.Jobs[len(w.page.Jobs)-1].ID, next, true
		}
		if !fits || len(w.page.Jobs) == w.query.Limit {
			break
		}
	}
	w.page.Next = w.cursor()
	return nil
}

// advance moves to the next position and tells whether the walk has ended.
func (w *walk) advance(next uint64) (ended bool) {
	if !w.ends || next == w.end || !within(next, w.end) {
		w.after = job.ID{}
	}
	w.pos = next
	if next != 0 {
		return false
	}
	if !w.inNew || w.oldPos == noOldWalk {
		return true
	}
	w.inNew, w.pos = false, oldStart(w.oldPos)
	return false
}

// scan gives the ids at the walk's position that may be the workspace's, in byte order, and the next position.
func (w *walk) scan(ctx context.Context) ([]job.ID, uint64, error) {
	prefix, pattern := oldPrefix, oldPattern
	if w.inNew {
		prefix, pattern = newPrefix(w.ws), newPattern(w.ws)
	}
	keys, next, err := w.rdb.Scan(ctx, w.pos, pattern, w.count).Result()
	if err != nil {
		return nil, 0, translate(err)
	}
	w.scanned += w.count
	w.scans++
	ids := make([]job.ID, 0, len(keys))
	for _, key := range keys {
		if id, ok := idOf(key, prefix); ok {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, compareIDs)
	ids = slices.Compact(ids)
	if !w.after.IsZero() {
		ids = w.behind(ids, next)
	}
	ids, err = w.owned(ctx, ids)
	return ids, next, err
}

// behind leaves out what the cut position has given already. A scan that goes past its end met another, larger bucket
// of a smaller table: then nothing is left out, so that no job is lost. Where the end is not known, the bucket is taken
// for the same while the job that the last page ended with still stands here.
func (w *walk) behind(ids []job.ID, next uint64) []job.ID {
	i, found := slices.BinarySearchFunc(ids, w.after, compareIDs)
	switch {
	case !w.ends && !found, w.ends && !within(next, w.end):
		return ids
	case found:
		i++
	}
	return ids[i:]
}

func compareIDs(a, b job.ID) int { return strings.Compare(a.String(), b.String()) }

// owned keeps the ids that this walk gives: in the old walk those whose old record is the workspace's; in the new
// one, where the old walk will give a job that has an old copy, the others.
func (w *walk) owned(ctx context.Context, ids []job.ID) ([]job.ID, error) {
	if len(ids) == 0 || w.inNew && w.oldPos == noOldWalk {
		return ids, nil
	}
	heads := make([]*redis.SliceCmd, len(ids))
	err := w.pipelined(ctx, func(p redis.Pipeliner) {
		for i, id := range ids {
			heads[i] = p.HMGet(ctx, oldKey(id), fieldID, fieldWorkspace)
		}
	})
	if err != nil {
		return nil, err
	}
	kept := ids[:0]
	for i, id := range ids {
		isMine := false
		if heads[i].Err() == nil {
			o, _ := ownerOf(heads[i].Val()).inOld(w.ws, id)
			isMine = o == mine
		}
		if isMine != w.inNew {
			kept = append(kept, id)
		}
	}
	return kept, nil
}

// read fetches ids in their order and stops where the page would be full; fits is false then. An empty page always
// gets at least one job. What was met is reported by take alone: a position may be read again in smaller parts.
func (w *walk) read(ctx context.Context, ids []job.ID) (met []fetched, fits bool, err error) {
	taken, bytes := len(w.page.Jobs), w.bytes
	for batch := range slices.Chunk(ids, fetchBatch) {
		found, err := w.fetch(ctx, w.ws, batch, false)
		if err != nil {
			return nil, false, err
		}
		for _, f := range found {
			if w.shows(f) {
				bytes += f.job.Size()
				if taken == w.query.Limit || taken > 0 && bytes > job.MaxPageBytes {
					return met, false, nil
				}
				taken++
			}
			met = append(met, f)
		}
	}
	return met, true, nil
}

func (w *walk) shows(f fetched) bool {
	return f.copy != job.CopyNone && !f.invalid && w.query.Matches(f.job)
}

// take puts what the page shows of met into it, and reports what it met on the way.
func (w *walk) take(met []fetched) {
	for _, f := range met {
		shown := w.shows(f)
		f.stale = f.stale && shown
		w.report(w.ws, f)
		if !shown {
			continue
		}
		w.page.Jobs = append(w.page.Jobs, f.job)
		w.page.ReadPath = w.page.ReadPath.With(f.copy)
		w.bytes += f.job.Size()
	}
}
