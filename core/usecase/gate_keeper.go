package usecase

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/ports"
)

// gateEntries is how many queue entries a decision looks at; a longer queue with none bare among them stays in doubt.
const gateEntries = 1_000_000

// GateKeeper decides about the gates of the migration and keeps account of what operators do.
type GateKeeper struct {
	Facts ports.GateFacts
	Log   ports.MigrationLog
	Quiet time.Duration // for how long no read may have fallen back; 0 for migration.DefaultQuiet
}

// State decides about one gate.
func (u GateKeeper) State(ctx context.Context, g migration.Gate) (migration.GateState, error) {
	entries := int64(0) // looking at them takes long
	if slices.Contains(g.Conditions(), migration.ConditionQueue) {
		entries = gateEntries
	}
	workers := slices.Contains(g.Conditions(), migration.ConditionWorkers) // all connections are gone through for them
	f, err := u.Facts.Facts(ctx, entries, workers)
	if err != nil {
		return migration.GateState{}, err //nolint:wrapcheck // already a fault
	}
	f.Quiet = u.Quiet
	return migration.Decide(g, f), nil
}

// Servers decides about one gate by its servers alone, which takes no longer than to ask for them.
func (u GateKeeper) Servers(ctx context.Context, g migration.Gate) (migration.GateState, error) {
	f, err := u.Facts.Facts(ctx, 0, false)
	if err != nil {
		return migration.GateState{}, err //nolint:wrapcheck // already a fault
	}
	return migration.Decide(g, f, migration.ConditionServers), nil
}

// AtStart decides about the gate that a server passes which starts in phase p, before its first beat. warn is true where
// it is closed: the server says so and serves.
func (u GateKeeper) AtStart(ctx context.Context, p migration.Phase) (s migration.GateState, warn bool, err error) {
	g, passes := migration.GateInto(p)
	if !passes {
		return migration.GateState{}, false, nil
	}
	s, err = u.State(ctx, g)
	return s, err == nil && !s.Open, err
}

// Command is who does what to the stored jobs.
type Command struct {
	Who  migration.Operator
	Line string // the command as it was typed, without the values of secrets
}

// Pass lets a command through an open gate, and through a closed one where a reason is given: then the account says
// what was closed and why it did not matter. Else it is refused with a *migration.ClosedError.
func (u GateKeeper) Pass(ctx context.Context, g migration.Gate, c Command, reason string) error {
	s, err := u.State(ctx, g)
	if err != nil || s.Open {
		return err
	}
	closed := &migration.ClosedError{GateState: s}
	if strings.TrimSpace(reason) == "" {
		return closed
	}
	return u.audit(ctx, c, migration.AuditForce, "reason: "+reason+"; "+closed.Error())
}

// Executes leaves the trace of a command that is about to change stored jobs.
func (u GateKeeper) Executes(ctx context.Context, c Command) error {
	return u.audit(ctx, c, migration.AuditExecute, "")
}

// Record keeps a pass for the gates, with its trace: one for the pass, and one for what was accepted. The traces come
// first, so that nothing counts that nobody answers for.
func (u GateKeeper) Record(ctx context.Context, c Command, p migration.RecordedPass) error {
	if p.Kind == 0 || p.Started.IsZero() || p.Ended.Before(p.Started) {
		return fault.New(fault.Invalid, fault.CodeInvalidParameter, "A pass is recorded with its kind and its times")
	}
	if len(p.Accepted) > 0 {
		if err := u.audit(ctx, c, migration.AuditAccept, migration.ByClass(p.Accepted)); err != nil {
			return err
		}
	}
	if err := u.audit(ctx, c, migration.AuditRecord, p.Kind.String()+": "+migration.ByClass(p.Counts)); err != nil {
		return err
	}
	return u.Log.RecordPass(ctx, p) //nolint:wrapcheck // already a fault
}

func (u GateKeeper) audit(ctx context.Context, c Command, a migration.AuditAction, detail string) error {
	if detail != "" {
		detail = "; " + detail
	}
	return u.Log.Audit(ctx, migration.AuditEntry{Who: c.Who, Action: a, Detail: c.Line + detail}) //nolint:wrapcheck // already a fault
}
