package job

import "time"

// Backlog is what waits to be run.
type Backlog struct {
	Entries int64 // of the queue
	// Waited is how long ago the job was enqueued that is to be taken next, by the storage's clock; 0 where none waits.
	Waited time.Duration
	// Known is false where the next entry names no job that tells when it was enqueued.
	Known bool
}
