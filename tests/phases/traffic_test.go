package phases_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
)

// leisurely is how long who has done their share pauses between two pieces of work: so there is load all the time, and
// the machine has room for the rest.
const leisurely = 20 * time.Millisecond

// keep does something again and again until it is stopped; the first error ends the whole load.
func (w *world) keep(stopped <-chan struct{}, do func(context.Context) error) {
	w.load.Go(func() {
		for {
			select {
			case <-w.ctx.Done():
				return
			case <-stopped:
				return
			default:
			}
			w.running.RLock()
			err, step, shared := do(w.ctx), w.step, w.shared()
			w.running.RUnlock()
			if err != nil && !errors.Is(err, errIdle) {
				w.failing(fmt.Errorf("%s: %w", step, err))
				return
			}
			pause := time.Duration(0)
			if shared || err != nil {
				pause = leisurely
			}
			if (systemclock.Clock{}).Sleep(w.ctx, pause) != nil {
				return
			}
		}
	})
}

// errIdle tells that there is nothing to do just now.
var errIdle = errors.New("nothing to do")

// answer is what came back over HTTP.
type answer struct {
	status   int
	replayed bool
	body     []byte
}

// send asks a server, as a workspace where one is named.
func (w *world) send(ctx context.Context, s *server, ws, method, path string, body any, headers ...string) (answer, error) {
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			return answer{}, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, &content)
	if err != nil {
		return answer{}, err
	}
	if ws != "" {
		req.Header.Set("Authorization", "Bearer "+w.tokens[ws])
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := w.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	out := answer{status: res.StatusCode, replayed: res.Header.Get("Idempotency-Replayed") == "true"}
	out.body, err = io.ReadAll(res.Body)
	return out, err
}

func (w *world) either() *server { return w.servers[rand.IntN(len(w.servers))] }

// one gives a server for a kind of work, one that is short of it where there is one.
func (w *world) one(k kind) *server {
	if short := w.short(k); len(short) > 0 {
		return short[rand.IntN(len(short))]
	}
	return w.either()
}

func someWorkspace() string { return workspaces()[rand.IntN(len(workspaces()))] }

// call is what a consumer of the API does next.
func (w *world) call(ctx context.Context) error {
	switch n := rand.IntN(20); {
	case n < 6 && len(w.short(executes)) > 0:
		return w.execute(ctx)
	case n < 9:
		return w.repeat(ctx)
	case n == 9 && len(w.short(walks)) > 0:
		return w.browse(ctx)
	case n < 12:
		return w.readOthers(ctx)
	}
	s := w.either()
	if err := w.read(ctx, s, w.pick()); err != nil {
		return err
	}
	s.done[reads].Add(1)
	return nil
}

// execute makes a job, half of them with an idempotency key, which is used again on the other server at once.
func (w *world) execute(ctx context.Context) error {
	s, n := w.one(executes), w.count.Add(1)
	r := request{
		ws: someWorkspace(), provider: "google", name: "gmail.send", params: job.JSON(fmt.Sprintf(`{"n":%d}`, n)),
	}
	if n%2 == 0 {
		r.key = "request-" + strconv.FormatInt(n, 10)
	}
	a, id, err := w.ask(ctx, s, r)
	if err != nil {
		return err
	}
	if a.replayed {
		return fmt.Errorf("%w: a first request is answered as repeated: %s", errBroken, a.body)
	}
	s.done[executes].Add(1)
	w.add(&life{
		id: id, ws: r.ws, provider: r.provider, name: r.name, actor: "tester", params: r.params, queued: true, relays: true,
		since: w.step,
	}, version{status: job.Pending})
	if r.key == "" {
		return nil
	}
	r.id = id
	w.kept.Lock()
	w.asked = append(w.asked, r)
	w.kept.Unlock()
	return w.again(ctx, r)
}

