package redisjobs

import (
	"context"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/core/fault"
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
)

// List implements ports.JobRepository by SCAN: first through the new keys, then through the old ones. Where both are
// read, the new walk leaves out a job that has an old copy of the same workspace, and the old walk gives it.
//
// A page takes the jobs of whole SCAN positions. A position that does not fit is scanned again with half the count,
// down to one bucket of the table; a bucket alone that does not fit an empty page is given in part, in byte order of
// its ids, and the cursor says behind which.
func (r *Repository) List(ctx context.Context, ws workspace.ID, q job.Query) (job.Page, error) {
	if ws.IsZero() || q.Limit < 1 || q.Limit > job.MaxLimit {
		return job.Page{}, invalid()
	}
	w, err := r.startWalk(ws, q)
	if err != nil {
		return job.Page{}, err
	}
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
	oldPos  uint64 // where the old walk goes on, while inNew
	after   job.ID // of the position, only what lies behind; zero for all
	count   int64
	scanned int64
	scans   int
}

func (r *Repository) startWalk(ws workspace.ID, q job.Query) (*walk, error) {
	newPos, oldPos, after, ok := q.Cursor.Scan()
	if !ok {
		return nil, fault.BadInput(fault.CodeInvalidCursor, "Invalid cursor",
			fault.Violation{Parameter: "cursor", Detail: "belongs to another way of listing"})
	}
	w := &walk{Repository: r, ws: ws, query: q, after: after, count: min(max(int64(q.Limit), minScanCount), maxScanCount)}
	switch {
	case newPos == 0 && oldPos != 0 || !r.phase.ReadsNew():
		// A walk that had reached the old keys goes on there in every phase: what is served follows the read plan.
		w.pos = oldPos
		if newPos != 0 {
			w.after = job.ID{}
		}
	default:
		w.inNew, w.pos, w.oldPos = true, newPos, oldPos
	}
	if w.pos == oldFromStart {
		w.pos = 0
	}
	return w, nil
}

// cursor names the place that the walk has reached.
func (w *walk) cursor() job.Cursor {
	if w.inNew {
		return job.ScanCursor(w.pos, w.oldPos, w.after)
	}
	old := w.pos
	if old == 0 && w.phase.ReadsNew() {
		old = oldFromStart
	}
	return job.ScanCursor(0, old, w.after)
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
		jobs, fits, err := w.read(ctx, ids)
		if err != nil {
			return err
		}
		switch {
		case fits:
			w.take(jobs)
			if w.advance(next) {
				return nil
			}
			w.count = min(2*w.count, maxScanCount)
		case w.count > 1:
			w.count /= 2
			continue
		case len(w.page.Jobs) == 0:
			w.take(jobs)
			w.after = jobs[len(jobs)-1].job.ID
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
	w.pos, w.after = next, job.ID{}
	if next != 0 {
		return false
	}
	if !w.inNew || !w.phase.ReadsOld() {
		return true
	}
	w.inNew, w.pos = false, w.oldPos
	if w.pos == oldFromStart {
		w.pos = 0
	}
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
	slices.SortFunc(ids, func(a, b job.ID) int { return strings.Compare(a.String(), b.String()) })
	ids = slices.Compact(ids)
	// While the job that the last page ended with still stands here, this is the bucket that was cut, and what lies
	// before it was given. Once it is gone the bucket may be another one: then nothing is left out, so that no job
	// is lost.
	if i := slices.Index(ids, w.after); i >= 0 {
		ids = ids[i+1:]
	}
	ids, err = w.owned(ctx, ids)
	return ids, next, err
}

// owned keeps the ids that this walk gives: in the old walk those whose old record is the workspace's; in the new
// one, where the old walk will give a job that has an old copy, the others.
func (w *walk) owned(ctx context.Context, ids []job.ID) ([]job.ID, error) {
	if len(ids) == 0 || w.inNew && !w.phase.ReadsOld() {
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
			v := heads[i].Val()
			ownID, _ := v[0].(string)
			ownWorkspace, _ := v[1].(string)
			o, _ := head{id: ownID, workspace: ownWorkspace}.inOld(w.ws, id)
			isMine = o == mine
		}
		if isMine != w.inNew {
			kept = append(kept, id)
		}
	}
	return kept, nil
}

// read fetches what matches among ids, in their order, and stops where the page would be full; fits is false then.
// An empty page always gets at least one job.
func (w *walk) read(ctx context.Context, ids []job.ID) (jobs []fetched, fits bool, err error) {
	bytes := w.bytes
	for batch := range slices.Chunk(ids, fetchBatch) {
		found, err := w.fetch(ctx, w.ws, batch)
		if err != nil {
			return nil, false, err
		}
		for _, f := range found {
			if f.invalid {
				w.observer.RecordInvalid(w.ws)
				continue
			}
			if f.copy == job.CopyNone || !w.query.Matches(f.job) {
				continue
			}
			taken := len(w.page.Jobs) + len(jobs)
			bytes += f.job.Size()
			if taken == w.query.Limit || taken > 0 && bytes > job.MaxPageBytes {
				return jobs, false, nil
			}
			jobs = append(jobs, f)
		}
	}
	return jobs, true, nil
}

func (w *walk) take(jobs []fetched) {
	for _, f := range jobs {
		w.page.Jobs = append(w.page.Jobs, f.job)
		w.page.ReadPath = w.page.ReadPath.With(f.copy)
		w.bytes += f.job.Size()
	}
}
