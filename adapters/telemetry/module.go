package telemetry

import (
	"io"

	"go.uber.org/fx"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/relay-jobs/relay/core/migration"
)

// Settings are what Module needs.
type Settings struct {
	Output          io.Writer // where log lines go
	Level           zapcore.Level
	Build           Build
	Phase           migration.Phase
	WorkspaceLabels int
	Traces          TraceSettings
}

// Module provides a *zap.Logger, *Metrics, an *Observer and *Tracing. When the application stops, the last mismatches
// are logged, the last traces exported and the log is flushed, after everything that depends on them has stopped.
func Module() fx.Option {
	return fx.Module("telemetry", fx.Provide(
		func(lc fx.Lifecycle, s Settings) *zap.Logger {
			log, stop := NewLogger(s.Output, s.Level)
			lc.Append(fx.StopHook(stop))
			return log
		},
		func(s Settings) *Metrics {
			m := NewMetrics(s.Build, s.WorkspaceLabels)
			m.InPhase(s.Phase)
			return m
		},
		func(lc fx.Lifecycle, m *Metrics, log *zap.Logger) *Observer {
			o := NewObserver(m, log)
			lc.Append(fx.StopHook(o.Close))
			return o
		},
		func(lc fx.Lifecycle, s Settings, log *zap.Logger) (*Tracing, error) {
			t, err := NewTracing(s.Traces, s.Build, log)
			if err != nil {
				return nil, err
			}
			lc.Append(fx.StopHook(t.Close))
			return t, nil
		},
	))
}
