package observability_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/relay-jobs/relay/tests/harness"
)

const (
	// step is how far scrapes of a recording are apart. A window of 5 minutes holds five.
	step = time.Minute
	// watched is how many scrapes it takes for every alert to fire: those of a window and of a "for".
	watched = 14
)

// recording is what a deployment exported, scrape by scrape.
type recording struct {
	series   map[string][]string // values by series, as promtool reads them
	scrapes  int
	expected []expectation
}

// watch scrapes a deployment for as long as any alert takes, with a round of load between one scrape and the next.
func (r *recording) watch(t *testing.T, s scenario, d *deployment) {
	t.Helper()
	for range watched {
		if s.load != nil {
			s.load(t.Context(), d)
		}
		r.scrape(t, d)
	}
}

// scrape does what Prometheus does: a target that does not answer is down, and its series end.
func (r *recording) scrape(t *testing.T, d *deployment) {
	t.Helper()
	if r.series == nil {
		r.series = map[string][]string{}
	}
	for _, job := range slices.Sorted(maps.Keys(d.targets)) {
		for _, target := range d.targets[job] {
			labels := model.LabelSet{"job": model.LabelValue(job), "instance": model.LabelValue(target)}
			var status int
			var body []byte
			var err error
			// What a server did not learn in time once, it leaves out of several scrapes.
			require.Eventually(t, func() bool {
				status, body, err = fetch(t.Context(), harness.Operators(), http.MethodGet, "http://"+target+"/metrics", "", "")
				return job != "relay" || d.redisGone || storageTold(body)
			}, waitLimit, pollInterval, "the server tells nothing of its storage")
			if err != nil || status != http.StatusOK {
				r.add("up", model.Metric(labels), 0)
				continue
			}
			r.add("up", model.Metric(labels), 1)
			for _, sample := range samples(t, body) {
				name := sample.Metric[model.MetricNameLabel]
				delete(sample.Metric, model.MetricNameLabel)
				r.add(string(name), model.Metric(model.LabelSet(sample.Metric).Merge(labels)), float64(sample.Value))
			}
		}
	}
	r.scrapes++
	for name, values := range r.series {
		for len(values) < r.scrapes {
			values = append(values, "stale")
		}
		r.series[name] = values
	}
}

// storageTold tells whether Redis answered a server in time for a scrape.
func storageTold(page []byte) bool {
	for _, sample := range []string{"\nrelay_redis_up 1\n", "\nrelay_queue_depth ", "\nrelay_index_complete "} {
		if !bytes.Contains(page, []byte(sample)) {
			return false
		}
	}
	return true
}

func (r *recording) add(name string, labels model.Metric, value float64) {
	series := name + labels.String()
	values := r.series[series]
	for len(values) < r.scrapes {
		values = append(values, "_")
	}
	r.series[series] = append(values, strconv.FormatFloat(value, 'g', -1, 64))
}

// samples reads a scrape.
func samples(t *testing.T, body []byte) model.Vector {
	t.Helper()
	decoder := expfmt.SampleDecoder{
		Dec: expfmt.NewDecoder(bytes.NewReader(body), expfmt.NewFormat(expfmt.TypeTextPlain)), Opts: &expfmt.DecodeOptions{},
	}
	var all model.Vector
	for {
		var some model.Vector
		err := decoder.Decode(&some)
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		all = append(all, some...)
	}
}

// expectation is which alerts have fired, at whatever time, when so many scrapes were made.
type expectation struct {
	scrapes int
	alerts  []string
}

// expect is about all that was recorded so far.
func (r *recording) expect(alerts []string) {
	r.expected = append(r.expected, expectation{r.scrapes, alerts})
}

// requireFired fails where the shipped rules make other alerts of the recording than those that were expected.
func (r *recording) requireFired(t *testing.T, d *deployment) {
	t.Helper()
	this := promTest{Interval: step.String()}
	known := read(t, "prometheus", "relay.rules.yml")
	for _, series := range slices.Sorted(maps.Keys(r.series)) {
		if name, _, _ := strings.Cut(series, "{"); strings.Contains(known, name) {
			this.Series = append(this.Series, promInput{series, strings.Join(r.series[series], " ")})
		}
	}
	for _, e := range r.expected {
		of := `alertstate="firing"`
		if d.slow && !slices.Contains(e.alerts, latencyHigh) {
			of += fmt.Sprintf(",alertname!=%q", latencyHigh) // this machine was busy
		}
		fired := promExpr{
			Expr: `group by (alertname) (count_over_time(ALERTS{` + of + `}[1d]))`,
			Time: (time.Duration(e.scrapes-1) * step).String(),
		}
		for _, a := range e.alerts {
			fired.Samples = append(fired.Samples, promSample{fmt.Sprintf("{alertname=%q}", a), 1})
		}
		this.Exprs = append(this.Exprs, fired)
	}
	path, err := filepath.Abs(filepath.Join(configs, "prometheus", "relay.rules.yml"))
	require.NoError(t, err)
	requireTrue(t, this, path)
}

// promTest is a test as promtool reads it.
type promTest struct {
	Interval string      `yaml:"interval"`
	Series   []promInput `yaml:"input_series"`
	Exprs    []promExpr  `yaml:"promql_expr_test"`
}

type promInput struct {
	Series string `yaml:"series"`
	Values string `yaml:"values"`
}

type promExpr struct {
	Expr    string       `yaml:"expr"`
	Time    string       `yaml:"eval_time"`
	Samples []promSample `yaml:"exp_samples"`
}

type promSample struct {
	Labels string  `yaml:"labels"`
	Value  float64 `yaml:"value"`
}

// requireTrue fails where Prometheus, with rules of these files, evaluates an expression to something else.
func requireTrue(t *testing.T, test promTest, rules ...string) {
	t.Helper()
	text, err := yaml.Marshal(map[string]any{
		"rule_files": rules, "evaluation_interval": test.Interval, "tests": []promTest{test},
	})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "test.yml")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	said, err := exec.CommandContext(t.Context(), tool(t, "promtool"), "test", "rules", file).CombinedOutput()
	require.NoError(t, err, "%s", said)
}
