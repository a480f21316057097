package redisjobs

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

//go:embed script/stamp.lua
var stampSource string

//go:embed script/version.lua
var versionSource string

//go:embed script/keep_now.lua
var keepNowSource string

//go:embed script/enqueue_job.lua
var enqueueSource string

//go:embed script/update_job.lua
var updateSource string

// Options are what a Repository needs besides Redis and its phase.
type Options struct {
	Retention time.Duration // how long a finished job is kept on every copy; 0 keeps it for ever
	Observer  ports.Observer
}

// Repository implements ports.JobRepository for one phase of the migration.
type Repository struct {
	rdb             redis.UniversalClient
	shared          *batcher
	phase           migration.Phase
	retention       time.Duration
	observer        ports.Observer
	enqueue, update *redis.Script
	index           indexScripts
}

// New makes the repository of a phase. It does not touch the network.
func New(rdb redis.UniversalClient, phase migration.Phase, o Options) *Repository {
	return &Repository{
		rdb: rdb, shared: newBatcher(rdb), phase: phase, retention: o.Retention, observer: o.Observer,
		enqueue: redis.NewScript(planSource(phase) + stampSource + placeSource + enqueueSource),
		update:  redis.NewScript(updateJobSource(phase)),
		index:   newIndexScripts(),
	}
}

// planSource writes a phase as the first line of each script: a plan is fixed for as long as a server runs, so that it
// need not be sent with every call.
func planSource(p migration.Phase) string {
	return fmt.Sprintf("local WRITE_OLD, WRITE_NEW, LOOK_OLD, LOOK_NEW = %t, %t, %t, %t\n",
		p.WritesOld(), p.WritesNew(), p.LooksAtOld(), p.LooksAtNew())
}

// updateJobSource is update_job.lua behind the parts that it needs.
func updateJobSource(p migration.Phase) string {
	return planSource(p) + versionSource + keepNowSource + stampSource + placeSource + statesSource + updateSource
}

// maxKnownRounds bounds how often an enqueue follows an idempotency key that names another job each time.
const maxKnownRounds = 8

// Enqueue implements ports.JobRepository. It takes one round trip, and one more for a ClientRequestID that is known.
func (r *Repository) Enqueue(ctx context.Context, d job.Draft) (job.Enqueued, error) {
	if d.Workspace.IsZero() || d.ID.IsZero() {
		return job.Enqueued{}, invalid()
	}
	keys := make([]string, 0, 7)
	keys = append(keys, oldKey(d.ID), newKey(d.Workspace, d.ID), queueKey, indexKey(d.Workspace))
	now := time.Now().UTC()
	second, text := secondOf(now)
	args := append(make([]any, 0, 13), d.Workspace.String(), d.ID.String(), second, text,
		d.Provider, d.Name, string(d.Params), d.Actor, d.TraceParent, secondsInBytes(now.Unix()), d.ID.SortBytes())
	if !d.ClientRequestID.IsZero() {
		keys = append(keys, idempotencyKey(d.Workspace, d.ClientRequestID))
		args = append(args, d.ClientRequestID.String())
	}
	var way redis.Scripter = r.shared
	for range maxKnownRounds {
		reply, err := r.enqueue.Run(ctx, way, keys, args...).Result()
		if err != nil {
			err = translate(err)
			r.written(d.Workspace, err)
			return job.Enqueued{}, err
		}
		known, ok := reply.([]any)
		if !ok {
			return r.enqueued(d, reply)
		}
		if len(known) > 1 {
			return replayed(known)
		}
		id, err := job.ParseID(textAt(known, 0))
		if err != nil {
			return job.Enqueued{}, untrusted(err)
		}
		keys = append(keys[:5], oldKey(id), newKey(d.Workspace, id))
		args = append(args[:12], id.String())
		way = r.rdb // callers with one key do not go on in step
	}
	return job.Enqueued{}, unavailable(nil)
}

