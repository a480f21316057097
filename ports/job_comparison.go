package ports

import (
	"context"
	"time"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
)

//go:generate go tool mockgen -source=$GOFILE -destination=portsmock/$GOFILE -package=portsmock

// JobComparison looks at stored jobs and at what names them, of all workspaces, and changes nothing. Errors are those of
// JobRepository.
type JobComparison interface {
	// Process names the server process as KeyBatch does, and gives its clock's time.
	Process(ctx context.Context) (process string, now time.Time, err error)
	// Compare finds what is stored of jobs, of each in one step. The answers stand in the order of jobs.
	Compare(ctx context.Context, jobs []migration.JobRef) ([]migration.JobFacts, error)
	// References gives about n of the keys behind at that are an index or an idempotency key. A key that is there
	// throughout a walk is met at least once.
	References(ctx context.Context, at migration.Position, n int) (migration.ReferenceBatch, error)
	// IndexEntries gives what is to be asked about among the next entries of a workspace's index behind one, from the
	// newest on: a walk does not go after jobs that are made meanwhile. before is empty for the start, and next at the end.
	// looked is how many entries it looked at, about n.
	IndexEntries(ctx context.Context, ws workspace.ID, before string, n int) (
		refs []migration.Reference, looked int, next string, err error)
	// QueueEntries gives about n entries of the queue that have fewer than depth others before them, those with the most;
	// depth is 0 for the start, and next at the end. One that stays in the queue throughout a walk is met, and the walk
	// has no more steps than the queue had when it began, whatever is pushed and taken.
	QueueEntries(ctx context.Context, depth int64, n int) (refs []migration.Reference, next int64, err error)
	// Judge says what is wrong with references, in their order; nothing where one is gone. again is for those that were
	// met a while ago, which may have moved.
	Judge(ctx context.Context, refs []migration.Reference, again bool) ([]migration.DifferenceClass, error)
}
