package redisjobs

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

const (
	// maxFlights is how many round trips may be under way before a caller joins others.
	maxFlights = 2
	// defaultPatience is how long a trip waits for one of them to end: it bounds what a slow one costs the others.
	defaultPatience = 10 * time.Millisecond
	// maxJoined bounds the commands of a shared trip, and with them how long its first answer waits for its last.
	maxJoined = 128
	// maxShared bounds the commands of one call that share a trip with others; a page of jobs goes alone.
	maxShared = 2
)

// batcher sends the commands of callers that come at the same time in one round trip: the system calls for a command
// cost Redis, and this process, as much as the command itself. A caller goes at once while few trips are under way;
// others join the next one. The commands of a call stay next to each other and in their order.
//
// A shared trip is tried once. A command that it brought no answer for is sent again by its own caller, alone, so that
// errors and retries are what they would be without others. Commands must be safe to run twice, as all are.
type batcher struct {
	redis.Scripter // loads scripts, and runs them by their text

	rdb      redis.UniversalClient
	patience time.Duration

	mu      sync.Mutex
	flights int
	waiting []*trip // in the order in which they go; only the last has room
}

// trip is a round trip of several callers.
type trip struct {
	commands []redis.Cmder
	back     chan struct{} // closed when failed is known
	failed   bool          // also where no command tells so: there was no connection
}

// wait returns when the trip is back or ctx ends. Where the caller's request is traced it is a span of that: whoever
// measures trips cannot tell whose a shared one is.
func (t *trip) wait(ctx context.Context) error {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		_, span = span.TracerProvider().Tracer("github.com/relay-jobs/relay").Start(ctx, "shared PIPELINE",
			trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("db.system.name", "redis")))
		defer span.End()
	}
	select {
	case <-t.back:
		return nil
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the context's own error, which translate reads
	}
}

func newBatcher(rdb redis.UniversalClient) *batcher {
	return &batcher{Scripter: rdb, rdb: rdb, patience: defaultPatience}
}

// run returns nil once each command has its answer or its error. Any other error is ctx's: the commands may still be
// under way then, and are not the caller's to look at.
func (b *batcher) run(ctx context.Context, commands []redis.Cmder) error {
	if len(commands) == 0 {
		return nil // as where a pass meets no job
	}
	if len(commands) > maxShared {
		b.alone(ctx, commands)
		return nil
	}
	b.mu.Lock()
	if b.flights < maxFlights {
		b.flights++
		b.mu.Unlock()
		defer b.land()
		b.alone(ctx, commands)
		return nil
	}
	t := b.join(commands) //nolint:contextcheck // a trip belongs to several callers: none of them may end it
	b.mu.Unlock()
	if err := t.wait(ctx); err != nil {
		return err
	}
	if t.failed || slices.ContainsFunc(commands, hasError) {
		for _, c := range commands {
			c.SetErr(nil)
		}
		b.alone(ctx, commands)
	}
	return nil
}

func hasError(c redis.Cmder) bool { return c.Err() != nil }

// EvalSha is run for a script that Redis has.
func (b *batcher) EvalSha(ctx context.Context, sha1 string, keys []string, args ...any) *redis.Cmd {
	words := append(make([]any, 0, 3+len(keys)+len(args)), "evalsha", sha1, len(keys))
	for _, key := range keys {
		words = append(words, key)
	}
	cmd := redis.NewCmd(ctx, append(words, args...)...)
	if err := b.run(ctx, []redis.Cmder{cmd}); err != nil {
		cmd = redis.NewCmd(ctx)
		cmd.SetErr(err)
	}
	return cmd
}

// alone sends one caller's commands, which the client library tries again as it does. Each holds its own error
// afterwards, also where there was no connection to send them on, which the library tells once for all.
func (b *batcher) alone(ctx context.Context, commands []redis.Cmder) {
	if len(commands) == 1 {
		_ = b.rdb.Process(ctx, commands[0])
		return
	}
	pipe := b.rdb.Pipeline()
	_ = pipe.BatchProcess(ctx, commands...) // only puts them in line
	if _, err := pipe.Exec(ctx); err != nil && !slices.ContainsFunc(commands, hasError) {
		for _, c := range commands {
			c.SetErr(err)
		}
	}
}

// join puts commands on the last trip that waits, or on a new one where that has no room.
func (b *batcher) join(commands []redis.Cmder) *trip {
	if last := len(b.waiting) - 1; last >= 0 && len(b.waiting[last].commands)+len(commands) <= maxJoined {
		b.waiting[last].commands = append(b.waiting[last].commands, commands...)
		return b.waiting[last]
	}
	t := &trip{commands: slices.Clone(commands), back: make(chan struct{})}
	b.waiting = append(b.waiting, t)
	time.AfterFunc(b.patience, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.depart(slices.Index(b.waiting, t))
	})
	return t
}

// land lets the next trip go.
func (b *batcher) land() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flights--
	if b.flights < maxFlights && len(b.waiting) > 0 {
		b.depart(0)
	}
}

// depart sends the trip at i of those that wait, -1 for one that is gone.
func (b *batcher) depart(i int) {
	if i < 0 {
		return
	}
	t := b.waiting[i]
	b.waiting = slices.Delete(b.waiting, i, i+1)
	b.flights++
	go func() {
		defer b.land()
		defer close(t.back)
		ctx := context.Background() // of several callers: none of them may end it
		pipe := b.rdb.Pipeline()
		_ = pipe.BatchProcess(ctx, once{t.commands[0]})
		_ = pipe.BatchProcess(ctx, t.commands[1:]...)
		_, err := pipe.Exec(ctx)
		t.failed = err != nil && !slices.ContainsFunc(t.commands, hasError)
	}()
}

// once has the client library send a command, and the pipeline that holds it, no second time.
type once struct{ redis.Cmder }

// NoRetry implements redis.Cmder.
func (once) NoRetry() bool { return true }
