package observability_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/gauge"
	"github.com/grafana/grafana-foundation-sdk/go/heatmap"
	promquery "github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/stretchr/testify/require"
)

// classic is the form of dashboards that every Grafana reads; the newer one needs a new Grafana.
type classic = dashboard.Dashboard //nolint:staticcheck // deprecated in favour of the newer one

// readDashboard decodes the shipped file by Grafana's own types, which know every field that may stand in it.
func readDashboard(t *testing.T) classic {
	t.Helper()
	known := cog.NewRuntime()
	known.RegisterDataqueryVariant(promquery.VariantConfig())
	known.RegisterPanelcfgVariant(gauge.VariantConfig())
	known.RegisterPanelcfgVariant(heatmap.VariantConfig())
	known.RegisterPanelcfgVariant(stat.VariantConfig())
	known.RegisterPanelcfgVariant(table.VariantConfig())
	known.RegisterPanelcfgVariant(timeseries.VariantConfig())
	text := []byte(read(t, "grafana", "dashboards", "relay.json"))
	err := new(classic).UnmarshalJSONStrict(text) // what it decodes has no panels: its answer alone counts
	if faults := (cog.BuildErrors{}); errors.As(err, &faults) {
		require.Empty(t, faults) // no fault is an error, too
	} else {
		require.NoError(t, err)
	}
	var d classic
	require.NoError(t, json.Unmarshal(text, &d))
	require.NoError(t, d.Validate())
	return d
}

// TestDashboardFitsItsSchema: Grafana's types know each field and accept each value, and lose nothing of the file.
func TestDashboardFitsItsSchema(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	require.Equal(t, dashboard.NewDashboard().SchemaVersion, d.SchemaVersion)
	again, err := json.Marshal(d)
	require.NoError(t, err)
	var ours, theirs any
	require.NoError(t, json.Unmarshal([]byte(read(t, "grafana", "dashboards", "relay.json")), &ours))
	require.NoError(t, json.Unmarshal(again, &theirs))
	requireWithin(t, "dashboard", ours, theirs)
}

// requireWithin fails where a part of one JSON document is not in another.
func requireWithin(t *testing.T, path string, part, whole any) {
	t.Helper()
	switch part := part.(type) {
	case map[string]any:
		whole, ok := whole.(map[string]any)
		require.True(t, ok, path)
		for name, value := range part {
			require.Contains(t, whole, name, path)
			requireWithin(t, path+"."+name, value, whole[name])
		}
	case []any:
		whole, ok := whole.([]any)
		require.True(t, ok, path)
		require.Len(t, whole, len(part), path)
		for i := range part {
			requireWithin(t, fmt.Sprintf("%s[%d]", path, i), part[i], whole[i])
		}
	default:
		require.Equal(t, part, whole, path)
	}
}

// TestDashboardIsInOrder holds what a schema does not say.
func TestDashboardIsInOrder(t *testing.T) {
	t.Parallel()
	ids, taken := map[uint32]bool{}, map[[2]uint32]string{}
	place := func(title string, at dashboard.GridPos) {
		require.LessOrEqual(t, at.X+at.W, uint32(24), title)
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				require.Empty(t, taken[[2]uint32{x, y}], "%s covers another panel", title)
				taken[[2]uint32{x, y}] = title
			}
		}
	}
	for _, p := range readDashboard(t).Panels {
		if p.RowPanel != nil {
			require.False(t, ids[p.RowPanel.Id], *p.RowPanel.Title)
			ids[p.RowPanel.Id] = true
			require.Empty(t, p.RowPanel.Panels, "a row that is folded hides its panels from these tests")
			place(*p.RowPanel.Title, *p.RowPanel.GridPos)
			continue
		}
		require.NotNil(t, p.Panel.Title)
		title := *p.Panel.Title
		require.NotNil(t, p.Panel.Id, title)
		require.False(t, ids[*p.Panel.Id], title)
		ids[*p.Panel.Id] = true
		place(title, *p.Panel.GridPos)
		require.NotNil(t, p.Panel.Description, title)
		require.NotEmpty(t, *p.Panel.Description, title)
		require.Equal(t, "${datasource}", *p.Panel.Datasource.Uid, title)
		if p.Panel.Type != "heatmap" { // which has its unit at an axis
			require.NotNil(t, p.Panel.FieldConfig.Defaults.Unit, title)
		}
		require.NotEmpty(t, p.Panel.Targets, title)
		var refs []string
		for _, target := range p.Panel.Targets {
			query := target.(*promquery.Dataquery)
			require.Equal(t, "${datasource}", *query.Datasource.Uid, title)
			refs = append(refs, *query.RefId)
		}
		require.Equal(t, slices.Sorted(slices.Values(refs)), slices.Compact(refs), title)
	}
}

