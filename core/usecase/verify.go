package usecase

import (
	"context"
	"hash/maphash"
	"slices"
	"time"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/workspace"
	"github.com/relay-jobs/relay/ports"
)

// Verify compares all copies of all jobs, and what names jobs, while others write. It changes nothing. What seems wrong is
// asked about again a while later, and reported only if it is the same still.
type Verify struct {
	Copies     ports.JobCopies
	Comparison ports.JobComparison
	Index      ports.JobIndex
	Load       ports.StorageLoad
	Clock      ports.Clock
}

// VerifyInput says what to look at, by which rules and how fast.
type VerifyInput struct {
	Phase     migration.Phase
	Batch     int          // keys of one step; 0 for as many as the pace allows
	Rate      int          // jobs and references a second at most; 0 for no bound
	Workspace workspace.ID // the only one; zero for all. What is nobody's is left out with it
	Sample    int          // every so many jobs one is compared; 0 and 1 for all
	// IndexLag is how long an entry of the index may be wrong: while a writer that does not know the index is at work, a
	// sweep follows it. At least as long as other differences may last. Entries that an index lacks which is not complete
	// are not waited for: no sweep makes all of them.
	IndexLag time.Duration
	RevSince time.Time // jobs that were written without rev since then are counted; zero to look for none
}

// VerifyPart is one of the walks of a pass.
type VerifyPart uint8

// The parts, in their order.
const (
	VerifyJobs VerifyPart = iota
	VerifyTwoWorkspaces
	VerifyReferences
	VerifyQueue
	VerifySuspects
)

// String gives the name that operators know p by.
func (p VerifyPart) String() string {
	switch p {
	case VerifyJobs:
		return "jobs"
	case VerifyTwoWorkspaces:
		return "ids in two workspaces"
	case VerifyReferences:
		return "index and idempotency keys"
	case VerifyQueue:
		return "queue"
	case VerifySuspects:
		return "suspects"
	}
	return "unknown"
}

// VerifyProgress is told after each step. Report shares its map with the pass: it is to be read before the next step.
type VerifyProgress struct {
	Report   migration.VerifyReport
	Found    []migration.Difference // of this step
	Suspects int                    // that are to be asked about again
	Due      time.Time              // when the first of them is, by this process' clock; zero where there are none
	Part     VerifyPart
	Fraction float64 // of this part that is behind the pass, 0 where that is not known
	Pace     migration.Pace
	Waiting  bool // the pass stands still, nothing is new but the pace
}

const (
	// suspicion is how long a difference must last: longer than a writer without scripts needs for both copies, and than
	// equal copies may expire apart.
	suspicion = 1200 * time.Millisecond
	// maxSuspects bounds how much is remembered of what is to be asked about again; the walk waits where there is more.
	maxSuspects = 1 << 14
	// maxSuspicions bounds how often a difference is asked about that is another one each time: copies that move on are
	// not stuck.
	maxSuspicions = 5
)

// Do goes through everything in one server process: where that changes under the pass, it starts over.
func (u Verify) Do(
	ctx context.Context, in VerifyInput, progress func(VerifyProgress),
) (migration.VerifyReport, error) {
	in.Sample, in.IndexLag = max(in.Sample, 1), max(in.IndexLag, suspicion)
	pacer := &pacer{load: u.Load, clock: u.Clock, rate: in.Rate, batch: in.Batch}
	for {
		p := verifyPass{
			Verify: u, in: in, progress: progress, pacer: pacer,
			seed: maphash.MakeSeed(), reported: map[uint64]struct{}{},
		}
		whole, err := p.run(ctx)
		if err != nil || whole {
			return p.report, err
		}
	}
}

// suspect is a difference that is to be asked about again.
type suspect struct {
	migration.Difference
	jobs  []migration.StoredJob // the job, or the two of one id, where it is a job that is compared
	ref   migration.Reference   // else
	first time.Time             // when the difference was met
	due   time.Time
	tries int
}

// verifyPass is the state of one pass.
type verifyPass struct {
	Verify
	in       VerifyInput
	progress func(VerifyProgress)
	pacer    *pacer
	seed     maphash.Seed

	report   migration.VerifyReport
	part     VerifyPart
	fraction float64
	offset   time.Duration       // of the server's clock from this process'
	met      int64               // jobs, for the sample
	ids      []uint64            // of each job that was met, its id in short
	complete bool                // the index, when the pass began
	reported map[uint64]struct{} // differences in short: a walk may meet a key twice
	found    []migration.Difference
	suspects []suspect // those that are due first come first
}

