// Command bench measures Relay against a peer of the field on the same machine, whether another workspace's job can be
// told from an absent one by time, and what lists and their index cost. It prints ratios, and of memory bytes a job:
// absolute times say more about the machine.
//
// Both sides take turns in short rounds, so that what else the machine does meets both alike; a ratio is that of two
// neighbouring rounds, and the median of all of them is what is judged.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/core/migration"
)

type settings struct {
	pairs, connections, requests, params int
	warmUp, round                        time.Duration
	only, profiles                       string
	strict, verbose                      bool
}

func main() {
	var o settings
	flag.IntVar(&o.pairs, "pairs", 7, "pairs of rounds for each line")
	flag.DurationVar(&o.round, "round", 2*time.Second, "length of a round")
	flag.DurationVar(&o.warmUp, "warm-up", 300*time.Millisecond, "what goes before each round and is not measured")
	flag.IntVar(&o.connections, "connections", 64, "connections that send requests")
	flag.IntVar(&o.params, "params", 120, "bytes of a job's params, 26 or more")
	flag.IntVar(&o.requests, "requests", 20_000, "interleaved requests of each rank test")
	flag.StringVar(&o.only, "only", "execute,get,isolation,list,list-cpu,scan,index-memory,backfill-speed,backfill-p99,enqueue", "what to measure, separated by commas")
	flag.StringVar(&o.profiles, "profiles", "", "folder for CPU profiles of relay serve, taken in rounds of their own")
	flag.BoolVar(&o.strict, "strict", false, "exit with 1 where a target is missed")
	flag.BoolVar(&o.verbose, "v", false, "print each round")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	missed, err := bench(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2) // cancel does nothing for a process that ends
	}
	if missed && o.strict {
		os.Exit(1)
	}
}

// line is a measured ratio or probability, one value a pair.
type line struct {
	name    string
	low, up float64 // the target's bounds; 0 for none
	values  []float64
}

