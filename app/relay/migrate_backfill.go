package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/adapters/telemetry"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
)

var errRemains = errors.New("differences remain")

func migrateBackfillCommand(environ []string) *cobra.Command {
	var (
		way     passFlags
		maxJobs int64
		to      string
		restart bool
		verbose bool
		metrics metricsFlags
	)
	cmd := &cobra.Command{
		Use:   "backfill (--dry-run | --execute)",
		Short: "Make the copies that a schema lacks, and equal copies of those that differ",
		Long: "Go through all stored jobs, make the copies that a schema lacks, and of two that differ put the fresher in the\n" +
			"other's place. Servers and workers may go on meanwhile, and it may be run twice or at once. What was done is kept:\n" +
			"the next run goes on where this one ended. `SET ai:backfill-pause 1` holds it, `SET ai:backfill-rate 500` changes\n" +
			"its rate while it runs.\n\n" + exitCodes,
		Args: noArguments,
	}
	flags := cmd.Flags()
	way.addChanging(flags)
	way.addWorkspace(flags)
	metrics.add(flags)
	flags.StringVar(&to, "to", "new", "the schema in which missing copies are made: new, or old for the way back")
	way.addBatch(flags)
	flags.Int64Var(&maxJobs, "max-jobs", 0, "end behind so many jobs; 0 is all")
	flags.BoolVar(&restart, "restart", false, "forget where an earlier run ended")
	flags.BoolVar(&verbose, "verbose", false, "print a line for each job that is changed or left")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ws, err := way.check()
		if err != nil {
			return err
		}
		if maxJobs < 0 {
			return errors.New("--max-jobs must be a whole number from 0")
		}
		if err := metrics.check(way.dryRun); err != nil {
			return err
		}
		in := usecase.BackfillInput{
			To: migration.New, DryRun: way.dryRun, Batch: way.batch, Rate: way.rate, Workspace: ws, MaxJobs: maxJobs, Restart: restart,
		}
		switch to {
		case migration.New.String():
		case migration.Old.String():
			in.To = migration.Old
		default:
			return errors.New("--to must be new or old")
		}
		return onStorage(cmd, environ, func(ctx context.Context, s storage) error {
			counts := telemetry.NewBackfill(backfillLabels)
			stop, err := metrics.serve(ctx, counts, cmd.ErrOrStderr())
			if err != nil {
				return &faultError{err}
			}
			defer stop()
			return s.backfill(ctx, in, way, verbose, counting{counts, metrics}, cmd.OutOrStdout(), cmd.ErrOrStderr())
		})
	}
	return cmd
}

// counting is what a run counts in, and where that goes.
type counting struct {
	*telemetry.Backfill
	metricsFlags
}

// backfillResult is what a run ends with.
type backfillResult struct {
	migration.BackfillCounts
	ending

	To         string `json:"to"`
	DryRun     bool   `json:"dry_run"`
	Done       bool   `json:"done"` // the pass has come to its end
	Recorded   bool   `json:"recorded"`
	Unrecorded string `json:"unrecorded,omitempty"` // why it counts for no gate
}

