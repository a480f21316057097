package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
)

const (
	// pageRounds is how many times pages and the bare reads of the same jobs take turns, burst how many there are in one.
	pageRounds, burst = 40, 100
	// scanBurst is how often fifty jobs are asked for by SCAN in one round.
	scanBurst = 2
	// entryBatch is for how many jobs entries are added in one command.
	entryBatch = 500
)

// mainThread gives the seconds that the main thread of Redis has used so far.
func mainThread(ctx context.Context, rdb *redis.Client) (float64, error) {
	info, err := rdb.InfoMap(ctx, "cpu").Result()
	if err != nil {
		return 0, fmt.Errorf("INFO cpu: %w", err)
	}
	var sum float64
	for _, field := range []string{"used_cpu_sys_main_thread", "used_cpu_user_main_thread"} {
		seconds, err := strconv.ParseFloat(info["CPU"][field], 64)
		if err != nil {
			return 0, fmt.Errorf("INFO cpu: %w", err)
		}
		sum += seconds
	}
	return sum, nil
}

// cpuOf gives the seconds of the main thread of Redis that do takes.
func cpuOf(ctx context.Context, rdb *redis.Client, do func() error) (float64, error) {
	before, err := mainThread(ctx, rdb)
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := mainThread(ctx, rdb)
	return after - before, err
}

// takeTurns measures both in each round, the first to go being another each time.
func takeTurns(rounds int, measure [2]func() (float64, error)) (of [2][]float64, err error) {
	for n := range rounds {
		for turn := range 2 {
			side := (n + turn) % 2
			value, err := measure[side]()
			if err != nil {
				return of, err
			}
			of[side] = append(of[side], value)
		}
	}
	return of, nil
}

// ratios divides round by round.
func ratios(of [2][]float64) []float64 {
	out := make([]float64, len(of[0]))
	for i := range out {
		out[i] = of[0][i] / of[1][i]
	}
	return out
}

func sum(values []float64) (total float64) {
	for _, v := range values {
		total += v
	}
	return total
}

// listCPU compares what a page costs Redis with what a bare pipeline costs that reads the same jobs.
func (b *measuring) listCPU(ctx context.Context) ([]line, error) {
	s, err := open(ctx, jobs{number: medium, workspaces: 1, old: true, new: true}, paramsOf(b.params))
	if err != nil {
		return nil, err
	}
	defer s.close()
	var lines []line
	for _, phase := range []migration.Phase{migration.Legacy, migration.NewOnly, migration.DualWrite} {
		repo := s.repository(phase)
		for _, at := range []struct {
			name string
			skip int
		}{{"first page", 0}, {"behind a cursor", medium / 2}} {
			q, numbers, err := s.pageAt(at.skip, "")
			if err != nil {
				return nil, err
			}
			keys := make([]string, len(numbers))
			for i, n := range numbers {
				keys[i] = "ai:jobs:" + s.id(n)
				if phase.ReadsNew() {
					keys[i] = "ai:job:" + s.ws.String() + ":" + s.id(n)
				}
			}
			page := func() error {
				for range burst {
					page, err := repo.List(ctx, s.ws, q)
					if err == nil {
						err = s.check(page, numbers)
					}
					if err != nil {
						return fmt.Errorf("page: %w", err)
					}
				}
				return nil
			}
			bare := func() error {
				for range burst {
					_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
						for _, key := range keys {
							p.HGetAll(ctx, key)
						}
						return nil
					})
					if err != nil {
						return fmt.Errorf("HGETALL: %w", err)
					}
				}
				return nil
			}
			of, err := takeTurns(pageRounds, [2]func() (float64, error){
				func() (float64, error) { return cpuOf(ctx, s.rdb, page) },
				func() (float64, error) { return cpuOf(ctx, s.rdb, bare) },
			})
			if err != nil {
				return nil, err
			}
			up := 1.3
			if phase.ReadsOld() && phase.ReadsNew() {
				up = 2.2
			}
			lines = append(lines, line{name: phase.String() + ", " + at.name, up: up, values: ratios(of)})
			b.tell("%s, %s: Redis CPU %.1f to %.1f µs", phase, at.name,
				sum(of[0])/pageRounds/burst*1e6, sum(of[1])/pageRounds/burst*1e6)
		}
	}
	return lines, nil
}

// tell prints what -v asks for.
func (b *measuring) tell(format string, values ...any) {
	if b.verbose {
		fmt.Fprintf(os.Stderr, format+"\n", values...)
	}
}

