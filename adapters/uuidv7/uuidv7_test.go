package uuidv7_test

import (
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/uuidv7"
	"github.com/relay-jobs/relay/ports"
)

var _ ports.JobIDs = uuidv7.JobIDs{}

func TestJobIDsAreVersionSevenAndSortInTheOrderTheyWereMade(t *testing.T) {
	t.Parallel()
	before := ""
	for range 1000 {
		id, err := uuidv7.JobIDs{}.NewJobID()
		require.NoError(t, err)
		parsed, err := uuid.Parse(id.String())
		require.NoError(t, err)
		require.Equal(t, uuid.Version(7), parsed.Version())
		require.Equal(t, parsed.String(), id.String(), "the canonical form")
		require.Less(t, before, id.String())
		before = id.String()
	}
}

func TestJobIDsAreNeverTheSameUnderConcurrency(t *testing.T) {
	t.Parallel()
	const makers, each = 8, 500
	var (
		seen sync.Map
		wg   sync.WaitGroup
	)
	for range makers {
		wg.Go(func() {
			for range each {
				id, err := uuidv7.JobIDs{}.NewJobID()
				if err == nil {
					seen.Store(id.String(), true)
				}
			}
		})
	}
	wg.Wait()
	n := 0
	seen.Range(func(any, any) bool { n++; return true })
	require.Equal(t, makers*each, n)
}
