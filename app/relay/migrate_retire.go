package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
)

func migrateRetireCommand(environ []string) *cobra.Command {
	var (
		way   passFlags
		force string
		quiet time.Duration
	)
	cmd := &cobra.Command{
		Use:   "retire (--dry-run | --execute)",
		Short: "Remove the old copies, once nothing needs them",
		Long: "Go through all stored jobs and remove each old copy whose new copy is whole, and equal or fresher. What new does\n" +
			"not hold stays, and so does what is no job. It is refused while its gate is closed, and stops where the gate\n" +
			"closes meanwhile. It may be interrupted and run again: what was removed is gone.\n\n" + exitCodes,
		Args: noArguments,
	}
	flags := cmd.Flags()
	way.addChanging(flags)
	way.addWorkspace(flags)
	flags.StringVar(&force, "force", "", "the reason why a closed gate does not matter; it is kept")
	addQuiet(flags, &quiet)
	way.addBatch(flags)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ws, err := way.check()
		if err != nil {
			return err
		}
		if err := checkQuiet(quiet); err != nil {
			return err
		}
		if flags.Changed("force") && (way.dryRun || strings.TrimSpace(force) == "") {
			return errors.New("--force needs a reason, and --execute")
		}
		in := usecase.RetireInput{
			DryRun: way.dryRun, Batch: way.batch, Rate: way.rate, Workspace: ws, Force: force,
		}
		return onStorage(cmd, environ, func(ctx context.Context, s storage) error {
			in.Command, s.gates.Quiet = s.command, quiet
			return s.retire(ctx, in, way.asJSON, cmd.OutOrStdout(), cmd.ErrOrStderr())
		})
	}
	return cmd
}

// retireResult is what a run ends with.
type retireResult struct {
	migration.RetireCounts
	ending

	DryRun bool                 `json:"dry_run"`
	Gate   *migration.GateState `json:"gate,omitempty"` // when it began, of a dry run and a forced one, which go by a closed one
}

func (s storage) retire(ctx context.Context, in usecase.RetireInput, asJSON bool, out, progress io.Writer) error {
	result := retireResult{DryRun: in.DryRun}
	if in.DryRun || in.Force != "" {
		gate, err := s.gates.State(ctx, migration.GateRetire)
		if err != nil {
			return interrupted(err, "", beginsAnew)
		}
		result.Gate = &gate
		if !in.DryRun && !gate.Open {
			_, _ = fmt.Fprintf(progress, "forced: %v\n", &migration.ClosedError{GateState: gate}) // it is kept as well
		}
	}
	bar := newProgress(progress)
	pass := usecase.Retire{Keys: s.copies, Old: s.old, Load: s.copies, Clock: systemclock.Clock{}, Gates: s.gates}
	counts, err := pass.Do(ctx, in, func(p usecase.RetireProgress) {
		bar.tell(told{p.Fraction, p.Counts.Scanned, p.Pace, p.Waiting, retireLine(p.Counts, in.DryRun)})
	})
	bar.end()
	result.RetireCounts = counts
	if closed := (*migration.ClosedError)(nil); errors.As(err, &closed) {
		if counts.Scanned == 0 {
			return closed
		}
		err = fmt.Errorf("after %s: %w", retireLine(counts, in.DryRun), closed)
	} else if err != nil {
		result.ending = endedBy(err)
		err = interrupted(err, retireLine(counts, in.DryRun), beginsAnew)
	}
	if err := errors.Join(err, printResult(out, asJSON, result, result.rows())); err != nil {
		return err
	}
	if counts.Kept() > 0 || in.DryRun && counts.Jobs[migration.RetireRemoved]+counts.Entries > 0 {
		return errRemains
	}
	return nil
}

func retireLine(c migration.RetireCounts, dryRun bool) string {
	return fmt.Sprintf("%d keys, %[4]s%[2]d removed, %[3]d kept", c.Scanned, c.Jobs[migration.RetireRemoved], c.Kept(), wouldBe(dryRun))
}

func (r retireResult) rows() []row {
	word := wouldBe(r.DryRun)
	rows := []row{
		{"scanned", r.Scanned},
		{word + "removed", r.Jobs[migration.RetireRemoved]},
		{"had no old copy", r.Jobs[migration.RetireAbsent]},
		{"index entries " + word + "mended", r.Entries},
	}
	for _, o := range migration.RetireOutcomes() {
		if o.Kept() {
			rows = append(rows, row{"kept: " + o.String(), r.Jobs[o]})
		}
	}
	for _, c := range migration.KeyClasses() {
		rows = append(rows, row{"no job: " + c.String(), r.Strange[c]})
	}
	rows = append(rows, r.errorsRow())
	if r.Gate != nil {
		rows = append(rows, row{"gate " + r.Gate.Gate.String(), r.Gate.Text()})
	}
	return rows
}
