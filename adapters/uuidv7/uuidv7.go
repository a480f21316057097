// Package uuidv7 makes job ids: UUIDs of version 7, which sort by the time they were made.
package uuidv7

import (
	"github.com/google/uuid"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
)

// JobIDs is a ports.JobIDs.
type JobIDs struct{}

// NewJobID returns a fresh UUIDv7 in its canonical form.
func (JobIDs) NewJobID() (job.ID, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return job.ID{}, fault.Wrap(err, fault.Internal, fault.CodeInternal, "no randomness for a job id")
	}
	return job.ParseID(id.String())
}
