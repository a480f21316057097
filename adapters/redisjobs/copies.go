package redisjobs

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
)

//go:embed script/entries.lua
var entriesSource string

//go:embed script/mend.lua
var mendSource string

//go:embed script/contents.lua
var contentsSource string

//go:embed script/copy_job.lua
var copySource string

// jobPattern matches every key of a job in both schemas, and others beside them.
const jobPattern = "ai:job*"

// sampledFields is how many fields of a key its memory is estimated by: more than any job has, and few of what is none.
const sampledFields = 64

// Copies implements ports.JobCopies, ports.JobComparison and ports.StorageLoad.
type Copies struct {
	rdb   redis.UniversalClient
	nonce string // begins the names of connections: one of another run is never mistaken for one of this
	copy  *redis.Script

	compareJob, compareEntry *redis.Script
}

// NewCopies makes it. It does not touch the network.
func NewCopies(rdb redis.UniversalClient) *Copies {
	return &Copies{
		rdb: rdb, nonce: rand.Text(), copy: redis.NewScript(copyJobSource()),
		compareJob: redis.NewScript(compareJobSource()), compareEntry: redis.NewScript(compareEntrySource()),
	}
}

// copyJobSource is copy_job.lua behind the parts that it needs.
func copyJobSource() string {
	return versionSource + keepNowSource + placeSource + statesSource + entriesSource + mendSource + contentsSource + copySource
}

// Keys implements ports.JobCopies. It takes two round trips, and a third where the new schema alone holds jobs.
func (c *Copies) Keys(ctx context.Context, at migration.Position, n int) (migration.KeyBatch, error) {
	var process func() string
	var scan *redis.ScanCmd
	err := pipelined(ctx, c.rdb, func(p redis.Pipeliner) {
		process, scan = c.askProcess(ctx, p), p.Scan(ctx, uint64(at), jobPattern, int64(n))
	})
	if err != nil {
		return migration.KeyBatch{}, err
	}
	keys, next := scan.Val()
	batch := migration.KeyBatch{Process: process(), Next: migration.Position(next)}
	return batch, c.sort(ctx, keys, &batch)
}

// connectionOf names a connection by what CLIENT INFO says of it. Its number alone does not do: each server counts its own.
func (c *Copies) connectionOf(clientInfo string) string {
	name := "connection " + c.nonce
	for part := range strings.FieldsSeq(clientInfo) {
		if key, _, _ := strings.Cut(part, "="); key == "id" || key == "addr" || key == "laddr" {
			name += " " + part
		}
	}
	return name
}

// met is a key of a walk whose record is asked for.
type met struct {
	key   string
	ref   migration.JobRef // of an old key the workspace is zero until its record is read
	head  *redis.SliceCmd  // of the old key
	bytes *redis.IntCmd
}

func (m met) inOld() bool { return m.ref.Workspace.IsZero() }

// owner is whose the old key says that it is; no workspace where it does not say that of a valid one.
func (m met) owner() migration.JobRef {
	if m.head.Err() != nil {
		return migration.JobRef{}
	}
	h := ownerOf(m.head.Val())
	ws, err := workspace.Parse(h.workspace)
	if err != nil {
		return migration.JobRef{}
	}
	id, err := job.ParseID(h.id)
	if err != nil {
		return migration.JobRef{Workspace: ws}
	}
	return migration.JobRef{Workspace: ws, ID: id}
}

