// Package ports holds what the core needs from the outside, one interface a file. Every method may be called
// concurrently, and may block unless it says otherwise.
package ports

import (
	"context"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

//go:generate go tool mockgen -source=$GOFILE -destination=portsmock/$GOFILE -package=portsmock

// JobRepository stores jobs. Every method works inside one workspace; a zero workspace or job id is fault.Invalid
// and reaches no storage.
//
// Errors carry a fault.Kind: Unavailable, Timeout and Canceled where the storage could not be asked or did not
// answer, Internal where a stored record cannot be trusted, and what the methods name. A connection that broke is
// never NotFound. Whatever is returned may be kept and changed by the caller.
type JobRepository interface {
	// Enqueue makes the job and its queue entry, all or nothing. The storage stamps EnqueuedAt.
	//
	// A draft whose ClientRequestID was used in this workspace within the last 24 hours, by a job that is still
	// held, makes none: the known job is returned with Replayed set, whether or not it is like the draft. A draft
	// whose ID the workspace already holds is a repetition after a lost reply: it is answered as made and writes
	// nothing. An ID that another workspace holds, where no copy could be written, is fault.Conflict.
	Enqueue(ctx context.Context, d job.Draft) (job.Enqueued, error)

	// Get returns the freshest copy of the workspace's job. An absent job and another workspace's are one
	// fault.NotFound. A whole record without status is fault.Internal with CodeRecordInvalid.
	Get(ctx context.Context, ws workspace.ID, id job.ID) (job.Job, error)

	// List returns one page of the workspace's jobs, newest first within the page, each job that exists throughout
	// the walk on exactly one page. Work a page is bounded, whatever else is stored. A cursor of a kind that the
	// storage does not walk by is fault.Invalid.
	List(ctx context.Context, ws workspace.ID, q job.Query) (job.Page, error)

	// Move changes the job's state on every copy, all or nothing, stamps or removes the times that belong to the
	// state, and raises Rev by one. A move to where the job already is, with the same outcome, is done and writes
	// nothing. A move that job.Move.Decide refuses is fault.Conflict; an absent job and another workspace's are
	// fault.NotFound; an invalid move is fault.Invalid.
	Move(ctx context.Context, ws workspace.ID, id job.ID, m job.Move) error
}
