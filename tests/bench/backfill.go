package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/migration"
)

const (
	// backfillJobs is how many jobs one round of the backfill's speed makes copies of.
	backfillJobs = 100_000
	// besideJobs is how many there are while the API is measured: more than the backfill comes to at its default rate.
	besideJobs = 300_000
	// besidePairs is how many pairs of rounds, with a backfill and without, the API is measured in; besideRound how long
	// each takes.
	besidePairs, besideRound = 10, 5 * time.Second
	// besideRate is how many executes and how many gets a second the API is asked for, at fixed times.
	besideRate = 200
	// besideHands is how many connections send each kind, in turn.
	besideHands = 16
	// besideRead is how many jobs are read.
	besideRead = 1000
	// slow is what no command may take while the API is measured.
	slow = 10 * time.Millisecond
)

// backfillSpeed compares the whole backfill, as an operator starts it, with its script alone for each job, where all ids
// are known before, through one connection that never waits for an answer. Both are the same user to Redis, which looks at
// its rights in every command of a script, and both take the jobs in the same order.
func (b *measuring) backfillSpeed(ctx context.Context) ([]line, error) {
	stored := jobs{number: backfillJobs, workspaces: 7, old: true, bare: true}
	if err := b.empty(ctx); err != nil {
		return nil, err
	}
	if err := stored.write(ctx, b.rdb, paramsOf(b.params)); err != nil {
		return nil, err
	}
	calls, err := b.recordCopies(ctx, stored)
	if err != nil {
		return nil, err
	}
	operator, err := redis.ParseURL(b.redis.OperatorURL())
	if err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	turn := func(copyAll func(context.Context) error) func() (float64, error) {
		return func() (float64, error) {
			if err := b.empty(ctx); err != nil {
				return 0, err
			}
			if err := stored.write(ctx, b.rdb, paramsOf(b.params)); err != nil {
				return 0, err
			}
			began := time.Now()
			err := copyAll(ctx)
			return float64(backfillJobs) / time.Since(began).Seconds(), err
		}
	}
	of, err := takeTurns(b.pairs, [2]func() (float64, error){
		turn(b.backfillAll), turn(func(ctx context.Context) error { return stream(ctx, operator, calls) }),
	})
	if err != nil {
		return nil, err
	}
	b.tell("backfill %.0f, script alone %.0f jobs a second", sum(of[0])/float64(b.pairs), sum(of[1])/float64(b.pairs))
	return []line{{name: "jobs a second", low: 0.6, values: ratios(of)}}, nil
}

// backfillAll runs the command without a bound of its rate, and checks that it made a copy of each job.
func (b *measuring) backfillAll(ctx context.Context) error {
	cmd := b.backfillCommand(ctx, "--rate=0", "--json")
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("backfill: %w", err)
	}
	var result struct {
		Jobs map[migration.CopyOutcome]int64 `json:"jobs"`
		Done bool                            `json:"done"`
	}
	if err := json.Unmarshal(out, &result); err != nil || !result.Done || result.Jobs[migration.CopyMade] != backfillJobs {
		return fmt.Errorf("backfill: %s, %w", out, err)
	}
	return nil
}

// backfillCommand is the real binary.
func (b *measuring) backfillCommand(ctx context.Context, flags ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.path("relay"), append([]string{"migrate", "backfill", "--execute"}, flags...)...)
	cmd.Env = []string{"REDIS_URL=" + b.redis.OperatorURL()}
	return cmd
}

// copies is a hook of a client that keeps the calls of a script in place of sending them.
type copies struct{ calls [][]any }

// ProcessHook implements redis.Hook.
func (*copies) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// DialHook implements redis.Hook.
func (*copies) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessPipelineHook implements redis.Hook.
func (c *copies) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(_ context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			made, ok := cmd.(*redis.Cmd)
			if !ok || cmd.Name() != "evalsha" {
				return fmt.Errorf("a copy sent %s", cmd.Name())
			}
			c.calls = append(c.calls, cmd.Args())
			made.SetVal([]any{migration.CopyMade.String(), int64(0)})
		}
		return nil
	}
}

