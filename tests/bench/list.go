package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
)

const (
	// smallest, medium and largest are how many jobs the stores hold whose pages are compared.
	smallest, medium, largest = 10_000, 100_000, 1_000_000
	// turns is how many pages of each kind are behind one p50.
	turns = 300
)

// depth is where a page lies in its workspace's list.
type depth int

const (
	first depth = iota
	middle
	last
	anywhere
)

func (d depth) String() string { return [...]string{"first", "middle", "last", "random"}[d] }

// probe is a kind of page in a store.
type probe struct {
	*store
	repo   *redisjobs.Repository
	at     depth
	status job.Status
	took   []time.Duration
	p50    []float64 // one a round
}

// ask reads one page and takes its time.
func (p *probe) ask(ctx context.Context, random *rand.Rand) error {
	there := p.number / p.workspaces
	if p.status == job.Failed {
		there /= failedEvery
	}
	skip := [...]int{first: 0, middle: there / 2, last: there - pageSize, anywhere: random.IntN(there - pageSize + 1)}[p.at]
	q, numbers, err := p.pageAt(skip, p.status)
	if err != nil {
		return err
	}
	start := time.Now()
	page, err := p.repo.List(ctx, p.ws, q)
	p.took = append(p.took, time.Since(start))
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	return p.check(page, numbers)
}

// settle ends a round.
func (p *probe) settle() {
	slices.Sort(p.took)
	p.p50 = append(p.p50, p.took[len(p.took)/2].Seconds())
	p.took = p.took[:0]
}

// list measures what a page costs in stores of different sizes. They live at the same time, and pages of all kinds take
// turns, so that a noise meets all.
func (b *measuring) list(ctx context.Context) ([]line, error) {
	var lines []line
	for _, layout := range []struct {
		name       string
		workspaces int
		tied       bool
	}{{"1/100 of the jobs", 100, false}, {"all jobs", 1, false}, {"all jobs, of one time", 1, true}} {
		of, err := b.listStores(ctx, layout.name, jobs{workspaces: layout.workspaces, tied: layout.tied, new: true})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", layout.name, err)
		}
		lines = append(lines, of...)
	}
	return lines, nil
}

// listStores compares the pages of one layout, of which like says all but the number.
func (b *measuring) listStores(ctx context.Context, name string, like jobs) ([]line, error) {
	type kind struct {
		number int
		at     depth
		status job.Status
	}
	probes := map[kind]*probe{}
	var order []*probe
	for _, number := range []int{smallest, medium, largest} {
		like.number = number
		start := time.Now()
		s, err := open(ctx, like, paramsOf(b.params))
		if err != nil {
			return nil, err
		}
		defer s.close()
		b.tell("%s: %d jobs stored in %s", name, number, time.Since(start).Round(time.Millisecond))
		repo := s.repository(migration.NewOnly)
		for _, status := range []job.Status{"", job.Failed} {
			if status == job.Failed && (number != largest || like.workspaces > 1) {
				continue // too few match for a page
			}
			for _, at := range []depth{first, middle, last, anywhere} {
				if (number == medium || status == job.Failed) && at != first && at != anywhere {
					continue
				}
				p := &probe{store: s, repo: repo, at: at, status: status}
				probes[kind{number, at, status}] = p
				order = append(order, p)
			}
		}
	}
	random := rand.New(rand.NewPCG(1, uint64(like.workspaces)))
	for round := range b.pairs + 1 {
		for range turns {
			random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			for _, p := range order {
				if err := p.ask(ctx, random); err != nil {
					return nil, err
				}
			}
		}
		for _, p := range order {
			if round == 0 {
				p.took = p.took[:0] // it was to warm up
			} else {
				p.settle()
			}
		}
	}
	for _, p := range order {
		b.tell("%s: %d, %s %s, least p50 %.0f µs", name, p.number, p.at, p.status, slices.Min(p.p50)*1e6)
	}
	var lines []line
	add := func(name string, up float64, of, to *probe) {
		l := line{name: name, up: up}
		for i := range of.p50 {
			l.values = append(l.values, of.p50[i]/to.p50[i])
		}
		lines = append(lines, l)
	}
	for _, at := range []depth{first, middle, last, anywhere} {
		up := 1.2
		if at == anywhere {
			up = 1.5
		}
		for _, number := range []int{medium, largest} {
			if p := probes[kind{number, at, ""}]; p != nil {
				add(fmt.Sprintf("%s, %s page, %d to %d", name, at, number, smallest), up, p, probes[kind{smallest, at, ""}])
			}
		}
	}
	spread := line{name: fmt.Sprintf("%s, first, middle and last of %d, slowest to fastest", name, largest), up: 1.3}
	for i := range b.pairs {
		of := []float64{}
		for _, at := range []depth{first, middle, last} {
			of = append(of, probes[kind{largest, at, ""}].p50[i])
		}
		spread.values = append(spread.values, slices.Max(of)/slices.Min(of))
	}
	lines = append(lines, spread)
	for _, at := range []depth{first, middle, last, anywhere} {
		if filtered := probes[kind{largest, at, job.Failed}]; filtered != nil {
			add(fmt.Sprintf("%s, %s page of %d, status of 0.1 %% to any", name, at, largest), 2,
				filtered, probes[kind{largest, at, ""}])
		}
	}
	return lines, nil
}
