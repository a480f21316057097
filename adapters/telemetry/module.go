package telemetry

import (
	"io"

	"go.uber.org/fx"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Settings are what Module needs.
type Settings struct {
	Output          io.Writer // where log lines go
	Level           zapcore.Level
	Build           Build
	WorkspaceLabels int
}

// Module provides a *zap.Logger, *Metrics and an *Observer. When the application stops, the last mismatches are logged
// and the log is flushed, after everything that depends on them has stopped.
func Module() fx.Option {
	return fx.Module("telemetry", fx.Provide(
		func(lc fx.Lifecycle, s Settings) *zap.Logger {
			log, stop := NewLogger(s.Output, s.Level)
			lc.Append(fx.StopHook(stop))
			return log
		},
		func(s Settings) *Metrics { return NewMetrics(s.Build, s.WorkspaceLabels) },
		func(lc fx.Lifecycle, m *Metrics, log *zap.Logger) *Observer {
			o := NewObserver(m, log)
			lc.Append(fx.StopHook(o.Close))
			return o
		},
	))
}
