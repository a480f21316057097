package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"os/user"
	"strings"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
)

const exitCodes = "Exit codes: 0 clean, 1 differences remain, 2 refused, 3 fault or interrupted.\n" +
	"It reads REDIS_URL and RELAY_REDIS_* from the environment."

// judgedByFlags says where a command has the phase from that it judges by.
const judgedByFlags = "The phase is that of AI_JOBS_NEW_SCHEMA, AI_JOBS_OLD_SCHEMA, READ_PREFERS_NEW and READ_FALLBACK_OLD in the\n" +
	"environment: set them as the servers have them.\n\n"

// passFlags are those that passes share.
type passFlags struct {
	dryRun, execute, asJSON bool
	rate                    int
	batch                   int // 0 where it is not given
	batchGiven              func() bool
	workspace               string
}

// addChanging adds those of a pass that changes what is stored.
func (f *passFlags) addChanging(flags *pflag.FlagSet) {
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would be done and change nothing")
	flags.BoolVar(&f.execute, "execute", false, "do it")
	f.addReading(flags)
}

// addWorkspace adds that of a pass that may go through one workspace alone.
func (f *passFlags) addWorkspace(flags *pflag.FlagSet) {
	flags.StringVar(&f.workspace, "workspace", "", "the only workspace to look at")
}

// addBatch adds that of a pass whose steps may be of another size.
func (f *passFlags) addBatch(flags *pflag.FlagSet) {
	const name = "batch-size"
	flags.IntVar(&f.batch, name, 0, "keys of one step; where it is not given, 500 while neither a rate nor the load bounds the pass")
	flags.Lookup(name).DefValue = "100"
	f.batchGiven = func() bool { return flags.Changed(name) }
}

// addReading adds those of every pass.
func (f *passFlags) addReading(flags *pflag.FlagSet) {
	flags.IntVar(&f.rate, "rate", 2000, "jobs a second at most; 0 is unlimited")
	flags.BoolVar(&f.asJSON, "json", false, "print the result as JSON")
	flags.String(app.FlagName("REDIS_URL"), "", "the Redis server [REDIS_URL]")
}

func (f *passFlags) check() (workspace.ID, error) {
	if f.dryRun == f.execute {
		return workspace.ID{}, errors.New("give exactly one of --dry-run and --execute")
	}
	return f.checkReading()
}

func (f *passFlags) checkReading() (ws workspace.ID, err error) {
	if f.rate < 0 {
		return ws, errors.New("--rate must be a whole number from 0")
	}
	if f.batchGiven != nil && f.batchGiven() && (f.batch < 1 || f.batch > 10_000) {
		return ws, errors.New("--batch-size must be from 1 to 10000")
	}
	if f.workspace != "" {
		if ws, err = workspace.Parse(f.workspace); err != nil {
			return ws, errors.New("--workspace is not a workspace id")
		}
	}
	return ws, nil
}

// storage is what commands of a migration work on.
type storage struct {
	copies  *redisjobs.Copies
	state   *redisjobs.MigrationState
	index   *redisjobs.Repository
	old     *redisjobs.OldCopies
	gates   usecase.GateKeeper
	command usecase.Command
}

// onStorage runs a command until it ends or is interrupted.
func onStorage(cmd *cobra.Command, environ []string, do func(context.Context, storage) error) error {
	options, err := app.LoadRedis(environment(environ, cmd.Flags()))
	if err != nil {
		return err //nolint:wrapcheck // names the variables
	}
	options.PoolSize = 1 // a position of SCAN may belong to a connection
	rdb, err := redisjobs.Connect(options)
	if err != nil {
		return err //nolint:wrapcheck // says what it is
	}
	defer rdb.Close() //nolint:errcheck // nothing is lost with it
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	state := redisjobs.NewMigrationState(rdb)
	return do(ctx, storage{
		copies: redisjobs.NewCopies(rdb), state: state, old: redisjobs.NewOldCopies(rdb),
		index:   redisjobs.New(rdb, 0, redisjobs.Options{}), // no phase: only its index is asked
		gates:   usecase.GateKeeper{Facts: state, Log: state},
		command: usecase.Command{Who: operator(), Line: line(cmd)},
	})
}

// operator names who runs this process, as far as the machine tells.
func operator() migration.Operator {
	who := migration.Operator{User: "unknown", Host: "unknown"}
	if u, err := user.Current(); err == nil {
		who.User = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		who.Host = host
	}
	return who
}

// line gives the command with the flags that were given; a URL may hold a password.
func line(cmd *cobra.Command) string {
	parts := []string{cmd.CommandPath()}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		if f.Name == app.FlagName("REDIS_URL") {
			value = "…"
		}
		parts = append(parts, "--"+f.Name+"="+value)
	})
	return strings.Join(parts, " ")
}

// refusal tells what cannot be meant from what went wrong.
func refusal(err error) error {
	if fault.KindOf(err) == fault.Invalid {
		return err
	}
	return interrupted(err, "", goesOn)
}

// What a run does that follows one that was interrupted.
const (
	goesOn     = "run it again to go on"
	beginsAnew = "the next run begins anew"
)

