package phases_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/relay-jobs/relay/core/job"
)

// shown is a job as the API gives it.
type shown struct {
	JobID          string          `json:"job_id"`
	WorkspaceID    string          `json:"workspace_id"`
	Status         string          `json:"status"`
	ActionProvider string          `json:"action_provider"`
	ActionName     string          `json:"action_name"`
	ActorID        string          `json:"actor_id"`
	Params         json.RawMessage `json:"params"`
	Result         json.RawMessage `json:"result"`
	Error          string          `json:"error"`
	EnqueuedAt     *string         `json:"enqueued_at"`
	StartedAt      *string         `json:"started_at"`
	FinishedAt     *string         `json:"finished_at"`
}

func (j shown) String() string {
	return fmt.Sprintf("%s, result %s, error %q, started %s, finished %s, params %s, by %s %s %s", j.Status, j.Result, j.Error,
		text(j.StartedAt), text(j.FinishedAt), j.Params, j.ActionProvider, j.ActionName, j.ActorID)
}

// span is when a stored time may lie: where the storage stamps it, its writer knows when it asked and when it was
// answered. The zero span is no time.
type span struct{ from, to time.Time }

// asking is the span of a time that is stamped from now on.
func asking() span { return span{from: time.Now().Truncate(time.Microsecond)} }

func (s span) answered(at time.Time) span {
	if !s.from.IsZero() && s.to.IsZero() {
		s.to = at
	}
	return s
}

// exactly is the span of a stored text.
func exactly(text string) span {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return span{}
	}
	return span{at, at}
}

// holds tells whether a time that is shown, or was stored, may be this one.
func (s span) holds(text string) bool {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || s.from.IsZero() {
		return text == "" && s.from.IsZero()
	}
	return !at.Before(s.from) && (s.to.IsZero() || !at.After(s.to))
}

// version is a state that a job was brought to. By their times and results the versions of a job are told apart, but those
// in which it waits.
type version struct {
	status            job.Status
	result            job.JSON
	problem           string
	started, finished span
	acked             int64 // on the ledger's clock; 0 as long as nobody knows that it is stored
}

func (v version) String() string {
	const layout = "15:04:05.000000"
	return fmt.Sprintf("%s, result %s, error %q, started %s to %s, finished %s to %s", v.status, v.result, v.problem,
		v.started.from.Format(layout), v.started.to.Format(layout), v.finished.from.Format(layout), v.finished.to.Format(layout))
}

// life is all that is known of one job.
type life struct {
	id, ws, provider, name, actor string
	params                        job.JSON

	hands sync.Mutex // held by who changes the job: one at a time

	// The rest is the ledger's.
	versions []version
	queued   bool   // an entry of the queue was made for it
	relays   bool   // Relay made it, so that it is in the index by itself
	listed   bool   // it is owed by lists that go by the index
	since    string // the step of the deploy in which it was made
}

// ledger holds the acknowledged truth of every job, on a clock that counts what happens.
type ledger struct {
	mu     sync.Mutex
	clock  int64
	lives  map[string]*life
	all    []*life
	recent []*life // changed of late, the newest last
	wakes  chan struct{}
}

const maxRecent = 64

func newLedger() *ledger { return &ledger{lives: map[string]*life{}, wakes: make(chan struct{})} }

// now gives a time that lies behind all that was noted and before all that will be.
func (l *ledger) now() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	return l.clock
}

// add notes a job that is known to be stored.
func (l *ledger) add(of *life, first version) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	first.acked = l.clock
	of.versions, of.listed = []version{first}, of.relays
	l.lives[of.id] = of
	l.all = append(l.all, of)
	l.touch(of)
	close(l.wakes)
	l.wakes = make(chan struct{})
}

func (l *ledger) touch(of *life) {
	l.recent = append(l.recent, of)
	if len(l.recent) > maxRecent {
		l.recent = slices.Delete(l.recent, 0, len(l.recent)-maxRecent)
	}
}

