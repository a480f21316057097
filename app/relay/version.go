package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/relay-jobs/relay/app"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print which build this is",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := app.BuildInfo()
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "relay %s (revision %s, %s)\n", b.Version, b.Revision, b.GoVersion)
			if err != nil {
				return &faultError{err}
			}
			return nil
		},
	}
}
