package app

import (
	"context"
	"fmt"
	"strings"

	"github.com/alicebob/miniredis/v2"
	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/adapters/apikey"
	"github.com/relay-jobs/relay/adapters/httpapi"
	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/ports"
)

// demo is a Redis inside this process and a key for each of two workspaces. It is nil outside the demo.
type demo struct {
	redis *miniredis.Miniredis
	keys  [2]demoKey
}

type demoKey struct {
	workspace, token string
	entry            apikey.Entry
}

func newDemo(lc fx.Lifecycle, c Config) (*demo, error) {
	if !c.Demo {
		return nil, nil //nolint:nilnil // no demo is no error
	}
	d := &demo{redis: miniredis.NewMiniRedis()}
	for i, workspace := range []string{"acme", "globex"} {
		token, entry, err := apikey.Generate()
		if err != nil {
			return nil, err //nolint:wrapcheck // says what it is
		}
		entry.WorkspaceID, entry.ActorID = workspace, "demo"
		entry.Scopes = []string{string(access.ScopeExecute), string(access.ScopeJobsRead)}
		d.keys[i] = demoKey{workspace: workspace, token: token, entry: entry}
	}
	if err := d.redis.Start(); err != nil {
		return nil, fmt.Errorf("the embedded Redis cannot start: %w", err)
	}
	d.redis.ClockTTL(true) // keys expire as time goes by
	lc.Append(fx.StopHook(d.redis.Close))
	return d, nil
}

func (d *demo) entries() []apikey.Entry {
	entries := make([]apikey.Entry, 0, len(d.keys))
	for _, k := range d.keys {
		entries = append(entries, k.entry)
	}
	return entries
}

// showDemo executes one action and prints what to try with its job.
func showDemo(
	lc fx.Lifecycle, s Streams, d *demo, gate usecase.Gate, jobs ports.JobRepository, ids ports.JobIDs,
	at *httpapi.Addresses, log *zap.Logger,
) {
	if d == nil {
		return
	}
	execute := usecase.Execute{Gate: gate, Jobs: jobs, IDs: ids}
	lc.Append(fx.StartHook(func(ctx context.Context) error {
		log.Warn("DEMO: the embedded Redis keeps nothing, all jobs are lost when this process stops",
			zap.String("redis_addr", d.redis.Addr()))
		made, err := execute.Do(ctx, d.keys[0].token, func() (usecase.ExecuteInput, error) {
			return usecase.ExecuteInput{
				Provider: "google", Name: "gmail.send", Params: job.JSONOf(`{"to":"first@example.org"}`),
			}, nil
		})
		if err != nil {
			return fmt.Errorf("the demo's first job: %w", err)
		}
		if _, err := fmt.Fprint(s.Terminal, d.text("http://"+at.HTTP, at.Admin, made.ID.String())); err != nil {
			return fmt.Errorf("the demo's text: %w", err)
		}
		return nil
	}))
}

// text is for a person at a terminal. Each line of curl works as it is pasted.
func (d *demo) text(url, adminAddr, jobID string) string {
	own, other := d.keys[0], d.keys[1]
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	curl := func(what string, k demoKey, args string) {
		say("# %s\ncurl -sS -w '\\n%%{http_code}\\n' -H 'Authorization: Bearer %s' %s\n", what, k.token, args)
	}
	post := func(body string) string {
		return "-H 'Content-Type: application/json' -d '" + body + "' " + url + "/ai/execute"
	}
	say("")
	say("================================================================================")
	say("  Relay DEMO at %s", url)
	say("  The Redis is embedded in this process. NOTHING IS KEPT once it stops.")
	say("  Workspaces: %s and %s, with the keys below. Documentation: %s/docs", own.workspace, other.workspace, url)
	say("  Operators: http://%s/metrics", adminAddr)
	say("================================================================================")
	say("")
	curl("execute an action in "+own.workspace, own,
		post(`{"action_provider":"google","action_name":"gmail.send","params":{"to":"you@example.org"}}`))
	curl("get a job of "+own.workspace, own, url+"/ai/jobs/"+jobID)
	curl("list the jobs of "+own.workspace, own, url+"/ai/jobs")
	curl("the same job with the key of "+other.workspace+": 404", other, url+"/ai/jobs/"+jobID)
	curl("a forged workspace: 403", other,
		post(`{"workspace_id":"`+own.workspace+`","action_provider":"google","action_name":"gmail.send"}`))
	return b.String()
}
