package migration_test

import (
	"os"
	"testing"

	"github.com/relay-jobs/relay/tests/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
