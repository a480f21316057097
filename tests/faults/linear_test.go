package faults_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/ports"
)

// call is a move, or a get where Move is the zero one.
type call struct{ move job.Move }

// outcome is what became of a call: of a move whether it was done, of a get what it showed.
type outcome struct {
	done bool
	job  state
}

// state is one job, as far as moves change it.
type state struct {
	status  job.Status
	result  job.JSON
	err     string
	rev     int64
	started bool
}

// oneJob is the specification that histories are held against: one copy, one call after the other.
func oneJob() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return state{status: job.Pending, rev: 1} },
		Step: func(s, in, out any) (bool, any) {
			before, isState := s.(state)
			c, isCall := in.(call)
			o, isOutcome := out.(outcome)
			if !isState || !isCall || !isOutcome {
				return false, s
			}
			if c.move.To == "" {
				return o.job == before, before
			}
			m := c.move
			if before.status == m.To && before.result == m.Result && before.err == m.Error {
				return o.done, before
			}
			legal := map[job.Status][]job.Status{
				job.Pending: {job.Running, job.Failed}, job.Running: {job.Pending, job.Completed, job.Failed},
			}
			if !slices.Contains(legal[before.status], m.To) {
				return !o.done, before
			}
			after := state{status: m.To, result: m.Result, err: m.Error, rev: before.rev + 1, started: before.started}
			switch m.To {
			case job.Running:
				after.started = true
			case job.Pending:
				after.started = false
			}
			return o.done, after
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%v: %v", in, out) },
	}
}

// TestMovesAndReadsOfOneJobAreLinearizable: several servers, in one phase and in neighbouring ones, move and read one
// job at once. What they answer must fit one order of their calls.
func TestMovesAndReadsOfOneJobAreLinearizable(t *testing.T) {
	t.Parallel()
	for name, phases := range map[string][]migration.Phase{
		"dual write three times":         {migration.DualWrite, migration.DualWrite, migration.DualWrite},
		"new only twice":                 {migration.NewOnly, migration.NewOnly},
		"legacy beside canary":           {migration.Legacy, migration.Canary},
		"canary beside read routing":     {migration.Canary, migration.ReadRouting},
		"canary beside dual write":       {migration.Canary, migration.DualWrite},
		"read routing beside dual write": {migration.ReadRouting, migration.DualWrite},
		"dual write beside strict new":   {migration.DualWrite, migration.StrictNew},
		"strict new beside new only":     {migration.StrictNew, migration.NewOnly},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			var jobs []ports.JobRepository
			for _, p := range phases {
				_, repository := server(t, s.URL(), p)
				jobs = append(jobs, repository)
			}
			for range 60 {
				history := moveAtOnce(t, jobs)
				result, info := porcupine.CheckOperationsVerbose(oneJob(), history, patience)
				if result != porcupine.Ok {
					file, err := os.CreateTemp("", "relay-history-*.html")
					require.NoError(t, err)
					require.NoError(t, porcupine.Visualize(oneJob(), info, file))
					require.NoError(t, file.Close())
					require.FailNow(t, "not linearizable", "%s, see %s", result, file.Name())
				}
			}
		})
	}
}

// moveAtOnce makes a job and has several callers at each server move and read it.
func moveAtOnce(t *testing.T, jobs []ports.JobRepository) []porcupine.Operation {
	t.Helper()
	const callersEach, calls = 3, 12
	ws, id := parseWorkspace(t, home), parseJobID(t, random())
	_, err := jobs[0].Enqueue(t.Context(), job.Draft{
		ID: id, Workspace: ws, Provider: "google", Name: "gmail.send", Params: `{}`, Actor: actor,
	})
	require.NoError(t, err)
	start := time.Now()
	var mu sync.Mutex
	var history []porcupine.Operation
	var failures []error
	atOnce(callersEach*len(jobs), func(client int) {
		for range calls {
			c := randomCall()
			op := porcupine.Operation{ClientId: client, Input: c, Call: time.Since(start).Nanoseconds()}
			out, err := do(t, jobs[client%len(jobs)], c, func(r ports.JobRepository) (job.Job, error) {
				return r.Get(t.Context(), ws, id)
			}, func(r ports.JobRepository) error { return r.Move(t.Context(), ws, id, c.move) })
			op.Return, op.Output = time.Since(start).Nanoseconds(), out
			mu.Lock()
			history = append(history, op)
			if err != nil {
				failures = append(failures, err)
			}
			mu.Unlock()
		}
	})
	require.Empty(t, failures)
	return history
}

// randomCall seldom ends the job: nothing moves behind that.
func randomCall() call {
	switch n := rand.IntN(40); {
	case n < 16:
		return call{}
	case n < 27:
		return call{move: job.Move{To: job.Running}}
	case n < 38:
		return call{move: job.Move{To: job.Pending}}
	case n < 39:
		return call{move: job.Move{To: job.Failed, Error: "no"}}
	}
	return call{move: job.Move{To: job.Completed, Result: `{"ok":true}`}}
}

func do(
	t *testing.T, r ports.JobRepository, c call,
	get func(ports.JobRepository) (job.Job, error), move func(ports.JobRepository) error,
) (outcome, error) {
	t.Helper()
	if c.move.To == "" {
		j, err := get(r)
		return outcome{job: state{
			status: j.Status, result: j.Result, err: j.Error, rev: j.Rev, started: !j.StartedAt.IsZero(),
		}}, err
	}
	err := move(r)
	if fault.KindOf(err) == fault.Conflict {
		return outcome{}, nil
	}
	return outcome{done: true}, err
}
