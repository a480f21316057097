package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/relay-jobs/relay/adapters/systemclock"
	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
)

func migrateVerifyCommand(environ []string) *cobra.Command {
	var (
		way      passFlags
		sample   int
		lag      time.Duration
		accepted []string
		record   bool
		verbose  bool
	)
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Compare every job's copies, and all that names jobs, while servers run",
		Long: "Compare the copies of every job, their expiries, index entries, queue entries and idempotency keys, judged by\n" +
			"the phase in the environment. It writes nothing, but with --record what it found, for\n" +
			"the gates. What differs is asked about again a while later and reported only if it is the same still.\n\n" + judgedByFlags + exitCodes,
		Args: noArguments,
	}
	flags := cmd.Flags()
	way.addReading(flags)
	way.addWorkspace(flags)
	flags.IntVar(&sample, "sample", 1, "compare one of so many jobs; 1 is all")
	flags.DurationVar(&lag, "index-lag", 2*time.Minute, "how long an index entry may be wrong: a sweep follows writers that know no index")
	flags.StringArrayVar(&accepted, "accept", nil, "CLASS=N: so many differences of a class that no pass mends are known and stay")
	flags.BoolVar(&record, "record", false, "keep the result for the gates")
	flags.BoolVar(&verbose, "verbose", false, "print a line for each difference")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ws, err := way.checkReading()
		if err != nil {
			return err
		}
		if sample < 1 || lag < 0 {
			return errors.New("--sample must be from 1 and --index-lag from 0")
		}
		accept, err := acceptedOf(accepted)
		if err != nil {
			return err
		}
		phase, err := app.LoadPhase(environment(environ, flags))
		if err != nil {
			return err //nolint:wrapcheck // names the variables
		}
		in := usecase.VerifyInput{Phase: phase, Rate: way.rate, Workspace: ws, Sample: sample, IndexLag: lag}
		return onStorage(cmd, environ, func(ctx context.Context, s storage) error {
			return s.verify(ctx, in, accept, record, verbose, way.asJSON, cmd.OutOrStdout(), cmd.ErrOrStderr())
		})
	}
	return cmd
}

// acceptedOf reads CLASS=N.
func acceptedOf(given []string) (map[migration.DifferenceClass]int64, error) {
	named := map[string]migration.DifferenceClass{}
	var names []string
	for _, c := range migration.DifferenceClasses() {
		named[c.String()] = c
		if !c.Mendable() {
			names = append(names, c.String())
		}
	}
	accept := map[migration.DifferenceClass]int64{}
	for _, text := range given {
		name, number, _ := strings.Cut(text, "=")
		class, known := named[name]
		n, err := strconv.ParseInt(number, 10, 64)
		if !known || err != nil || n < 1 {
			return nil, fmt.Errorf("--accept must be CLASS=N with a class of %s", strings.Join(names, ", "))
		}
		if class.Mendable() {
			return nil, fmt.Errorf("--accept=%s: what is %[1]s is mended by `relay migrate backfill` or `index`, and need not stay", class)
		}
		accept[class] = n
	}
	return accept, nil
}

// verifyResult is what a verification ends with.
type verifyResult struct {
	migration.VerifyReport
	ending

	Clean    bool `json:"clean"`
	Recorded bool `json:"recorded"`
}

