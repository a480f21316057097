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

//go:embed script/compare_job.lua
var compareJobLua string

//go:embed script/compare_entry.lua
var compareEntryLua string

// compareJobSource is compare_job.lua behind the parts that it needs.
func compareJobSource() string {
	return versionSource + placeSource + statesSource + entriesSource + contentsSource + compareJobLua
}

// compareEntrySource is the same of compare_entry.lua.
func compareEntrySource() string { return versionSource + placeSource + statesSource + compareEntryLua }

// Process implements ports.JobComparison.
func (c *Copies) Process(ctx context.Context) (string, time.Time, error) {
	var process func() string
	var now *redis.TimeCmd
	err := pipelined(ctx, c.rdb, func(p redis.Pipeliner) {
		process, now = c.askProcess(ctx, p), p.Time(ctx)
	})
	if err != nil {
		return "", time.Time{}, err
	}
	return process(), now.Val().UTC(), nil
}

// askProcess adds to a pipeline what names the server process, and gives what reads the name afterwards.
func (c *Copies) askProcess(ctx context.Context, p redis.Pipeliner) func() string {
	info, client := p.Info(ctx, "server"), p.Do(ctx, "CLIENT", "INFO")
	return func() string {
		if process := processOf(info.Val()); process != "" {
			return process
		}
		text, _ := client.Text() // firstError has read its error
		return c.connectionOf(text)
	}
}

// Compare implements ports.JobComparison. It takes the round trips of evalEach.
func (c *Copies) Compare(ctx context.Context, jobs []migration.JobRef) ([]migration.JobFacts, error) {
	replies, err := evalEach(ctx, c.rdb, c.compareJob, len(jobs), func(i int) ([]string, []any) {
		ref := jobs[i]
		return indexedKeys(ref.Workspace, ref.ID), []any{ref.Workspace.String(), ref.ID.String(), ref.ID.SortBytes()}
	})
	if err != nil {
		return nil, err
	}
	facts := make([]migration.JobFacts, len(jobs))
	for i, reply := range replies {
		if facts[i], err = factsOf(jobs[i], reply); err != nil {
			return nil, err
		}
	}
	return facts, nil
}

// factsOf reads the answer of compare_job.lua.
func factsOf(ref migration.JobRef, reply *redis.Cmd) (migration.JobFacts, error) {
	f := migration.JobFacts{Job: ref, Index: indexKey(ref.Workspace)}
	f.Old.Key, f.New.Key = oldKey(ref.ID), newKey(ref.Workspace, ref.ID)
	values, err := reply.Slice()
	if err != nil { // a number
		_, err = reply.Int64()
	}
	if err != nil {
		return f, translate(err)
	}
	if len(values) <= 1 {
		f.Old.Holds, f.New.Holds, f.Equal = migration.HoldsWhole, migration.HoldsWhole, true
		if len(values) == 1 {
			if f.WithoutRev, err = strconv.ParseInt(textAt(values, 0), 10, 64); err != nil {
				return f, untrusted(err)
			}
		}
		return f, nil
	}
	if len(values) != 7 { //nolint:mnd // as the script says
		return f, untrusted(nil)
	}
	f.Equal = values[0] == int64(1)
	f.MissingEntries, f.ExtraEntries = texts(values[5]), texts(values[6])
	for i, stored := range []*migration.StoredCopy{&f.Old, &f.New} {
		left, _ := values[2+2*i].(int64)
		stored.Left = time.Duration(left) * time.Millisecond
		switch said := values[1+2*i].(type) {
		case string:
			switch said {
			case "wrong-type":
				stored.Holds = migration.HoldsOther
			case "many":
				stored.Holds = migration.HoldsUnwieldy
			}
		case []any:
			fields := fieldsOf(said)
			h := headOfHash(fields)
			whose := h.inNew(ref.Workspace, ref.ID)
			if i == 0 {
				whose, _ = h.inOld(ref.Workspace, ref.ID)
			}
			stored.Holds = holdingOf(whose)
			if whose == mine {
				v := h.stamps.version()
				if stored.Version, stored.Fields = v, fields; v.Rev == 0 {
					f.WithoutRev = max(f.WithoutRev, v.Enqueued, v.Started, v.Finished)
				}
			}
		}
	}
	return f, nil
}