// run tells whether all of the pass happened in one server process.
func (p *verifyPass) run(ctx context.Context) (whole bool, err error) {
	process, now, err := p.Comparison.Process(ctx)
	if err != nil {
		return false, err //nolint:wrapcheck // already a fault
	}
	if p.complete, err = p.Index.Complete(ctx); err != nil {
		return false, err //nolint:wrapcheck // already a fault
	}
	p.offset = now.Sub(p.Clock.Now())
	p.report = migration.VerifyReport{
		Process: process, Phase: p.in.Phase.String(), Workspace: p.in.Workspace.String(), Sample: p.in.Sample, Started: now,
		RevSince:    p.in.RevSince,
		Differences: map[migration.DifferenceClass]migration.DifferenceTally{},
	}
	for part, walk := range []func(context.Context) (bool, error){p.walkJobs, p.walkTwice, p.walkReferences, p.walkQueue} {
		p.part, p.fraction = VerifyPart(part), 0
		if whole, err = walk(ctx); err != nil || !whole {
			return false, err
		}
	}
	p.part, p.fraction = VerifySuspects, 0
	for len(p.suspects) > 0 {
		p.tell(false) // it waits
		if err := p.Clock.Sleep(ctx, p.suspects[0].due.Sub(p.Clock.Now())); err != nil {
			return false, err //nolint:wrapcheck // the context's own error
		}
		if err := p.step(ctx); err != nil {
			return false, err
		}
	}
	process, p.report.Ended, err = p.Comparison.Process(ctx)
	return process == p.report.Process, err //nolint:wrapcheck // already a fault
}

// step ends a step of a walk: suspects that are due are asked about, the caller is told, and the pace is kept.
func (p *verifyPass) step(ctx context.Context) error {
	if err := p.askAgain(ctx); err != nil {
		return err
	}
	p.tell(false)
	p.found = nil
	return p.pacer.wait(ctx, func() { p.tell(true) })
}

func (p *verifyPass) tell(waiting bool) {
	if p.progress == nil {
		return
	}
	now := VerifyProgress{
		Report: p.report, Found: p.found, Suspects: len(p.suspects), Part: p.part, Fraction: p.fraction,
		Pace: p.pacer.pace, Waiting: waiting,
	}
	if len(p.suspects) > 0 {
		now.Due = p.suspects[0].due
	}
	p.progress(now)
}

// wants tells whether a workspace's things are looked at; the zero workspace is nobody.
func (p *verifyPass) wants(ws workspace.ID) bool {
	return p.in.Workspace.IsZero() || ws == p.in.Workspace
}

// walkKeys goes through all keys of jobs.
func (p *verifyPass) walkKeys(ctx context.Context, step func(migration.KeyBatch) error) (whole bool, err error) {
	for at := migration.Position(0); ; {
		batch, err := p.Copies.Keys(ctx, at, p.pacer.step())
		if err != nil || batch.Process != p.report.Process {
			return false, err //nolint:wrapcheck // already a fault
		}
		if err := step(batch); err != nil {
			return false, err
		}
		at, p.fraction = batch.Next, batch.Next.Fraction()
		if err := p.step(ctx); err != nil {
			return false, err
		}
		if at == 0 {
			return true, nil
		}
	}
}

func (p *verifyPass) walkJobs(ctx context.Context) (whole bool, err error) {
	return p.walkKeys(ctx, func(batch migration.KeyBatch) error {
		var jobs []migration.StoredJob
		for _, j := range batch.Jobs {
			p.ids = append(p.ids, p.short(j.ID.String()))
			if p.wants(j.Workspace) {
				if p.met++; p.met%int64(p.in.Sample) == 0 {
					jobs = append(jobs, j)
				}
			}
		}
		p.report.Jobs += int64(len(jobs))
		p.pacer.did(len(jobs))
		if p.in.Workspace.IsZero() { // else what is nobody's is left out
			for _, s := range batch.Strange {
				ref := migration.Reference{Kind: migration.ReferenceKey, Key: s.Key}
				p.suspect(suspect{Difference: differenceOf(ref, s.Class.Difference()), ref: ref})
			}
		}
		return p.compare(ctx, jobs, func(i int, facts migration.JobFacts) {
			if since := p.in.RevSince; !since.IsZero() && facts.WithoutRev > since.UnixMicro() {
				p.report.WithoutRev++
			}
			for _, d := range migration.Judge(p.in.Phase, facts) {
				p.suspect(suspect{Difference: d, jobs: jobs[i : i+1]})
			}
		})
	})
}

