package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
)

const progressInterval = 5 * time.Second

var errDiffers = errors.New(
	"the index is not complete, or not in step with the stored jobs: --execute brings it there")

func migrateCommand(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "migrate", Short: "Bring stored data in step, while servers run", Args: cobra.NoArgs, RunE: showHelp,
	}
	cmd.AddCommand(
		migrateStatusCommand(environ), migrateBackfillCommand(environ), migrateIndexCommand(environ),
		migrateVerifyCommand(environ), migrateRetireCommand(environ),
	)
	return cmd
}

// showHelp is what a command does that has others below it; with it, one that is none of them is refused.
func showHelp(cmd *cobra.Command, _ []string) error {
	return cmd.Help() //nolint:wrapcheck // its caller says what failed
}

func migrateIndexCommand(environ []string) *cobra.Command {
	var (
		dryRun, execute, asJSON bool
		rate                    int
	)
	cmd := &cobra.Command{
		Use:   "index (--dry-run | --execute)",
		Short: "Build the index by which jobs are listed",
		Long: "Go through all stored jobs and make the index of each workspace say what they say. Servers may go on\n" +
			"meanwhile, and it may be run twice or at once. Afterwards lists go by the index.\n\n" +
			"Exit codes: 0 complete and in step, 1 a dry run found it not so, 2 refused, 3 fault or interrupted.\n" +
			"It reads REDIS_URL and RELAY_REDIS_* from the environment.",
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.BoolVar(&dryRun, "dry-run", false, "say what would be done and change nothing")
	flags.BoolVar(&execute, "execute", false, "do it")
	flags.IntVar(&rate, "rate", 2000, "jobs and entries a second at most; 0 is unlimited")
	flags.BoolVar(&asJSON, "json", false, "print the result as JSON")
	flags.String(app.FlagName("REDIS_URL"), "", "the Redis server [REDIS_URL]")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if dryRun == execute {
			return errors.New("give exactly one of --dry-run and --execute")
		}
		if rate < 0 {
			return errors.New("--rate must be a whole number from 0")
		}
		options, err := app.LoadRedis(environment(environ, flags))
		if err != nil {
			return err //nolint:wrapcheck // names the variables
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		in := usecase.IndexJobsInput{Scope: migration.IndexAll, DryRun: dryRun, Rate: rate}
		result, err := indexAll(ctx, options, in, cmd.ErrOrStderr())
		if err != nil {
			return &faultError{err}
		}
		if err := result.print(cmd.OutOrStdout(), asJSON); err != nil {
			return &faultError{fmt.Errorf("print: %w", err)}
		}
		if result.Mended+result.Dropped > 0 && dryRun || !result.Complete {
			return errDiffers
		}
		return nil
	}
	return cmd
}

// indexResult is what a pass ends with.
type indexResult struct {
	migration.IndexCounts

	DryRun   bool `json:"dry_run"`
	Complete bool `json:"complete"` // whether lists go by the index
}

// indexAll runs one pass and tells progress from time to time.
func indexAll(
	ctx context.Context, o redisjobs.ConnectOptions, in usecase.IndexJobsInput, progress io.Writer,
) (indexResult, error) {
	rdb, err := redisjobs.Connect(o)
	if err != nil {
		return indexResult{}, err //nolint:wrapcheck // says what it is
	}
	defer rdb.Close()                                   //nolint:errcheck // nothing is lost with it
	index := redisjobs.New(rdb, 0, redisjobs.Options{}) // no phase: a pass asks both schemas in any, and tells no observer
	pass := usecase.IndexJobs{Index: index, Clock: systemclock.Clock{}}

	var counts atomic.Pointer[migration.IndexCounts]
	counts.Store(&migration.IndexCounts{})
	ended := make(chan error, 1)
	go func() {
		_, err := pass.Do(ctx, in, func(c migration.IndexCounts) { counts.Store(&c) })
		ended <- err
	}()
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	for running := true; running; {
		select {
		case err = <-ended:
			running = false
		case <-tick.C:
			if _, err := fmt.Fprintln(progress, "so far:", indexLine(*counts.Load(), in.DryRun)); err != nil {
				return indexResult{}, fmt.Errorf("print: %w", err)
			}
		}
	}
	result := indexResult{IndexCounts: *counts.Load(), DryRun: in.DryRun}
	if err == nil {
		result.Complete, err = index.Complete(ctx)
	}
	switch {
	case fault.KindOf(err) == fault.Canceled:
		err = fmt.Errorf("interrupted: %s", indexLine(result.IndexCounts, in.DryRun))
	case err != nil:
		err = fmt.Errorf("after %s: %w", indexLine(result.IndexCounts, in.DryRun), err)
	}
	return result, err
}

func indexLine(c migration.IndexCounts, dryRun bool) string {
	return fmt.Sprintf("%d keys of jobs and %d places looked at, %[5]s%[3]d mended, %[5]s%[4]d dropped",
		c.Scanned, c.Entries, c.Mended, c.Dropped, wouldBe(dryRun))
}

func wouldBe(dryRun bool) string {
	if dryRun {
		return "would be "
	}
	return ""
}

func (r indexResult) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r) //nolint:wrapcheck // its caller says what failed
	}
	word := wouldBe(r.DryRun)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range []struct {
		what string
		n    any
	}{
		{"keys of jobs, those of one job in both schemas counted each", r.Scanned},
		{"that hold no job", r.Ignored},
		{"whose entries were right", r.Identical},
		{"whose entries " + word + "mended", r.Mended},
		{"places looked at in indexes", r.Entries},
		{"of jobs that are stored no more, " + word + "dropped", r.Dropped},
		{"index complete", map[bool]string{true: "yes", false: "no"}[r.Complete]},
	} {
		if _, err := fmt.Fprintf(table, "%s\t%v\n", row.what, row.n); err != nil {
			return err //nolint:wrapcheck // its caller says what failed
		}
	}
	return table.Flush() //nolint:wrapcheck // its caller says what failed
}