// repeat asks once more for what was asked for before, by Relay's consumers or by the predecessor's.
func (w *world) repeat(ctx context.Context) error {
	w.kept.Lock()
	if len(w.asked) == 0 {
		w.kept.Unlock()
		return errIdle
	}
	r := w.asked[rand.IntN(len(w.asked))]
	w.kept.Unlock()
	return w.again(ctx, r)
}

func (w *world) again(ctx context.Context, r request) error {
	s := w.either()
	a, id, err := w.ask(ctx, s, r)
	if err != nil {
		return err
	}
	if !a.replayed || id != r.id {
		return fmt.Errorf("%w: in %s the request %s of %s, which made %s, is answered %s", errBroken, s.phase, r.key, r.ws, r.id, a.body)
	}
	return nil
}

// ask sends an execute.
func (w *world) ask(ctx context.Context, s *server, r request) (answer, string, error) {
	var headers []string
	body := map[string]any{"action_provider": r.provider, "action_name": r.name, "params": r.params}
	switch {
	case r.key == "":
	case rand.IntN(2) == 0:
		body["client_request_id"] = r.key
	default:
		headers = []string{"Idempotency-Key", r.key}
	}
	a, err := w.send(ctx, s, r.ws, http.MethodPost, "/ai/execute", body, headers...)
	if err != nil {
		return a, "", err
	}
	var made struct {
		JobID string `json:"job_id"`
	}
	if err := json.Unmarshal(a.body, &made); err != nil || a.status != http.StatusOK || made.JobID == "" {
		return a, "", fmt.Errorf("%w: execute in %s is answered %d %s", errBroken, s.phase, a.status, a.body)
	}
	return a, made.JobID, nil
}

// read asks for a job that is there.
func (w *world) read(ctx context.Context, s *server, of *life) error {
	began := w.now()
	a, err := w.send(ctx, s, of.ws, http.MethodGet, "/ai/jobs/"+url.PathEscape(of.id), nil)
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		return fmt.Errorf("%w: %q of %s (%s) is lost in %s: %d %s", errBroken, of.id, of.ws, of.since, s.phase, a.status, a.body)
	}
	var j shown
	if err := json.Unmarshal(a.body, &j); err != nil {
		return err
	}
	known, err := w.judge(j, began)
	if err != nil {
		return fmt.Errorf("%w: in %s: %w", errBroken, s.phase, err)
	}
	if !known || j.JobID != of.id {
		return fmt.Errorf("%w: %q is asked for, and shown is %s", errBroken, of.id, a.body)
	}
	return nil
}

// readOthers asks for a job as a workspace that it does not belong to.
func (w *world) readOthers(ctx context.Context) error {
	s, of, ws := w.either(), w.pick(), someWorkspace()
	if ws == of.ws {
		return nil
	}
	a, err := w.send(ctx, s, ws, http.MethodGet, "/ai/jobs/"+url.PathEscape(of.id), nil)
	if err == nil && a.status != http.StatusNotFound {
		err = fmt.Errorf("%w: %s asks %s for a job of %s: %d %s", errBroken, ws, s.phase, of.ws, a.status, a.body)
	}
	return err
}

// browse walks through a list, each page asked of any server: all that was there before is in it, once where lists go by
// the index. By SCAN a job may come twice where servers of two phases serve one walk.
func (w *world) browse(ctx context.Context) error {
	ws, began := someWorkspace(), w.now()
	limits := []int{sized(7, 100), sized(50, 333), 1000}
	seen, err := w.walk(ctx, ws, "", limits[rand.IntN(len(limits))], func() *server {
		s := w.one(walks)
		s.done[walks].Add(1)
		return s
	})
	if err != nil {
		return err
	}
	for id := range w.of(ws, began, w.indexed) {
		if seen[id] == 0 {
			return fmt.Errorf("%w: %s was there throughout and is in no page", errBroken, w.said(id))
		}
	}
	for id, times := range seen {
		if w.indexed && times > 1 {
			return fmt.Errorf("%w: %q of %s is in %d pages", errBroken, id, ws, times)
		}
	}
	return nil
}

