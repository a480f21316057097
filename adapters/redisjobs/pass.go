package redisjobs

import (
	"context"
	_ "embed"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
)

//go:embed script/index_job.lua
var indexSource string

//go:embed script/take_sweep.lua
var takeSweepSource string

//go:embed script/claim_empty.lua
var claimEmptySource string

//go:embed script/mark_complete.lua
var markCompleteSource string

type indexScripts struct{ guard, takeSweep, claimEmpty, markComplete *redis.Script }

func newIndexScripts() indexScripts {
	return indexScripts{
		guard:     redis.NewScript(versionSource + placeSource + statesSource + entriesSource + mendSource + indexSource),
		takeSweep: redis.NewScript(takeSweepSource), claimEmpty: redis.NewScript(claimEmptySource),
		markComplete: redis.NewScript(markCompleteSource),
	}
}

const (
	// passCount is how many keys one step of a pass looks at.
	passCount = 500
	// trimCount is how many entries are looked at together at the oldest end of an index, and how many of all.
	trimCount = 32
)

// ClaimEmpty implements ports.JobIndex. It takes two round trips: a server that begins to beat in between leaves the claim
// to whoever claims next.
func (r *Repository) ClaimEmpty(ctx context.Context) error {
	servers, err := r.rdb.ZRange(ctx, serversKey, 0, -1).Result()
	if err != nil {
		return translate(err)
	}
	keys := []string{
		indexStateKey, sweepKey(migration.IndexOld), sweepKey(migration.IndexEntries), serversKey, phasesSeenKey, fallbackKey,
	}
	for _, id := range servers {
		keys = append(keys, serverKey(id))
	}
	return translate(r.index.claimEmpty.Run(ctx, r.rdb, keys, indexComplete).Err())
}

// Complete implements ports.JobIndex.
func (r *Repository) Complete(ctx context.Context) (bool, error) {
	var state *redis.StringCmd
	err := r.pipelined(ctx, func(p redis.Pipeliner) { state = p.Get(ctx, indexStateKey) })
	return err == nil && state.Val() == indexComplete, err
}

// MarkComplete implements ports.JobIndex.
func (r *Repository) MarkComplete(ctx context.Context, process string) (bool, error) {
	marked, err := r.index.markComplete.Run(ctx, r.rdb, []string{indexStateKey}, indexComplete, process).Bool()
	return marked, translate(err)
}

// TakeSweep implements ports.JobIndex.
func (r *Repository) TakeSweep(
	ctx context.Context, scope migration.IndexScope, holder string, turn time.Duration,
) (bool, error) {
	mine, err := r.index.takeSweep.Run(ctx, r.rdb, []string{sweepKey(scope)}, holder,
		strconv.FormatInt(turn.Milliseconds(), 10)).Bool()
	return mine, translate(err)
}

// Batch implements ports.JobIndex.
func (r *Repository) Batch(
	ctx context.Context, scope migration.IndexScope, at migration.Position, dry bool,
) (migration.IndexBatch, error) {
	pattern := map[migration.IndexScope]string{
		migration.IndexAll: anyJobPattern, migration.IndexOld: oldOrIndexPattern, migration.IndexEntries: indexPattern,
	}[scope]
	pipe := r.rdb.Pipeline()
	info := pipe.Info(ctx, "server") // whose error counts as a server that does not tell: the embedded one of the demo
	scan := pipe.Scan(ctx, uint64(at), pattern, passCount)
	if _, err := pipe.Exec(ctx); err != nil && scan.Err() != nil {
		return migration.IndexBatch{}, translate(err)
	}
	keys, next := scan.Val()
	batch := migration.IndexBatch{Process: processOf(info.Val()), Next: migration.Position(next)}
	var calls []indexCall
	var old []job.ID
	for _, key := range keys {
		if ws, ok := indexed(key); ok {
			batch.Indexes = append(batch.Indexes, ws)
		} else if id, ok := idOf(key, oldPrefix); ok {
			old = append(old, id)
		} else if ws, id, ok := newOf(key); ok && scope == migration.IndexAll {
			calls = append(calls, indexCall{ws: ws, id: id})
		}
	}
	batch.Scanned = int64(len(old) + len(calls))
	owned, err := r.owners(ctx, old)
	if err != nil {
		return migration.IndexBatch{}, err
	}
	outcomes, err := r.indexJobs(ctx, append(calls, owned...), dry)
	count := tally(outcomes)
	batch.Mended, batch.Identical = count[migration.IndexMended], count[migration.IndexIdentical]
	batch.Ignored = batch.Scanned - batch.Mended - batch.Identical
	return batch, err
}

