package observability_test

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	promapi "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/relay-jobs/relay/tests/harness"
)

const (
	waitLimit    = 2 * time.Minute
	pollInterval = 50 * time.Millisecond
	portAttempts = 5
)

// prometheus is a running Prometheus that scrapes and judges as configs/prometheus says, accelerated.
type prometheus struct {
	promapi.API

	dir  string
	jobs []string // that scrape
}

// startPrometheus runs one until the test ends. It scrapes nothing before it is told to.
func startPrometheus(t *testing.T) *prometheus {
	t.Helper()
	p := &prometheus{dir: t.TempDir()}
	p.write(t, "relay.rules.yml", accelerated(t, read(t, "prometheus", "relay.rules.yml")))

	// The shipped configuration but for where the targets are.
	var config map[string]any
	decode(t, accelerated(t, read(t, "prometheus", "prometheus.yml")), &config)
	for _, scrape := range config["scrape_configs"].([]any) {
		scrape := scrape.(map[string]any)
		require.NotEmpty(t, scrape["static_configs"])
		delete(scrape, "static_configs")
		job := scrape["job_name"].(string)
		p.jobs = append(p.jobs, job)
		scrape["file_sd_configs"] = []any{map[string]any{"files": []string{p.targets(job)}}}
		require.NoError(t, os.WriteFile(p.targets(job), []byte("[]"), 0o600))
	}
	text, err := yaml.Marshal(config)
	require.NoError(t, err)
	p.write(t, "prometheus.yml", string(text))

	for range portAttempts { // another process may take the free port first
		if p.run(t) {
			return p
		}
	}
	require.FailNow(t, "no port for Prometheus")
	return nil
}

func (p *prometheus) write(t *testing.T, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600))
}

func (p *prometheus) targets(job string) string { return filepath.Join(p.dir, job+".json") }

func (p *prometheus) run(t *testing.T) bool {
	t.Helper()
	free, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := free.Addr().String()
	require.NoError(t, free.Close())
	var log harness.Buffer
	cmd := exec.Command(tool(t, "prometheus"), "--config.file="+filepath.Join(p.dir, "prometheus.yml"), //nolint:noctx // killed below
		"--storage.tsdb.path="+filepath.Join(t.TempDir(), "data"), "--web.listen-address="+addr, "--log.level=warn",
		// How soon new targets are scraped; the flag is not in the help.
		"--scrape.discovery-reload-interval=100ms")
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its log tells how it ended
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
	})
	client, err := api.NewClient(api.Config{Address: "http://" + addr})
	require.NoError(t, err)
	p.API = promapi.NewAPI(client)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for deadline := time.Now().Add(waitLimit); ; <-tick.C {
		if status, _, err := fetch(t.Context(), harness.Operators(), http.MethodGet, "http://"+addr+"/-/ready", "", ""); err == nil && status == http.StatusOK {
			return true
		}
		select {
		case <-ended:
			t.Logf("Prometheus ended at its start:\n%s", log.String())
			return false
		default:
			require.True(t, time.Now().Before(deadline), "Prometheus does not start:\n%s", log.String())
		}
	}
}

// scrape tells where the targets of each deployment are. Prometheus looks there every 5 seconds.
func (p *prometheus) scrape(t *testing.T, all []*deployment) {
	t.Helper()
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	for _, job := range p.jobs {
		groups := []group{}
		for _, d := range all {
			if targets := d.targets[job]; len(targets) > 0 {
				groups = append(groups, group{targets, map[string]string{"deployment": d.name}})
			}
		}
		text, err := json.Marshal(groups)
		require.NoError(t, err)
		p.write(t, "new.json", string(text))
		require.NoError(t, os.Rename(filepath.Join(p.dir, "new.json"), p.targets(job))) // never seen half written
	}
}

// firing gives the names of the alerts that fire for a deployment, "" for those that fire for none.
func (p *prometheus) firing(t *testing.T, name string) []string {
	t.Helper()
	result, err := p.Alerts(t.Context())
	require.NoError(t, err)
	firing := []string{}
	for _, alert := range result.Alerts {
		if alert.State == promapi.AlertStateFiring && string(alert.Labels["deployment"]) == name {
			firing = append(firing, string(alert.Labels[model.AlertNameLabel]))
		}
	}
	slices.Sort(firing)
	return slices.Compact(firing)
}

// await waits until alerts fire for a deployment, and fails as soon as one does that is neither among them nor lingers.
func (p *prometheus) await(t *testing.T, name string, alerts []string, lingering ...string) {
	t.Helper()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for deadline := time.Now().Add(waitLimit); ; <-tick.C {
		firing := p.firing(t, name)
		missing := slices.DeleteFunc(slices.Clone(alerts), func(a string) bool { return slices.Contains(firing, a) })
		require.Subset(t, append(lingering, alerts...), firing, "an alert without a cause")
		if len(missing) == 0 {
			return
		}
		require.True(t, time.Now().Before(deadline), "no %v, only %v", missing, firing)
	}
}

// requireSilence watches until every alert of a deployment would have fired, had there been a cause all the time.
func (p *prometheus) requireSilence(t *testing.T, name string) {
	t.Helper()
	const longest = 15 * time.Minute // of a window and a "for" together
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for until := time.Now().Add(longest / acceleration); time.Now().Before(until); <-tick.C {
		require.Empty(t, p.firing(t, name))
	}
}

// values gives the finite values that a query has now.
func (p *prometheus) values(t *testing.T, query string) []float64 {
	t.Helper()
	result, warnings, _, err := p.Query(t.Context(), query, time.Now())
	require.NoError(t, err, query)
	require.Empty(t, warnings, query)
	vector, ok := result.(model.Vector)
	require.True(t, ok, "%s is no vector but %T", query, result)
	var all []float64
	for _, sample := range vector {
		if v := float64(sample.Value); v-v == 0 { // neither NaN nor infinite
			all = append(all, v)
		}
	}
	return all
}

// requireHealthy fails where a rule could not be evaluated, and gives how many there are.
func (p *prometheus) requireHealthy(t *testing.T) (n int) {
	t.Helper()
	result, err := p.Rules(t.Context(), nil)
	require.NoError(t, err)
	for _, group := range result.Groups {
		for _, rule := range group.Rules {
			n++
			switch rule := rule.(type) {
			case promapi.AlertingRule:
				require.EqualValues(t, promapi.RuleHealthGood, rule.Health, "%s: %s", rule.Name, rule.LastError)
			case promapi.RecordingRule:
				require.EqualValues(t, promapi.RuleHealthGood, rule.Health, "%s: %s", rule.Name, rule.LastError)
			default:
				require.FailNow(t, "an unknown kind of rule", "%T", rule)
			}
		}
	}
	return n
}
