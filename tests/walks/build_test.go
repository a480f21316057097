package walks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

const (
	oldPrefix = "ai:jobs:"
	stateKey  = "ai:index-state"
)

// predecessors are the fields of a job that the predecessor has just made.
func predecessors(ws, id string, at time.Time) map[string]string {
	return map[string]string{
		"job_id": id, "workspace_id": ws, "status": "pending", "action_provider": "google", "action_name": "gmail.send",
		"params": `{"to": "b@example.com"}`, "result": "", "actor_id": "predecessor", "enqueued_at": isoformat(at),
	}
}

func isoformat(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000000+00:00") }

// renamed gives the id that stands for an id of the fixture in its nth copy.
func renamed(id string, nth int) string {
	if nth == 0 {
		return id
	}
	if u, err := uuid.Parse(id); err == nil {
		return uuid.NewSHA1(u, []byte(strconv.Itoa(nth))).String()
	}
	return id + "~" + strconv.Itoa(nth)
}

// retired tells whether, in the nth copy, jobs of both schemas have lost their old keys.
func retired(nth int) bool { return nth%8 == 1 }

// copyOf is the fixture's hashes of jobs under the ids of its nth copy, what is odd about them included. inNew are the
// jobs that the new schema holds whole.
func copyOf(t *testing.T, records []redisserver.Record, inNew map[string]bool, nth int) []redisserver.Record {
	t.Helper()
	var out []redisserver.Record
	for _, r := range records {
		if r.Type != "hash" {
			continue
		}
		fields := r.Hash(t)
		if retired(nth) && strings.HasPrefix(r.Key, oldPrefix) && inNew[fields["job_id"]] {
			continue
		}
		parts := strings.SplitN(r.Key, ":", 3) // ai, schema, and the id or the workspace and the id
		if parts[1] == "job" {
			ws, id, _ := strings.Cut(parts[2], ":")
			parts[2] = ws + ":" + renamed(id, nth)
		} else {
			parts[2] = renamed(parts[2], nth)
		}
		if id, ok := fields["job_id"]; ok {
			fields["job_id"] = renamed(id, nth)
		}
		value, err := json.Marshal(fields)
		require.NoError(t, err)
		out = append(out, redisserver.Record{Key: strings.Join(parts, ":"), Type: r.Type, Value: value})
	}
	return out
}

// reader is what walks through one of the fixture's workspaces.
type reader struct {
	*ledger
	server *redisjobs.Repository
	ws     workspace.ID
	olds   []job.ID // of its jobs in the fixture, those that have an old copy
}

// stocked is a Redis that holds the predecessor's fixture many times over, its workspaces, and those who write to it.
type stocked struct {
	rdb      *redis.Client
	alarms   alarms
	server   *redisjobs.Repository
	operator *redisjobs.Repository
	readers  []*reader
	jobs     int // of all workspaces
}

// stockUp loads the fixture until there are so many jobs. What a job's workspace may read by id in the fixture itself
// is what its lists owe; tests/migration holds those reads against the predecessor's own code.
func stockUp(t *testing.T, phase migration.Phase, jobs int) *stocked {
	t.Helper()
	records := redisserver.ReadFixture(t, "../migration/testdata/predecessor.jsonl")
	s := redisserver.Start(t)
	b := &stocked{rdb: s.Client(t)}
	b.server, b.operator = serverOf(t, s, phase, &b.alarms), operatorOf(t, s, &b.alarms)
	redisserver.Load(t, b.rdb, records)
	held, olds := make(map[string]map[string]bool), make(map[string]map[string]bool)
	inNew := make(map[string]bool)
	for _, r := range records {
		if r.Type != "hash" {
			continue
		}
		fields := r.Hash(t)
		ws, err := workspace.Parse(fields["workspace_id"])
		if err != nil {
			continue
		}
		id, err := job.ParseID(fields["job_id"])
		require.NoError(t, err)
		_, err = b.server.Get(t.Context(), ws, id)
		if kind := fault.KindOf(err); err != nil {
			require.Contains(t, []fault.Kind{fault.NotFound, fault.Internal}, kind)
			continue
		}
		if held[ws.String()] == nil {
			held[ws.String()], olds[ws.String()] = make(map[string]bool), make(map[string]bool)
		}
		held[ws.String()][id.String()] = true
		if strings.HasPrefix(r.Key, oldPrefix) {
			olds[ws.String()][id.String()] = true
		} else {
			inNew[id.String()] = true
		}
	}
	one := 0
	for _, of := range held {
		one += len(of)
	}
	require.Greater(t, one, 450)
	copies := (jobs + one - 1) / one
	for nth := 1; nth < copies; nth++ {
		redisserver.Load(t, b.rdb, copyOf(t, records, inNew, nth))
	}
	b.jobs = copies * one
	for _, ws := range []string{"acme", "acme-eu"} { // most of all jobs, and a neighbour
		r := &reader{ledger: newLedger(), server: serverOf(t, s, phase, &b.alarms), ws: workspaceOf(t, ws)}
		for id := range held[ws] {
			for nth := range copies {
				renamed, err := job.ParseID(renamed(id, nth))
				require.NoError(t, err)
				r.note(func(now int64) { r.lives[renamed] = &life{made: now} })
				if olds[ws][id] && (!retired(nth) || !inNew[id]) {
					r.olds = append(r.olds, renamed)
				}
			}
		}
		require.NotEmpty(t, r.olds)
		b.readers = append(b.readers, r)
	}
	b.settle(t)
	return b
}

// settle ends a resize of Redis' table that may be under way: each look-up moves a bucket.
func (b *stocked) settle(t *testing.T) {
	t.Helper()
	for left := 2 * b.keys(t); left > 0; left -= 10_000 {
		_, err := b.rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for range 10_000 {
				p.Exists(t.Context(), "nothing")
			}
			return nil
		})
		require.NoError(t, err)
	}
}