// Trim implements ports.JobIndex. Beside the oldest entries it looks at as many that chance picks: jobs that are kept
// for ever may stand before those that expire.
func (r *Repository) Trim(ctx context.Context, ws workspace.ID, dry bool) (migration.IndexCounts, bool, error) {
	if ws.IsZero() {
		return migration.IndexCounts{}, false, invalid()
	}
	var oldest, picked *redis.StringSliceCmd
	err := r.pipelined(ctx, func(p redis.Pipeliner) {
		oldest = p.ZRangeByLex(ctx, indexKey(ws), &redis.ZRangeBy{Min: "[" + letterOfAll, Max: "+", Count: trimCount})
		picked = p.ZRandMember(ctx, indexKey(ws), trimCount)
	})
	if err != nil {
		return migration.IndexCounts{}, false, err
	}
	var calls []indexCall
	met := make(map[job.Place]bool)
	for _, entry := range slices.Concat(oldest.Val(), picked.Val()) { // none where the key is of another type
		if entry == "" {
			continue
		}
		if p, ok := parsePlace(entry[1:]); ok && !met[p] {
			met[p] = true
			calls = append(calls, indexCall{ws: ws, id: p.ID, met: entry[1:]})
		}
	}
	outcomes, err := r.indexJobs(ctx, calls, dry)
	count := tally(outcomes)
	dropped := count[migration.IndexDropped]
	return migration.IndexCounts{
		Entries: int64(len(calls)), Mended: count[migration.IndexMended], Dropped: dropped,
	}, dropped > 0 && len(oldest.Val()) == trimCount && !dry, err
}

// TrimAll implements ports.JobIndex. It takes a few round trips and those of evalEach, and where entries have scores two for
// each so many of them. Of jobs that are made while it walks it meets the entries of their state alone: those of all jobs
// stand at the newest end, which lies behind it.
func (r *Repository) TrimAll(
	ctx context.Context, ws workspace.ID, before string, dry bool,
) (counts migration.IndexCounts, next string, err error) {
	if ws.IsZero() {
		return counts, "", invalid()
	}
	var page *redis.StringSliceCmd
	var scored func() bool
	read := func() error {
		return r.pipelined(ctx, func(p redis.Pipeliner) { page, scored = askPage(ctx, p, indexKey(ws), before, passCount) })
	}
	if err = read(); err == nil && scored() {
		counts.Mended, err = r.unscore(ctx, ws, dry)
		counts.Entries = counts.Mended
		if err != nil || dry && counts.Mended > 0 {
			return counts, "", err
		}
		err = read()
	}
	if err != nil {
		return counts, "", err
	}
	entries := page.Val() // none where the key is of another type
	if len(entries) == passCount {
		next = entries[passCount-1]
	}
	calls, strange, err := r.placesOf(ctx, ws, entries)
	if err != nil {
		return counts, "", err
	}
	outcomes, err := r.indexJobs(ctx, calls, dry)
	if err == nil && !dry {
		err = r.removeStrange(ctx, ws, strange)
	}
	count := tally(outcomes)
	return counts.Add(migration.IndexCounts{
		Entries: int64(len(calls) + len(strange)), Mended: count[migration.IndexMended],
		Dropped: count[migration.IndexDropped] + int64(len(strange)),
	}), next, err
}

// unscore gives entries that have a score the one that Relay gives all, 0: only so do they stand in the order by which they
// are walked. It tells of how many; of a dry run, at most so many as it looks at together.
func (r *Repository) unscore(ctx context.Context, ws workspace.ID, dry bool) (n int64, err error) {
	for {
		var below, above *redis.StringSliceCmd
		err := r.pipelined(ctx, func(p redis.Pipeliner) {
			of := redis.ZRangeArgs{Key: indexKey(ws), ByScore: true, Count: passCount}
			of.Start, of.Stop = "-inf", "(0"
			below = p.ZRangeArgs(ctx, of)
			of.Start, of.Stop = "(0", "+inf"
			above = p.ZRangeArgs(ctx, of)
		})
		var scored []redis.Z
		for _, entry := range slices.Concat(below.Val(), above.Val()) { // none where the key is of another type
			scored = append(scored, redis.Z{Member: entry})
		}
		n += int64(len(scored))
		if err != nil || len(scored) == 0 || dry {
			return n, err
		}
		err = r.pipelined(ctx, func(p redis.Pipeliner) { p.ZAddXX(ctx, indexKey(ws), scored...) })
		if err != nil {
			return n, err
		}
	}
}

