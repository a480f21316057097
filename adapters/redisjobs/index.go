package redisjobs

import (
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

//go:embed script/place.lua
var placeSource string

//go:embed script/states.lua
var statesSource string

// indexComplete is what ai:index-state holds once every stored job is in its workspace's index.
const indexComplete = "complete"

// An entry of ai:index:{workspace_id} is a letter and a place, as place.lua describes it: secondsLength bytes, microsDigits
// digits and the SortBytes of the id.
const (
	secondsLength = 5
	microsDigits  = 6
	momentLength  = secondsLength + microsDigits

	letterOfAll     = "z"
	microsPerSecond = int64(time.Second / time.Microsecond)
	// maxMicros is the last time that a place can hold. Stored times end long before; a cursor may name any.
	maxMicros = 1<<(8*secondsLength)*microsPerSecond - 1
)

func secondsInBytes(seconds int64) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(seconds))[8-secondsLength:]) //nolint:gosec // never below 0
}

func placeBytes(p job.Place) string {
	at := min(p.Micros, maxMicros)
	return secondsInBytes(at/microsPerSecond) + fmt.Sprintf("%0*d", microsDigits, at%microsPerSecond) + p.ID.SortBytes()
}

// parsePlace reads what placeBytes gives; ok is false for anything else.
func parsePlace(b string) (p job.Place, ok bool) {
	if len(b) < momentLength {
		return p, false
	}
	var seconds [8]byte
	copy(seconds[8-secondsLength:], b)
	micros, err := strconv.ParseUint(b[secondsLength:momentLength], 10, 32)
	if err != nil {
		return p, false
	}
	p.Micros = int64(binary.BigEndian.Uint64(seconds[:]))*microsPerSecond + int64(micros) //nolint:gosec // 40 bits
	p.ID, ok = job.ParseSortBytes(b[momentLength:])
	return p, ok
}

// letterOf gives the letter of the entries that a query walks through; states.lua has the same.
func letterOf(s job.Status) string {
	switch s {
	case job.Pending:
		return "p"
	case job.Running:
		return "r"
	case job.Completed:
		return "c"
	case job.Failed:
		return "f"
	}
	return letterOfAll
}

// List implements ports.JobRepository. A walk goes by the index where that is complete when it begins, else by SCAN; a
// cursor goes on in the way in which its walk began.
func (r *Repository) List(ctx context.Context, ws workspace.ID, q job.Query) (job.Page, error) {
	if ws.IsZero() || q.Limit < 1 || q.Limit > job.MaxLimit {
		return job.Page{}, invalid()
	}
	o := ordered{Repository: r, ws: ws, query: q, letter: letterOf(q.Status)}
	if from, ok := q.Cursor.Order(); ok {
		o.reached(from)
		return o.run(ctx, nil)
	}
	if !q.Cursor.IsZero() {
		return r.listByScan(ctx, ws, q)
	}
	var state *redis.StringCmd
	var first *redis.StringSliceCmd
	err := r.pipelined(ctx, func(p redis.Pipeliner) {
		state = p.Get(ctx, indexStateKey)
		first = o.entries(ctx, p)
	})
	switch {
	case err != nil:
		return job.Page{}, err
	case state.Val() != indexComplete:
		return r.listByScan(ctx, ws, q)
	}
	return o.run(ctx, first)
}

const (
	// maxExamined bounds the entries that a page looks at: a page whose entries hold little to show ends early.
	maxExamined = 2 * job.MaxLimit
	// minBatch and maxBatch bound how many bodies are read in one trip, whose sizes are not known before: a usual page in
	// the first one, and in each following as many as the entries met so far let it seem are needed and fit.
	minBatch, maxBatch = 16, 64
)

// ordered is the state of one page by the index: newest first, each entry held against the job that it names before
// it is shown, and mended where the two differ.
type ordered struct {
	*Repository
	ws     workspace.ID
	query  job.Query
	letter string // of the entries to walk through
	page   job.Page

	at       job.Place // the last place examined, where started
	started  bool
	examined int
	bytes    int
}

