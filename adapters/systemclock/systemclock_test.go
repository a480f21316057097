package systemclock_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/ports"
)

var _ ports.Clock = systemclock.Clock{}

func TestSleepLastsAsLongAsAskedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c systemclock.Clock
		started := c.Now()
		require.NoError(t, c.Sleep(t.Context(), time.Hour))
		require.Equal(t, time.Hour, c.Now().Sub(started))
		require.NoError(t, c.Sleep(t.Context(), 0))
		require.NoError(t, c.Sleep(t.Context(), -time.Hour))
		require.Equal(t, time.Hour, c.Now().Sub(started))
	})
}

func TestSleepEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c systemclock.Clock
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		started := c.Now()
		require.ErrorIs(t, c.Sleep(ctx, time.Hour), context.DeadlineExceeded)
		require.Equal(t, time.Minute, c.Now().Sub(started))
		require.ErrorIs(t, c.Sleep(ctx, 0), context.DeadlineExceeded, "where there is nothing to wait for, too")
	})
}