// walk goes through a list, and says how often each job was in it.
func (w *world) walk(ctx context.Context, ws string, status job.Status, limit int, turn func() *server) (map[string]int, error) {
	seen := map[string]int{}
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if status != "" {
		q.Set("status", string(status))
	}
	for {
		s, began := turn(), w.now()
		a, err := w.send(ctx, s, ws, http.MethodGet, "/ai/jobs?"+q.Encode(), nil)
		if err != nil {
			return nil, err
		}
		var page struct {
			Jobs []shown `json:"jobs"`
			Next *string `json:"next_cursor"`
		}
		if err := json.Unmarshal(a.body, &page); err != nil || a.status != http.StatusOK {
			return nil, fmt.Errorf("%w: a list of %s in %s is answered %d %s", errBroken, ws, s.phase, a.status, a.body)
		}
		for _, j := range page.Jobs {
			if _, err := w.judge(j, began); err != nil {
				return nil, fmt.Errorf("%w: in a list in %s: %w", errBroken, s.phase, err)
			}
			if j.WorkspaceID != ws || status != "" && j.Status != string(status) {
				return nil, fmt.Errorf("%w: a list of %s, %q, shows one of %s, %s", errBroken, ws, status, j.WorkspaceID, j)
			}
			seen[j.JobID]++
		}
		if page.Next == nil {
			return seen, nil
		}
		q.Set("cursor", *page.Next)
	}
}

// entryOf is a job's entry in the queue as a phase writes it.
func entryOf(of *life, phase migration.Phase) string {
	if phase.WritesOld() {
		return of.id
	}
	return of.ws + ":" + of.id
}

// work is what a worker of Relay's does next: it takes an entry, young or old, and brings its job as far as it comes,
// each state by way of any server.
func (w *world) work(ctx context.Context) error {
	if len(w.short(moves)) == 0 {
		return errIdle
	}
	// Jobs of new only, for the predecessor to find, are older than what is enqueued behind it.
	end := "LPOP"
	if rand.IntN(4) == 0 || w.waited != nil {
		end = "RPOP"
	}
	of, err := w.next(ctx, end)
	if errors.Is(err, errIdle) {
		return w.execute(ctx)
	}
	if err != nil {
		return err
	}
	of.hands.Lock()
	defer of.hands.Unlock()
	if w.last(of).status != job.Pending {
		return nil // another entry of the same job was taken before
	}
	fate := rand.IntN(10)
	if fate == 0 {
		return w.move(ctx, w.one(moves), of, job.Move{To: job.Failed, Error: "refused"})
	}
	if err := w.move(ctx, w.one(moves), of, job.Move{To: job.Running}); err != nil {
		return err
	}
	result := job.JSON(fmt.Sprintf(`{"done":%d}`, w.count.Add(1)))
	switch {
	case fate < 4:
		w.lose(of)
		return nil
	case fate < 5:
		return w.move(ctx, w.one(moves), of, job.Move{To: job.Failed, Error: "broken", Result: result})
	}
	return w.move(ctx, w.one(moves), of, job.Move{To: job.Completed, Result: result})
}

// next takes an entry off the queue and finds its job: as a bare id first, and split at its colon only where old holds no
// such job.
func (w *world) next(ctx context.Context, end string) (*life, error) {
	// By a script, as Relay does it: a bare command is taken for a worker of the predecessor.
	entry, err := w.rdb.Eval(ctx, `return redis.call(ARGV[1], KEYS[1])`, []string{queueKey}, end).Text()
	if errors.Is(err, redis.Nil) {
		return nil, errIdle
	}
	if err != nil {
		return nil, err
	}
	ws, err := w.rdb.HGet(ctx, "ai:jobs:"+entry, "workspace_id").Result()
	id := entry
	if errors.Is(err, redis.Nil) {
		ws, id, _ = strings.Cut(entry, ":")
	} else if err != nil {
		return nil, err
	}
	of, err := w.await(ctx, id)
	if err == nil && of.ws != ws {
		err = fmt.Errorf("%w: the entry %q is of %s, and its job of %s", errBroken, entry, ws, of.ws)
	}
	return of, err
}