// sort tells jobs from what is none. A job that has both keys is met under the old one alone.
func (c *Copies) sort(ctx context.Context, keys []string, batch *migration.KeyBatch) error {
	all := make([]met, 0, len(keys))
	strange := func(key string, class migration.KeyClass) {
		batch.Strange = append(batch.Strange, migration.StrangeKey{Key: key, Class: class})
	}
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) { // SCAN may give a key twice
		if id, ok := idOf(key, oldPrefix); ok {
			all = append(all, met{key: key, ref: migration.JobRef{ID: id}})
		} else if ws, id, ok := newOf(key); ok {
			all = append(all, met{key: key, ref: migration.JobRef{Workspace: ws, ID: id}})
		} else if rest, ok := strings.CutPrefix(key, anyPrefix); ok {
			text, _, _ := strings.Cut(rest, ":")
			if _, err := workspace.Parse(text); err != nil {
				strange(key, migration.KeyInvalidWorkspace)
			} else {
				strange(key, migration.KeyNotAJob)
			}
		} else if strings.HasPrefix(key, oldPrefix) {
			strange(key, migration.KeyNotAJob)
		}
	}
	err := pipelined(ctx, c.rdb, func(p redis.Pipeliner) {
		for i, m := range all {
			all[i].head = p.HMGet(ctx, oldKey(m.ref.ID), fieldID, fieldWorkspace)
			if m.inOld() {
				all[i].bytes = p.MemoryUsage(ctx, m.key, sampledFields)
			}
		}
	})
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(m met) bool { return !m.inOld() && m.owner() == m.ref })
	err = pipelined(ctx, c.rdb, func(p redis.Pipeliner) {
		for i, m := range all {
			if !m.inOld() {
				all[i].bytes = p.MemoryUsage(ctx, m.key, sampledFields)
			}
		}
	})
	if err != nil {
		return err
	}
	for _, m := range all {
		owner := m.owner()
		switch {
		case m.bytes.Err() != nil:
			continue // it went away
		case !m.inOld():
			owner = m.ref
		case m.head.Err() != nil:
			strange(m.key, migration.KeyWrongType)
			continue
		case owner.Workspace.IsZero():
			strange(m.key, migration.KeyInvalidWorkspace)
			continue
		case owner.ID != m.ref.ID:
			strange(m.key, migration.KeyOtherID)
			continue
		}
		batch.Jobs = append(batch.Jobs, migration.StoredJob{JobRef: owner, Bytes: m.bytes.Val()})
	}
	return nil
}

// Copy implements ports.JobCopies. It takes the round trips of evalEach.
func (c *Copies) Copy(
	ctx context.Context, jobs []migration.JobRef, to migration.Schema, dry bool,
) ([]migration.Copied, error) {
	flag := ""
	if dry {
		flag = "1"
	}
	replies, err := evalEach(ctx, c.rdb, c.copy, len(jobs), func(i int) ([]string, []any) {
		ref := jobs[i]
		return append(indexedKeys(ref.Workspace, ref.ID), queueKey, withoutRevKey),
			[]any{ref.Workspace.String(), ref.ID.String(), ref.ID.SortBytes(), to.String(), flag}
	})
	if err != nil {
		return nil, err
	}
	out := make([]migration.Copied, len(jobs))
	for i, reply := range replies {
		out[i].Job = jobs[i]
		if out[i].Entries, err = readOutcome(reply, &out[i].Outcome); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// readOutcome reads the answer {outcome, entries} of a script.
func readOutcome(reply *redis.Cmd, outcome encoding.TextUnmarshaler) (entries int64, err error) {
	values, err := reply.Slice()
	if err != nil {
		return 0, translate(err)
	}
	if len(values) != 2 { //nolint:mnd // outcome and entries
		return 0, untrusted(nil)
	}
	if err := outcome.UnmarshalText([]byte(textAt(values, 0))); err != nil {
		return 0, untrusted(err)
	}
	entries, _ = values[1].(int64)
	return entries, nil
}

// tripScripts bounds how many scripts share a round trip: its answer has to come within one timeout.
const tripScripts = 100

// evalEach runs a script n times, up to tripScripts in a round trip, and loads it where Redis does not know it. It ends with
// the first trip of which one failed.
func evalEach(
	ctx context.Context, rdb redis.UniversalClient, script *redis.Script, n int, call func(i int) ([]string, []any),
) ([]*redis.Cmd, error) {
	replies := make([]*redis.Cmd, n)
	for from := 0; from < n; from += tripScripts {
		trip := func() error {
			_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
				for i := from; i < min(n, from+tripScripts); i++ {
					keys, args := call(i)
					replies[i] = script.EvalSha(ctx, p, keys, args...)
				}
				return nil
			})
			return err //nolint:wrapcheck // translated below
		}
		err := trip()
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			if err = script.Load(ctx, rdb).Err(); err == nil {
				err = trip()
			}
		}
		if err != nil {
			return nil, translate(err)
		}
	}
	return replies, nil
}

