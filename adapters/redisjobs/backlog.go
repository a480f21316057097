package redisjobs

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/core/job"
)

// Backlog implements ports.Backlog.
type Backlog struct{ rdb redis.UniversalClient }

// NewBacklog makes it. It does not touch the network.
func NewBacklog(rdb redis.UniversalClient) Backlog { return Backlog{rdb: rdb} }

// Backlog implements ports.Backlog. It takes two round trips at most.
func (b Backlog) Backlog(ctx context.Context) (job.Backlog, error) {
	var entries *redis.IntCmd
	var next *redis.StringCmd
	var now *redis.TimeCmd
	err := pipelined(ctx, b.rdb, func(p redis.Pipeliner) {
		entries, next, now = p.LLen(ctx, queueKey), p.LIndex(ctx, queueKey, 0), p.Time(ctx)
	})
	if err != nil {
		return job.Backlog{}, err
	}
	backlog := job.Backlog{Entries: entries.Val(), Known: entries.Val() == 0}
	if backlog.Known {
		return backlog, nil
	}
	enqueued, err := b.enqueued(ctx, next.Val())
	if err != nil || enqueued.IsZero() {
		return backlog, err
	}
	backlog.Waited, backlog.Known = max(now.Val().Sub(enqueued), 0), true
	return backlog, nil
}

// enqueued tells when the job of an entry was, the zero time where that is not known. A bare id comes first, as for
// whoever takes the entry.
func (b Backlog) enqueued(ctx context.Context, entry string) (time.Time, error) {
	var keys []string
	if id, err := job.ParseID(entry); err == nil {
		keys = append(keys, oldKey(id))
	}
	if ws, id, ok := splitEntry(entry); ok {
		keys = append(keys, newKey(ws, id))
	}
	if len(keys) == 0 {
		return time.Time{}, nil
	}
	found := make([]*redis.SliceCmd, len(keys))
	err := pipelined(ctx, b.rdb, func(p redis.Pipeliner) {
		for i, key := range keys {
			found[i] = p.HMGet(ctx, key, fieldEnqueuedAt)
		}
	})
	if err != nil {
		return time.Time{}, err
	}
	for _, values := range found {
		for _, value := range values.Val() { // none of a key of another type
			if text, ok := value.(string); ok {
				return job.ParseTime(text), nil
			}
		}
	}
	return time.Time{}, nil
}
