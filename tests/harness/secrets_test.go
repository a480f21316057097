package harness

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLeakNamesTheLineAndNotTheSecret(t *testing.T) {
	t.Parallel()
	keepSecrets(map[string]string{"REDIS_URL": "redis://:leak-test-password@h/0", "RELAY_JWT_SECRET": "leak-test-secret"})
	token := NewKeys(t).Token(t, "acme")
	for name, secret := range map[string]string{
		"an API key": token, "its end": token[len(tokenPrefix):], "a key of the demo": "relay_sk_that nobody told of",
		"a password": "leak-test-password", "a JWT secret": "leak-test-secret", "one more": "job-7",
	} {
		require.NotContains(t, leak("{\"msg\":\"one\"}\n", []string{"job-7"}), blot)
		line := leak("{\"msg\":\"one\"}\n{\"msg\":\""+secret+"\"}\n{\"msg\":\"three\"}\n", []string{"job-7"})
		require.Contains(t, line, blot, name)
		require.NotContains(t, line, secret, name)
		require.NotContains(t, line, "one", name)
	}
	require.Empty(t, leak("{\"msg\":\"job-7\"}\n", nil))
	require.Panics(t, func() { Secret("short") })
}
