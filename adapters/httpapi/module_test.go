package httpapi_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/relay-jobs/relay/adapters/httpapi"
	"github.com/relay-jobs/relay/tests/harness/conformance"
)

// TestOperatorsDoNotHoldUpTheStop: what runs on the admin listener, such as a trace of minutes, gets no grace that
// would use up the time of the hooks behind the listeners.
func TestOperatorsDoNotHoldUpTheStop(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.WarnLevel)
	began, cutOff := make(chan struct{}), make(chan struct{})
	endless := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(cutOff)
	})
	var addresses *httpapi.Addresses
	closed := false
	service := fxtest.New(t,
		fx.NopLogger,
		fx.Supply(zap.New(core), httpapi.Config{Log: zap.NewNop(), Requests: newEdge(t)}, httpapi.Settings{
			Addr: "127.0.0.1:0", AdminAddr: "127.0.0.1:0", Server: serverConfig(), Admin: serverConfig(),
			Metrics: endless, Grace: time.Hour,
		}),
		fx.Invoke(func(lc fx.Lifecycle) { lc.Append(fx.StopHook(func() { closed = true })) }), // stops after the listeners
		httpapi.Module(),
		fx.Populate(&addresses),
	)
	service.RequireStart()
	asked := make(chan error, 1)
	go func() {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+addresses.Admin+"/metrics", nil)
		if err == nil {
			var answer *http.Response
			if answer, err = conformance.Client(t).Do(r); err == nil {
				err = answer.Body.Close()
			}
		}
		asked <- err
	}()
	<-began
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	require.NoError(t, service.Stop(ctx))
	require.True(t, closed)
	<-cutOff
	require.Error(t, <-asked)
	require.Len(t, logs.FilterMessage("admin listener").All(), 1)
}
