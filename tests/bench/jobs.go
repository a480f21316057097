package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/telemetry"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

const (
	pageSize = 50
	// failedEvery is how many jobs of a workspace there are to each one that has failed; the others have completed.
	failedEvery = 1000
	// scatter is prime to every number of jobs: jobs of one time are stored in an order that is not that of their ids.
	scatter = 7919
)

// jobs are stored jobs. All of a job follows from its number, and numbers ascend as a list does from its last job.
type jobs struct {
	number, workspaces int
	tied               bool // all have one time
	old, new           bool // the schemas that hold them
	bare               bool // no index has them
}

func (j jobs) id(n int) string { return fmt.Sprintf("01980000-0000-7000-8000-%012d", n) }

func (j jobs) workspace(n int) string { return fmt.Sprintf("bench-%d", n%j.workspaces) }

func (j jobs) enqueuedAt(n int) time.Time {
	at := time.Date(2026, 11, 21, 19, 28, 54, 17_837_000, time.UTC)
	if !j.tied {
		at = at.Add(time.Duration(n) * time.Millisecond)
	}
	return at
}

func (j jobs) status(n int) job.Status {
	if n/j.workspaces%failedEvery == 0 {
		return job.Failed
	}
	return job.Completed
}

// entries gives a job's entries of the index: the order of all jobs, and that of its state.
func (j jobs) entries(n int) (all, ofState string) {
	at := j.enqueuedAt(n)
	id := uuid.MustParse(j.id(n))
	place := string(binary.BigEndian.AppendUint64(nil, uint64(at.Unix()))[3:]) +
		fmt.Sprintf("%06d", at.Nanosecond()/1000) + string(id[:])
	return "z" + place, string(j.status(n)[:1]) + place
}

// write stores the jobs as if each had been enqueued and had ended, and marks the index complete. It speaks the protocol
// itself and has no command answered, because a client library takes longer than Redis does; what is there in the end
// is counted.
func (j jobs) write(ctx context.Context, rdb *redis.Client, params string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", rdb.Options().Addr)
	if err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	defer conn.Close() //nolint:errcheck // what was written is counted below
	out := bufio.NewWriterSize(conn, 1<<16)
	send(out, "CLIENT", "REPLY", "OFF")
	if !j.bare {
		send(out, "SET", "ai:index-state", "complete")
	}
	step := 1
	if j.tied {
		step = scatter
	}
	for i := range j.number {
		n := i * step % j.number
		id, ws := j.id(n), j.workspace(n)
		hash := record(ws, id, params)
		hash[slices.Index(hash, "status")+1] = string(j.status(n))
		hash[slices.Index(hash, "enqueued_at")+1] = j.enqueuedAt(n).Format("2006-01-02T15:04:05.000000+00:00")
		if j.old {
			send(out, append([]string{"HSET", "ai:jobs:" + id}, hash...)...)
		}
		if j.new {
			send(out, append([]string{"HSET", "ai:job:" + ws + ":" + id}, hash...)...)
		}
		if j.bare {
			continue
		}
		all, ofState := j.entries(n)
		send(out, "ZADD", "ai:index:"+ws, "0", all, "0", ofState)
	}
	send(out, "CLIENT", "REPLY", "ON")
	if err := out.Flush(); err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	if reply, err := bufio.NewReader(conn).ReadString('\n'); err != nil || reply != "+OK\r\n" {
		return fmt.Errorf("jobs: %q, %w", reply, err)
	}
	return j.count(ctx, rdb)
}

// send writes a command; the writer keeps its error until it is flushed.
func send(out *bufio.Writer, words ...string) {
	_, _ = fmt.Fprintf(out, "*%d\r\n", len(words))
	for _, word := range words {
		_, _ = out.WriteString("$" + strconv.Itoa(len(word)) + "\r\n" + word + "\r\n")
	}
}

// count tells whether all keys of j and all entries of the first workspace are there.
func (j jobs) count(ctx context.Context, rdb *redis.Client) error {
	keys, err := rdb.DBSize(ctx).Result()
	if err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	entries, err := rdb.ZCard(ctx, "ai:index:"+j.workspace(0)).Result()
	if err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	wanted, wantedEntries := 1+j.workspaces, 2*j.number/j.workspaces
	if j.bare {
		wanted, wantedEntries = 0, 0
	}
	for _, held := range []bool{j.old, j.new} {
		if held {
			wanted += j.number
		}
	}
	if keys != int64(wanted) || entries != int64(wantedEntries) {
		return fmt.Errorf("jobs: %d keys, %d entries in the index", keys, entries)
	}
	return nil
}

// pageAt asks for the page of the first workspace that begins behind skip of its jobs, of those in a state where one is
// given, and gives the numbers of the jobs that are to be on it.
func (j jobs) pageAt(skip int, status job.Status) (job.Query, []int, error) {
	every := j.workspaces // the first workspace has the jobs 0, every, 2*every
	if status == job.Failed {
		every *= failedEvery
	}
	there := (j.number + every - 1) / every
	q := job.Query{Status: status, Limit: pageSize}
	if skip > 0 {
		n := (there - skip) * every
		id, err := job.ParseID(j.id(n))
		if err != nil {
			return q, nil, fmt.Errorf("cursor: %w", err)
		}
		q.Cursor = job.OrderCursor(job.Place{Micros: j.enqueuedAt(n).UnixMicro(), ID: id})
	}
	var numbers []int
	for n := there - 1 - skip; n >= 0 && len(numbers) < pageSize; n-- {
		numbers = append(numbers, n*every)
	}
	return q, numbers, nil
}

// check holds a page against the numbers of the jobs that are to be on it.
func (j jobs) check(page job.Page, numbers []int) error {
	if !slices.EqualFunc(page.Jobs, numbers, func(got job.Job, n int) bool {
		return got.ID.String() == j.id(n) && got.Status == j.status(n)
	}) {
		return fmt.Errorf("a page of %d jobs is not that of %d jobs from %s on", len(page.Jobs), len(numbers), j.id(numbers[0]))
	}
	return nil
}

// store is a Redis server of its own with jobs.
type store struct {
	jobs
	server *redisserver.Server
	rdb    *redis.Client // one connection
	ws     workspace.ID  // the first
	seen   *telemetry.Observer
}

// open starts a server and stores the jobs in it.
func open(ctx context.Context, j jobs, params string) (*store, error) {
	server, err := redisserver.Run(ctx)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	s := &store{jobs: j, server: server, seen: telemetry.NewObserver(telemetry.NewMetrics(telemetry.Build{}, 10), zap.NewNop())}
	s.rdb, err = redisjobs.Connect(redisjobs.ConnectOptions{URL: "redis://" + server.Addr, PoolSize: 1, ReadTimeout: time.Minute})
	if err == nil {
		s.ws, err = workspace.Parse(j.workspace(0))
	}
	if err == nil {
		err = j.write(ctx, s.rdb, params)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close ends the server. What it held is gone, and so is whatever went wrong with its end.
func (s *store) close() {
	if s.rdb != nil {
		_ = s.rdb.Close()
	}
	s.seen.Close()
	_ = s.server.Stop()
}

func (s *store) repository(phase migration.Phase) *redisjobs.Repository {
	return redisjobs.New(s.rdb, phase, redisjobs.Options{Observer: s.seen})
}