func isInterrupt(err error) bool {
	return fault.KindOf(err) == fault.Canceled || errors.Is(err, context.Canceled)
}

// interrupted tells a run that its operator ended from one that a fault ended, maybe before it had done anything.
func interrupted(err error, soFar, next string) error {
	switch {
	case isInterrupt(err):
		return &faultError{fmt.Errorf("interrupted: %s; %s", cmp.Or(soFar, "nothing was done"), next)}
	case soFar == "":
		return &faultError{err}
	}
	return &faultError{fmt.Errorf("after %s: %w", soFar, err)}
}

// ending is what the result of each pass says of its end.
type ending struct {
	Errors int64 `json:"errors"` // what had to be left because of a fault: the rest of a pass counts for one
}

func endedBy(err error) ending {
	if err == nil || isInterrupt(err) {
		return ending{}
	}
	return ending{Errors: 1}
}

func (e ending) errorsRow() row { return row{"errors", e.Errors} }

// told is how far a pass is.
type told struct {
	fraction float64 // that is behind the pass, or behind the part of it that it is in
	done     int64   // what its rate counts
	pace     migration.Pace
	waiting  bool
	what     string
}

// progress shows how far a pass is: a bar on a terminal, a line every few seconds elsewhere, also while a step lasts.
type progress struct {
	out    io.Writer
	fd     int // of the bar's terminal
	bar    *progressbar.ProgressBar
	latest atomic.Pointer[told]
	stop   chan struct{}
	ended  chan struct{}

	first told      // of the part that the pass is in
	began time.Time // when that was
	last  told      // what was shown last, or told first
	shown time.Time // when that was
}

const (
	// wholeBar is how many parts a bar has.
	wholeBar = 10_000
	// besideLine is what a bar of ten columns takes of a line, and what stands around it: the line is cut before the bar is.
	besideLine   = 20
	barInterval  = 500 * time.Millisecond
	lineInterval = 5 * time.Second
)

func newProgress(out io.Writer) *progress {
	p := &progress{out: out, stop: make(chan struct{}), ended: make(chan struct{})}
	interval := lineInterval
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		interval, p.fd = barInterval, int(f.Fd())
		p.bar = progressbar.NewOptions(wholeBar, progressbar.OptionSetWriter(out), progressbar.OptionSetWidth(30),
			progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false), progressbar.OptionClearOnFinish())
	}
	go func() {
		defer close(p.ended)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if now := p.latest.Load(); now != nil {
					p.show(*now, time.Now())
				}
			case <-p.stop:
				return
			}
		}
	}()
	return p
}

// tell is called after each step.
func (p *progress) tell(now told) {
	if p.latest.Load() == nil { // nothing is shown before: what an earlier run did is no part of this one's rate
		p.last, p.shown = now, time.Now()
	}
	p.latest.Store(&now)
}

func (p *progress) show(now told, at time.Time) {
	line := p.line(now, at)
	if p.bar == nil {
		_, _ = fmt.Fprintf(p.out, "%.1f %% %s\n", 100*now.fraction, line) // a reader that is gone takes nothing from the pass
		return
	}
	if width, _, err := term.GetSize(p.fd); err == nil && width > besideLine {
		line = line[:min(len(line), width-besideLine)] // else each redraw would leave a line behind
	}
	p.bar.Describe(line)
	_ = p.bar.Set(min(int(now.fraction*wholeBar), wholeBar-1)) // as above; a full bar would show nothing more
}

// line says how far the pass is and how fast it goes; it is ASCII. It is called once for each time that is shown.
func (p *progress) line(now told, at time.Time) string {
	if now.fraction < p.last.fraction || p.first.what == "" { // another part began, or the pass began anew
		p.first, p.began = now, at
	}
	line := fmt.Sprintf("%s, %.0f/s", now.what, float64(max(0, now.done-p.last.done))/at.Sub(p.shown).Seconds())
	if slowed := now.pace.Reason; slowed != "" {
		line += map[bool]string{true: ", held: ", false: ", slowed: "}[now.waiting] + string(slowed)
	}
	if came := now.fraction - p.first.fraction; came > 0 && now.fraction < 1 && !now.waiting {
		left := time.Duration(float64(at.Sub(p.began)) * (1 - now.fraction) / came)
		line += fmt.Sprintf(", about %s left", left.Round(time.Second))
	}
	p.last, p.shown = now, at
	return line
}

// end is called once, behind the last step.
func (p *progress) end() {
	close(p.stop)
	<-p.ended
	if p.bar != nil {
		_ = p.bar.Finish() // as above
	}
}

func wouldBe(dryRun bool) string {
	if dryRun {
		return "would be "
	}
	return ""
}

// row is a line of the table that a command ends with.
type row struct {
	what  string
	value any
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

func printResult(w io.Writer, asJSON bool, result any, rows []row) error {
	var err error
	if asJSON {
		err = json.NewEncoder(w).Encode(result)
	} else {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, r := range rows {
			if _, e := fmt.Fprintf(table, "%s\t%v\n", r.what, r.value); e != nil {
				err = e
			}
		}
		err = errors.Join(err, table.Flush())
	}
	if err != nil {
		return &faultError{fmt.Errorf("print: %w", err)}
	}
	return nil
}
