package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/dig"
	"go.uber.org/fx"

	"github.com/relay-jobs/relay/app"
)

func serveCommand(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the API",
		Long: "Serve the API until SIGTERM or SIGINT.\n\n" +
			"Each setting is an environment variable and a flag; a flag wins. A wrong value stops the start.\n" +
			"Exit codes: 0 stopped as asked, 2 refused configuration, 3 fault.",
		Args: noArguments,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	for _, v := range app.Variables() {
		flags.String(v.Flag, v.Default, v.Usage+" ["+v.Name+"]")
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := app.Load(environment(environ, flags))
		if err != nil {
			return err //nolint:wrapcheck // names the variables
		}
		return serve(cmd.Context(), config, app.Streams{Log: cmd.ErrOrStderr(), Terminal: cmd.OutOrStdout()})
	}
	return cmd
}

// environment puts the flags that were given over the variables of the same name.
func environment(environ []string, flags *pflag.FlagSet) map[string]string {
	env := map[string]string{}
	for _, pair := range environ {
		if name, value, ok := strings.Cut(pair, "="); ok {
			env[name] = value
		}
	}
	for _, v := range app.Variables() {
		if f := flags.Lookup(v.Flag); f != nil && f.Changed {
			env[v.Name] = f.Value.String()
		}
	}
	return env
}

func serve(ctx context.Context, config app.Config, streams app.Streams) error {
	service := fx.New(app.Options(config, streams))
	if err := service.Err(); err != nil {
		cause := dig.RootCause(err)
		var refused *app.ConfigError
		if errors.As(cause, &refused) {
			return refused
		}
		return &faultError{cause}
	}
	stopped := service.Wait() // before the start: who is told that it serves may ask it to stop
	starting, cancel := context.WithTimeout(ctx, service.StartTimeout())
	defer cancel()
	if err := service.Start(starting); err != nil {
		return &faultError{fmt.Errorf("start: %w", dig.RootCause(err))}
	}
	ended := <-stopped
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), service.StopTimeout())
	defer cancel()
	if err := service.Stop(stopping); err != nil {
		return &faultError{fmt.Errorf("stop: %w", err)}
	}
	if ended.ExitCode != app.ExitOK {
		return &faultError{errors.New("stopped because of a fault, see the log")}
	}
	return nil
}
