package main

import "github.com/spf13/cobra"

func migrateCommand(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "migrate", Short: "Bring stored data in step, while servers run", Args: noArguments, RunE: showHelp,
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
