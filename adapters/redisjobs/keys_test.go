package redisjobs

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/workspace"
)

func workspaceID(t *testing.T, text string) workspace.ID {
	t.Helper()
	ws, err := workspace.Parse(text)
	require.NoError(t, err)
	return ws
}

func jobID(t *testing.T, text string) job.ID {
	t.Helper()
	id, err := job.ParseID(text)
	require.NoError(t, err)
	return id
}

func TestKeys(t *testing.T) {
	acme := workspaceID(t, "acme")
	request, err := job.ParseClientRequestID("req-1: a*[b]?")
	require.NoError(t, err)
	for _, text := range []string{
		"5b199405-6771-46da-b117-e86e428530a2", "legacy:with:colons", ":", "*", "[a-z]?\\", " \n\t", "\x00\xff", "acme:x",
		"ai:jobs:x", strings.Repeat("j", 256),
	} {
		id := jobID(t, text)
		require.Equal(t, "ai:jobs:"+text, oldKey(id))
		require.Equal(t, "ai:job:acme:"+text, newKey(acme, id))
		for key, prefix := range map[string]string{oldKey(id): oldPrefix, newKey(acme, id): newPrefix(acme)} {
			back, ok := idOf(key, prefix)
			require.True(t, ok)
			require.Equal(t, id, back)
		}
	}
	require.Equal(t, "ai:queue:pending", queueKey)
	require.Equal(t, "ai:jobs:*", oldPattern)
	require.Equal(t, "ai:job:acme:*", newPattern(acme))
	require.Equal(t, "ai:idempotency:acme:req-1: a*[b]?", idempotencyKey(acme, request))
}

// TestKeysOfNeighbours: workspaces whose names begin alike share no key, and neither's prefix begins the other's keys.
func TestKeysOfNeighbours(t *testing.T) {
	names := []string{"acme", "acme-eu", "acme_labs", "acme-e", "acm", "a", "0", "acme-eu-1"}
	for _, a := range names {
		for _, b := range names {
			if a == b {
				continue
			}
			wa, wb := workspaceID(t, a), workspaceID(t, b)
			for _, id := range []string{"x", "eu:x", "-eu:x", b, b + ":x", a + ":x", ":" + b} {
				key := newKey(wb, jobID(t, id))
				require.NotEqual(t, newKey(wa, jobID(t, id)), key)
				require.False(t, strings.HasPrefix(key, newPrefix(wa)))
				_, ok := idOf(key, newPrefix(wa))
				require.False(t, ok, "%s is none of %s", key, a)
			}
		}
	}
}

func TestIDOfRefusesWhatNamesNoJob(t *testing.T) {
	for _, key := range []string{"", "ai:jobs", "ai:jobs:", "ai:job:acme:x", "xai:jobs:x", "ai:jobs:" + strings.Repeat("j", 257)} {
		_, ok := idOf(key, oldPrefix)
		require.False(t, ok, "%q", key)
	}
}