// recordCopies gives the calls by which Relay copies the jobs that are stored, in the order in which a walk through Redis
// meets them, and lets Redis know their script.
func (b *measuring) recordCopies(ctx context.Context, stored jobs) ([][]any, error) {
	met := make(map[migration.JobRef]bool, stored.number)
	refs := make([]migration.JobRef, 0, stored.number)
	for at := migration.Position(0); ; {
		batch, err := redisjobs.NewCopies(b.rdb).Keys(ctx, at, migration.Pace{Share: 1}.StepKeys())
		if err != nil {
			return nil, fmt.Errorf("walk: %w", err)
		}
		for _, j := range batch.Jobs {
			if !met[j.JobRef] { // SCAN may give a key twice
				met[j.JobRef] = true
				refs = append(refs, j.JobRef)
			}
		}
		if at = batch.Next; at == 0 {
			break
		}
	}
	if len(refs) != stored.number {
		return nil, fmt.Errorf("walk met %d jobs", len(refs))
	}
	if _, err := redisjobs.NewCopies(b.rdb).Copy(ctx, refs[:1], migration.New, true); err != nil {
		return nil, fmt.Errorf("script: %w", err)
	}
	recorded := redis.NewClient(&redis.Options{Addr: b.redis.Addr})
	defer recorded.Close() //nolint:errcheck // nothing is lost with it
	kept := &copies{}
	recorded.AddHook(kept)
	if _, err := redisjobs.NewCopies(recorded).Copy(ctx, refs, migration.New, false); err != nil {
		return nil, fmt.Errorf("calls: %w", err)
	}
	return kept.calls, nil
}

// stream sends all calls through one connection while it reads their answers. Each must make a copy.
func stream(ctx context.Context, as *redis.Options, calls [][]any) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", as.Addr)
	if err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	defer conn.Close() //nolint:errcheck // all was answered
	sent := make(chan error, 1)
	go func() {
		out := bufio.NewWriterSize(conn, 1<<16)
		send(out, "AUTH", as.Username, as.Password)
		for _, call := range calls {
			words := make([]string, len(call))
			for i, word := range call {
				words[i] = fmt.Sprint(word)
			}
			send(out, words...)
		}
		sent <- out.Flush()
	}()
	in := bufio.NewReaderSize(conn, 1<<16)
	if said, err := in.ReadString('\n'); err != nil || said != "+OK\r\n" {
		return fmt.Errorf("stream: AUTH was answered %q, %w", said, err)
	}
	const lines = 4 // of an answer: *2, $4, made, and how many entries
	for n := range calls {
		var answer [lines]string
		for i := range answer {
			if answer[i], err = in.ReadString('\n'); err != nil {
				return fmt.Errorf("stream: %w", err)
			}
		}
		if answer[2] != migration.CopyMade.String()+"\r\n" {
			return fmt.Errorf("stream: call %d was answered %q", n, answer)
		}
	}
	return <-sent
}