// beforeAll is the place behind which a walk begins.
func beforeAll() job.Place {
	last, _ := job.ParseSortBytes(strings.Repeat("\xff", 16))
	return job.Place{Micros: maxMicros, ID: last}
}

func (o *ordered) reached(p job.Place) { o.at, o.started = p, true }

// run fills the page. first is the answer to entries where that was asked for already, else nil.
func (o *ordered) run(ctx context.Context, first *redis.StringSliceCmd) (job.Page, error) {
	for {
		if first == nil {
			first = o.entries(ctx, o.rdb)
		}
		entries, err := first.Result()
		if err != nil {
			return job.Page{}, translate(err)
		}
		first = nil
		more := int64(len(entries)) == o.count()
		full, err := o.examine(ctx, entries)
		if err != nil {
			return job.Page{}, err
		}
		if full || more && o.examined >= maxExamined {
			if !o.started {
				o.reached(beforeAll())
			}
			o.page.Next = job.OrderCursor(o.at)
			return o.page, nil
		}
		if !more {
			return o.page, nil
		}
	}
}

// count says how many entries to look at next.
func (o *ordered) count() int64 {
	if o.examined == 0 {
		return int64(min(o.query.Limit, maxBatch))
	}
	n, taken := maxBatch, len(o.page.Jobs)
	if taken > 0 {
		n = (o.query.Limit - taken) * o.examined / taken
		n = min(n, (job.MaxPageBytes-o.bytes)/(o.bytes/taken)+1)
	}
	return int64(min(max(n, minBatch), maxBatch))
}

// entries asks for the next entries behind the place reached, newest first.
func (o *ordered) entries(ctx context.Context, c redis.Cmdable) *redis.StringSliceCmd {
	top := string([]byte{o.letter[0] + 1}) // the entries of a letter lie between it and the next one
	if o.started {
		top = o.letter + placeBytes(o.at)
	}
	return c.ZRevRangeByLex(ctx, indexKey(o.ws), &redis.ZRangeBy{Max: "(" + top, Min: "[" + o.letter, Count: o.count()})
}

// examine resolves entries in order and takes what is to be shown until the page is full.
func (o *ordered) examine(ctx context.Context, entries []string) (full bool, err error) {
	places, ids := make([]job.Place, 0, len(entries)), make([]job.ID, 0, len(entries))
	var strange []any
	for _, entry := range entries {
		p, ok := parsePlace(entry[1:])
		if !ok {
			strange = append(strange, entry)
			continue
		}
		places, ids = append(places, p), append(ids, p.ID)
	}
	if err := o.removeStrange(ctx, o.ws, strange); err != nil {
		return false, err
	}
	o.examined += len(strange)
	found, err := o.fetch(ctx, o.ws, ids, true)
	if err != nil {
		return false, err
	}
	var differing []indexCall
	for i, f := range found {
		shown := f.copy != job.CopyNone && !f.invalid && f.job.Place() == places[i] && o.query.Matches(f.job)
		if shown {
			size, n := f.job.Size(), len(o.page.Jobs)
			if n == o.query.Limit || n > 0 && o.bytes+size > job.MaxPageBytes {
				full = true
				break
			}
			o.page.Jobs = append(o.page.Jobs, f.job)
			o.page.ReadPath = o.page.ReadPath.With(f.copy)
			o.bytes += size
		} else if !f.invalid {
			differing = append(differing, indexCall{ws: o.ws, id: ids[i], met: placeBytes(places[i])})
		}
		f.stale = f.stale && shown
		o.report(o.ws, f)
		o.reached(places[i])
		o.examined++
	}
	if len(differing) > 0 {
		if _, err := o.indexJobs(ctx, differing, false); err != nil {
			o.observer.IndexNotMended(o.ws) // what is shown is right all the same
		}
	}
	return full || len(o.page.Jobs) == o.query.Limit, nil
}

// removeStrange takes entries out of the index that Relay never wrote: they name no job, so that no place of a walk can be
// told by them.
func (r *Repository) removeStrange(ctx context.Context, ws workspace.ID, entries []any) error {
	if len(entries) == 0 {
		return nil
	}
	return translate(r.rdb.ZRem(ctx, indexKey(ws), entries...).Err())
}
