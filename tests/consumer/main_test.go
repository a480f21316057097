// Package consumer_test meets the real binary as those do who call it: they read /docs in a browser, and use the client
// that is generated from the same document.
package consumer_test

import (
	"os"
	"testing"

	"github.com/relay-jobs/relay/tests/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