// TestDashboardSeesWhatACounterBeginsWith: a counter that appears with its first event counts whole where that lies in the
// window, and not any more behind it.
func TestDashboardSeesWhatACounterBeginsWith(t *testing.T) {
	t.Parallel()
	const window = 10 * time.Minute
	filled := map[string]string{
		"$__rate_interval": window.String(), "$__range": window.String(), "$instance": ".*", "$workspace": ".*",
	}
	rare := map[string]bool{ // whether the dashboard shows it
		"relay_isolation_breach_total": false, "relay_stale_copy_total": false, "relay_job_id_collision_total": false,
		"relay_index_not_mended_total": false, "relay_workspace_mismatch_total": false, "relay_wrong_type_total": false,
		"relay_record_invalid_total": false, "relay_workspace_mismatch_dropped_total": false,
	}
	var test promTest
	test.Interval = step.String()
	for name := range rare {
		test.Series = append(test.Series,
			promInput{name + `{instance="a", workspace_id="acme"}`, "_x20 3x30"}, // from minute 20 on
			promInput{name + `{instance="b", workspace_id="acme"}`, "7x50"},
			promInput{name + `{instance="c", workspace_id="acme"}`, "_x20 4x5 stale"}) // a server that is gone again
	}
	for _, panel := range readDashboard(t).Panels {
		if panel.Panel == nil {
			continue
		}
		for _, target := range panel.Panel.Targets {
			query := target.(*promquery.Dataquery).Expr
			name := regexp.MustCompile(`\w+_total`).FindString(query)
			if _, known := rare[name]; !known {
				continue
			}
			rare[name] = true
			labels := "{}"
			if strings.HasPrefix(query, "sum by (workspace_id)") {
				labels = `{workspace_id="acme"}`
			}
			for at, want := range map[time.Duration]float64{19 * step: 0, 28 * step: 3 + 4, 45 * step: 0} {
				test.Exprs = append(test.Exprs, promExpr{fill(query, filled), at.String(), []promSample{{labels, want}}})
			}
		}
	}
	for name, shown := range rare {
		require.True(t, shown, name)
	}
	requireTrue(t, test)
}

// TestProvisioning: Grafana finds a data source that is asked as often as there is something new, and the dashboard.
func TestProvisioning(t *testing.T) {
	t.Parallel()
	var sources struct {
		APIVersion  int `yaml:"apiVersion"`
		Datasources []struct {
			Name, UID, Type, Access, URL string
			IsDefault                    bool              `yaml:"isDefault"`
			JSONData                     map[string]string `yaml:"jsonData"`
		}
	}
	decode(t, read(t, "grafana", "provisioning", "datasources", "prometheus.yml"), &sources)
	require.Len(t, sources.Datasources, 1)
	require.Equal(t, "prometheus", sources.Datasources[0].Type)
	require.True(t, sources.Datasources[0].IsDefault)
	var config map[string]any
	decode(t, read(t, "prometheus", "prometheus.yml"), &config)
	require.Equal(t, config["global"].(map[string]any)["scrape_interval"], sources.Datasources[0].JSONData["timeInterval"])

	var providers struct {
		APIVersion int `yaml:"apiVersion"`
		Providers  []struct {
			Name, Type     string
			AllowUIUpdates bool `yaml:"allowUiUpdates"`
			Options        struct{ Path string }
		}
	}
	decode(t, read(t, "grafana", "provisioning", "dashboards", "relay.yml"), &providers)
	require.Len(t, providers.Providers, 1)
	require.Equal(t, "file", providers.Providers[0].Type)
	require.NotEmpty(t, providers.Providers[0].Options.Path)
}

// requireData fails where a query of the dashboard, that of a panel or of a variable, finds nothing in a Prometheus that
// scrapes a deployment under load.
func requireData(t *testing.T, p *prometheus) {
	t.Helper()
	d := readDashboard(t)
	filled := map[string]string{
		"$__rate_interval": milliseconds(5 * time.Minute), "$__range": milliseconds(15 * time.Minute),
	}
	for _, v := range d.Templating.List {
		if v.Type != dashboard.VariableTypeQuery {
			continue
		}
		require.Equal(t, "$__all", *v.Current.Value.String)
		filled["$"+v.Name] = *v.AllValue
		var metric, label string
		_, err := fmt.Sscanf(strings.NewReplacer("label_values(", "", ", ", " ", ")", "").Replace(fill(v.Query.Map["query"].(string), filled)),
			"%s %s", &metric, &label)
		require.NoError(t, err)
		p.awaitData(t, v.Name, fmt.Sprintf("count by (%s) (%s)", label, metric))
	}
	queries := 0
	for _, panel := range d.Panels {
		if panel.Panel == nil {
			continue
		}
		for _, target := range panel.Panel.Targets {
			query := target.(*promquery.Dataquery)
			p.awaitData(t, *panel.Panel.Title+", "+*query.RefId, fill(query.Expr, filled))
			queries++
		}
	}
	require.Greater(t, queries, 40)
}

// fill puts in what Grafana does, the longest names first, as one may begin another.
func fill(query string, with map[string]string) string {
	names := slices.SortedFunc(maps.Keys(with), func(a, b string) int { return len(b) - len(a) })
	for _, name := range names {
		query = strings.ReplaceAll(query, name, with[name])
	}
	return query
}

// awaitData waits until a query has a value.
func (p *prometheus) awaitData(t *testing.T, what, query string) {
	t.Helper()
	require.NotContains(t, query, "$", what)
	require.Eventually(t, func() bool { return len(p.values(t, query)) > 0 }, waitLimit, pollInterval,
		"%s has no data: %s", what, query)
}