func (s storage) backfill(
	ctx context.Context, in usecase.BackfillInput, way passFlags, verbose bool, counted counting, out, progress io.Writer,
) error {
	pass := usecase.Backfill{Copies: s.copies, Load: s.copies, Clock: systemclock.Clock{}}
	if !in.DryRun {
		if err := pass.Preflight(ctx, in); err != nil {
			return refusal(err)
		}
		if err := s.gates.Executes(ctx, s.command); err != nil {
			return interrupted(err, "", goesOn)
		}
		defer counted.push(ctx, counted.Backfill, progress)
	}
	result := backfillResult{To: in.To.String(), DryRun: in.DryRun}
	began, process, err := s.state.Now(ctx)
	if err != nil {
		return interrupted(err, "", goesOn)
	}
	kept, err := s.copies.Checkpoint(ctx, in.To)
	if err != nil {
		return interrupted(err, "", goesOn)
	}
	bar := newProgress(progress)
	counts, done, err := pass.Do(ctx, in, func(p usecase.BackfillProgress) {
		for _, c := range p.Copied {
			counted.Count(c)
		}
		counted.Paced(p.Pace)
		if !p.Waiting {
			counted.Progressed(p.Fraction)
		}
		bar.tell(told{p.Fraction, p.Counts.Scanned, p.Pace, p.Waiting, backfillLine(p.Counts, in.DryRun)})
		if verbose {
			tellEach(progress, p)
		}
	})
	bar.end()
	result.BackfillCounts, result.Done = counts, done
	next := goesOn
	switch {
	case in.DryRun:
		result.Unrecorded = "a dry run"
		next = beginsAnew
	case !done:
		result.Unrecorded = "it is not at the end"
	case !in.Workspace.IsZero():
		result.Unrecorded = "it was of one workspace alone"
	case !in.Restart && !kept.IsZero() && kept.Workspace.IsZero():
		result.Unrecorded = "it went on where an earlier run ended"
	default:
		result.Unrecorded, err = s.record(ctx, in.To, counts, began, process)
		next = beginsAnew
	}
	result.Recorded = err == nil && result.Unrecorded == ""
	result.ending = endedBy(err)
	if err != nil {
		err = interrupted(err, backfillLine(counts, in.DryRun), next)
	}
	if err := errors.Join(err, printResult(out, way.asJSON, result, result.rows())); err != nil {
		return err
	}
	if counts.Left() > 0 || !done || in.DryRun && !counts.Clean() {
		return errRemains
	}
	return nil
}

// record keeps a whole pass for the gates, or says why it is none.
func (s storage) record(
	ctx context.Context, to migration.Schema, counts migration.BackfillCounts, began time.Time, process string,
) (why string, err error) {
	p := migration.PassOfBackfill(to, counts)
	ended, now, err := s.state.Now(ctx)
	if err != nil {
		return "", err //nolint:wrapcheck // already a fault
	}
	if now != process {
		return "the server process changed meanwhile", nil
	}
	p.Started, p.Ended, p.Process, p.Whole = began, ended, now, true
	return "", s.gates.Record(ctx, s.command, p)
}

func backfillLine(c migration.BackfillCounts, dryRun bool) string {
	made := c.Jobs[migration.CopyMade]
	repaired := c.Jobs[migration.CopyRepaired] + c.Jobs[migration.CopyTTL]
	return fmt.Sprintf("%d keys, %[4]s%[2]d made, %[4]s%[3]d repaired", c.Scanned, made, repaired, wouldBe(dryRun))
}

// tellEach prints what is not as it was. Keys are text of others: they are quoted.
func tellEach(w io.Writer, p usecase.BackfillProgress) {
	for _, c := range p.Copied {
		if c.Outcome.Changed() || c.Outcome.Left() {
			_, _ = fmt.Fprintf(w, "%s %s %q\n", c.Outcome, c.Job.Workspace, c.Job.ID.String()) // the result tells all the same
		}
	}
	for _, k := range p.Strange {
		_, _ = fmt.Fprintf(w, "%s %q\n", k.Class, k.Key)
	}
}

func (r backfillResult) rows() []row {
	word := wouldBe(r.DryRun)
	rows := []row{
		{"scanned", r.Scanned},
		{word + "backfilled", r.Jobs[migration.CopyMade]},
		{word + "repaired", r.Jobs[migration.CopyRepaired] + r.Jobs[migration.CopyTTL]},
		{"skipped as identical", r.Jobs[migration.CopyIdentical] + r.Jobs[migration.CopySingle]},
		{"no whole copy", r.Jobs[migration.CopyAbsent]},
		{"index entries " + word + "mended", r.Entries},
	}
	for _, o := range migration.CopyOutcomes() {
		if o.Left() {
			rows = append(rows, row{"left: " + o.String(), r.Jobs[o]})
		}
	}
	for _, c := range migration.KeyClasses() {
		rows = append(rows, row{"no job: " + c.String(), r.Strange[c]})
	}
	end, recorded := "yes", "yes"
	if !r.Done {
		end = "no: run it again to go on"
		if r.DryRun {
			end = "no"
		}
	}
	if !r.Recorded {
		recorded = "no: " + r.Unrecorded
	}
	rows = append(rows, r.errorsRow(), row{"at the end", end})
	if r.To != migration.Old.String() {
		return rows // no gate asks for it
	}
	return append(rows, row{"recorded for gate " + migration.GateBack.String(), recorded})
}
