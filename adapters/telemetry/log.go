package telemetry

import (
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const logFlushInterval = 250 * time.Millisecond

// NewLogger writes one JSON object a line to out, buffered: a line is there within a quarter of a second, and the
// last ones once stop has been called. Stack traces are never written and no line is left out.
func NewLogger(out io.Writer, level zapcore.Level) (log *zap.Logger, stop func() error) {
	// A writer alone, without the Sync that terminals and pipes refuse.
	sink := zapcore.AddSync(struct{ io.Writer }{out})
	buffered := &zapcore.BufferedWriteSyncer{WS: sink, FlushInterval: logFlushInterval}
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoding.EncodeDuration = zapcore.SecondsDurationEncoder
	encoding.TimeKey = "time"
	core := zapcore.NewCore(zapcore.NewJSONEncoder(encoding), buffered, level)
	return zap.New(core), func() error {
		if err := buffered.Stop(); err != nil {
			return fmt.Errorf("flush the log: %w", err)
		}
		return nil
	}
}
