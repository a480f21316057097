package app

import (
	"errors"
	"testing"
	"time"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/ports/portsmock"
)

// TestNotReadyOnceTheGatesTakeItForDead: a gate may open over a server whose beats do not arrive.
func TestNotReadyOnceTheGatesTakeItForDead(t *testing.T) {
	t.Parallel()
	servers := portsmock.NewMockLiveServers(gomock.NewController(t))
	p := &presence{question: &question{}, beating: &beating{LiveServers: servers}}
	require.Error(t, p.Check(t.Context()), "it has not beaten yet")
	p.answered.Store(true)
	beat := func(answer error) {
		servers.EXPECT().Beat(gomock.Any(), gomock.Any()).Return(answer)
		require.Equal(t, answer, p.beating.Beat(t.Context(), migration.Server{}))
	}
	beat(nil)
	require.NoError(t, p.Check(t.Context()))
	dead := time.Now().Add(-migration.ServerLife - time.Millisecond)
	p.beating.latest.Store(&dead)
	beat(errors.New("denied"))
	require.Error(t, p.Check(t.Context()))
	beat(nil)
	require.NoError(t, p.Check(t.Context()))
}
