// Package memory is the reference JobRepository: the port's promises in plain Go, kept in this process and gone with
// it. Tests swap it in where a Redis server would only be in the way. It has no queue of its own: nothing takes jobs
// from it.
package memory

import (
	"context"
	"errors"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// maxExamined bounds how many jobs one page looks at, so that a filter which hardly any job passes costs a page, not
// a workspace.
const maxExamined = 2 * job.MaxLimit

// Options are what a Repository needs. Now and Observer are required.
type Options struct {
	Now       func() time.Time
	Retention time.Duration // how long a finished job is kept, 0 for ever
	Observer  ports.Observer
}

// Repository implements ports.JobRepository.
type Repository struct {
	now       func() time.Time
	retention time.Duration
	observer  ports.Observer

	mu         sync.Mutex
	workspaces map[workspace.ID]*shelf
}

// shelf is one workspace. order holds its jobs by enqueued_at, oldest first; no two are equal there.
type shelf struct {
	jobs     map[job.ID]*held
	order    []*held
	expiring []*held // finished jobs in the order in which they were finished
	keys     map[job.ClientRequestID]known
	newest   time.Time
}

type held struct {
	job     job.Job
	key     job.ClientRequestID
	expires time.Time // zero until the job is finished, and where it is kept
}

type known struct {
	id    job.ID
	until time.Time
}

// New makes an empty Repository.
func New(o Options) *Repository {
	return &Repository{
		now: o.Now, retention: o.Retention, observer: o.Observer,
		workspaces: make(map[workspace.ID]*shelf),
	}
}

// Enqueue implements ports.JobRepository.
func (r *Repository) Enqueue(ctx context.Context, d job.Draft) (job.Enqueued, error) {
	if err := check(ctx, !d.Workspace.IsZero() && !d.ID.IsZero()); err != nil {
		return job.Enqueued{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s, now := r.open(d.Workspace)
	if k, ok := s.keys[d.ClientRequestID]; ok && now.Before(k.until) && k.id != d.ID {
		return job.Enqueued{Job: s.jobs[k.id].job, Replayed: true}, nil
	}
	if h, ok := s.jobs[d.ID]; ok {
		return job.Enqueued{Job: h.job}, nil
	}
	if !now.After(s.newest) {
		now = s.newest.Add(time.Microsecond)
	}
	s.newest = now
	h := &held{key: d.ClientRequestID, job: job.Job{
		ID: d.ID, Workspace: d.Workspace, Status: job.Pending, Provider: d.Provider, Name: d.Name, Params: d.Params,
		Actor: d.Actor, ClientRequestID: d.ClientRequestID.String(), TraceParent: d.TraceParent,
		EnqueuedAt: now, Rev: 1,
	}}
	s.jobs[d.ID] = h
	s.order = append(s.order, h)
	if !d.ClientRequestID.IsZero() {
		s.keys[d.ClientRequestID] = known{id: d.ID, until: now.Add(job.ClientRequestIDLifetime)}
	}
	return job.Enqueued{Job: h.job}, nil
}

// Get implements ports.JobRepository.
func (r *Repository) Get(ctx context.Context, ws workspace.ID, id job.ID) (job.Job, error) {
	if err := check(ctx, !ws.IsZero() && !id.IsZero()); err != nil {
		return job.Job{}, err
	}
	found, ok := r.find(ws, id)
	if !ok {
		r.observer.JobRead(ws, id, job.CopyNone)
		return job.Job{}, job.ErrNotFound()
	}
	r.observer.JobRead(ws, id, job.CopyNew)
	return found, nil
}

// List implements ports.JobRepository. It walks by job.OrderCursor.
func (r *Repository) List(ctx context.Context, ws workspace.ID, q job.Query) (job.Page, error) {
	if err := check(ctx, !ws.IsZero() && q.Limit >= 1 && q.Limit <= job.MaxLimit); err != nil {
		return job.Page{}, err
	}
	from, ordered := q.Cursor.Order()
	if !ordered && !q.Cursor.IsZero() {
		return job.Page{}, fault.BadInput(fault.CodeInvalidCursor, "Invalid cursor",
			fault.Violation{Parameter: "cursor", Detail: "belongs to another kind of walk"})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s, _ := r.open(ws)
	behind := len(s.order)
	if ordered {
		behind = sort.Search(behind, func(i int) bool { return s.order[i].job.Place().Compare(from) >= 0 })
	}
	return page(s.order[:behind], q), nil
}

// page walks back from the newest end of order.
func page(order []*held, q job.Query) job.Page {
	var p job.Page
	size := 0
	for examined := range order {
		j := order[len(order)-1-examined].job
		matches := q.Matches(j)
		tooMuch := matches && len(p.Jobs) > 0 && size+j.Size() > job.MaxPageBytes
		if len(p.Jobs) == q.Limit || examined == maxExamined || tooMuch {
			p.Next = job.OrderCursor(order[len(order)-examined].job.Place())
			return p
		}
		if matches {
			p.Jobs = append(p.Jobs, j)
			p.ReadPath = p.ReadPath.With(job.CopyNew)
			size += j.Size()
		}
	}
	return p
}

// Move implements ports.JobRepository.
func (r *Repository) Move(ctx context.Context, ws workspace.ID, id job.ID, m job.Move) error {
	if err := check(ctx, !ws.IsZero() && !id.IsZero()); err != nil {
		return err
	}
	if err := m.Validate(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s, now := r.open(ws)
	h, ok := s.jobs[id]
	if !ok {
		return job.ErrNotFound()
	}
	switch m.Decide(h.job) {
	case job.Refuse:
		return job.ErrState()
	case job.Done:
		return nil
	case job.Apply:
	}
	j := &h.job
	j.Status, j.Result, j.Error = m.To, m.Result, m.Error
	j.Rev++
	switch m.To.Stamp() {
	case job.StampStarted:
		j.StartedAt = now
	case job.StampWaiting:
		j.StartedAt = time.Time{}
	case job.StampFinished:
		j.FinishedAt = now
		if r.retention > 0 {
			h.expires = now.Add(r.retention)
			s.expiring = append(s.expiring, h)
		}
	case job.StampNone:
	}
	return nil
}

func (r *Repository) find(ws workspace.ID, id job.ID) (job.Job, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, _ := r.open(ws)
	h, ok := s.jobs[id]
	if !ok {
		return job.Job{}, false
	}
	return h.job, true
}

// open gives ws's shelf without what expired by now. The mutex is held.
func (r *Repository) open(ws workspace.ID) (*shelf, time.Time) {
	now := r.now().UTC().Truncate(time.Microsecond)
	s, ok := r.workspaces[ws]
	if !ok {
		s = &shelf{
			jobs:   make(map[job.ID]*held),
			keys:   make(map[job.ClientRequestID]known),
			newest: time.UnixMicro(0).UTC(), // a cursor holds no earlier time
		}
		r.workspaces[ws] = s
	}
	for len(s.expiring) > 0 && !now.Before(s.expiring[0].expires) {
		s.remove(s.expiring[0])
		s.expiring = s.expiring[1:]
	}
	return s, now
}

// remove forgets h and the ClientRequestID that leads to it.
func (s *shelf) remove(h *held) {
	delete(s.jobs, h.job.ID)
	if s.keys[h.key].id == h.job.ID {
		delete(s.keys, h.key)
	}
	i := sort.Search(len(s.order), func(i int) bool { return job.Newer(s.order[i].job, h.job) <= 0 })
	s.order = slices.Delete(s.order, i, i+1)
}

// check refuses what must reach no storage.
func check(ctx context.Context, valid bool) error {
	if !valid {
		return fault.New(fault.Invalid, fault.CodeInvalidParameter, "A workspace, a job id or a limit is missing")
	}
	switch err := ctx.Err(); {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return fault.Wrap(err, fault.Canceled, fault.CodeCanceled, "The request was canceled")
	default:
		return fault.Wrap(err, fault.Timeout, fault.CodeStorageUnavailable, "The time for the request ran out")
	}
}
