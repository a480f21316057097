package redisjobs

import (
	"strings"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
)

// This file is the only place that spells a key. A key of a workspace is built from a workspace.ID, which cannot
// hold a colon, a glob character or white space; a job id and a client_request_id stand last, so that whatever bytes
// they hold end no other part.
const (
	queueKey = "ai:queue:pending"
	// indexStateKey says whether every stored job is in its workspace's index.
	indexStateKey = "ai:index-state"
	// pauseKey holds a backfill while it exists; rateKey changes its rate, in jobs a second.
	pauseKey = "ai:backfill-pause"
	rateKey  = "ai:backfill-rate"
	// serversKey names the servers that beat, those of serverKey while they live; phasesSeenKey says when each phase had
	// live servers.
	serversKey    = "ai:servers"
	phasesSeenKey = "ai:phases-seen"
	// fallbackKey counts reads that served an old copy though new is read.
	fallbackKey = "ai:fallback-hits"
	// withoutRevKey says when it was last seen that a writer had changed an old copy who does not know rev.
	withoutRevKey = "ai:writer-without-rev"
	// passesKey keeps the recorded passes and auditKey who did what.
	passesKey = "ai:migration-passes"
	auditKey  = "ai:migration-audit"
	// retiredKey says when an old copy was last removed.
	retiredKey = "ai:retired"
	oldPrefix  = "ai:jobs:"
	// oldPattern matches every key of the old schema, and keys beside it that hold no job.
	oldPattern = oldPrefix + "*"
	// anyPrefix is what every workspace's keys of the new schema begin with.
	anyPrefix = "ai:job:"
	// indexPrefix is what every workspace's index begins with.
	indexPrefix = "ai:index:"
	// indexPattern matches every index.
	indexPattern = indexPrefix + "*"
	// idempotencyPrefix is what every workspace's idempotency keys begin with.
	idempotencyPrefix = "ai:idempotency:"
	// referencePattern matches every index and every idempotency key, and others beside them.
	referencePattern = "ai:i*"
	// anyJobPattern matches every key of jobs and of indexes, oldOrIndexPattern every old one and every index; both match
	// others beside them.
	anyJobPattern     = "ai:[ij][on]*"
	oldOrIndexPattern = "ai:[ij][on][bd][es]*"
)

func oldKey(id job.ID) string { return oldPrefix + id.String() }

func newPrefix(ws workspace.ID) string { return anyPrefix + ws.String() + ":" }

func newKey(ws workspace.ID, id job.ID) string { return newPrefix(ws) + id.String() }

// newPattern matches ws's keys of the new schema. ws holds no character that MATCH gives a meaning.
func newPattern(ws workspace.ID) string { return newPrefix(ws) + "*" }

func idempotencyKey(ws workspace.ID, c job.ClientRequestID) string {
	return idempotencyPrefix + ws.String() + ":" + c.String()
}

// indexKey holds the order of ws's jobs of both schemas, and of those in each state.
func indexKey(ws workspace.ID) string { return indexPrefix + ws.String() }

// checkpointKey holds how far a pass to a schema has come.
func checkpointKey(to migration.Schema) string { return "ai:backfill-checkpoint:" + to.String() }

// serverKey is there while a server lives. An id of a server is Relay's own.
func serverKey(id string) string { return "ai:server:" + id }

// sweepKey is held by the server whose turn it is to sweep a scope of the index.
func sweepKey(scope migration.IndexScope) string {
	if scope == migration.IndexOld {
		return "ai:index-sweep:old"
	}
	return "ai:index-sweep:entries"
}

// indexedKeys are what a script declares that changes a job's copies and entries.
func indexedKeys(ws workspace.ID, id job.ID) []string {
	return []string{oldKey(id), newKey(ws, id), indexKey(ws)}
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

// indexed reads the key of a workspace's index.
func indexed(key string) (workspace.ID, bool) {
	text, ok := strings.CutPrefix(key, indexPrefix)
	if !ok {
		return workspace.ID{}, false
	}
	ws, err := workspace.Parse(text)
	return ws, err == nil
}

// newOf reads a key of the new schema.
func newOf(key string) (workspace.ID, job.ID, bool) {
	rest, ok := strings.CutPrefix(key, anyPrefix)
	if !ok {
		return workspace.ID{}, job.ID{}, false
	}
	text, _, _ := strings.Cut(rest, ":")
	ws, err := workspace.Parse(text)
	if err != nil {
		return workspace.ID{}, job.ID{}, false
	}
	id, ok := idOf(key, newPrefix(ws))
	return ws, id, ok
}
