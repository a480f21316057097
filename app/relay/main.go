// Command relay serves the multi-tenant job API and holds its operators' tools.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/relay-jobs/relay/app"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run is the whole command: what it prints goes to the two writers, and its result is the exit code.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "relay",
		Short:         "A multi-tenant job API over Redis",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArguments,
		RunE:          showHelp,
	}
	root.AddCommand(serveCommand(environ), migrateCommand(environ), apiKeyCommand(), versionCommand()) //nolint:contextcheck // cobra carries it
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "" {
			return errors.New("an unknown flag: the names of flags stand behind two dashes") // what it is may be secret
		}
		return err
	})
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.CompletionOptions.DisableDefaultCmd = true
	err := root.ExecuteContext(ctx)
	if err == nil {
		return app.ExitOK
	}
	if errors.Is(err, errDiffers) || errors.Is(err, errRemains) {
		root.PrintErrf("relay: %v\n", err)
		return app.ExitDiffers
	}
	var broken *faultError
	if errors.As(err, &broken) {
		root.PrintErrf("relay: %v\n", broken)
		return app.ExitFault
	}
	root.PrintErrf("relay: refused: %v\n", err) // configuration and command line alike
	return app.ExitRefused
}

// noArguments refuses whatever is no flag, without a word of it: it may be a URL with a password.
func noArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasSubCommands():
		return fmt.Errorf("unknown command: `%s --help` lists those that there are", cmd.CommandPath())
	}
	return fmt.Errorf("`%s` takes no arguments", cmd.CommandPath())
}

// faultError is what went wrong although it was asked for in the right way.
type faultError struct{ cause error }

// Error gives the cause.
func (e *faultError) Error() string { return e.cause.Error() }

// Unwrap gives the cause.
func (e *faultError) Unwrap() error { return e.cause }
