package ports

import (
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

//go:generate go tool mockgen -source=$GOFILE -destination=portsmock/$GOFILE -package=portsmock

// Observer is told what happened. No method may block, fail, or take time that depends on its arguments: a request
// never waits for it, and a caller must not learn from the clock what was observed.
type Observer interface {
	// JobRead: a read by id was answered from c; CopyNone is a miss.
	JobRead(ws workspace.ID, id job.ID, c job.Copy)
	// JobsListed: a page of n jobs was answered.
	JobsListed(ws workspace.ID, path job.ListPath, n int)
	// EnqueueFailed: a job could not be stored.
	EnqueueFailed(ws workspace.ID, kind fault.Kind)
	// DualWritten: a write to both schemas went through, or failed in the storage. A refusal is neither.
	DualWritten(ws workspace.ID, ok bool)
	// StaleCopyRead: a read served one of two differing copies.
	StaleCopyRead(ws workspace.ID)
	// WorkspaceMismatch: a read by id met a record of another workspace. It is told with the zero ID, which is none to
	// count, where the read met nobody's: so that both misses cost the same.
	WorkspaceMismatch(request, stored workspace.ID)
	// OtherWorkspaceRequested: a client named another workspace than its own and was refused.
	OtherWorkspaceRequested(request, given workspace.ID)
	// IsolationBreach: a stored record contradicts the workspace of its key, or a repository returned another
	// workspace's job. It was not shown.
	IsolationBreach(ws workspace.ID)
	// IDCollision: a job was written to the new schema alone, because another's record holds its old key.
	IDCollision(ws workspace.ID)
	// WrongTypeRead: a job's key holds no hash.
	WrongTypeRead(ws workspace.ID)
	// RecordInvalid: a whole record of the workspace cannot be decoded; a list went on without it, a read failed.
	RecordInvalid(ws workspace.ID)
	// IndexNotMended: entries of ws's index that say what its jobs do not say could not be mended. They were not shown.
	IndexNotMended(ws workspace.ID)
}
