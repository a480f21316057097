package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/relay-jobs/relay/adapters/telemetry"
)

const (
	// backfillLabels is how many workspaces the counts of a run tell apart, as many as a server's do where nobody says.
	backfillLabels = 1000
	metricsTimeout = 10 * time.Second
)

// metricsFlags say where the counts of a run go. A failure of theirs takes nothing from the run.
type metricsFlags struct{ addr, gateway string }

func (f *metricsFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.addr, "metrics-addr", "", "serve the counts at this host:port under /metrics while it runs")
	flags.StringVar(&f.gateway, "pushgateway", "", "push the counts to the Pushgateway at this URL when it ends")
}

func (f *metricsFlags) check(dryRun bool) error {
	if dryRun && *f != (metricsFlags{}) {
		return errors.New("--metrics-addr and --pushgateway go with --execute: a dry run has nothing to count")
	}
	if f.addr != "" {
		_, port, err := net.SplitHostPort(f.addr)
		if _, errPort := strconv.ParseUint(port, 10, 16); err != nil || errPort != nil {
			return errors.New("--metrics-addr must be host:port")
		}
	}
	if f.gateway != "" {
		u, err := url.Parse(f.gateway)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
			u.RawQuery != "" || u.Fragment != "" {
			return errors.New("--pushgateway must be an http or https URL without a password, query or fragment")
		}
	}
	return nil
}

// serve answers scrapes until stop is called, which tells what went wrong meanwhile. Without an address it does nothing.
func (f *metricsFlags) serve(ctx context.Context, counts *telemetry.Backfill, out io.Writer) (stop func(), err error) {
	if f.addr == "" {
		return func() {}, nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.addr)
	if err != nil {
		return nil, fmt.Errorf("--metrics-addr: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", counts.Handler())
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: metricsTimeout, ReadTimeout: metricsTimeout, WriteTimeout: metricsTimeout, IdleTimeout: time.Minute,
	}
	_, _ = fmt.Fprintf(out, "metrics at http://%s/metrics\n", l.Addr()) // for people; the run does not depend on it
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	return func() {
		err := server.Close()
		if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(served, err)
		}
		if err != nil {
			_, _ = fmt.Fprintf(out, "relay: metrics: %v\n", err) // as above
		}
	}, nil
}

// push tells the gateway how a run ended, also where ctx ended it.
func (f *metricsFlags) push(ctx context.Context, counts *telemetry.Backfill, out io.Writer) {
	if f.gateway == "" {
		return
	}
	instance, err := os.Hostname()
	if err != nil {
		instance = "unknown"
	}
	if err := counts.Push(context.WithoutCancel(ctx), f.gateway, instance); err != nil {
		_, _ = fmt.Fprintf(out, "relay: the counts were not pushed: %q\n", err.Error()) // quoted: it may hold a stranger's text
	}
}
