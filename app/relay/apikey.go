package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/relay-jobs/relay/adapters/apikey"
	"github.com/relay-jobs/relay/core/access"
)

func apiKeyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "apikey", Short: "Make API keys", Args: noArguments, RunE: showHelp}
	cmd.AddCommand(newAPIKeyCommand())
	return cmd
}

func newAPIKeyCommand() *cobra.Command {
	var entry apikey.Entry
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Make an API key and the entry that admits it",
		Long: "Print a new token, which is shown this once and kept nowhere, and the entry to add under `keys:` in the\n" +
			"file that RELAY_API_KEYS_FILE names. The entry holds a hash of the token only.",
		Args: noArguments,
	}
	flags := cmd.Flags()
	flags.StringVar(&entry.WorkspaceID, "workspace", "", "the workspace that the key is for (required)")
	flags.StringVar(&entry.ActorID, "actor", "", "who the jobs are attributed to (required)")
	flags.StringSliceVar(&entry.Scopes, "scopes",
		[]string{string(access.ScopeExecute), string(access.ScopeJobsRead)}, "what the key permits")
	flags.StringVar(&entry.ExpiresAt, "expires-at", "", "when the key stops to work, such as 2027-01-31T00:00:00Z")
	flags.StringVar(&entry.ID, "id", "", "a name for the key; made up where it is not given")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if entry.WorkspaceID == "" {
			return errors.New("--workspace is missing: every request with such a key would be refused")
		}
		if entry.ExpiresAt == "" && cmd.Flags().Changed("expires-at") {
			return errors.New("--expires-at is empty: such a key would never expire")
		}
		token, made, err := apikey.Generate()
		if err != nil {
			return &faultError{err}
		}
		entry.SHA256 = made.SHA256
		if entry.ID == "" {
			entry.ID = made.ID
		}
		text, err := entry.YAML()
		if err != nil {
			return err //nolint:wrapcheck // names the field
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "token, shown this once:\n\n  %s\n\n"+
			"entry to add under `keys:` in the file of RELAY_API_KEYS_FILE:\n\n%s", token, indent(text))
		if err != nil {
			return &faultError{err}
		}
		return nil
	}
	return cmd
}

// indent makes two spaces of the beginning of each line, whatever it was.
func indent(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	shift := len(lines[0]) - len(strings.TrimLeft(lines[0], " "))
	for i, line := range lines {
		lines[i] = "  " + line[min(shift, len(line)):]
	}
	return strings.Join(lines, "\n") + "\n"
}
