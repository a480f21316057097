package redisjobs

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
)

const (
	// keptPasses is how many passes of a kind are kept.
	keptPasses = 20
	// keptAudit is about how many entries of the account are kept.
	keptAudit = 10_000
	// queueCount is how many queue entries are looked at in one round trip.
	queueCount = 1000
)

// Now implements ports.MigrationLog.
func (m *MigrationState) Now(ctx context.Context) (time.Time, string, error) {
	var now *redis.TimeCmd
	var info *redis.StringCmd
	err := pipelined(ctx, m.rdb, func(p redis.Pipeliner) { now, info = p.Time(ctx), p.Info(ctx, "server") })
	if err != nil {
		return time.Time{}, "", err
	}
	return now.Val().UTC(), processOf(info.Val()), nil
}

// RecordPass implements ports.MigrationLog. Writers that come at once take out the same ones, so that no newer one goes.
func (m *MigrationState) RecordPass(ctx context.Context, p migration.RecordedPass) error {
	text, err := json.Marshal(p)
	if err != nil {
		return untrusted(err)
	}
	kept, err := m.rdb.LRange(ctx, passesKey, 0, -1).Result()
	if err != nil {
		return translate(err)
	}
	_, err = m.rdb.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		tx.LPush(ctx, passesKey, text)
		ofKind := 1
		for _, text := range kept {
			var other migration.RecordedPass
			if json.Unmarshal([]byte(text), &other) == nil && other.Kind != p.Kind {
				continue // one that cannot be read goes with any kind: it keeps every gate closed
			}
			if ofKind++; ofKind > keptPasses {
				tx.LRem(ctx, passesKey, -1, text)
			}
		}
		return nil
	})
	return translate(err)
}

// The fields of an audit entry; its time is that of the entry's id.
const (
	auditUser   = "user"
	auditHost   = "host"
	auditAction = "action"
	auditDetail = "detail"
)

// Audit implements ports.MigrationLog.
func (m *MigrationState) Audit(ctx context.Context, e migration.AuditEntry) error {
	return translate(m.rdb.XAdd(ctx, &redis.XAddArgs{
		Stream: auditKey, MaxLen: keptAudit, Approx: true,
		Values: []string{
			auditUser, e.Who.User, auditHost, e.Who.Host, auditAction, e.Action.String(), auditDetail, e.Detail,
		},
	}).Err())
}

// Facts implements ports.GateFacts.
func (m *MigrationState) Facts(ctx context.Context, entries int64, workers bool) (migration.Facts, error) {
	var now *redis.TimeCmd
	var info, withoutRev, retired *redis.StringCmd
	var passes, ids *redis.StringSliceCmd
	var seen, hits *redis.MapStringStringCmd
	err := pipelined(ctx, m.rdb, func(p redis.Pipeliner) {
		now, info = p.Time(ctx), p.Info(ctx, "server")
		passes, ids = p.LRange(ctx, passesKey, 0, -1), p.ZRange(ctx, serversKey, 0, -1)
		seen, hits = p.HGetAll(ctx, phasesSeenKey), p.HGetAll(ctx, fallbackKey)
		withoutRev, retired = p.Get(ctx, withoutRevKey), p.Get(ctx, retiredKey)
	})
	if err != nil {
		return migration.Facts{}, err
	}
	if err := errors.Join(passes.Err(), ids.Err(), seen.Err(), hits.Err()); err != nil { // of another type: nothing can be told
		return migration.Facts{}, translate(err)
	}
	f := migration.Facts{
		Now: now.Val().UTC(), Process: processOf(info.Val()), Seen: phasesSeen(seen.Val()),
		LastFallback: microTime(hits.Val()["last"]),
	}
	f.WithoutRev, f.Retired = keptTime(withoutRev, f.Now), keptTime(retired, f.Now)
	if text, ok := hits.Val()["count"]; ok {
		if f.FallbackHits, err = strconv.ParseInt(text, 10, 64); err != nil {
			return migration.Facts{}, untrusted(err)
		}
	}
	for _, text := range passes.Val() {
		var p migration.RecordedPass
		if json.Unmarshal([]byte(text), &p) != nil {
			f.Unreadable++ // by another version, perhaps
			continue
		}
		f.Passes = append(f.Passes, p)
	}
	if f.Servers, err = m.servers(ctx, ids.Val()); err != nil {
		return migration.Facts{}, err
	}
	if f.Queue, err = m.queue(ctx, entries); err != nil {
		return migration.Facts{}, err
	}
	if workers {
		f.Workers, f.WorkersKnown, err = m.workers(ctx)
	}
	return f, err
}

