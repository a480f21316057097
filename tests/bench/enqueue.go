package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/telemetry"
	"github.com/relay-jobs/relay/adapters/uuidv7"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
)

const (
	// enqueueRounds is how many times the script with an index and the one without take turns, executes how many jobs
	// each makes in one.
	enqueueRounds, executes = 60, 1000
)

//go:embed enqueue_without_index.lua
var enqueueWithoutIndex string

// recorder is a hook of a client that keeps what a repository sends: the script that the server did not know, and then,
// in place of sending them, the calls of it.
type recorder struct {
	source string
	call   []any
}

// ProcessHook implements redis.Hook.
func (r *recorder) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if r.source != "" {
			made, ok := cmd.(*redis.Cmd)
			if !ok || cmd.Name() != "evalsha" {
				return fmt.Errorf("an enqueue sent %s", cmd.Name())
			}
			r.call = cmd.Args()
			made.SetVal(int64(1))
			return nil
		}
		if cmd.Name() == "eval" {
			r.source, _ = cmd.Args()[1].(string)
		}
		return next(ctx, cmd)
	}
}

// DialHook implements redis.Hook.
func (r *recorder) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessPipelineHook implements redis.Hook.
func (r *recorder) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// enqueue compares what the execute script costs Redis with what the same script costs without its index.
func (b *measuring) enqueue(ctx context.Context) ([]line, error) {
	var lines []line
	for _, phase := range []migration.Phase{migration.DualWrite, migration.NewOnly} {
		for _, depth := range []int{1, 10, 100} {
			name := fmt.Sprintf("%s, %d in a pipeline", phase, depth)
			of, err := b.enqueueCost(ctx, phase, depth)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			total := sum(of[0]) / sum(of[1])
			b.tell("%s: Redis CPU %.2f to %.2f µs", name,
				sum(of[0])/enqueueRounds/executes*1e6, sum(of[1])/enqueueRounds/executes*1e6)
			lines = append(lines, line{name: name, up: 1.3, values: ratios(of)},
				line{name: name + ", all rounds", up: 1.3, values: []float64{total}})
		}
	}
	return lines, nil
}

func (b *measuring) enqueueCost(ctx context.Context, phase migration.Phase, depth int) (of [2][]float64, err error) {
	if err := b.empty(ctx); err != nil {
		return of, err
	}
	if err := b.rdb.ScriptFlush(ctx).Err(); err != nil {
		return of, fmt.Errorf("scripts: %w", err)
	}
	seen := telemetry.NewObserver(telemetry.NewMetrics(telemetry.Build{}, 10), zap.NewNop())
	defer seen.Close()
	recorded := redis.NewClient(&redis.Options{Addr: b.redis.Addr})
	defer recorded.Close() //nolint:errcheck // nothing is lost with it
	r := &recorder{}
	recorded.AddHook(r)
	repo := redisjobs.New(recorded, phase, redisjobs.Options{Observer: seen})
	if _, err := b.enqueueFresh(ctx, repo); err != nil {
		return of, err
	}
	reduced, err := withoutIndex(r.source)
	if err != nil {
		return of, err
	}
	sha, err := b.rdb.ScriptLoad(ctx, reduced).Result()
	if err != nil {
		return of, fmt.Errorf("script without index: %w", err)
	}
	turn := func(cut bool) func() (float64, error) {
		return func() (float64, error) {
			calls := make([][]any, executes)
			for i := range calls {
				id, err := b.enqueueFresh(ctx, repo)
				if err != nil {
					return 0, err
				}
				calls[i] = r.call
				if cut {
					calls[i] = callWithoutIndex(sha, r.call, id)
				}
			}
			return cpuOf(ctx, b.rdb, func() error { return run(ctx, b.rdb, calls, depth) })
		}
	}
	return takeTurns(enqueueRounds, [2]func() (float64, error){turn(false), turn(true)})
}

// enqueueFresh has the repository enqueue a job of its own.
func (b *measuring) enqueueFresh(ctx context.Context, repo *redisjobs.Repository) (job.ID, error) {
	id, err := uuidv7.JobIDs{}.NewJobID()
	if err != nil {
		return job.ID{}, fmt.Errorf("job id: %w", err)
	}
	ws, errWorkspace := workspace.Parse("acme")
	request, errRequest := job.ParseClientRequestID(uuid.NewString())
	if err := errors.Join(errWorkspace, errRequest); err != nil {
		return job.ID{}, fmt.Errorf("draft: %w", err)
	}
	_, err = repo.Enqueue(ctx, job.Draft{
		ID: id, Workspace: ws, Provider: "google", Name: "gmail.send", Params: job.JSONOf(paramsOf(b.params)), Actor: "bench",
		ClientRequestID: request,
	})
	if err != nil {
		return job.ID{}, fmt.Errorf("enqueue: %w", err)
	}
	return id, nil
}

// secondsLength is that of the argument which begins a place: no other begins with a zero byte.
const secondsLength = 5

// callWithoutIndex takes the index' key and the parts of the place out of a call.
func callWithoutIndex(sha string, call []any, id job.ID) []any {
	count, _ := call[2].(int)
	cut := slices.DeleteFunc(slices.Clone(call[3:]), func(word any) bool {
		text, _ := word.(string)
		return strings.HasPrefix(text, "ai:index:") || text == id.SortBytes() || len(text) == secondsLength && text[0] == 0
	})
	return append([]any{"evalsha", sha, count - 1}, cut...)
}

// run makes the calls, depth of them in a round trip. Each must make a job.
func run(ctx context.Context, rdb *redis.Client, calls [][]any, depth int) error {
	for batch := range slices.Chunk(calls, depth) {
		pipe := rdb.Pipeline()
		for _, call := range batch {
			pipe.Do(ctx, call...)
		}
		replies, err := pipe.Exec(ctx)
		if err != nil {
			return fmt.Errorf("enqueue: %w", err)
		}
		for _, reply := range replies {
			if made, ok := reply.(*redis.Cmd); !ok || made.Val() != int64(1) {
				return fmt.Errorf("enqueue: %s", reply)
			}
		}
	}
	return nil
}

// withoutIndex gives the script without its index under the plan of the real one, after a check that each of its
// statements is one of the real one, in the same order.
func withoutIndex(whole string) (string, error) {
	plan, _, _ := strings.Cut(whole, "\n")
	cut := statements(strings.NewReplacer(
		"local index, now = KEYS[#], ", "local now = ",
	), whole)
	for _, statement := range statements(strings.NewReplacer(), plan+"\n"+enqueueWithoutIndex) {
		at := slices.Index(cut, statement)
		if at < 0 {
			return "", fmt.Errorf("enqueue_without_index.lua differs from what Relay runs by more than the index: %s", statement)
		}
		cut = cut[at+1:]
	}
	return plan + "\n" + enqueueWithoutIndex, nil
}

// statements gives the lines of a script that are no comments, each number written as #, after some replacements.
func statements(replaced *strings.Replacer, script string) []string {
	var out []string
	number := regexp.MustCompile(`\d+`)
	for text := range strings.Lines(script) {
		if text = strings.TrimSpace(text); text != "" && !strings.HasPrefix(text, "--") {
			out = append(out, replaced.Replace(number.ReplaceAllString(text, "#")))
		}
	}
	return out
}