// secondOf gives the whole second of a time of this server's clock, as stamp.lua takes it.
func secondOf(now time.Time) (second, text string) {
	return strconv.FormatInt(now.Unix(), 10), now.Format("2006-01-02T15:04:05")
}

func (r *Repository) enqueued(d job.Draft, reply any) (job.Enqueued, error) {
	switch reply {
	case int64(1):
		r.written(d.Workspace, nil)
	case int64(2):
		r.observer.IDCollision(d.Workspace)
	case int64(0):
		return job.Enqueued{}, fault.New(fault.Conflict, fault.CodeJobState, "The job id is taken")
	default:
		r.observer.IsolationBreach(d.Workspace)
		return job.Enqueued{}, untrusted(nil)
	}
	return job.Enqueued{Job: job.Job{
		ID: d.ID, Workspace: d.Workspace, Status: job.Pending, Provider: d.Provider, Name: d.Name, Params: d.Params,
		Actor: d.Actor, ClientRequestID: d.ClientRequestID.String(), TraceParent: d.TraceParent, Rev: 1,
	}}, nil
}

// replayed reads the known job as its record describes it; whose it is comes from the record, too.
func replayed(known []any) (job.Enqueued, error) {
	id, errID := job.ParseID(textAt(known, 0))
	ws, errWorkspace := workspace.Parse(textAt(known, 1))
	if err := errors.Join(errID, errWorkspace); err != nil {
		return job.Enqueued{}, untrusted(err)
	}
	return job.Enqueued{Replayed: true, Job: job.Job{
		ID: id, Workspace: ws, Provider: textAt(known, 2), Name: textAt(known, 3), Params: job.JSONOf(textAt(known, 4)),
	}}, nil
}

func textAt(reply []any, i int) string {
	s, _ := reply[i].(string) // a script's reply holds texts alone here
	return s
}

// written tells the observer of a dual write that went through or failed in the storage. A refusal, a record that is
// in the way and a caller that left are neither.
func (r *Repository) written(ws workspace.ID, err error) {
	if !r.phase.WritesBoth() {
		return
	}
	switch kind := fault.KindOf(err); {
	case err == nil, kind == fault.Unavailable, kind == fault.Timeout:
		r.observer.DualWritten(ws, err == nil)
	}
}

// Move implements ports.JobRepository. It takes one round trip.
func (r *Repository) Move(ctx context.Context, ws workspace.ID, id job.ID, m job.Move) error {
	if ws.IsZero() || id.IsZero() {
		return invalid()
	}
	if err := m.Validate(); err != nil {
		return err
	}
	sources := ","
	for _, s := range m.To.Sources() {
		sources += string(s) + ","
	}
	stamped, keep := "", ""
	switch m.To.Stamp() {
	case job.StampFinished:
		stamped = fieldFinishedAt
		if r.retention > 0 {
			keep = strconv.FormatInt(r.retention.Milliseconds(), 10)
		}
	case job.StampStarted:
		stamped = fieldStartedAt
	case job.StampWaiting, job.StampNone:
	}
	second, text := secondOf(time.Now().UTC())
	reply, err := r.update.Run(ctx, r.shared, append(indexedKeys(ws, id), withoutRevKey), ws.String(), id.String(), string(m.To), sources,
		string(m.Result), m.Error, keep, stamped, second, text, id.SortBytes()).Int64()
	if err != nil {
		err = translate(err)
		r.written(ws, err)
		return err
	}
	switch reply {
	case 1:
		r.written(ws, nil)
		return nil
	case 2:
		r.observer.IDCollision(ws)
		return nil
	case 3:
		return nil
	case 0:
		return job.ErrNotFound()
	case -2:
		return job.ErrState()
	}
	r.observer.IsolationBreach(ws)
	return untrusted(nil)
}

// maxFetchRounds bounds how often a read starts again because an old copy went away between its head and its body.
const maxFetchRounds = 4