// keptTime reads what keep_now.lua keeps. What is none may hide any time: it counts as now.
func keptTime(kept *redis.StringCmd, now time.Time) time.Time {
	if errors.Is(kept.Err(), redis.Nil) {
		return time.Time{}
	}
	if at := microTime(kept.Val()); !at.IsZero() {
		return at
	}
	return now
}

// queue looks at entries from the newest to the oldest: the list grows at the one end and shrinks at the other, so that
// counted from where it grows an entry may be met twice, and none is missed.
func (m *MigrationState) queue(ctx context.Context, most int64) (migration.Queue, error) {
	var q migration.Queue
	var err error
	if q.Entries, err = m.rdb.LLen(ctx, queueKey).Result(); err != nil {
		return q, translate(err)
	}
	for q.Looked < most {
		n := min(queueCount, most-q.Looked)
		entries, err := m.rdb.LRange(ctx, queueKey, -q.Looked-n, -q.Looked-1).Result()
		if err != nil {
			return q, translate(err)
		}
		bare, err := m.bare(ctx, entries)
		if err != nil {
			return q, err
		}
		q.Looked += int64(len(entries))
		q.Bare += bare
		if int64(len(entries)) < n {
			q.Entries = q.Looked // this is the oldest end
			break
		}
	}
	return q, nil
}

// bare counts the entries that name no workspace. Whoever takes an entry takes it as a bare id first.
func (m *MigrationState) bare(ctx context.Context, entries []string) (bare int64, err error) {
	held := make([]*redis.IntCmd, len(entries))
	err = pipelined(ctx, m.rdb, func(p redis.Pipeliner) {
		for i, entry := range entries {
			if id, err := job.ParseID(entry); err == nil && scoped(entry) {
				held[i] = p.Exists(ctx, oldKey(id))
			}
		}
	})
	for i := range entries {
		if held[i] == nil || held[i].Val() > 0 {
			bare++
		}
	}
	return bare, err
}

// scoped tells whether an entry may be a workspace and a job id.
func scoped(entry string) bool {
	_, _, ok := splitEntry(entry)
	return ok
}

// splitEntry reads an entry as a workspace and a job id.
func splitEntry(entry string) (workspace.ID, job.ID, bool) {
	before, after, _ := strings.Cut(entry, ":")
	ws, errWorkspace := workspace.Parse(before)
	id, errID := job.ParseID(after)
	return ws, id, errWorkspace == nil && errID == nil
}

// takingCommands are those by which a worker of the predecessor may take an entry. Relay takes none by a bare command.
func takingCommands() []string {
	return []string{"lpop", "blpop", "rpop", "brpop", "lmove", "blmove", "rpoplpush", "brpoplpush", "lmpop", "blmpop"}
}

// workers names the connections to this database whose latest command takes from a list: one that waits for entries shows
// for as long as it waits. Which list it is Redis does not tell. known is false where that is not permitted.
func (m *MigrationState) workers(ctx context.Context) (found []string, known bool, err error) {
	pipe := m.rdb.Pipeline()
	own, all := pipe.Do(ctx, "CLIENT", "INFO"), pipe.Do(ctx, "CLIENT", "LIST", "TYPE", "normal")
	_, err = pipe.Exec(ctx)
	var refused redis.Error
	if errors.As(err, &refused) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, translate(err)
	}
	mine, _ := own.Text() // Exec has read both errors
	text, _ := all.Text()
	db := connection(mine)["db"]
	for line := range strings.Lines(text) {
		if c := connection(line); c["db"] == db && slices.Contains(takingCommands(), c["cmd"]) {
			found = append(found, strings.TrimSpace(c["addr"]+" "+c["name"]))
		}
	}
	return found, true, nil
}

// connection reads what Redis tells of one.
func connection(line string) map[string]string {
	values := map[string]string{}
	for part := range strings.FieldsSeq(line) {
		name, value, _ := strings.Cut(part, "=")
		values[name] = value
	}
	return values
}
