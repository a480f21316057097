// Package isolation_test attacks the real binary on a real Redis server from outside: what one workspace must never
// learn from or do to another, and what no request, credential or setting, however malformed, may cause.
package isolation_test

import (
	"os"
	"testing"

	"github.com/relay-jobs/relay/tests/harness"
)

func TestMain(m *testing.M) {
	harness.Secret(contentMark(acme), contentMark(acmeEU), requestMark(), canary)
	os.Exit(harness.Main(m))
}
