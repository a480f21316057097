package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"os/user"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
)

const exitCodes = "Exit codes: 0 clean, 1 differences remain, 2 refused, 3 fault or interrupted.\n" +
	"It reads REDIS_URL and RELAY_REDIS_* from the environment."

type timeOfStorage = time.Time

// passFlags are those of every pass that changes stored jobs.
type passFlags struct {
	dryRun, execute, asJSON bool
	rate                    int
	workspace               string
}

func (f *passFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would be done and change nothing")
	flags.BoolVar(&f.execute, "execute", false, "do it")
	f.addReading(flags)
}

// addReading adds those of a pass that only reads, too.
func (f *passFlags) addReading(flags *pflag.FlagSet) {
	flags.IntVar(&f.rate, "rate", 2000, "jobs a second at most; 0 is unlimited")
	flags.StringVar(&f.workspace, "workspace", "", "the only workspace to look at")
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
	return &faultError{err}
}

func interrupted(err error, soFar string) error {
	if fault.KindOf(err) == fault.Canceled || errors.Is(err, context.Canceled) {
		return &faultError{fmt.Errorf("interrupted: %s; run it again to go on", soFar)}
	}
	return &faultError{fmt.Errorf("after %s: %w", soFar, err)}
}

// progress shows how far a pass is: a bar on a terminal, a line every few seconds elsewhere.
type progress struct {
	out   io.Writer
	bar   *progressbar.ProgressBar
	began time.Time
	last  time.Time
	from  float64 // the fraction that was behind the pass when it began
}

// wholeBar is how many parts a bar has.
const wholeBar = 10_000

func newProgress(out io.Writer) *progress {
	p := &progress{out: out, began: time.Now(), last: time.Now(), from: -1}
	if f, ok := out.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		p.bar = progressbar.NewOptions(wholeBar, progressbar.OptionSetWriter(out), progressbar.OptionSetWidth(30),
			progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(200*time.Millisecond),
			progressbar.OptionClearOnFinish())
	}
	return p
}

func (p *progress) tell(fraction float64, pace migration.Pace, waiting bool, what string) {
	if p.from < 0 {
		p.from = fraction
	}
	if slowed := pace.Reason; slowed != "" {
		if waiting {
			what += ", held: " + string(slowed)
		} else {
			what += ", slowed: " + string(slowed)
		}
	}
	if p.bar != nil {
		p.bar.Describe(what)
		_ = p.bar.Set(int(fraction * wholeBar)) // a terminal that is gone takes nothing from the pass
		return
	}
	if now := time.Now(); now.Sub(p.last) >= progressInterval {
		p.last = now
		rest := ""
		if done := fraction - p.from; done > 0 {
			left := time.Duration(float64(now.Sub(p.began)) * (1 - fraction) / done)
			rest = fmt.Sprintf(", about %s left", left.Round(time.Second))
		}
		_, _ = fmt.Fprintf(p.out, "%.1f %% %s%s\n", 100*fraction, what, rest) // as above
	}
}

func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Finish() // as above
	}
}

// row is a line of the table that a command ends with.
type row struct {
	what  string
	value any
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
