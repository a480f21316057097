package redisjobs

import (
	"strconv"
	"strings"
	"time"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

// The fields of a job's hash, the same in both schemas; enqueue_job.lua and update_job.lua write them. The predecessor
// reads and writes all but the last four.
const (
	fieldID              = "job_id"
	fieldWorkspace       = "workspace_id"
	fieldStatus          = "status"
	fieldProvider        = "action_provider"
	fieldName            = "action_name"
	fieldParams          = "params"
	fieldResult          = "result"
	fieldActor           = "actor_id"
	fieldEnqueuedAt      = "enqueued_at"
	fieldStartedAt       = "started_at"
	fieldFinishedAt      = "finished_at"
	fieldError           = "error"
	fieldClientRequestID = "client_request_id"
	fieldTraceParent     = "traceparent"
	fieldRev             = "rev"
)

// decode reads a whole record. Whose it is comes from its own fields, so that the use cases can judge it again: what
// it returns is as the record says, not as it was asked for. ok is false for a record that cannot be shown, one without
// status among them.
func decode(hash map[string]string) (j job.Job, ok bool) {
	id, errID := job.ParseID(hash[fieldID])
	ws, errWorkspace := workspace.Parse(hash[fieldWorkspace])
	if errID != nil || errWorkspace != nil || hash[fieldStatus] == "" {
		return job.Job{}, false
	}
	return job.Job{
		ID:              id,
		Workspace:       ws,
		Status:          job.Status(hash[fieldStatus]),
		Provider:        hash[fieldProvider],
		Name:            hash[fieldName],
		Params:          job.JSONOf(hash[fieldParams]),
		Result:          job.JSONOf(hash[fieldResult]),
		Error:           hash[fieldError],
		Actor:           hash[fieldActor],
		ClientRequestID: hash[fieldClientRequestID],
		TraceParent:     hash[fieldTraceParent],
		EnqueuedAt:      job.ParseTime(hash[fieldEnqueuedAt]),
		StartedAt:       job.ParseTime(hash[fieldStartedAt]),
		FinishedAt:      job.ParseTime(hash[fieldFinishedAt]),
		Rev:             parseRev(hash[fieldRev]),
	}, true
}

// parseRev reads a rev; what is no plain number of at most 15 digits is 0, in the scripts too.
func parseRev(s string) int64 {
	if len(s) > 15 {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0
	}
	return int64(n)
}

// head is the part of a copy that is read before its body: whose it is and how fresh.
type head struct {
	id, workspace string
	stamps        stamps
}

// stamps are the texts of a version. Of equal texts the versions are equal: only where they differ is it worth the
// while to read them, and of another workspace's copy never.
type stamps struct{ rev, status, enqueued, started, finished string }

// headFields are read together by HMGET, in the order that headOf takes them in.
func headFields() []string {
	return []string{fieldID, fieldWorkspace, fieldRev, fieldStatus, fieldEnqueuedAt, fieldStartedAt, fieldFinishedAt}
}

// ownerOf reads HMGET's answer to job_id and workspace_id, the first of headFields.
func ownerOf(values []any) head {
	id, _ := values[0].(string) // nil for an absent field
	ws, _ := values[1].(string)
	return head{id: id, workspace: ws}
}

// headOf reads HMGET's answer to headFields; an absent field is the empty text.
func headOf(values []any) head {
	text := func(i int) string {
		s, _ := values[i].(string) // nil for an absent field
		return s
	}
	h := ownerOf(values)
	h.stamps = stamps{text(2), text(3), text(4), text(5), text(6)}
	return h
}

// readStandIn does for an id that nobody holds what another workspace's copy costs beyond finding none, so that a caller
// cannot tell the two apart by time: it makes texts like those of a copy, as the client library does when it reads
// them, and judges them. How often was found by measuring; `make bench` shows whether it is still right. The result
// is for the caller to keep until it answers, so that the work is not optimized away.
func readStandIn(ws workspace.ID, id job.ID) (values []any) {
	for range 3 {
		values = make([]any, 0, 7)
		for _, text := range [...]string{id.String(), "workspace", "1", string(job.Pending), job.TimeLayout} {
			values = append(values, strings.Clone(text))
		}
		headOf(values[:7]).inOld(ws, id)
	}
	return values
}

func headOfHash(hash map[string]string) head {
	return head{id: hash[fieldID], workspace: hash[fieldWorkspace], stamps: stamps{
		hash[fieldRev], hash[fieldStatus], hash[fieldEnqueuedAt], hash[fieldStartedAt], hash[fieldFinishedAt],
	}}
}

func (s stamps) version() job.Version {
	return job.Version{
		Rev: parseRev(s.rev), Status: job.Status(s.status),
		Enqueued: micros(s.enqueued), Started: micros(s.started), Finished: micros(s.finished),
	}
}

// micros gives a stored time in microseconds since 1970, 0 for none and for any before.
func micros(stored string) int64 {
	t := job.ParseTime(stored)
	if t.Before(time.UnixMicro(0)) {
		return 0
	}
	return t.UnixMicro()
}

// ownership says whose a stored record is.
type ownership uint8

const (
	vacant  ownership = iota // no record, or a stub: nobody's and nothing to show
	mine                     // a whole record of the workspace that asks
	foreign                  // another workspace's, or nobody's with something to lose
)

// inOld judges a record under ai:jobs:{id}. owner is the other workspace that a foreign one names, the zero ID where
// it names none.
func (h head) inOld(ws workspace.ID, id job.ID) (o ownership, owner workspace.ID) {
	switch {
	case h.id == "" && h.workspace == "":
		return vacant, workspace.ID{}
	case h.id != id.String():
		return foreign, workspace.ID{}
	case h.workspace == ws.String():
		return mine, workspace.ID{}
	}
	owner, err := workspace.Parse(h.workspace)
	if err != nil {
		return foreign, workspace.ID{}
	}
	return foreign, owner
}

// inNew judges a record under ai:job:{ws}:{id}. A foreign one contradicts its own key: an isolation breach.
func (h head) inNew(ws workspace.ID, id job.ID) ownership {
	switch {
	case h.id == "" || h.workspace == "":
		return vacant
	case h.id == id.String() && h.workspace == ws.String():
		return mine
	}
	return foreign
}
