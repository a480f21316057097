package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/relay-jobs/relay/core/migration"
)

// idsOfAKind is how many jobs of another workspace, and how many absent ones, are asked for in turns.
const idsOfAKind = 20

// isolation compares, from outside, another workspace's jobs with absent ones of the same length: their answers byte
// by byte, and by a rank test the time until the last byte is there. Its control, the caller's own jobs against absent
// ones, shows that the test sees a difference where there is one.
func (b *measuring) isolation(ctx context.Context) ([]line, error) {
	var lines []line
	for _, phase := range []migration.Phase{
		migration.Legacy, migration.ReadRouting, migration.DualWrite, migration.NewOnly,
	} {
		r, err := b.startRelay(ctx, phase)
		if err != nil {
			return nil, err
		}
		for _, c := range []rankTest{
			{"1 KB in old", "globex", 1 << 10, false, b.requests},
			{"100 KB in old", "globex", 100 << 10, false, b.requests},
			{"1 MB in old", "globex", 1 << 20, false, b.requests},
			{"1 KB in old and new", "globex", 1 << 10, true, b.requests},
			{"100 KB in old and new", "globex", 100 << 10, true, b.requests},
			{"1 MB in old and new", "globex", 1 << 20, true, b.requests},
			{"control: its own, 1 KB", "acme", 1 << 10, true, b.requests / 10},
		} {
			l := line{name: phase.String() + ", " + c.name}
			if c.owner != "acme" {
				l.low, l.up = 0.48, 0.52
			}
			probability, err := b.tellApart(ctx, r.addr, c)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", l.name, err)
			}
			if b.verbose {
				fmt.Fprintf(os.Stderr, "%s: %.4f\n", l.name, probability)
			}
			l.values = []float64{probability}
			lines = append(lines, l)
		}
	}
	return lines, nil
}

// rankTest is one comparison of stored jobs with absent ones.
type rankTest struct {
	name, owner string
	size        int // of a job's params
	inNew       bool
	requests    int
}

// timing is one request's.
type timing struct {
	stored bool // the job exists
	took   time.Duration
}

// tellApart stores jobs of an owner and gives the probability that asking for one of them, as acme, takes longer than
// asking for an absent one. Requests for another workspace's must be answered with the same bytes.
func (b *measuring) tellApart(ctx context.Context, addr string, of rankTest) (float64, error) {
	if err := b.empty(ctx); err != nil {
		return 0, err
	}
	const requestID = "f5a8e3f0-6f0f-4d2b-9a43-0d1c7f3c5b1e"
	var texts [2][][]byte // absent, stored
	for range idsOfAKind {
		id := uuid.NewString()
		fields := record(of.owner, id, paramsOf(of.size))
		if err := b.rdb.HSet(ctx, "ai:jobs:"+id, fields).Err(); err != nil {
			return 0, fmt.Errorf("job: %w", err)
		}
		if of.inNew {
			if err := b.rdb.HSet(ctx, "ai:job:"+of.owner+":"+id, fields).Err(); err != nil {
				return 0, fmt.Errorf("job: %w", err)
			}
		}
		texts[0] = append(texts[0], request("GET", "/ai/jobs/"+uuid.NewString(), b.acme, requestID, ""))
		texts[1] = append(texts[1], request("GET", "/ai/jobs/"+id, b.acme, requestID, ""))
	}
	c, err := dial(ctx, addr)
	if err != nil {
		return 0, err
	}
	defer c.close()

	random := rand.New(rand.NewPCG(1, uint64(of.size)))
	warmUp := of.requests / 20
	timings := make([]timing, 0, warmUp+of.requests)
	for n := range cap(timings) {
		timings = append(timings, timing{stored: n%2 == 1})
	}
	random.Shuffle(warmUp, func(i, j int) { timings[i], timings[j] = timings[j], timings[i] })
	random.Shuffle(of.requests, func(i, j int) {
		timings[warmUp+i], timings[warmUp+j] = timings[warmUp+j], timings[warmUp+i]
	})
	var first []byte
	for n := range timings {
		kind := 0
		if timings[n].stored {
			kind = 1
		}
		text := texts[kind][random.IntN(idsOfAKind)]
		start := time.Now()
		status, err := c.exchange(text)
		timings[n].took = time.Since(start)
		if err != nil {
			return 0, err
		}
		if of.owner == "acme" {
			if stored := status == 200; stored != timings[n].stored {
				return 0, fmt.Errorf("the control does not hold: %s", c.answer)
			}
			continue
		}
		answer := undated(c.answer)
		if first == nil {
			first = answer
		}
		if status != 404 || !bytes.Equal(answer, first) {
			return 0, fmt.Errorf("two answers that differ:\n%s\n%s", first, answer)
		}
	}
	return auc(timings[warmUp:]), nil
}

// undated cuts the Date header out of an answer.
func undated(answer []byte) []byte {
	start := bytes.Index(answer, []byte("\r\nDate: "))
	if start < 0 {
		return bytes.Clone(answer)
	}
	end := start + 2 + bytes.Index(answer[start+2:], []byte("\r\n"))
	return slices.Concat(answer[:start], answer[end:])
}

// auc is the statistic of the Mann-Whitney test as a probability: that a stored one takes longer than an absent one,
// equal times counting half.
func auc(timings []timing) float64 {
	slices.SortFunc(timings, func(a, b timing) int { return cmp.Compare(a.took, b.took) })
	var ranks, stored float64
	for from := 0; from < len(timings); {
		to := from
		for to < len(timings) && timings[to].took == timings[from].took {
			to++
		}
		middle := float64(from+1+to) / 2 // ranks count from 1
		for _, t := range timings[from:to] {
			if t.stored {
				ranks += middle
				stored++
			}
		}
		from = to
	}
	absent := float64(len(timings)) - stored
	return (ranks - stored*(stored+1)/2) / (stored * absent)
}