// lose leaves a running job to whoever finds that its worker is lost.
func (w *world) lose(of *life) {
	w.kept.Lock()
	defer w.kept.Unlock()
	w.spares = append(w.spares, of)
}

// giveBack lets a running job wait again.
func (w *world) giveBack(ctx context.Context, of *life) error {
	of.hands.Lock()
	defer of.hands.Unlock()
	s := w.one(moves)
	if err := w.move(ctx, s, of, job.Move{To: job.Pending}); err != nil {
		return err
	}
	of.queued = true
	return w.rdb.RPush(ctx, queueKey, entryOf(of, s.phase)).Err()
}

// move changes a job that the caller has in hands, as a worker beside a server does.
func (w *world) move(ctx context.Context, s *server, of *life, m job.Move) error {
	ws, err := workspace.Parse(of.ws)
	if err != nil {
		return err
	}
	id, err := job.ParseID(of.id)
	if err != nil {
		return err
	}
	v := w.last(of)
	from := v.status
	v.status = m.To
	if m.Result != "" {
		v.result = m.Result
	}
	if m.Error != "" {
		v.problem = m.Error
	}
	switch m.To.Stamp() {
	case job.StampStarted:
		v.started = asking()
	case job.StampWaiting:
		v.started = span{}
	case job.StampFinished:
		v.finished = asking()
	case job.StampNone:
	}
	err = w.change(of, v, func() error { return s.update.Do(ctx, ws, id, m) })
	if err != nil {
		return fmt.Errorf("%w: %q of %s (%s), %s, does not move to %s in %s: %w", errBroken, of.id, of.ws, of.since,
			from, m.To, s.phase, err)
	}
	s.done[moves].Add(1)
	return nil
}

// predecessor is a service and a worker that know the old schema alone, and speak to Redis in plain commands.
type predecessor struct {
	*world

	rdb         *redis.Client // of its own, so that its connections end with it
	stopped     chan struct{}
	made, taken atomic.Int64 // since the last step of the deploy
}

func (p *predecessor) shared() bool {
	return p.made.Load() >= int64(sized(4, 100)) && p.taken.Load() >= int64(sized(3, 80))
}

// startPredecessor lets it write from now on.
func (w *world) startPredecessor() {
	w.Helper()
	w.rest(func() {
		p := &predecessor{world: w, rdb: redis.NewClient(&redis.Options{
			Network: "unix", Addr: w.redis.Socket, DisableIdentity: true,
			ReadTimeout: patience, // an entry that was taken without an answer would be nobody's
		})}
		p.stopped = make(chan struct{})
		w.theirs = p
		w.Cleanup(func() { _ = p.rdb.Close() })
		w.keep(p.stopped, p.enqueue)
		w.keep(p.stopped, p.work)
	})
}

// stopPredecessor ends it and its connections.
func (w *world) stopPredecessor() {
	w.Helper()
	w.rest(func() {
		close(w.theirs.stopped)
		_ = w.theirs.rdb.Close()
		w.theirs = nil
	})
}

func stored(at time.Time) string { return at.UTC().Format(job.TimeLayout) }

