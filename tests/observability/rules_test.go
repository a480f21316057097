package observability_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const (
	configs    = "../../configs"
	runbookURL = "https://github.com/relay-jobs/relay/blob/main/configs/RUNBOOK.md#"
)

// tool gives the path of one of Prometheus' programs. Tests that need one fail without it.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	require.NoError(t, err, "%s is not in PATH: run `make prometheus`, which installs it with apt-get where it may", name)
	return path
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{configs}, path...)...))
	require.NoError(t, err)
	return string(content)
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	require.NoError(t, decoder.Decode(into))
}

// rule is one that records or one that alerts.
type rule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	decode(t, read(t, "prometheus", "relay.rules.yml"), &file)
	var all []rule
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

func alerts(t *testing.T) []rule {
	t.Helper()
	var all []rule
	for _, r := range rules(t) {
		if r.Alert != "" {
			all = append(all, r)
		}
	}
	require.NotEmpty(t, all)
	return all
}

// TestRulesPassTheirUnitTests: Prometheus accepts what is shipped, and the rules do what relay.rules.test.yml says.
func TestRulesPassTheirUnitTests(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"check", "config", "prometheus.yml"},
		{"check", "rules", "--lint=all", "--lint-fatal", "relay.rules.yml"},
		{"test", "rules", "relay.rules.test.yml"},
	} {
		cmd := exec.CommandContext(t.Context(), tool(t, "promtool"), args...)
		cmd.Dir = filepath.Join(configs, "prometheus")
		said, err := cmd.CombinedOutput()
		require.NoError(t, err, "promtool %s\n%s", strings.Join(args, " "), said)
	}
}

// TestKubernetesConfiguration: Prometheus accepts it but for the discovery itself, which distributions build it without.
func TestKubernetesConfiguration(t *testing.T) {
	t.Parallel()
	var config map[string]any
	decode(t, read(t, "prometheus", "kubernetes.yml"), &config)
	for _, scrape := range config["scrape_configs"].([]any) {
		require.NotEmpty(t, scrape.(map[string]any)["kubernetes_sd_configs"])
		delete(scrape.(map[string]any), "kubernetes_sd_configs")
	}
	text, err := yaml.Marshal(config)
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kubernetes.yml"), text, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "relay.rules.yml"), []byte(read(t, "prometheus", "relay.rules.yml")), 0o600))
	cmd := exec.CommandContext(t.Context(), tool(t, "promtool"), "check", "config", "kubernetes.yml")
	cmd.Dir = dir
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", said)
}

// TestEachAlertHasUnitTests: one in which it fires and one in which it is silent.
func TestEachAlertHasUnitTests(t *testing.T) {
	t.Parallel()
	var file struct {
		Tests []struct {
			Rules []struct {
				Alert  string `yaml:"alertname"`
				Firing []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(read(t, "prometheus", "relay.rules.test.yml")), &file))
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, r := range test.Rules {
			if len(r.Firing) > 0 {
				fires[r.Alert] = true
			} else {
				silent[r.Alert] = true
			}
		}
	}
	for _, a := range alerts(t) {
		require.True(t, fires[a.Alert], "%s has no test in which it fires", a.Alert)
		require.True(t, silent[a.Alert], "%s has no test in which it is silent", a.Alert)
	}
}

// TestEachAlertTellsWhatToDo: it says how bad it is and what is wrong, and leads to its part of the runbook, which has no
// part that nothing leads to.
func TestEachAlertTellsWhatToDo(t *testing.T) {
	t.Parallel()
	parts := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^### (Relay\w+)$`).FindAllStringSubmatch(read(t, "RUNBOOK.md"), -1) {
		parts[heading[1]] = true
	}
	for _, a := range alerts(t) {
		require.Contains(t, []string{"critical", "warning"}, a.Labels["severity"], a.Alert)
		require.NotEmpty(t, a.Annotations["summary"], a.Alert)
		require.NotEmpty(t, a.Annotations["description"], a.Alert)
		require.Equal(t, runbookURL+strings.ToLower(a.Alert), a.Annotations["runbook_url"])
		require.True(t, parts[a.Alert], "configs/RUNBOOK.md says nothing about %s", a.Alert)
		delete(parts, a.Alert)
	}
	require.Empty(t, parts, "configs/RUNBOOK.md tells of alerts that are not there")
}

// acceleration is how much sooner than in production a real Prometheus tells of things. Times between scrapes are divided by
// it, too, so that a window holds as many samples as it does there.
const acceleration = 15

// duration matches each place in Prometheus' configuration and rules that may hold one.
var duration = regexp.MustCompile(`(\[|\boffset |\bfor: |_interval: )([0-9]+[a-z]+)\b`)

// accelerated divides every duration of a file, and changes nothing else.
func accelerated(t *testing.T, text string) string {
	t.Helper()
	all := regexp.MustCompile(`\b[0-9]+(ms|[smhdwy])\b`).FindAllString(text, -1)
	require.Len(t, duration.FindAllString(text, -1), len(all), "a duration stands where none is looked for")
	faster := duration.ReplaceAllStringFunc(text, func(found string) string {
		parts := duration.FindStringSubmatch(found)
		d, err := time.ParseDuration(parts[2])
		require.NoError(t, err)
		return parts[1] + milliseconds(d)
	})
	require.Equal(t, duration.ReplaceAllString(text, "$1"), duration.ReplaceAllString(faster, "$1"))
	return faster
}

// milliseconds spells a duration of production as these tests know it.
func milliseconds(d time.Duration) string {
	return strconv.FormatInt((d/acceleration).Milliseconds(), 10) + "ms"
}