// placesOf tells the places of entries from what is none. The entry of a state is left out where its place has an entry of
// all jobs, too: that one stands for both.
func (r *Repository) placesOf(ctx context.Context, ws workspace.ID, entries []string) (calls []indexCall, strange []any, err error) {
	all := make([]*redis.FloatCmd, len(entries))
	err = r.pipelined(ctx, func(p redis.Pipeliner) {
		for i, entry := range entries {
			if isOfState(entry) {
				all[i] = p.ZScore(ctx, indexKey(ws), letterOfAll+entry[1:])
			}
		}
	})
	if err != nil {
		return nil, nil, err
	}
	for i, entry := range entries {
		ofState := isOfState(entry)
		var place job.Place
		known := ofState || strings.HasPrefix(entry, letterOfAll)
		if known {
			place, known = parsePlace(entry[1:])
		}
		switch {
		case !known:
			strange = append(strange, entry)
		case !ofState || all[i].Err() != nil:
			calls = append(calls, indexCall{ws: ws, id: place.ID, met: entry[1:]})
		}
	}
	return calls, strange, nil
}

func tally(outcomes []migration.IndexOutcome) map[migration.IndexOutcome]int64 {
	count := map[migration.IndexOutcome]int64{}
	for _, o := range outcomes {
		count[o]++
	}
	return count
}

// owners finds whose the old records of ids are; nobody's are left out.
func (r *Repository) owners(ctx context.Context, ids []job.ID) ([]indexCall, error) {
	heads := make([]*redis.SliceCmd, len(ids))
	err := r.pipelined(ctx, func(p redis.Pipeliner) {
		for i, id := range ids {
			heads[i] = p.HMGet(ctx, oldKey(id), fieldWorkspace)
		}
	})
	if err != nil {
		return nil, err
	}
	var calls []indexCall
	for i, id := range ids {
		if heads[i].Err() != nil {
			continue // another type
		}
		text, _ := heads[i].Val()[0].(string) // nil for an absent field
		if ws, err := workspace.Parse(text); err == nil {
			calls = append(calls, indexCall{ws: ws, id: id})
		}
	}
	return calls, nil
}

// indexCall asks index_job.lua about one job.
type indexCall struct {
	ws  workspace.ID
	id  job.ID
	met string // the place under which the job was met, empty where not in an index
}

// indexJobs runs index_job.lua for each call, pipelined, and gives its answers.
func (r *Repository) indexJobs(ctx context.Context, calls []indexCall, dry bool) ([]migration.IndexOutcome, error) {
	flag := ""
	if dry {
		flag = "1"
	}
	replies, err := evalEach(ctx, r.rdb, r.index.guard, len(calls), func(i int) ([]string, []any) {
		c := calls[i]
		return indexedKeys(c.ws, c.id), []any{c.ws.String(), c.id.String(), c.id.SortBytes(), c.met, flag}
	})
	if err != nil {
		return nil, err
	}
	outcomes := make([]migration.IndexOutcome, len(calls))
	for i, reply := range replies {
		n, err := reply.Int64()
		if err != nil {
			return nil, translate(err)
		}
		switch n {
		case 0:
			outcomes[i] = migration.IndexIdentical
		case 1:
			outcomes[i] = migration.IndexMended
		case 2:
			outcomes[i] = migration.IndexDropped
		default:
			outcomes[i] = migration.IndexUnusable
		}
	}
	return outcomes, nil
}

// processOf reads the server process' own id from INFO, empty where the server does not tell.
func processOf(info string) string {
	for line := range strings.Lines(info) {
		if id, ok := strings.CutPrefix(line, "run_id:"); ok {
			return strings.TrimSpace(id)
		}
	}
	return ""
}
