// Package observability_test holds the files for Prometheus and Grafana to the service that they watch: each alert is
// brought about in a running service, and each panel's queries find data.
package observability_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/relay-jobs/relay/tests/harness"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// These tests wait far more than they work, so that there may be more of them at once than processors.
	if err := flag.Set("test.parallel", "32"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(harness.Main(m))
}