// compare compares jobs.
func (p *verifyPass) compare(
	ctx context.Context, jobs []migration.StoredJob, each func(i int, facts migration.JobFacts),
) error {
	from := 0
	return p.pacer.trips(ctx, jobs, workspace.ID{}, func(ctx context.Context, trip []migration.JobRef) error {
		facts, err := p.Comparison.Compare(ctx, trip)
		if err != nil {
			return err //nolint:wrapcheck // already a fault
		}
		for i, f := range facts {
			each(from+i, f)
		}
		from += len(trip)
		return nil
	})
}

// walkTwice finds ids that two workspaces have. Only where some look so in short, all keys are walked through again.
func (p *verifyPass) walkTwice(ctx context.Context) (whole bool, err error) {
	slices.Sort(p.ids)
	met := map[uint64][]migration.StoredJob{}
	for i := 1; i < len(p.ids); i++ {
		if p.ids[i] == p.ids[i-1] {
			met[p.ids[i]] = nil
		}
	}
	p.ids = nil
	if len(met) == 0 {
		return true, nil
	}
	return p.walkKeys(ctx, func(batch migration.KeyBatch) error {
		for _, j := range batch.Jobs {
			short := p.short(j.ID.String())
			others, twice := met[short]
			if !twice || slices.ContainsFunc(others, func(o migration.StoredJob) bool { return o.JobRef == j.JobRef }) {
				continue
			}
			for _, o := range others {
				if o.ID == j.ID && (p.wants(o.Workspace) || p.wants(j.Workspace)) {
					d := migration.Difference{Class: migration.DifferenceTwoWorkspaces, Job: j.JobRef}
					p.suspect(suspect{Difference: d, jobs: []migration.StoredJob{o, j}})
					break
				}
			}
			met[short] = append(others, j)
		}
		p.pacer.did(len(batch.Jobs))
		return nil
	})
}

// walkReferences goes through indexes and idempotency keys.
func (p *verifyPass) walkReferences(ctx context.Context) (whole bool, err error) {
	walked := map[workspace.ID]bool{} // SCAN may give a key twice
	for at := migration.Position(0); ; {
		batch, err := p.Comparison.References(ctx, at, p.pacer.step())
		if err != nil || batch.Process != p.report.Process {
			return false, err //nolint:wrapcheck // already a fault
		}
		for _, ref := range batch.References {
			if ref.Kind == migration.ReferenceIdempotency && p.wants(ref.Workspace) {
				p.report.IdempotencyKeys++
			}
		}
		if err := p.look(ctx, batch.References, len(batch.References)); err != nil {
			return false, err
		}
		for _, ws := range batch.Indexes {
			if walked[ws] || !p.wants(ws) {
				continue
			}
			walked[ws] = true
			if err := p.walkIndex(ctx, ws); err != nil {
				return false, err
			}
		}
		if at, p.fraction = batch.Next, batch.Next.Fraction(); at == 0 {
			return true, nil
		}
	}
}

func (p *verifyPass) walkIndex(ctx context.Context, ws workspace.ID) error {
	for before := ""; ; {
		refs, looked, next, err := p.Comparison.IndexEntries(ctx, ws, before, p.pacer.step())
		if err != nil {
			return err //nolint:wrapcheck // already a fault
		}
		p.report.IndexEntries += int64(looked)
		if err := p.look(ctx, refs, looked); err != nil {
			return err
		}
		if before = next; before == "" {
			return nil
		}
	}
}

func (p *verifyPass) walkQueue(ctx context.Context) (whole bool, err error) {
	for depth := int64(0); ; {
		refs, next, err := p.Comparison.QueueEntries(ctx, depth, p.pacer.step())
		if err != nil {
			return false, err //nolint:wrapcheck // already a fault
		}
		p.report.QueueEntries += int64(len(refs))
		if err := p.look(ctx, refs, len(refs)); err != nil {
			return false, err
		}
		if depth = next; depth == 0 {
			return true, nil
		}
	}
}

// look judges references for the first time, as a step that is worth so many.
func (p *verifyPass) look(ctx context.Context, refs []migration.Reference, worth int) error {
	refs = slices.DeleteFunc(refs, func(r migration.Reference) bool { return !p.wants(r.Workspace) })
	if len(refs) > 0 {
		classes, err := p.Comparison.Judge(ctx, refs, false)
		if err != nil {
			return err //nolint:wrapcheck // already a fault
		}
		for i, class := range classes {
			if class != 0 {
				p.suspect(suspect{Difference: differenceOf(refs[i], class), ref: refs[i]})
			}
		}
	}
	p.pacer.did(worth)
	return p.step(ctx)
}