// scan compares what it takes to get the newest fifty jobs by the index with what it takes to get any fifty by SCAN.
func (b *measuring) scan(ctx context.Context) ([]line, error) {
	var lines []line
	for _, layout := range []struct {
		name       string
		workspaces int
	}{{"1/100 of the jobs", 100}, {"all jobs", 1}} {
		s, err := open(ctx, jobs{number: medium, workspaces: layout.workspaces, old: true, new: true}, paramsOf(b.params))
		if err != nil {
			return nil, err
		}
		for _, phase := range []migration.Phase{migration.Legacy, migration.NewOnly, migration.DualWrite} {
			of, err := b.scanOrIndex(ctx, s, phase, layout.name+", "+phase.String())
			if err != nil {
				s.close()
				return nil, err
			}
			lines = append(lines, of...)
		}
		s.close()
	}
	return lines, nil
}

// cost is what fifty jobs take.
type cost struct{ latency, cpu float64 }

func (b *measuring) scanOrIndex(ctx context.Context, s *store, phase migration.Phase, name string) ([]line, error) {
	repo := s.repository(phase)
	measure := func(times int) (c cost, err error) {
		var took []time.Duration
		c.cpu, err = cpuOf(ctx, s.rdb, func() error {
			for range times {
				start := time.Now()
				if err := fifty(ctx, repo, s); err != nil {
					return err
				}
				took = append(took, time.Since(start))
			}
			return nil
		})
		slices.SortFunc(took, cmp.Compare)
		if err == nil {
			c.latency, c.cpu = took[len(took)/2].Seconds(), c.cpu/float64(times)
		}
		return c, err
	}
	latency, cpu := line{name: "latency, " + name, low: 1}, line{name: "Redis CPU, " + name, low: 1}
	for range b.pairs {
		if err := s.rdb.Del(ctx, "ai:index-state").Err(); err != nil {
			return nil, fmt.Errorf("index state: %w", err)
		}
		scan, err := measure(scanBurst)
		if err != nil {
			return nil, err
		}
		if err := s.rdb.Set(ctx, "ai:index-state", "complete", 0).Err(); err != nil {
			return nil, fmt.Errorf("index state: %w", err)
		}
		index, err := measure(burst)
		if err != nil {
			return nil, err
		}
		latency.values = append(latency.values, scan.latency/index.latency)
		cpu.values = append(cpu.values, scan.cpu/index.cpu)
		b.tell("%s: latency %.0f to %.0f µs, Redis CPU %.0f to %.0f µs", name,
			scan.latency*1e6, index.latency*1e6, scan.cpu*1e6, index.cpu*1e6)
	}
	return []line{latency, cpu}, nil
}

// fifty reads pages until they have held fifty jobs.
func fifty(ctx context.Context, repo *redisjobs.Repository, s *store) error {
	q := job.Query{Limit: pageSize}
	for got := 0; got < pageSize; {
		page, err := repo.List(ctx, s.ws, q)
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		got += len(page.Jobs)
		q.Cursor = page.Next
		if got < pageSize && q.Cursor.IsZero() {
			return fmt.Errorf("a list ended after %d jobs", got)
		}
	}
	return nil
}

// indexMemory gives the bytes that the index takes for each of a million jobs.
func (b *measuring) indexMemory(ctx context.Context) ([]line, error) {
	var lines []line
	j := jobs{number: largest, workspaces: 1}
	for _, kind := range []struct {
		name    string
		up      float64
		ofState bool
	}{{"the order of all jobs", 160, false}, {"with that of each state", 250, true}} {
		if err := b.empty(ctx); err != nil {
			return nil, err
		}
		before, err := b.usedMemory(ctx)
		if err != nil {
			return nil, err
		}
		for from := 0; from < j.number; from += entryBatch {
			command := []any{"zadd", "ai:index:acme"}
			for n := from; n < min(from+entryBatch, j.number); n++ {
				all, ofState := j.entries(n)
				command = append(command, "0", all)
				if kind.ofState {
					command = append(command, "0", ofState)
				}
			}
			if err := b.rdb.Do(ctx, command...).Err(); err != nil {
				return nil, fmt.Errorf("index: %w", err)
			}
		}
		after, err := b.usedMemory(ctx)
		if err != nil {
			return nil, err
		}
		usage, err := b.rdb.MemoryUsage(ctx, "ai:index:acme", 0).Result()
		if err != nil {
			return nil, fmt.Errorf("MEMORY USAGE: %w", err)
		}
		lines = append(lines,
			line{name: kind.name + ", used_memory", up: kind.up, values: []float64{(after - before) / largest}},
			line{name: kind.name + ", MEMORY USAGE", up: kind.up, values: []float64{float64(usage) / largest}})
	}
	return lines, b.empty(ctx)
}

func (b *measuring) usedMemory(ctx context.Context) (float64, error) {
	info, err := b.rdb.InfoMap(ctx, "memory").Result()
	if err != nil {
		return 0, fmt.Errorf("INFO memory: %w", err)
	}
	bytes, err := strconv.ParseFloat(info["Memory"]["used_memory"], 64)
	if err != nil {
		return 0, fmt.Errorf("INFO memory: %w", err)
	}
	return bytes, nil
}