// enqueue stores a new job.
func (p *predecessor) enqueue(ctx context.Context) error {
	if p.made.Load() >= int64(sized(4, 100)) {
		return errIdle
	}
	n := p.count.Add(1)
	r := request{
		ws: someWorkspace(), key: "theirs-" + strconv.FormatInt(n, 10), provider: "microsoft", name: "outlook.send",
		params: job.JSON(fmt.Sprintf(`{"to": "user%d@example.com"}`, n)), id: uuid.NewString(),
	}
	err := p.rdb.HSet(ctx, "ai:jobs:"+r.id, "job_id", r.id, "status", "pending", "action_provider", r.provider, "action_name",
		r.name, "params", string(r.params), "workspace_id", r.ws, "actor_id", "user-1", "result", "",
		"enqueued_at", stored(time.Now())).Err()
	if err != nil {
		return err
	}
	if err := p.rdb.Set(ctx, "ai:idempotency:"+r.ws+":"+r.key, r.id, job.ClientRequestIDLifetime).Err(); err != nil {
		return err
	}
	if err := p.rdb.RPush(ctx, queueKey, r.id).Err(); err != nil {
		return err
	}
	p.add(&life{
		id: r.id, ws: r.ws, provider: r.provider, name: r.name, actor: "user-1", params: r.params, queued: true, since: p.step,
	}, version{status: job.Pending})
	p.kept.Lock()
	defer p.kept.Unlock()
	p.asked = append(p.asked, r)
	p.made.Add(1)
	return nil
}

// work takes an entry and runs its job.
func (p *predecessor) work(ctx context.Context) error {
	if p.taken.Load() >= int64(sized(3, 80)) {
		return errIdle
	}
	return p.takeOne(ctx, func(id string) error { return p.run(ctx, id) })
}

// takeOne takes the next entry and hands on the job that it finds under it. An entry that names no job under the old
// schema is passed by; it must be one that names its workspace.
func (p *predecessor) takeOne(ctx context.Context, found func(id string) error) error {
	got, err := p.rdb.Do(ctx, "BLPOP", queueKey, "0.01").StringSlice()
	if errors.Is(err, redis.Nil) {
		return errIdle
	}
	if err != nil {
		return err
	}
	entry := got[1]
	fields, err := p.rdb.HGetAll(ctx, "ai:jobs:"+entry).Result()
	if err != nil {
		return err
	}
	if len(fields) > 0 {
		return found(entry)
	}
	if ws, id, ok := strings.Cut(entry, ":"); ok {
		if of, err := p.await(ctx, id); err == nil && of.ws == ws {
			return nil
		}
	}
	return fmt.Errorf("%w: the predecessor takes %q, and finds no job", errBroken, entry)
}

// run brings a job to its end, or is lost on the way.
func (p *predecessor) run(ctx context.Context, id string) error {
	of, err := p.await(ctx, id)
	if err != nil {
		return err
	}
	of.hands.Lock()
	defer of.hands.Unlock()
	key, v := "ai:jobs:"+id, p.last(of)
	status, err := p.rdb.HGet(ctx, key, "status").Result()
	if err != nil {
		return err
	}
	if status != string(v.status) {
		return fmt.Errorf("%w: the predecessor finds %q (%s) as %s; it is %s", errBroken, id, of.since, status, v)
	}
	if v.status != job.Pending {
		return nil // another entry of the same job was taken before
	}
	set := func(fields ...any) func() error {
		return func() error { return p.rdb.HSet(ctx, key, fields...).Err() }
	}
	at := stored(time.Now())
	v.status, v.started = job.Running, exactly(at)
	if err := p.change(of, v, set("status", "running", "started_at", at)); err != nil {
		return err
	}
	p.taken.Add(1)
	at = stored(time.Now())
	v.finished = exactly(at)
	switch rand.IntN(4) {
	case 0:
		p.lose(of)
		return nil
	case 1:
		v.status, v.result = job.Failed, `{"error": "provider timeout"}`
	default:
		v.status, v.result = job.Completed, job.JSON(fmt.Sprintf(`{"ok": true, "message_id": %d}`, p.count.Add(1)))
	}
	return p.change(of, v, set("status", string(v.status), "finished_at", at, "result", string(v.result)))
}