// Get implements ports.JobRepository. It takes one round trip, and one more where the old copy's body is served.
func (r *Repository) Get(ctx context.Context, ws workspace.ID, id job.ID) (job.Job, error) {
	if ws.IsZero() || id.IsZero() {
		return job.Job{}, invalid()
	}
	found, err := r.fetch(ctx, ws, []job.ID{id}, false)
	if err != nil {
		return job.Job{}, err
	}
	f := found[0]
	r.observer.JobRead(ws, id, f.copy)
	r.report(ws, f)
	switch {
	case f.invalid:
		return job.Job{}, fault.New(fault.Internal, fault.CodeRecordInvalid, "The stored job cannot be read")
	case f.copy == job.CopyNone:
		r.observer.WorkspaceMismatch(ws, f.owner)
		return job.Job{}, job.ErrNotFound()
	}
	return f.job, nil
}

// fetched is what the read plan gives for one id.
type fetched struct {
	job     job.Job
	copy    job.Copy     // CopyNone: nothing that the workspace may see
	invalid bool         // a whole record that cannot be decoded
	owner   workspace.ID // the other workspace that holds the id in the old schema, where nothing is served
	standIn []any        // what was read in the place of an old copy that is not there

	// What the read met on the way, to be told to the observer once the answer is used.
	stale     bool // served one of two differing copies
	breach    bool // the new record contradicts its key
	wrongType bool // a key holds no hash
}

// report tells the observer what a read met.
func (r *Repository) report(ws workspace.ID, f fetched) {
	if f.stale && f.copy != job.CopyNone {
		r.observer.StaleCopyRead(ws)
	}
	if f.breach {
		r.observer.IsolationBreach(ws)
	}
	if f.wrongType {
		r.observer.WrongTypeRead(ws)
	}
	if f.invalid {
		r.observer.RecordInvalid(ws)
	}
}