func (b *stocked) keys(t *testing.T) int64 {
	t.Helper()
	n, err := b.rdb.DBSize(t.Context()).Result()
	require.NoError(t, err)
	return n
}

// make stores a new job as the predecessor does, past Relay.
func (b *stocked) make(ctx context.Context, r *reader) error {
	text := uuid.NewString()
	id, err := job.ParseID(text)
	if err != nil {
		return err
	}
	of := &life{}
	r.note(func(int64) { r.lives[id] = of })
	err = errors.Join(
		b.rdb.HSet(ctx, oldPrefix+text, predecessors(r.ws.String(), text, time.Now())).Err(),
		b.rdb.RPush(ctx, "ai:queue:pending", text).Err(),
	)
	r.note(func(now int64) { of.made = now })
	return err
}

// change sets another status on an old hash as the predecessor does, past Relay.
func (b *stocked) change(ctx context.Context, r *reader) error {
	key, now := oldPrefix+r.olds[rand.IntN(len(r.olds))].String(), isoformat(time.Now())
	to := [][]any{
		{"status", "running", "started_at", now},
		{"status", "completed", "started_at", now, "finished_at", now, "result", `{"ok": true}`},
		{"status", "failed", "finished_at", now, "error", "no"},
	}[rand.IntN(3)]
	return b.rdb.HSet(ctx, key, to...).Err()
}

// indexAll is a whole pass. What the predecessor made before it is in the index after it.
func (b *stocked) indexAll(ctx context.Context, t *testing.T, progress func()) {
	t.Helper()
	began := make([]int64, len(b.readers))
	for i, r := range b.readers {
		began[i] = r.note(nil)
	}
	begun := time.Now()
	counts, err := pass(ctx, b.operator, usecase.IndexJobsInput{Scope: migration.IndexAll}, progress)
	require.NoError(t, errors.Join(err, context.Cause(ctx)))
	t.Logf("a whole pass, in %v: %+v", time.Since(begun).Round(time.Millisecond), counts)
	for i, r := range b.readers {
		r.note(func(now int64) {
			for _, of := range r.lives {
				if of.indexed == 0 && of.made > 0 && of.made < began[i] {
					of.indexed = now
				}
			}
		})
	}
}

// sighted is a walk, and how many keys there were when it began.
type sighted struct {
	*walk
	keys int64
}

func (b *stocked) walk(t *testing.T, r *reader, limits ...int) sighted {
	t.Helper()
	keys := b.keys(t)
	return sighted{r.walk(r.server, r.ws, limits...), keys}
}

// report is what walks of one kind came to.
type report struct {
	mu                 sync.Mutex
	walks, owed, twice int
	resized            int // walks during which Redis resized its table
}