func holdingOf(o ownership) migration.Holding {
	switch o {
	case mine:
		return migration.HoldsWhole
	case foreign:
		return migration.HoldsForeign
	case vacant:
	}
	return migration.HoldsStub
}

// fieldsOf reads a hash that a script gives as fields and values by turns.
func fieldsOf(values []any) map[string]string {
	fields := make(map[string]string, len(values)/2)
	for i := 0; i+1 < len(values); i += 2 {
		fields[textAt(values, i)] = textAt(values, i+1)
	}
	return fields
}

func texts(value any) []string {
	values, _ := value.([]any)
	var out []string
	for i := range values {
		out = append(out, textAt(values, i))
	}
	return out
}

// References implements ports.JobComparison. It takes one round trip.
func (c *Copies) References(ctx context.Context, at migration.Position, n int) (migration.ReferenceBatch, error) {
	var process func() string
	var scan *redis.ScanCmd
	err := pipelined(ctx, c.rdb, func(p redis.Pipeliner) {
		process, scan = c.askProcess(ctx, p), p.Scan(ctx, uint64(at), referencePattern, int64(n))
	})
	if err != nil {
		return migration.ReferenceBatch{}, err
	}
	keys, next := scan.Val()
	batch := migration.ReferenceBatch{Process: process(), Next: migration.Position(next)}
	for _, key := range keys {
		if ws, ok := indexed(key); ok {
			batch.Indexes = append(batch.Indexes, ws)
		} else if strings.HasPrefix(key, indexPrefix) {
			batch.References = append(batch.References, migration.Reference{Kind: migration.ReferenceKey, Key: key})
		} else if rest, ok := strings.CutPrefix(key, idempotencyPrefix); ok {
			text, _, _ := strings.Cut(rest, ":")
			ws, _ := workspace.Parse(text) // nobody reaches a key of none
			batch.References = append(batch.References, migration.Reference{
				Kind: migration.ReferenceIdempotency, Workspace: ws, Key: key,
			})
		}
	}
	return batch, nil
}

// IndexEntries implements ports.JobComparison. It takes two round trips. An entry of a state that stands at a place which
// has an entry of all jobs, too, is asked about with that one.
func (c *Copies) IndexEntries(
	ctx context.Context, ws workspace.ID, before string, n int,
) (refs []migration.Reference, looked int, next string, err error) {
	key := indexKey(ws)
	var page *redis.StringSliceCmd
	var scored func() bool
	err = pipelined(ctx, c.rdb, func(p redis.Pipeliner) { page, scored = askPage(ctx, p, key, before, n) })
	if err != nil {
		return nil, 0, "", err
	}
	if page.Err() != nil || scored() {
		return []migration.Reference{{Kind: migration.ReferenceKey, Workspace: ws, Key: key}}, 0, "", nil
	}
	entries := page.Val()
	var scores []*redis.FloatCmd
	err = pipelined(ctx, c.rdb, func(p redis.Pipeliner) {
		for _, entry := range entries {
			if isOfState(entry) {
				scores = append(scores, p.ZScore(ctx, key, letterOfAll+entry[1:]))
			}
		}
	})
	if err != nil {
		return nil, 0, "", err
	}
	for _, entry := range entries {
		if isOfState(entry) {
			covered := scores[0].Err() == nil
			if scores = scores[1:]; covered {
				continue
			}
		}
		refs = append(refs, migration.Reference{Kind: migration.ReferenceIndex, Workspace: ws, Key: key, Entry: entry})
	}
	if len(entries) == n {
		next = entries[n-1]
	}
	return refs, len(entries), next, nil
}