// await gives the job of an id, which may be known to the queue a moment before its maker was answered.
func (l *ledger) await(ctx context.Context, id string) (*life, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		l.mu.Lock()
		of, wakes := l.lives[id], l.wakes
		l.mu.Unlock()
		if of != nil {
			return of, nil
		}
		select {
		case <-wakes:
		case <-ctx.Done():
			return nil, fmt.Errorf("the queue names %q, which nobody made: %w", id, ctx.Err())
		}
	}
}

// said names a job for a message.
func (l *ledger) said(id string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.lives[id]
	return fmt.Sprintf("%q of %s (%s)", of.id, of.ws, of.since)
}

// last is the newest version of a job. Whoever holds the job in hands may rely on it.
func (l *ledger) last(of *life) version {
	l.mu.Lock()
	defer l.mu.Unlock()
	return of.versions[len(of.versions)-1]
}

// change brings a job, which the caller holds in hands, to another state.
func (l *ledger) change(of *life, v version, send func() error) error {
	v.acked = 0
	l.mu.Lock()
	of.versions = append(of.versions, v)
	l.mu.Unlock()
	if err := send(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	now := time.Now()
	made := &of.versions[len(of.versions)-1]
	made.acked, made.started, made.finished = l.clock, made.started.answered(now), made.finished.answered(now)
	l.touch(of)
	return nil
}

// pick gives a job by chance, one that was changed of late as often as any.
func (l *ledger) pick() *life {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := l.all
	if rand.IntN(2) == 0 {
		from = l.recent
	}
	return from[rand.IntN(len(from))]
}

// of gives the jobs that a workspace had at a time, where listed is set only those that lists by the index owe.
func (l *ledger) of(ws string, at int64, listed bool) map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	owed := map[string]bool{}
	for _, of := range l.all {
		if of.ws == ws && of.versions[0].acked <= at && (of.listed || !listed) {
			owed[of.id] = true
		}
	}
	return owed
}

// judge holds a job that is shown against what was known when its read began: it may be in the last state acknowledged
// by then, or in one that it was brought to meanwhile. known is false for a job whose maker was not answered yet.
func (l *ledger) judge(j shown, began int64) (known bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.lives[j.JobID]
	if of == nil {
		return false, nil
	}
	if j.WorkspaceID != of.ws || j.ActionProvider != of.provider || j.ActionName != of.name || j.ActorID != of.actor ||
		!job.SameJSON(job.JSON(j.Params), of.params) {
		return true, fmt.Errorf("%s of %s is shown as another job: %s", of.id, of.ws, j)
	}
	oldest := 0
	for i, v := range of.versions {
		if v.acked > 0 && v.acked <= began {
			oldest = i
		}
	}
	for _, v := range of.versions[oldest:] {
		if v.is(j.Status, j.Result, j.Error, text(j.StartedAt), text(j.FinishedAt)) {
			return true, nil
		}
	}
	for i, v := range of.versions[:oldest] {
		if v.is(j.Status, j.Result, j.Error, text(j.StartedAt), text(j.FinishedAt)) {
			return true, fmt.Errorf("%s of %s (%s) is stale: %s; since then it was brought to %s", of.id, of.ws, of.since, v,
				of.versions[i+1:])
		}
	}
	return true, fmt.Errorf("%s of %s (%s) is shown as it never was: %s; it was %s", of.id, of.ws, of.since, j, of.versions[oldest:])
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// is tells whether what is shown, or stored, is this version.
func (v version) is(status string, result json.RawMessage, problem, started, finished string) bool {
	none := len(result) == 0 || string(result) == "null"
	return status == string(v.status) && problem == v.problem && v.started.holds(started) && v.finished.holds(finished) &&
		(none && v.result == "" || !none && v.result != "" && job.SameJSON(job.JSON(result), v.result))
}
