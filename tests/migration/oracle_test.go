// Package migration_test holds the stored jobs of the predecessor, and odd ones beside them, to what the contract says
// of each phase. What is expected is worked out here from the stored fields, in the plainest form and not by the code
// under test.
package migration_test

import (
	"encoding/json"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// plan says which schemas a phase reads.
type plan struct{ old, new bool }

func plans() map[migration.Phase]plan {
	return map[migration.Phase]plan{
		migration.Legacy:      {old: true},
		migration.Canary:      {old: true},
		migration.ReadRouting: {old: true, new: true},
		migration.DualWrite:   {old: true, new: true},
		migration.StrictNew:   {new: true},
		migration.NewOnly:     {new: true},
	}
}

type fields = map[string]string

// stock is what Redis holds: the hashes by key.
type stock map[string]fields

func stockOf(t *testing.T, records []redisserver.Record) stock {
	t.Helper()
	s := stock{}
	for _, r := range records {
		if r.Type == "hash" {
			s[r.Key] = r.Hash(t)
		}
	}
	return s
}

// answer is what the contract says of one read: the copy that is served, "miss" for none, and what is counted.
type answer struct {
	path     string // old, new or miss
	hash     fields
	stale    bool // the other copy differs
	mismatch bool // the old key is another workspace's, and nothing is served
	breach   bool // the new hash contradicts its key
}

// read applies the contract's rules for one workspace and id.
func (s stock) read(p plan, ws, id string) answer {
	a := answer{path: "miss"}
	old, inOld := s["ai:jobs:"+id]
	copyOfNew, inNew := s["ai:job:"+ws+":"+id]
	inOld, inNew = inOld && p.old, inNew && p.new
	if inNew && (copyOfNew["job_id"] == "" || copyOfNew["workspace_id"] == "") {
		inNew = false // a stub
	}
	if inNew && (copyOfNew["job_id"] != id || copyOfNew["workspace_id"] != ws) {
		inNew, a.breach = false, true
	}
	others := false
	if inOld && (old["job_id"] != id || old["workspace_id"] != ws) {
		inOld = false
		others = old["job_id"] == id && validWorkspace(old["workspace_id"])
	}
	switch {
	case inOld && inNew:
		a.path, a.hash, a.stale = "new", copyOfNew, !sameFields(old, copyOfNew)
		if oldIsFresher(old, copyOfNew) {
			a.path, a.hash = "old", old
		}
	case inOld:
		a.path, a.hash = "old", old
	case inNew:
		a.path, a.hash = "new", copyOfNew
	default:
		a.mismatch = others
	}
	return a
}

func validWorkspace(ws string) bool {
	return regexp.MustCompile(`\A[a-z0-9][a-z0-9_-]{0,31}\z`).MatchString(ws)
}

func sameFields(a, b fields) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

func oldIsFresher(old, copyOfNew fields) bool {
	oldRev, newRev := revOf(old), revOf(copyOfNew)
	if oldRev != newRev {
		return oldRev > newRev
	}
	if oldRev > 0 {
		return !sameFields(old, copyOfNew)
	}
	oldLatest, newLatest := latest(old), latest(copyOfNew)
	if !oldLatest.Equal(newLatest) {
		return oldLatest.After(newLatest)
	}
	rank := map[string]int{"pending": 1, "running": 2, "completed": 3, "failed": 3}
	return rank[old["status"]] > rank[copyOfNew["status"]]
}

func revOf(f fields) int {
	rev, err := strconv.Atoi(f["rev"])
	if err != nil {
		return 0
	}
	return rev
}

func latest(f fields) (t time.Time) {
	for _, name := range []string{"enqueued_at", "started_at", "finished_at"} {
		if at, ok := parseTime(f[name]); ok && at.After(t) {
			t = at
		}
	}
	return t
}

func parseTime(s string) (time.Time, bool) {
	t, err := time.Parse("2006-01-02T15:04:05.999999999Z07:00", s)
	return t.UTC(), err == nil
}

// wire is a job as the API gives it.
func wire(ws, id string, f fields) map[string]any {
	j := map[string]any{
		"job_id": text(id), "workspace_id": ws, "status": text(f["status"]),
		"action_provider": textOrNull(f["action_provider"]), "action_name": textOrNull(f["action_name"]),
		"params": value(f["params"]), "result": value(f["result"]), "error": textOrNull(f["error"]),
		"actor_id": textOrNull(f["actor_id"]), "duration_ms": nil,
	}
	for _, name := range []string{"enqueued_at", "started_at", "finished_at"} {
		j[name] = nil
		if at, ok := parseTime(f[name]); ok {
			j[name] = at.Format("2006-01-02T15:04:05.000000") + "Z"
		}
	}
	started, hasStarted := parseTime(f["started_at"])
	finished, hasFinished := parseTime(f["finished_at"])
	if hasStarted && hasFinished {
		ms := finished.Truncate(time.Microsecond).Sub(started.Truncate(time.Microsecond)).Milliseconds()
		j["duration_ms"] = json.Number(strconv.FormatInt(max(0, ms), 10))
	}
	return j
}

// text is s as JSON can carry it: each byte that is not UTF-8 becomes U+FFFD.
func text(s string) string { return string([]rune(s)) }

func textOrNull(s string) any {
	if s == "" {
		return nil
	}
	return text(s)
}

// value is a stored JSON text's value, or the text itself where it is no JSON.
func value(s string) any {
	if s == "" {
		return nil
	}
	if v, err := decode(strings.NewReader(s)); err == nil && utf8.ValidString(s) {
		return v
	}
	return text(s)
}

// decode reads exactly one JSON value; numbers keep their text.
func decode(r io.Reader) (any, error) {
	d := json.NewDecoder(r)
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, io.ErrUnexpectedEOF
	}
	return v, nil
}

// suffixes are the ids that any key of either schema could stand for.
func (s stock) suffixes() map[string]bool {
	found := make(map[string]bool)
	for key := range s {
		if id, ok := strings.CutPrefix(key, "ai:jobs:"); ok {
			found[id] = true
		}
		if rest, ok := strings.CutPrefix(key, "ai:job:"); ok {
			_, id, _ := strings.Cut(rest, ":")
			found[id] = true
		}
	}
	return found
}

// workspaces are those that the keys and the fields name, where they are well-formed.
func (s stock) workspaces() map[string]bool {
	found := make(map[string]bool)
	for key, hash := range s {
		if validWorkspace(hash["workspace_id"]) {
			found[hash["workspace_id"]] = true
		}
		if rest, ok := strings.CutPrefix(key, "ai:job:"); ok {
			ws, _, _ := strings.Cut(rest, ":")
			found[ws] = true
		}
	}
	return found
}