// askPage adds to a pipeline what gives the next n entries of an index before one, from the newest on where
// before is empty, and what askScored does. Scores are asked for first: what a pass has mended by then stands in order.
func askPage(ctx context.Context, p redis.Pipeliner, key, before string, n int) (page *redis.StringSliceCmd, scored func() bool) {
	most := "+"
	if before != "" {
		most = "(" + before
	}
	scored = askScored(ctx, p, key)
	return p.ZRevRangeByLex(ctx, key, &redis.ZRangeBy{Max: most, Min: "-", Count: int64(n)}), scored
}

// askScored adds to a pipeline what tells of an index whether an entry has a score other than Relay gives, and gives what
// reads that afterwards. In the order of their bytes, by which a walk goes, stand entries of one score alone.
func askScored(ctx context.Context, p redis.Pipeliner, key string) func() bool {
	least, most := p.ZRangeWithScores(ctx, key, 0, 0), p.ZRangeWithScores(ctx, key, -1, -1)
	return func() bool {
		return slices.ContainsFunc(slices.Concat(least.Val(), most.Val()), func(z redis.Z) bool { return z.Score != 0 })
	}
}

// isOfState tells whether an entry of an index is that of a state.
func isOfState(entry string) bool {
	if entry == "" {
		return false
	}
	for _, s := range job.Statuses() {
		if entry[:1] == letterOf(s) {
			return true
		}
	}
	return false
}

// QueueEntries implements ports.JobComparison. Entries are pushed at the right and taken, so that each only comes to stand
// further left: a walk from the right to the left by their places meets some twice, misses none that stays, and ends at
// the first place.
func (c *Copies) QueueEntries(
	ctx context.Context, depth int64, n int,
) (refs []migration.Reference, next int64, err error) {
	if depth == 0 {
		if depth, err = c.rdb.LLen(ctx, queueKey).Result(); err != nil {
			if isWrongType(err.Error()) {
				return []migration.Reference{{Kind: migration.ReferenceKey, Key: queueKey}}, 0, nil
			}
			return nil, 0, translate(err)
		}
	}
	entries, next, err := c.queueBelow(ctx, depth, int64(n))
	if err != nil {
		return nil, 0, err
	}
	for i, entry := range entries {
		ref := migration.Reference{Kind: migration.ReferenceQueue, Key: queueKey, Entry: entry, Depth: next + int64(i)}
		if text, _, ok := strings.Cut(entry, ":"); ok {
			ref.Workspace, _ = workspace.Parse(text) // a bare id may hold a colon
		}
		refs = append(refs, ref)
	}
	return refs, next, nil
}

// queueBelow gives the n entries that stand next to the left of a place, and the place of the first.
func (c *Copies) queueBelow(ctx context.Context, place, n int64) (entries []string, first int64, err error) {
	if place == 0 {
		return nil, 0, nil // of a negative place Redis would count from the right
	}
	first = max(0, place-n)
	entries, err = c.rdb.LRange(ctx, queueKey, first, place-1).Result()
	if err != nil && isWrongType(err.Error()) {
		return nil, 0, nil // the list is gone, and with it all that stood in it
	}
	return entries, first, translate(err)
}

// Judge implements ports.JobComparison. It takes a few round trips.
func (c *Copies) Judge(
	ctx context.Context, refs []migration.Reference, again bool,
) ([]migration.DifferenceClass, error) {
	j := judgement{Copies: c, refs: refs, classes: make([]migration.DifferenceClass, len(refs)), again: again}
	for kind, judge := range map[migration.ReferenceKind]func(context.Context, []int) error{
		migration.ReferenceKey: j.keys, migration.ReferenceIndex: j.entries,
		migration.ReferenceIdempotency: j.idempotency, migration.ReferenceQueue: j.queue,
	} {
		var of []int
		for i, ref := range refs {
			if ref.Kind == kind {
				of = append(of, i)
			}
		}
		if len(of) == 0 {
			continue
		}
		if err := judge(ctx, of); err != nil {
			return nil, err
		}
	}
	return j.classes, nil
}

// judgement is the state of one call of Judge. Its methods take the places of the references that they judge.
type judgement struct {
	*Copies
	refs    []migration.Reference
	classes []migration.DifferenceClass
	again   bool
}

