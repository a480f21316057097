package harness

import (
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// secrets are what no server that a test starts may ever log.
//
//nolint:gochecknoglobals // a text that one test must keep is no other test's to tell
var secrets struct {
	mu    sync.Mutex
	texts map[string]bool
}

// minSecret is in bytes: what is shorter comes up by chance.
const minSecret = 8

// Secret has the log of every server that the package's tests start looked through for the texts, when the server's
// test ends. The API keys of Keys, JWT secrets and passwords of Redis need no telling.
func Secret(texts ...string) {
	secrets.mu.Lock()
	defer secrets.mu.Unlock()
	for _, text := range texts {
		if len(text) < minSecret {
			panic("too short to be told from chance")
		}
		if secrets.texts == nil {
			secrets.texts = map[string]bool{}
		}
		secrets.texts[text] = true
	}
}

// keepSecrets tells Secret of what a server is given.
func keepSecrets(env map[string]string) {
	secret := env["RELAY_JWT_SECRET"]
	if content, err := os.ReadFile(env["RELAY_JWT_SECRET_FILE"]); err == nil {
		secret = strings.TrimSpace(string(content))
	}
	if len(secret) >= minSecret { // a shorter one is refused
		Secret(secret)
	}
	if u, err := url.Parse(env["REDIS_URL"]); err == nil {
		if password, ok := u.User.Password(); ok && len(password) >= minSecret {
			Secret(password)
		}
	}
}

const (
	// tokenPrefix begins every API key, those included that a server makes for itself.
	tokenPrefix = "relay_sk_"
	// blot stands in a log where a secret was.
	blot = "<SECRET>"
)

// leak gives the first line of a log that holds a secret, with all of them blotted out; empty where there is none.
func leak(log string, more []string) string {
	pairs := []string{tokenPrefix, blot}
	secrets.mu.Lock()
	for text := range secrets.texts {
		pairs = append(pairs, text, blot)
	}
	secrets.mu.Unlock()
	for _, text := range more {
		pairs = append(pairs, text, blot)
	}
	for line := range strings.Lines(strings.NewReplacer(pairs...).Replace(log)) {
		if strings.Contains(line, blot) {
			return line
		}
	}
	return ""
}

// RequireCleanLog holds a log to have no control character but the ends of its lines, no secret, and none of some more
// texts. The logs of Process and Service are held to it when their test ends.
func RequireCleanLog(tb testing.TB, log string, more ...string) {
	tb.Helper()
	for _, text := range more {
		require.NotEmpty(tb, text)
	}
	for _, c := range []byte(log) {
		if c < ' ' && c != '\n' || c == 0x7f {
			require.FailNow(tb, "a control character in the log", "%q", c)
		}
	}
	require.Empty(tb, leak(log, more), "a secret in the log")
}
