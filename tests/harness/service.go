package harness

import (
	"context"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/relay-jobs/relay/adapters/httpapi"
	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/core/migration"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 30 * time.Second
)

// Service is the whole service in this process, built from the same options as the binary.
type Service struct {
	// URL and AdminURL are the base URLs of the two listeners.
	URL, AdminURL string
	// Log is all that the service logged so far; lines come within a quarter of a second, the last ones with Stop.
	Log *Buffer
	// Terminal is what a person would have read.
	Terminal *Buffer

	app  *fx.App
	once sync.Once
	err  error
}

// Environment joins sets of variables, of which later ones win, with free ports for both listeners and with no sweeps:
// their commands and keys would come into what tests count and compare.
func Environment(sets ...map[string]string) map[string]string {
	env := map[string]string{"RELAY_HTTP_ADDR": "127.0.0.1:0", "RELAY_ADMIN_ADDR": "127.0.0.1:0", "RELAY_INDEX_SWEEP": "0"}
	for _, s := range sets {
		maps.Copy(env, s)
	}
	return env
}

// PhaseEnvironment gives the flags that stand for a phase.
func PhaseEnvironment(p migration.Phase) map[string]string {
	word := map[bool]string{true: "on", false: "off"}
	f := p.Flags()
	return map[string]string{
		"AI_JOBS_NEW_SCHEMA": word[f.NewSchema], "AI_JOBS_OLD_SCHEMA": word[f.OldSchema],
		"READ_PREFERS_NEW": word[f.PrefersNew], "READ_FALLBACK_OLD": word[f.FallbackOld],
	}
}

// Boot runs the service with an environment, on free ports, until the test ends. More options may replace parts. Its log
// must be clean then, as RequireCleanLog has it.
func Boot(tb testing.TB, env map[string]string, more ...fx.Option) *Service {
	tb.Helper()
	keepSecrets(env)
	config, err := app.Load(Environment(env))
	require.NoError(tb, err)
	s := &Service{Log: &Buffer{}, Terminal: &Buffer{}}
	var at *httpapi.Addresses
	s.app = fx.New(append(more, app.Options(config, app.Streams{Log: s.Log, Terminal: s.Terminal}), fx.Populate(&at))...)
	require.NoError(tb, s.app.Err())
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	require.NoError(tb, s.app.Start(ctx))
	tb.Cleanup(func() {
		require.NoError(tb, s.Stop())
		RequireCleanLog(tb, s.Log.String())
	})
	s.URL, s.AdminURL = "http://"+at.HTTP, "http://"+at.Admin
	return s
}

// Stop drains and ends the service; what it returned is returned again when it is called twice.
func (s *Service) Stop() error {
	s.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		s.err = s.app.Stop(ctx)
	})
	return s.err
}