// fetch reads jobs through the read plan, pipelined: in one trip the new copies and the heads of the old ones, in a
// second the old bodies that are to be served. The heads come first, so that a write to both copies in between makes
// the new one look fresher, never staler, than it is. A body is read only once its head was found to be ws's.
//
// listed says that the ids stand in ws's own index: where the old schema alone is read, their bodies are then read
// without the heads first, and judged after.
func (r *Repository) fetch(ctx context.Context, ws workspace.ID, ids []job.ID, listed bool) ([]fetched, error) {
	out := make([]fetched, len(ids))
	todo := make([]int, len(ids))
	for i := range ids {
		todo[i] = i
	}
	for round := 0; len(todo) > 0; round++ {
		if round == maxFetchRounds {
			return nil, unavailable(nil)
		}
		fromOld, err := todo, error(nil)
		if !listed || r.phase.ReadsNew() || round > 0 {
			fromOld, err = r.fetchHeads(ctx, ws, ids, todo, out)
		}
		if err != nil || len(fromOld) == 0 {
			return out, err
		}
		if todo, err = r.fetchOldBodies(ctx, ws, ids, fromOld, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// fetchHeads does the first trip for the ids at todo and returns those whose old copy is to be served.
func (r *Repository) fetchHeads(
	ctx context.Context, ws workspace.ID, ids []job.ID, todo []int, out []fetched,
) (fromOld []int, err error) {
	olds := make([]*redis.SliceCmd, len(todo))
	news := make([]*redis.MapStringStringCmd, len(todo))
	fields := headFields()
	err = r.pipelined(ctx, func(p redis.Pipeliner) {
		for n, i := range todo {
			if r.phase.ReadsOld() {
				olds[n] = p.HMGet(ctx, oldKey(ids[i]), fields...)
			}
			if r.phase.ReadsNew() {
				news[n] = p.HGetAll(ctx, newKey(ws, ids[i]))
			}
		}
	})
	if err != nil {
		return nil, err
	}
	for n, i := range todo {
		out[i] = fetched{}
		f := &out[i]
		old, oldOwnership := f.oldHead(ws, ids[i], olds[n])
		hash, newHead := f.newHash(ws, ids[i], news[n])
		switch {
		case hash == nil && oldOwnership == mine:
			fromOld = append(fromOld, i)
		case hash == nil:
			if r.phase.ReadsOld() && oldOwnership == vacant {
				f.standIn = readStandIn(ws, ids[i])
			}
		case oldOwnership != mine, old.stamps == newHead.stamps:
			f.serve(hash, job.CopyNew)
		default:
			oldVersion, newVersion := old.stamps.version(), newHead.stamps.version()
			f.stale = oldVersion != newVersion
			if job.Fresher(oldVersion, newVersion) == job.CopyOld {
				fromOld = append(fromOld, i)
			} else {
				f.serve(hash, job.CopyNew)
			}
		}
	}
	return fromOld, nil
}

// fetchOldBodies does the second trip and returns the ids whose old copy is gone by now, to be read again.
func (r *Repository) fetchOldBodies(
	ctx context.Context, ws workspace.ID, ids []job.ID, fromOld []int, out []fetched,
) (gone []int, err error) {
	bodies := make([]*redis.MapStringStringCmd, len(fromOld))
	err = r.pipelined(ctx, func(p redis.Pipeliner) {
		for n, i := range fromOld {
			bodies[n] = p.HGetAll(ctx, oldKey(ids[i]))
		}
	})
	if err != nil {
		return nil, err
	}
	for n, i := range fromOld {
		hash := bodies[n].Val()
		if o, _ := headOfHash(hash).inOld(ws, ids[i]); o != mine {
			gone = append(gone, i)
			continue
		}
		out[i].serve(hash, job.CopyOld)
	}
	return gone, nil
}

func (f *fetched) serve(hash map[string]string, c job.Copy) {
	j, ok := decode(hash)
	f.job, f.copy, f.invalid = j, c, !ok
}

// oldHead reads the answer to HMGET of the old key, nil where the plan does not read it.
func (f *fetched) oldHead(ws workspace.ID, id job.ID, cmd *redis.SliceCmd) (h head, o ownership) {
	if cmd == nil {
		return head{}, vacant
	}
	if cmd.Err() != nil {
		f.wrongType = true
		return head{}, vacant
	}
	h = headOf(cmd.Val())
	o, f.owner = h.inOld(ws, id)
	return h, o
}

// newHash reads the answer to HGETALL of the new key, nil where the plan does not read it; hash is nil unless it is
// ws's whole record.
func (f *fetched) newHash(ws workspace.ID, id job.ID, cmd *redis.MapStringStringCmd) (hash map[string]string, h head) {
	if cmd == nil {
		return nil, head{}
	}
	if cmd.Err() != nil {
		f.wrongType = true
		return nil, head{}
	}
	h = headOfHash(cmd.Val())
	switch h.inNew(ws, id) {
	case mine:
		return cmd.Val(), h
	case foreign:
		f.breach = true
	case vacant:
	}
	return nil, head{}
}

// pipelined runs commands in one round trip, shared with other callers where there are many. An absent key and one of
// another type are left to whoever reads that command's answer; every other error ends the whole.
func (r *Repository) pipelined(ctx context.Context, fill func(redis.Pipeliner)) error {
	pipe := r.rdb.Pipeline()
	fill(pipe)
	cmds := pipe.Cmds()
	if err := r.shared.run(ctx, cmds); err != nil {
		return translate(err)
	}
	return firstError(ctx, cmds)
}

// pipelined is Repository.pipelined for callers that share nothing.
func pipelined(ctx context.Context, rdb redis.UniversalClient, fill func(redis.Pipeliner)) error {
	pipe := rdb.Pipeline()
	fill(pipe)
	cmds, err := pipe.Exec(ctx)
	if err != nil && !slices.ContainsFunc(cmds, hasError) {
		return translate(err) // there was no connection to send them on
	}
	return firstError(ctx, cmds)
}

func firstError(ctx context.Context, cmds []redis.Cmder) error {
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) && !isWrongType(err.Error()) {
			if gone := ctx.Err(); gone != nil {
				err = gone // a command keeps what its first try met, where the caller left before the second
			}
			return translate(err)
		}
	}
	return nil
}