func (l line) median() float64 {
	sorted := slices.Sorted(slices.Values(l.values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func (l line) target() string {
	switch {
	case l.low > 0 && l.up > 0:
		return fmt.Sprintf("%.2f to %.2f", l.low, l.up)
	case l.low > 0:
		return fmt.Sprintf("at least %.2f", l.low)
	case l.up > 0:
		return fmt.Sprintf("at most %.2f", l.up)
	}
	return ""
}

func (l line) verdict() string {
	m := l.median()
	switch {
	case l.low == 0 && l.up == 0:
		return ""
	case l.low > 0 && m < l.low:
		return fmt.Sprintf("MISS by %.3f", l.low-m)
	case l.up > 0 && m > l.up:
		return fmt.Sprintf("MISS by %.3f", m-l.up)
	}
	return "pass"
}

// bench measures what is asked for, prints the tables, and tells whether a target was missed.
func bench(ctx context.Context, o settings) (missed bool, err error) {
	s, err := newStand(ctx)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	b := &measuring{stand: s, settings: o, rdb: redis.NewClient(&redis.Options{Addr: s.redis.Addr})}
	defer b.rdb.Close() //nolint:errcheck // nothing is lost with it
	for _, part := range []struct {
		name, title string
		measure     func(context.Context) ([]line, error)
	}{
		{"execute", "POST /ai/execute, Relay to gin with asynq's Client.Enqueue", b.execute},
		{"get", "GET /ai/jobs/{job_id}, Relay to gin with one HGETALL", b.get},
		{"isolation", "Another workspace's job against an absent one, probability that it takes longer (AUC)", b.isolation},
		{"list", "A page of 50 jobs, p50 in a large store to that in a small one", b.list},
		{"list-cpu", "Redis CPU of a page of 50 jobs to that of a pipeline of their HGETALLs", b.listCPU},
		{"scan", "50 jobs of a workspace by SCAN to the same by the index, 100000 jobs in both schemas", b.scan},
		{"index-memory", "Memory of the index of 1000000 jobs, bytes a job", b.indexMemory},
		{"backfill-speed", "A backfill without a bound to its script alone, fed with known ids through one connection", b.backfillSpeed},
		{"backfill-p99", "What callers wait while a backfill runs at its default rate, to that without one", b.backfillBeside},
		{"enqueue", "Redis CPU of the execute script to that of the same without its index", b.enqueue},
	} {
		if !slices.Contains(strings.Split(o.only, ","), part.name) {
			continue
		}
		lines, err := part.measure(ctx)
		if err != nil {
			return false, fmt.Errorf("%s: %w", part.name, err)
		}
		fmt.Println("\n" + part.title)
		table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "\tmedian\tmin\tmax\tn\ttarget\t")
		for _, l := range lines {
			fmt.Fprintf(table, "%s\t%.3f\t%.3f\t%.3f\t%d\t%s\t%s\n",
				l.name, l.median(), slices.Min(l.values), slices.Max(l.values), len(l.values), l.target(), l.verdict())
			missed = missed || strings.HasPrefix(l.verdict(), "MISS")
		}
		if err := table.Flush(); err != nil {
			return false, fmt.Errorf("print: %w", err)
		}
	}
	return missed, nil
}

// measuring is one run.
type measuring struct {
	*stand
	settings
	rdb *redis.Client
}

// comparison is Relay in one phase against the peer.
type comparison struct {
	phase          migration.Phase
	relay          service
	rate, cpu, own line
}

// compare lets Relay in each phase and the peer take turns, the phases too, and swaps who goes first each time.
// Before each round prepare makes what both find; after it check is told who was asked, and how often.
func (b *measuring) compare(
	ctx context.Context, l load, comparisons []*comparison,
	prepare func(context.Context) error, check func(ctx context.Context, ofRelay bool, sent uint64) error,
) ([]line, error) {
	round := func(of service, ofRelay bool) (measured, error) {
		if err := prepare(ctx); err != nil {
			return measured{}, err
		}
		m, err := l.run(ctx, of, b.rdb, b.connections, b.warmUp, b.round)
		if err == nil {
			err = check(ctx, ofRelay, m.sent)
		}
		return m, err
	}
	for _, c := range comparisons {
		var err error
		if c.relay, err = b.startRelay(ctx, c.phase); err != nil {
			return nil, err
		}
	}
	for n := range b.pairs {
		for _, c := range comparisons {
			var of [2]measured // the peer, Relay
			for turn := range 2 {
				side := (n + turn) % 2
				var err error
				if of[side], err = round([]service{b.peer, c.relay}[side], side == 1); err != nil {
					return nil, err
				}
			}
			c.rate.values = append(c.rate.values, of[1].rate/of[0].rate)
			c.cpu.values = append(c.cpu.values, of[1].cpu/of[0].cpu)
			c.own.values = append(c.own.values, of[1].own/of[0].own)
			if b.verbose {
				fmt.Fprintf(os.Stderr, "%s, %s: rate %.0f to %.0f, Redis CPU %.2f to %.2f µs, its own %.2f to %.2f µs\n", l.name,
					c.phase, of[1].rate, of[0].rate, of[1].cpu*1e6, of[0].cpu*1e6, of[1].own*1e6, of[0].own*1e6)
			}
		}
	}
	var lines []line
	for _, c := range comparisons {
		c.rate.name, c.cpu.name = "requests a second, "+c.phase.String(), "Redis CPU a request, "+c.phase.String()
		c.own.name = "own CPU a request, " + c.phase.String()
		lines = append(lines, c.rate, c.cpu, c.own)
		if b.profiles == "" {
			continue
		}
		saved := make(chan error, 1)
		path := filepath.Join(b.profiles, strings.ReplaceAll(l.name+"-"+c.phase.String(), " ", "-")+".pprof")
		go func() { saved <- c.relay.profile(ctx, path, b.round) }()
		_, err := round(c.relay, true)
		if err := errors.Join(err, <-saved); err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// empty makes both sides start from an empty keyspace.
func (b *measuring) empty(ctx context.Context) error {
	return b.rdb.FlushAll(ctx).Err()
}

// paramsOf is an object of a length.
func paramsOf(length int) string {
	return `{"to":"a@example.org","s":"` + strings.Repeat("x", max(0, length-len(`{"to":"a@example.org","s":""}`))) + `"}`
}

func (b *measuring) execute(ctx context.Context) ([]line, error) {
	const number = "000000000000"
	l := load{
		name: "execute", numbered: []byte(number),
		text: request("POST", "/ai/execute", b.acme, "", `{"action_provider":"google","action_name":"gmail.send",`+
			`"params":`+paramsOf(b.params)+`,"client_request_id":"01980000-0000-7000-8000-`+number+`"}`),
	}
	check := func(ctx context.Context, ofRelay bool, sent uint64) error {
		queue := "asynq:{default}:pending"
		if ofRelay {
			queue = "ai:queue:pending"
		}
		queued, err := b.rdb.LLen(ctx, queue).Uint64()
		if err == nil && queued != sent {
			err = fmt.Errorf("%d requests left %d entries in %s", sent, queued, queue)
		}
		return err
	}
	return b.compare(ctx, l, []*comparison{
		{phase: migration.DualWrite, rate: line{low: 0.65}, cpu: line{up: 2.5}},
		{phase: migration.NewOnly, rate: line{low: 0.85}, cpu: line{up: 1.6}},
	}, b.empty, check)
}

func (b *measuring) get(ctx context.Context) ([]line, error) {
	const (
		number = "000000000000"
		jobs   = 1000
	)
	if err := b.empty(ctx); err != nil {
		return nil, err
	}
	if err := b.storeBoth(ctx, jobs); err != nil {
		return nil, err
	}
	l := load{
		name: "get", numbered: []byte(number), modulo: jobs,
		text: request("GET", "/ai/jobs/"+storedPrefix+number, b.acme, "", ""),
	}
	return b.compare(ctx, l, []*comparison{
		{phase: migration.DualWrite, rate: line{low: 0.7}},
		{phase: migration.NewOnly, rate: line{low: 0.8}},
	}, func(context.Context) error { return nil }, func(context.Context, bool, uint64) error { return nil })
}

// storedPrefix begins the ids of the jobs that are read, before twelve digits.
const storedPrefix = "01970000-0000-7000-8000-"

// storeBoth stores jobs of the first workspace in both schemas.
func (b *measuring) storeBoth(ctx context.Context, jobs int) error {
	pipe := b.rdb.Pipeline()
	for n := range jobs {
		id := fmt.Sprintf("%s%012d", storedPrefix, n)
		for _, key := range []string{"ai:jobs:" + id, "ai:job:acme:" + id} {
			pipe.HSet(ctx, key, record("acme", id, paramsOf(b.params)))
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	return nil
}

// record is a job's hash as Relay writes it.
func record(workspace, id, params string) []string {
	return []string{
		"job_id", id, "status", "pending", "action_provider", "google", "action_name", "gmail.send", "params", params,
		"workspace_id", workspace, "actor_id", "bench", "result", "", "enqueued_at", "2026-11-21T19:28:54.017837+00:00",
		"rev", "1",
	}
}
