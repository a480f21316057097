package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
)

func migrateStatusCommand(environ []string) *cobra.Command {
	var (
		asJSON, exact bool
		quiet         time.Duration
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell how far the migration is",
		Long: "Tell where the jobs lie, whether lists go by the index, what waits in the queue, and which step may be taken.\n" +
			"It writes nothing.\n\n" + judgedByFlags + exitCodes,
		Args: noArguments,
	}
	flags := cmd.Flags()
	flags.BoolVar(&asJSON, "json", false, "print the result as JSON")
	flags.BoolVar(&exact, "exact", false, "count all keys and queue entries, however long that takes")
	addQuiet(flags, &quiet)
	flags.String(app.FlagName("REDIS_URL"), "", "the Redis server [REDIS_URL]")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkQuiet(quiet); err != nil {
			return err
		}
		phase, err := app.LoadPhase(environment(environ, flags))
		if err != nil {
			return err //nolint:wrapcheck // names the variables
		}
		in := usecase.StatusInput{Phase: phase, Exact: exact, Quiet: quiet}
		return onStorage(cmd, environ, func(ctx context.Context, s storage) error {
			status := usecase.MigrationStatus{
				Facts: s.state, Keys: s.copies, Old: s.old, Index: s.index, Clock: systemclock.Clock{},
			}
			report, err := status.Do(ctx, in, nil)
			if err != nil {
				return interrupted(err, "", beginsAnew)
			}
			return printResult(cmd.OutOrStdout(), asJSON, report, statusRows(report))
		})
	}
	return cmd
}

// addQuiet adds what the condition of fallback hits asks for.
func addQuiet(flags *pflag.FlagSet, quiet *time.Duration) {
	flags.DurationVar(quiet, "quiet", migration.DefaultQuiet, "for how long no read may have fallen back to an old copy")
}

func checkQuiet(quiet time.Duration) error {
	if quiet <= 0 {
		return errors.New("--quiet must be above 0, such as 30m")
	}
	return nil
}

func statusRows(r usecase.StatusReport) []row {
	about := ""
	if r.Jobs.Fraction < 1 {
		about = "about "
	}
	jobs := r.Jobs.Whole()
	rows := []row{
		{"phase", r.Phase},
		{"jobs in old alone", fmt.Sprint(about, jobs.Old)},
		{"jobs in new alone", fmt.Sprint(about, jobs.New)},
		{"jobs in both", fmt.Sprint(about, jobs.Both)},
		{"keys of no job", fmt.Sprint(about, jobs.Strange)},
		{"index complete", yes(r.Indexed)},
		{"queue entries", fmt.Sprintf("%d, bare %d of %d looked at", r.Queue.Entries, r.Queue.Bare, r.Queue.Looked)},
		{"live servers", len(r.Servers)},
		{"servers differ", yes(r.Differ)},
		{"fallback hits", r.Hits},
	}
	for _, server := range r.Servers {
		rows = append(rows, row{"live server", fmt.Sprintf("%q in %s", server.ID, server.Phase)}) // quoted: it is stored text
	}
	for _, g := range r.Gates {
		rows = append(rows, row{"gate " + g.Gate.String(), g.Text()})
	}
	return rows
}