func (j judgement) keys(ctx context.Context, of []int) error {
	types, scored := make([]*redis.StatusCmd, len(of)), make([]func() bool, len(of))
	var jobs []string
	err := pipelined(ctx, j.rdb, func(p redis.Pipeliner) {
		for n, i := range of {
			types[n] = p.Type(ctx, j.refs[i].Key)
			if _, ok := indexed(j.refs[i].Key); ok {
				scored[n] = askScored(ctx, p, j.refs[i].Key)
			}
			if strings.HasPrefix(j.refs[i].Key, oldPrefix) || strings.HasPrefix(j.refs[i].Key, anyPrefix) {
				jobs = append(jobs, j.refs[i].Key)
			}
		}
	})
	if err != nil {
		return err
	}
	var batch migration.KeyBatch
	if err := j.sort(ctx, jobs, &batch); err != nil {
		return err
	}
	strange := make(map[string]migration.KeyClass, len(batch.Strange))
	for _, s := range batch.Strange {
		strange[s.Key] = s.Class
	}
	for n, i := range of {
		key, is := j.refs[i].Key, types[n].Val()
		class, job := strange[key]
		switch _, ok := indexed(key); {
		case is == "none":
		case job:
			j.classes[i] = class.Difference()
		case key == queueKey && is != "list", ok && (is != "zset" || scored[n]()):
			j.classes[i] = migration.DifferenceWrongType
		case strings.HasPrefix(key, indexPrefix) && !ok:
			j.classes[i] = migration.DifferenceInvalidWorkspace
		}
	}
	return nil
}

func (j judgement) entries(ctx context.Context, of []int) error {
	var places []job.Place
	var known, strange []int
	for _, i := range of {
		entry := j.refs[i].Entry
		if entry != "" && (isOfState(entry) || entry[:1] == letterOfAll) {
			if p, ok := parsePlace(entry[1:]); ok {
				places, known = append(places, p), append(known, i)
				continue
			}
		}
		strange = append(strange, i)
	}
	replies, err := evalEach(ctx, j.rdb, j.compareEntry, len(known), func(n int) ([]string, []any) {
		ref, id := j.refs[known[n]], places[n].ID
		return indexedKeys(ref.Workspace, id), []any{ref.Workspace.String(), id.String(), id.SortBytes(), ref.Entry}
	})
	if err != nil {
		return err
	}
	for n, reply := range replies {
		said, err := reply.Int64()
		if err != nil {
			return translate(err)
		}
		switch said {
		case 0:
		case 1:
			j.classes[known[n]] = migration.DifferenceIndexMisplaced
		case 2:
			j.classes[known[n]] = migration.DifferenceIndexExtra
		default:
			j.classes[known[n]] = migration.DifferenceIndexGone
		}
	}
	scores := make([]*redis.FloatCmd, len(strange))
	err = pipelined(ctx, j.rdb, func(p redis.Pipeliner) {
		for n, i := range strange {
			scores[n] = p.ZScore(ctx, j.refs[i].Key, j.refs[i].Entry)
		}
	})
	for n, i := range strange {
		if scores[n].Err() == nil {
			j.classes[i] = migration.DifferenceIndexExtra
		}
	}
	return err
}

// heads is what is asked of both keys of a job that something names.
type heads struct {
	ws       workspace.ID
	id       job.ID
	old, new *redis.SliceCmd
}

func askHeads(ctx context.Context, p redis.Pipeliner, ws workspace.ID, id job.ID) heads {
	return heads{
		ws: ws, id: id, old: p.HMGet(ctx, oldKey(id), fieldID, fieldWorkspace),
		new: p.HMGet(ctx, newKey(ws, id), fieldID, fieldWorkspace),
	}
}

// held tells whether either schema holds the job for the workspace.
func (h heads) held() bool {
	if h.old == nil {
		return false
	}
	if h.old.Err() == nil {
		if whose, _ := ownerOf(h.old.Val()).inOld(h.ws, h.id); whose == mine {
			return true
		}
	}
	return h.new.Err() == nil && ownerOf(h.new.Val()).inNew(h.ws, h.id) == mine
}