// judge holds an ended walk against the ledger. A walk by SCAN may show a job twice where Redis resized its table.
func (b *stocked) judge(ctx context.Context, w sighted, to *report) error {
	owed, twice, err := w.judge()
	if err != nil {
		return err
	}
	keys, err := b.rdb.DBSize(ctx).Result()
	if err != nil {
		return err
	}
	resized := buckets(keys) != buckets(w.keys)
	if twice > 0 && !resized {
		return fmt.Errorf("%d jobs of %d were shown twice by SCAN, and the table kept its %d buckets", twice, owed, buckets(keys))
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	to.walks, to.owed, to.twice = to.walks+1, to.owed+owed, to.twice+twice
	if resized {
		to.resized++
	}
	return nil
}

func (b *stocked) requireWalk(t *testing.T, w sighted, byIndex bool, to *report) {
	t.Helper()
	require.NoError(t, w.toEnd(t.Context()))
	require.Equal(t, byIndex, w.byIndex())
	require.NoError(t, b.judge(t.Context(), w, to))
}

// requireBegun takes a few pages and checks that the walk goes the way it should and is not at its end.
func requireBegun(t *testing.T, w sighted, byIndex bool) {
	t.Helper()
	for range 3 {
		require.NoError(t, w.page(t.Context()))
	}
	require.False(t, w.ended)
	require.Equal(t, byIndex, w.byIndex())
}

// TestWalksWhileTheIndexIsBuilt: the predecessor's stored jobs, while it and Relay write more, and the index is built,
// switched to, and switched off again: no walk loses a job that was there throughout, none by the index shows one
// twice, and none by SCAN does while Redis' table keeps its size. A walk goes on in the way in which it began.
func TestWalksWhileTheIndexIsBuilt(t *testing.T) {
	for _, phase := range []migration.Phase{migration.ReadRouting, migration.DualWrite} {
		t.Run(phase.String(), func(t *testing.T) {
			jobs, limits, each := 3000, []int{100, 33, 13}, 100.0
			if full(t) {
				jobs, limits, each = 200_000, []int{1000, 777, 100}, 250
			}
			b := stockUp(t, phase, jobs)
			t.Logf("%d jobs in %d keys", b.jobs, b.keys(t))
			writing, ctx := newCrew(t)
			var made, changed, enqueued pace
			of := func(hand int) *reader { return b.readers[hand%len(b.readers)] }
			writing.paced(ctx, &made, each, 2, func(hand int) error { return b.make(ctx, of(hand)) })
			writing.paced(ctx, &changed, 2*each, 2, func(hand int) error { return b.change(ctx, of(hand)) })
			writing.paced(ctx, &enqueued, each, 2, func(hand int) error {
				r := of(hand)
				_, err := r.enqueue(ctx, b.server, r.ws)
				return err
			})

			// Walks by SCAN begin and end while the index is built, and one of each workspace goes on after.
			var scans, across, ordered report
			straddling := make([]sighted, len(b.readers))
			for i, r := range b.readers {
				straddling[i] = b.walk(t, r, limits...)
				requireBegun(t, straddling[i], false)
			}
			turns := make(chan struct{})
			walking, walkingCtx := newCrew(t)
			for _, r := range b.readers {
				walking.start(func() error { return b.walkOn(walkingCtx, walking, r, limits, turns, &scans, &ordered) })
			}
			b.indexAll(walkingCtx, t, func() {
				select { // the pass does not outrun the walks
				case <-turns:
				case <-walkingCtx.Done():
				}
			})
			walking.stop(t, walkingCtx)
			for _, w := range straddling {
				b.requireWalk(t, w, false, &across)
			}
			require.Positive(t, scans.walks)

			// Walks by the index go on by it after it is switched off, and new ones go by SCAN again, beside a sweep.
			for i, r := range b.readers {
				straddling[i] = b.walk(t, r, limits...)
				requireBegun(t, straddling[i], true)
			}
			require.NoError(t, b.rdb.Del(t.Context(), stateKey).Err())
			sweeping, sweepingCtx := newCrew(t)
			sweeping.start(func() error {
				_, err := pass(sweepingCtx, b.server, usecase.IndexJobsInput{Scope: migration.IndexOld}, nil)
				return err
			})
			for _, w := range straddling {
				b.requireWalk(t, w, true, &ordered)
			}
			for _, r := range b.readers {
				b.requireWalk(t, b.walk(t, r, limits...), false, &scans)
			}
			sweeping.await(t, sweepingCtx)
			b.indexAll(t.Context(), t, nil)
			for _, r := range b.readers {
				b.requireWalk(t, b.walk(t, r, limits...), true, &ordered)
			}

			writing.stop(t, ctx)
			b.indexAll(t.Context(), t, nil)
			for _, r := range b.readers {
				w := b.walk(t, r, limits...)
				b.requireWalk(t, w, true, &ordered)
				require.Equal(t, len(r.lives), len(w.seen), "what it showed was made, and now all that was made is owed") //nolint:testifylint // Len would print them all
			}
			requireInStep(t, b.operator)
			require.Zero(t, b.alarms.told.Load())
			for _, kind := range []struct {
				name string
				*report
			}{{"by SCAN", &scans}, {"by SCAN, across the switch", &across}, {"by the index, all ways", &ordered}} {
				t.Logf("%s: %d walks, %d jobs owed, %d shown twice; Redis resized its table during %d",
					kind.name, kind.walks, kind.owed, kind.twice, kind.resized)
			}
			t.Logf("meanwhile in %v a second: %.0f jobs and %.0f status changes of the predecessor's, %.0f enqueues",
				made.took.Round(time.Second), made.rate(), changed.rate(), enqueued.rate())
		})
	}
}

// walkOn begins one walk after the other until the crew stops, and gives turns a word after each page.
func (b *stocked) walkOn(
	ctx context.Context, c *crew, r *reader, limits []int, turns chan<- struct{}, scans, ordered *report,
) error {
	for {
		keys, err := b.rdb.DBSize(ctx).Result()
		if err != nil {
			return err
		}
		w := sighted{r.walk(r.server, r.ws, limits...), keys}
		for !w.ended {
			if err := w.page(ctx); err != nil {
				return err
			}
			select {
			case turns <- struct{}{}:
			default:
			}
		}
		to := scans
		if w.byIndex() {
			to = ordered // the last one may have begun when the index was complete
		}
		if err := b.judge(ctx, w, to); err != nil {
			return err
		}
		select {
		case <-c.stopped:
			return nil
		default:
		}
	}
}