func differenceOf(ref migration.Reference, class migration.DifferenceClass) migration.Difference {
	return migration.Difference{Class: class, Job: migration.JobRef{Workspace: ref.Workspace}, Key: ref.Key, Entry: ref.Entry}
}

// suspect keeps a difference to be asked about again.
func (p *verifyPass) suspect(s suspect) {
	s.first = p.Clock.Now()
	s.due = s.first.Add(suspicion)
	if s.Class.OfIndex() && (p.complete || s.Class != migration.DifferenceIndexMissing) {
		s.due = s.first.Add(p.in.IndexLag)
	}
	i := len(p.suspects)
	for i > 0 && p.suspects[i-1].due.After(s.due) {
		i--
	}
	p.suspects = slices.Insert(p.suspects, i, s)
}

// askAgain asks about the suspects that are due, and waits for some where there are too many.
func (p *verifyPass) askAgain(ctx context.Context) error {
	for {
		now := p.Clock.Now()
		n := 0
		for n < len(p.suspects) && n < p.pacer.step() && !p.suspects[n].due.After(now) {
			n++
		}
		if n == 0 {
			if len(p.suspects) <= maxSuspects {
				return nil
			}
			if err := p.Clock.Sleep(ctx, p.suspects[0].due.Sub(now)); err != nil {
				return err //nolint:wrapcheck // the context's own error
			}
			continue
		}
		due := slices.Clone(p.suspects[:n])
		p.suspects = slices.Delete(p.suspects, 0, n)
		p.pacer.did(n)
		if err := p.askJobs(ctx, due); err != nil {
			return err
		}
		if err := p.askReferences(ctx, due); err != nil {
			return err
		}
	}
}

func (p *verifyPass) askJobs(ctx context.Context, due []suspect) error {
	var jobs []migration.StoredJob
	var of []suspect
	for _, s := range due {
		for _, j := range s.jobs {
			jobs, of = append(jobs, j), append(of, s)
		}
	}
	one := false // of two jobs of one id the first is held
	return p.compare(ctx, jobs, func(i int, facts migration.JobFacts) {
		s := of[i]
		if s.Class == migration.DifferenceTwoWorkspaces {
			if jobs[i].JobRef != s.Job {
				one = facts.Held()
			} else if one && facts.Held() {
				s.Key, s.Latest = facts.New.Key, facts.Latest()
				if facts.New.Holds != migration.HoldsWhole {
					s.Key = facts.Old.Key
				}
				p.confirm(s)
			}
			return
		}
		for _, d := range migration.Judge(p.in.Phase, facts) {
			if d.Class.OfIndex() == s.Class.OfIndex() {
				p.decide(s, d)
			}
		}
	})
}

func (p *verifyPass) askReferences(ctx context.Context, due []suspect) error {
	due = slices.DeleteFunc(due, func(s suspect) bool { return s.jobs != nil })
	if len(due) == 0 {
		return nil
	}
	refs := make([]migration.Reference, len(due))
	for i, s := range due {
		refs[i] = s.ref
	}
	classes, err := p.Comparison.Judge(ctx, refs, true)
	if err != nil {
		return err //nolint:wrapcheck // already a fault
	}
	for i, class := range classes {
		if class != 0 {
			p.decide(due[i], differenceOf(refs[i], class))
		}
	}
	return nil
}

// decide confirms a suspect that is the same still, and goes on to suspect what is another difference.
func (p *verifyPass) decide(s suspect, d migration.Difference) {
	if s.Class == d.Class && s.Mark == d.Mark {
		p.confirm(s)
	} else if s.tries++; s.tries < maxSuspicions {
		s.Difference = d
		p.suspect(s)
	}
}

// confirm reports a difference once.
func (p *verifyPass) confirm(s suspect) {
	short := p.short(s.Class.String() + "\x00" + s.Key + "\x00" + s.Entry)
	if s.Class == migration.DifferenceTwoWorkspaces {
		short = p.short(s.Class.String() + "\x00" + s.Job.ID.String())
	}
	if _, twice := p.reported[short]; twice {
		return
	}
	p.reported[short] = struct{}{}
	now := p.Clock.Now()
	p.report.Add(s.Difference, now.Sub(s.first), now.Add(p.offset))
	p.found = append(p.found, s.Difference)
}

// short gives a text in eight bytes.
func (p *verifyPass) short(text string) uint64 { return maphash.String(p.seed, text) }