// foreign tells whether no job is named, or one that the old schema holds for another workspace. Where only the new schema
// holds that, nothing leads from the id to it.
func (h heads) foreign() bool {
	if h.old == nil {
		return true
	}
	if h.old.Err() != nil {
		return false
	}
	_, owner := ownerOf(h.old.Val()).inOld(h.ws, h.id)
	return !owner.IsZero()
}

func (j judgement) idempotency(ctx context.Context, of []int) error {
	named := make([]*redis.StringCmd, len(of))
	err := pipelined(ctx, j.rdb, func(p redis.Pipeliner) {
		for n, i := range of {
			named[n] = p.Get(ctx, j.refs[i].Key)
		}
	})
	if err != nil {
		return err
	}
	found := make([]heads, len(of))
	err = pipelined(ctx, j.rdb, func(p redis.Pipeliner) {
		for n, i := range of {
			id, err := job.ParseID(named[n].Val())
			if ws := j.refs[i].Workspace; err == nil && !ws.IsZero() {
				found[n] = askHeads(ctx, p, ws, id)
			}
		}
	})
	if err != nil {
		return err
	}
	for n, i := range of {
		err := named[n].Err()
		switch {
		case err != nil && isWrongType(err.Error()):
			j.classes[i] = migration.DifferenceWrongType
		case err != nil || found[n].held():
		case found[n].foreign():
			j.classes[i] = migration.DifferenceIdempotencyForeign
		default:
			j.classes[i] = migration.DifferenceIdempotency
		}
	}
	return nil
}

// queue takes an entry as a bare id first, whatever is read elsewhere, and splits it only where no such key is there, as
// whoever takes it off does.
func (j judgement) queue(ctx context.Context, of []int) error {
	if j.again {
		var err error
		if of, err = j.queued(ctx, of); err != nil {
			return err
		}
	}
	bare, split := make([]*redis.SliceCmd, len(of)), make([]heads, len(of))
	there := make([]*redis.StatusCmd, len(of))
	err := pipelined(ctx, j.rdb, func(p redis.Pipeliner) {
		for n, i := range of {
			if id, err := job.ParseID(j.refs[i].Entry); err == nil {
				bare[n], there[n] = p.HMGet(ctx, oldKey(id), fieldID, fieldWorkspace), p.Type(ctx, oldKey(id))
			}
			_, text, _ := strings.Cut(j.refs[i].Entry, ":")
			if id, err := job.ParseID(text); err == nil && !j.refs[i].Workspace.IsZero() {
				split[n] = askHeads(ctx, p, j.refs[i].Workspace, id)
			}
		}
	})
	if err != nil {
		return err
	}
	found := make([]heads, len(of))
	err = pipelined(ctx, j.rdb, func(p redis.Pipeliner) {
		for n, i := range of {
			if there[n] == nil || there[n].Val() != "hash" || bare[n].Err() != nil {
				found[n] = split[n]
			} else if ws, err := workspace.Parse(ownerOf(bare[n].Val()).workspace); err == nil {
				id, _ := job.ParseID(j.refs[i].Entry) // it was one above
				found[n] = askHeads(ctx, p, ws, id)
			}
		}
	})
	if err != nil {
		return err
	}
	for n, i := range of {
		if !found[n].held() {
			j.classes[i] = migration.DifferenceQueue
		}
	}
	return nil
}

// queued leaves out entries that are no longer in the queue. It walks from where the rightmost of them was met to the left
// until it has met all, past no more entries than were taken meanwhile where those were taken from the left.
func (j judgement) queued(ctx context.Context, of []int) ([]int, error) {
	place, missed := int64(0), make(map[string]bool, len(of))
	for _, i := range of {
		place, missed[j.refs[i].Entry] = max(place, j.refs[i].Depth+1), true
	}
	for place > 0 && len(missed) > 0 {
		entries, first, err := j.queueBelow(ctx, place, queueCount)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			delete(missed, entry)
		}
		place = first
	}
	return slices.DeleteFunc(of, func(i int) bool { return missed[j.refs[i].Entry] }), nil
}