// checkpoint is a kept migration.Checkpoint.
type checkpoint struct {
	Process   string                   `json:"process"`
	At        migration.Position       `json:"at"`
	Workspace string                   `json:"workspace_id,omitempty"`
	Counts    migration.BackfillCounts `json:"counts"`
}

// Checkpoint implements ports.JobCopies.
func (c *Copies) Checkpoint(ctx context.Context, to migration.Schema) (migration.Checkpoint, error) {
	text, err := c.rdb.Get(ctx, checkpointKey(to)).Bytes()
	if errors.Is(err, redis.Nil) || err != nil && isWrongType(err.Error()) {
		return migration.Checkpoint{}, nil
	}
	if err != nil {
		return migration.Checkpoint{}, translate(err)
	}
	var kept checkpoint
	err = json.Unmarshal(text, &kept)
	var ws workspace.ID
	if err == nil && kept.Workspace != "" {
		ws, err = workspace.Parse(kept.Workspace)
	}
	if err != nil {
		return migration.Checkpoint{}, nil //nolint:nilerr // on any doubt a pass starts over
	}
	return migration.Checkpoint{Process: kept.Process, At: kept.At, Workspace: ws, Counts: kept.Counts}, nil
}

// SaveCheckpoint implements ports.JobCopies.
func (c *Copies) SaveCheckpoint(ctx context.Context, to migration.Schema, at migration.Checkpoint) error {
	if at.IsZero() {
		return translate(c.rdb.Del(ctx, checkpointKey(to)).Err())
	}
	text, err := json.Marshal(checkpoint{at.Process, at.At, at.Workspace.String(), at.Counts})
	if err != nil {
		return untrusted(err)
	}
	return translate(c.rdb.Set(ctx, checkpointKey(to), text, 0).Err())
}

// Load implements ports.StorageLoad.
func (c *Copies) Load(ctx context.Context) (migration.Load, error) {
	began := time.Now()
	if err := c.rdb.Ping(ctx).Err(); err != nil {
		return migration.Load{}, translate(err)
	}
	load := migration.Load{Ping: time.Since(began)}
	var info *redis.StringCmd
	var paused *redis.IntCmd
	var rate *redis.StringCmd
	err := pipelined(ctx, c.rdb, func(p redis.Pipeliner) {
		info = p.Info(ctx)
		paused, rate = p.Exists(ctx, pauseKey), p.Get(ctx, rateKey)
	})
	if err != nil {
		return migration.Load{}, err
	}
	load.Paused = paused.Val() > 0
	if n, err := strconv.Atoi(rate.Val()); err == nil && n >= 0 {
		load.Rate = n
		if n == 0 {
			load.Rate = migration.RateUnbounded
		}
	}
	readInfo(info.Val(), &load)
	return load, nil
}

// readInfo takes what INFO says; what it leaves out stays zero.
func readInfo(info string, load *migration.Load) {
	values := map[string]string{}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			values[name] = value
		}
	}
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(values[name], 10, 64)
		return n
	}
	load.Version, load.EvictionPolicy = values["redis_version"], values["maxmemory_policy"]
	load.UsedMemory, load.MaxMemory = number("used_memory"), number("maxmemory")
	load.Saving = number("rdb_bgsave_in_progress") > 0 || number("aof_rewrite_in_progress") > 0
	for i := range number("connected_slaves") {
		// ip=…,port=…,state=online,offset=…,lag=…
		for part := range strings.SplitSeq(values[fmt.Sprintf("slave%d", i)], ",") {
			name, text, _ := strings.Cut(part, "=")
			n, err := strconv.ParseInt(text, 10, 64)
			switch {
			case err != nil:
			case name == "offset":
				load.ReplicaBehind = max(load.ReplicaBehind, number("master_repl_offset")-n)
			case name == "lag":
				load.ReplicaDelay = max(load.ReplicaDelay, time.Duration(n)*time.Second)
			}
		}
	}
}
