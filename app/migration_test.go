package app

import (
	"errors"
	"testing"
	"time"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
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

// TestGateIsAskedForUntilItIsKnown: a storage that is away or slow is asked again before the server is ready. Where what is
// stored cannot be read no further question helps.
func TestGateIsAskedForUntilItIsKnown(t *testing.T) {
	t.Parallel()
	for _, kind := range []fault.Kind{fault.Unavailable, fault.Timeout, fault.Canceled, fault.Internal} {
		servers := portsmock.NewMockLiveServers(gomock.NewController(t))
		facts := portsmock.NewMockGateFacts(gomock.NewController(t))
		core, logs := observer.New(zap.WarnLevel)
		p := &presence{
			beating: &beating{LiveServers: servers}, phase: migration.StrictNew,
			index: &indexKeeper{question: &question{}}, gates: usecase.GateKeeper{Facts: facts}, log: zap.New(core),
		}
		p.beat.Servers = p.beating
		p.index.answered.Store(true)
		servers.EXPECT().Beat(gomock.Any(), gomock.Any()).Return(nil).AnyTimes()
		facts.EXPECT().Facts(gomock.Any(), gomock.Any(), gomock.Any()).
			Return(migration.Facts{}, fault.New(kind, fault.CodeStorageUnavailable, "no"))
		err := p.announce(t.Context())
		if kind == fault.Internal {
			require.NoError(t, err)
			require.Len(t, logs.FilterMessageSnippet("it cannot be told").All(), 1)
			continue
		}
		require.Equal(t, kind, fault.KindOf(err))
		require.Nil(t, p.beating.latest.Load(), "it has not beaten yet")
		require.Zero(t, logs.Len())

		facts.EXPECT().Facts(gomock.Any(), gomock.Any(), gomock.Any()).Return(migration.Facts{}, nil)
		require.NoError(t, p.announce(t.Context()))
		require.Len(t, logs.FilterMessageSnippet("serving behind a closed gate").All(), 1)
		require.NoError(t, p.announce(t.Context()))
		require.Equal(t, 1, logs.Len(), "once")
	}
}
