package redisjobs

import (
	"strings"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

// This file is the only place that spells a key. A key of a workspace is built from a workspace.ID, which cannot
// hold a colon, a glob character or white space; a job id and a client_request_id stand last, so that whatever bytes
// they hold end no other part.
const (
	queueKey  = "ai:queue:pending"
	oldPrefix = "ai:jobs:"
	// oldPattern matches every key of the old schema, and keys beside it that hold no job.
	oldPattern = oldPrefix + "*"
)

func oldKey(id job.ID) string { return oldPrefix + id.String() }

func newPrefix(ws workspace.ID) string { return "ai:job:" + ws.String() + ":" }

func newKey(ws workspace.ID, id job.ID) string { return newPrefix(ws) + id.String() }

// newPattern matches ws's keys of the new schema. ws holds no character that MATCH gives a meaning.
func newPattern(ws workspace.ID) string { return newPrefix(ws) + "*" }

func idempotencyKey(ws workspace.ID, c job.ClientRequestID) string {
	return "ai:idempotency:" + ws.String() + ":" + c.String()
}

// idOf cuts a schema's prefix off a key; ok is false where what is left names no job.
func idOf(key, prefix string) (id job.ID, ok bool) {
	text, ok := strings.CutPrefix(key, prefix)
	if !ok {
		return job.ID{}, false
	}
	id, err := job.ParseID(text)
	return id, err == nil
}