// backfillBeside compares what the API's callers wait while a backfill runs at its default rate with what they wait
// without one.
func (b *measuring) backfillBeside(ctx context.Context) ([]line, error) {
	stored := jobs{number: besideJobs, workspaces: 7, old: true, bare: true}
	if err := b.empty(ctx); err != nil {
		return nil, err
	}
	if err := stored.write(ctx, b.rdb, paramsOf(b.params)); err != nil {
		return nil, err
	}
	if err := b.storeBoth(ctx, besideRead); err != nil {
		return nil, err
	}
	relay, err := b.startRelay(ctx, migration.DualWrite)
	if err != nil {
		return nil, err
	}
	if err := b.rdb.ConfigSet(ctx, "slowlog-log-slower-than", fmt.Sprint(slow.Microseconds())).Err(); err != nil {
		return nil, fmt.Errorf("slow log: %w", err)
	}
	var execute, get [2][]float64 // with a backfill, without
	var slowed [2]float64         // without one a command is slow only where the machine lets Redis wait
	for n := range besidePairs {
		for turn := range 2 {
			side := (n + turn) % 2
			stop := func() error { return nil }
			if side == 0 {
				if stop, err = b.startBackfill(ctx); err != nil {
					return nil, err
				}
			}
			if err := b.rdb.Do(ctx, "SLOWLOG", "RESET").Err(); err != nil {
				return nil, errors.Join(err, stop())
			}
			of, err := b.waits(ctx, relay)
			if err := errors.Join(err, stop()); err != nil {
				return nil, err
			}
			logged, err := b.rdb.SlowLogGet(ctx, -1).Result()
			if err != nil {
				return nil, fmt.Errorf("slow log: %w", err)
			}
			slowed[side] += float64(len(logged))
			for _, l := range logged {
				b.tell("slow: %v %.60q", l.Duration, l.Args[:min(3, len(l.Args))])
			}
			execute[side], get[side] = append(execute[side], of[0]), append(get[side], of[1])
			b.tell("%s: execute %.2f ms, get %.2f ms", []string{"with a backfill", "without"}[side], of[0]*1e3, of[1]*1e3)
		}
	}
	return []line{
		{name: "p99 of execute", up: 1.2, values: ratios(execute)},
		{name: "p99 of get", up: 1.2, values: ratios(get)},
		{name: fmt.Sprintf("commands of more than %v with a backfill, all rounds", slow), values: slowed[:1]},
		{name: "the same without one", values: slowed[1:]},
	}, nil
}

// startBackfill runs one at its default rate until stop, which fails where it had ended before.
func (b *measuring) startBackfill(ctx context.Context) (stop func() error, err error) {
	cmd := b.backfillCommand(ctx)
	said := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("backfill: %w", err)
	}
	return func() error {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			return fmt.Errorf("backfill: %w\n%s", err, said)
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(said.String(), "interrupted") {
			return fmt.Errorf("backfill was over before its round was: %w\n%s", err, said)
		}
		return nil
	}, nil
}

// waits gives the seconds that one of a hundred executes and gets waits for at least. Each is sent at its time, and where
// its connection still waits for another answer then, its wait counts from when it was due.
func (b *measuring) waits(ctx context.Context, relay service) (p99 [2]float64, err error) {
	total := int(besideRound.Seconds() * besideRate)
	took := [2][]float64{make([]float64, total), make([]float64, total)}
	texts := [2]func(n int) []byte{
		func(int) []byte {
			return request("POST", "/ai/execute", b.acme, "", `{"action_provider":"google","action_name":"gmail.send","params":`+paramsOf(b.params)+`}`)
		},
		func(n int) []byte {
			return request("GET", fmt.Sprintf("/ai/jobs/%s%012d", storedPrefix, n%besideRead), b.acme, "", "")
		},
	}
	began := time.Now().Add(b.warmUp)
	var asking sync.WaitGroup
	failed := make(chan error, 2*besideHands)
	for kind := range texts {
		for hand := range besideHands {
			c, err := dial(ctx, relay.addr)
			if err != nil {
				return p99, err
			}
			asking.Go(func() {
				defer c.close()
				for n := hand; n < total; n += besideHands {
					due := began.Add(time.Duration(n) * time.Second / besideRate)
					if early := time.Until(due); early > 0 {
						if err := pause(ctx, early); err != nil {
							failed <- err
							return
						}
						due = time.Now() // a timer that is late is no wait for the API
					}
					status, err := c.exchange(texts[kind](n))
					if err == nil && status != 200 {
						err = fmt.Errorf("status %d: %s", status, c.answer)
					}
					if err != nil {
						failed <- err
						return
					}
					took[kind][n] = time.Since(due).Seconds()
				}
			})
		}
	}
	asking.Wait()
	select {
	case err := <-failed:
		return p99, err
	default:
		return [2]float64{p99Of(took[0]), p99Of(took[1])}, nil
	}
}

// p99Of gives the least value that is not below 99 % of them.
func p99Of(values []float64) float64 {
	slices.Sort(values)
	return values[(len(values)*99+99)/100-1]
}
