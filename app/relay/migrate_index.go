package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
)

var errDiffers = errors.New(
	"the index is not complete, or not in step with the stored jobs: --execute brings it there")

func migrateIndexCommand(environ []string) *cobra.Command {
	var way passFlags
	cmd := &cobra.Command{
		Use:   "index (--dry-run | --execute)",
		Short: "Build the index by which jobs are listed",
		Long: "Go through all stored jobs and make the index of each workspace say what they say. Servers may go on\n" +
			"meanwhile, and it may be run twice or at once. Afterwards lists go by the index.\n\n" + exitCodes,
		Args: noArguments,
	}
	flags := cmd.Flags()
	way.addChanging(flags)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, err := way.check(); err != nil {
			return err
		}
		in := usecase.IndexJobsInput{Scope: migration.IndexAll, DryRun: way.dryRun, Rate: way.rate}
		return onStorage(cmd, environ, func(ctx context.Context, s storage) error {
			return s.indexJobs(ctx, in, way.asJSON, cmd.OutOrStdout(), cmd.ErrOrStderr())
		})
	}
	return cmd
}

// indexResult is what a pass ends with.
type indexResult struct {
	migration.IndexCounts
	ending

	DryRun   bool `json:"dry_run"`
	Complete bool `json:"complete"` // whether lists go by the index
}

func (s storage) indexJobs(ctx context.Context, in usecase.IndexJobsInput, asJSON bool, out, progress io.Writer) error {
	if !in.DryRun {
		if err := s.gates.Executes(ctx, s.command); err != nil {
			return interrupted(err, "", beginsAnew)
		}
	}
	bar := newProgress(progress)
	pass := usecase.IndexJobs{Index: s.index, Clock: systemclock.Clock{}}
	counts, err := pass.Do(ctx, in, func(p usecase.IndexJobsProgress) {
		bar.tell(told{
			fraction: p.Fraction, done: p.Counts.Scanned + p.Counts.Entries, what: indexLine(p.Counts, in.DryRun),
		})
	})
	bar.end()
	result := indexResult{IndexCounts: counts, DryRun: in.DryRun}
	if err == nil {
		result.Complete, err = s.index.Complete(ctx)
	}
	result.ending = endedBy(err)
	if err != nil {
		err = interrupted(err, indexLine(counts, in.DryRun), beginsAnew)
	}
	if err := errors.Join(err, printResult(out, asJSON, result, result.rows())); err != nil {
		return err
	}
	if counts.Mended+counts.Dropped > 0 && in.DryRun || !result.Complete {
		return errDiffers
	}
	return nil
}

func indexLine(c migration.IndexCounts, dryRun bool) string {
	return fmt.Sprintf("%d keys of jobs and %d places looked at, %[5]s%[3]d mended, %[5]s%[4]d dropped",
		c.Scanned, c.Entries, c.Mended, c.Dropped, wouldBe(dryRun))
}

func (r indexResult) rows() []row {
	word := wouldBe(r.DryRun)
	mended := "whose entries were mended"
	if r.DryRun {
		mended = "whose entries would be mended"
	}
	return []row{
		{"keys of jobs, those of one job in both schemas counted each", r.Scanned},
		{"that hold no job, or whose index is of another type", r.Ignored},
		{"whose entries were right", r.Identical},
		{mended, r.Mended},
		{"places looked at in indexes", r.Entries},
		{"that name no stored job, " + word + "dropped", r.Dropped},
		r.errorsRow(),
		{"index complete", yes(r.Complete)},
	}
}