func (s storage) verify(
	ctx context.Context, in usecase.VerifyInput, accept map[migration.DifferenceClass]int64, record, verbose, asJSON bool,
	out, progress io.Writer,
) error {
	facts, err := s.state.Facts(ctx, 0, false) // neither queue entries nor connections are looked at
	switch {
	case err == nil:
		warnElsewhere(progress, in.Phase, facts.Servers)
	case record || isInterrupt(err):
		return interrupted(err, "", beginsAnew)
	default:
		_, _ = fmt.Fprintf(progress, "which servers live is not known: %v\n", err) // the result says all that counts
	}
	if record {
		in.RevSince = facts.RevSince()
	}
	bar := newProgress(progress)
	pass := usecase.Verify{Copies: s.copies, Comparison: s.copies, Index: s.index, Load: s.copies, Clock: systemclock.Clock{}}
	report, err := pass.Do(ctx, in, func(p usecase.VerifyProgress) {
		if p.Part == usecase.VerifySuspects {
			p.Fraction = 1 // all was gone through
		}
		bar.tell(told{p.Fraction, verified(p.Report), p.Pace, p.Waiting, verifyPart(p) + ": " + verifyLine(p.Report)})
		if verbose {
			tellFound(progress, p.Found)
		}
	})
	bar.end()
	if err == nil && record {
		err = s.gates.Record(ctx, s.command, migration.PassOfVerify(in.Phase, report, accept))
	}
	result := verifyResult{
		VerifyReport: report, ending: endedBy(err), Clean: err == nil && report.Clean(accept), Recorded: err == nil && record,
	}
	if err != nil {
		err = interrupted(err, verifyLine(report), beginsAnew)
	}
	if err := errors.Join(err, printResult(out, asJSON, result, result.rows())); err != nil {
		return err
	}
	if !result.Clean {
		return errRemains
	}
	return nil
}

// warnElsewhere warns of servers in another phase than the one that a verification judges by.
func warnElsewhere(w io.Writer, judged migration.Phase, servers []migration.Server) {
	for _, s := range servers {
		if s.Phase != judged {
			_, _ = fmt.Fprintf(w, "warning: %q serves in %s, and this judges by %s\n", s.ID, s.Phase, judged) // quoted: it is stored text
		}
	}
}

// verifyPart says in which part a pass is, and of suspects, which it has to wait for, until when.
func verifyPart(p usecase.VerifyProgress) string {
	if p.Part == usecase.VerifySuspects && p.Suspects > 0 {
		return fmt.Sprintf("waiting until %s to ask about %d suspects again", p.Due.UTC().Format("15:04:05Z"), p.Suspects)
	}
	return p.Part.String()
}

// tellFound prints each difference. Keys and entries are text of others: they are quoted.
func tellFound(w io.Writer, found []migration.Difference) {
	for _, d := range found {
		_, _ = fmt.Fprintf(w, "%s %s\n", d.Class, quoted(d.Key, d.Entry)) // the result counts all the same
	}
}

func quoted(key, entry string) string {
	text := strconv.Quote(key)
	if entry != "" {
		text += " entry " + strconv.Quote(entry)
	}
	return text
}

// verified is how much was looked at.
func verified(r migration.VerifyReport) int64 {
	return r.Jobs + r.IndexEntries + r.QueueEntries + r.IdempotencyKeys
}

func verifyLine(r migration.VerifyReport) string {
	found := int64(0)
	for class, t := range r.Differences {
		if !class.Harmless() {
			found += t.Count
		}
	}
	return fmt.Sprintf("%d jobs compared, %d differences", r.Jobs, found)
}

func (r verifyResult) rows() []row {
	rows := []row{
		{"phase", r.Phase},
		{"jobs compared", r.Jobs},
		{"index entries", r.IndexEntries},
		{"queue entries", r.QueueEntries},
		{"idempotency keys", r.IdempotencyKeys},
	}
	if !r.RevSince.IsZero() {
		rows = append(rows, row{"written without rev", fmt.Sprintf("%d since %s", r.WithoutRev, r.RevSince.Format(time.RFC3339))})
	}
	for _, class := range migration.DifferenceClasses() {
		if t, found := r.Differences[class]; found {
			oldest := ""
			if t.AgeMS > 0 {
				oldest = fmt.Sprintf("the oldest %s, ", (time.Duration(t.AgeMS) * time.Millisecond).Round(time.Second))
			}
			rows = append(rows, row{class.String(), fmt.Sprintf("%d, %ssuch as %s", t.Count, oldest, quoted(t.Example.Key, t.Example.Entry))})
		}
	}
	rows = append(rows, r.errorsRow(), row{"clean", yes(r.Clean)})
	if r.Recorded {
		recorded := "yes"
		if !r.Whole() {
			recorded = "partial: counts for no gate"
		}
		rows = append(rows, row{"recorded", recorded})
	}
	return rows
}
