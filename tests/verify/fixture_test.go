package verify_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// fixture is what the predecessor stored, read plainly: no record in it has a rev, and there is no index.
type fixture struct {
	records    []redisserver.Record
	hashes     map[string]map[string]string
	ttl        map[string]time.Duration // 0 for none
	types      map[string]string
	ids        map[string]map[string]bool // workspaces that have each id
	validSpace *regexp.Regexp
}

func readFixture(t *testing.T) fixture {
	t.Helper()
	f := fixture{
		records: redisserver.ReadFixture(t, "../migration/testdata/predecessor.jsonl"),
		hashes:  map[string]map[string]string{}, ttl: map[string]time.Duration{}, types: map[string]string{},
		ids: map[string]map[string]bool{}, validSpace: regexp.MustCompile(`\A[a-z0-9][a-z0-9_-]{0,31}\z`),
	}
	for _, r := range f.records {
		f.types[r.Key] = r.Type
		if r.Type == "hash" {
			f.hashes[r.Key] = r.Hash(t)
			require.NotContains(t, f.hashes[r.Key], "rev")
		}
		if r.TTLms != nil {
			f.ttl[r.Key] = time.Duration(*r.TTLms) * time.Millisecond
		}
	}
	return f
}

// held gives what a schema holds of a job for its workspace, nil for nothing.
func (f fixture) held(key, ws, id string) map[string]string {
	if h := f.hashes[key]; h["job_id"] == id && h["workspace_id"] == ws {
		return h
	}
	return nil
}

// expected works out what is wrong in a phase that writes and reads as told.
func (f fixture) expected(t *testing.T, looksOld, looksNew bool) map[thing]bool {
	t.Helper()
	want := map[thing]bool{}
	add := func(class migration.DifferenceClass, key, entry string) { want[thing{class, key, entry}] = true }
	jobs := map[[2]string]bool{}
	for key, kind := range f.types {
		if id, ok := strings.CutPrefix(key, "ai:jobs:"); ok {
			h := f.hashes[key]
			switch {
			case kind != "hash":
				add(migration.DifferenceWrongType, key, "")
			case !f.validSpace.MatchString(h["workspace_id"]):
				add(migration.DifferenceInvalidWorkspace, key, "")
			case h["job_id"] != id:
				add(migration.DifferenceOtherID, key, "")
			default:
				jobs[[2]string{h["workspace_id"], id}] = true
			}
		} else if rest, ok := strings.CutPrefix(key, "ai:job:"); ok {
			ws, id, _ := strings.Cut(rest, ":")
			require.Regexp(t, f.validSpace, ws)
			jobs[[2]string{ws, id}] = true
		}
	}
	spaces := map[string]map[string]bool{}
	for j := range jobs {
		ws, id := j[0], j[1]
		oldKey, newKey := "ai:jobs:"+id, "ai:job:"+ws+":"+id
		old, copied := f.held(oldKey, ws, id), f.held(newKey, ws, id)
		whole := f.hashes[newKey]
		stub := whole != nil && (whole["job_id"] == "" || whole["workspace_id"] == "")
		switch {
		case stub && looksNew:
			add(migration.DifferencePartial, newKey, "")
		case stub:
		case whole != nil && copied == nil:
			add(migration.DifferenceContradiction, newKey, "")
		case old != nil && copied == nil && looksNew:
			add(migration.DifferenceMissing, oldKey, "")
		case old == nil && copied != nil && looksOld && f.types[oldKey] == "":
			add(migration.DifferenceGhost, newKey, "")
		case old != nil && copied != nil:
			if class, key := f.compare(t, oldKey, newKey); class != 0 && (key == oldKey && looksOld || key == newKey && looksNew) &&
				(class != migration.DifferenceTTL || looksOld && looksNew) {
				add(class, key, "")
			}
		}
		if old != nil || copied != nil {
			add(migration.DifferenceIndexMissing, "ai:index:"+ws, id)
			if spaces[id] == nil {
				spaces[id] = map[string]bool{}
			}
			if spaces[id][ws] = true; len(spaces[id]) > 1 {
				add(migration.DifferenceTwoWorkspaces, id, "")
			}
		}
	}
	f.expectReferences(t, add)
	return want
}

func (f fixture) compare(t *testing.T, oldKey, newKey string) (migration.DifferenceClass, string) {
	t.Helper()
	old, copied := f.hashes[oldKey], f.hashes[newKey]
	oldMore, newMore, differ := 0, 0, false
	for field, value := range old {
		if other, ok := copied[field]; !ok {
			oldMore++
		} else if other != value {
			differ = true
		}
	}
	for field := range copied {
		if _, ok := old[field]; !ok {
			newMore++
		}
	}
	latest := func(h map[string]string) (at time.Time) {
		for _, name := range []string{"enqueued_at", "started_at", "finished_at"} {
			if read, err := time.Parse(time.RFC3339Nano, h[name]); err == nil && read.After(at) {
				at = read
			}
		}
		return at
	}
	version := func(h map[string]string) [4]string {
		return [4]string{h["status"], h["enqueued_at"], h["started_at"], h["finished_at"]}
	}
	rank := map[string]int{"pending": 1, "running": 2, "completed": 3, "failed": 3}
	switch {
	case !differ && oldMore+newMore == 0:
		if d := (f.ttl[oldKey] - f.ttl[newKey]).Abs(); d > time.Second || (f.ttl[oldKey] == 0) != (f.ttl[newKey] == 0) {
			return migration.DifferenceTTL, newKey
		}
		return 0, ""
	case !differ && oldMore == 0:
		return migration.DifferenceExtraField, oldKey
	case !differ && version(old) == version(copied):
		return migration.DifferencePartial, newKey
	case latest(old).After(latest(copied)), latest(old).Equal(latest(copied)) && rank[old["status"]] > rank[copied["status"]]:
		return migration.DifferenceStale, newKey
	}
	return migration.DifferenceStale, oldKey
}

func (f fixture) expectReferences(t *testing.T, add func(migration.DifferenceClass, string, string)) {
	t.Helper()
	for _, r := range f.records {
		if rest, ok := strings.CutPrefix(r.Key, "ai:idempotency:"); ok {
			ws, _, _ := strings.Cut(rest, ":")
			var id string
			require.NoError(t, json.Unmarshal(r.Value, &id))
			if f.held("ai:jobs:"+id, ws, id) == nil && f.held("ai:job:"+ws+":"+id, ws, id) == nil {
				class := migration.DifferenceIdempotency
				if owner := f.hashes["ai:jobs:"+id]["workspace_id"]; f.validSpace.MatchString(owner) && f.held("ai:jobs:"+id, owner, id) != nil {
					class = migration.DifferenceIdempotencyForeign
				}
				add(class, r.Key, "")
			}
		}
		if r.Key == "ai:queue:pending" {
			var entries []string
			require.NoError(t, json.Unmarshal(r.Value, &entries))
			for _, e := range entries {
				ws, id := f.hashes["ai:jobs:"+e]["workspace_id"], e
				if f.types["ai:jobs:"+e] != "hash" {
					ws, id, _ = strings.Cut(e, ":")
				}
				if f.held("ai:jobs:"+id, ws, id) == nil && f.held("ai:job:"+ws+":"+id, ws, id) == nil {
					add(migration.DifferenceQueue, r.Key, e)
				}
			}
		}
	}
}

// TestFixtureInEveryPhase: what is found in the predecessor's keys is what a plain reading of them expects, and nothing is
// changed.
func TestFixtureInEveryPhase(t *testing.T) {
	t.Parallel()
	f := readFixture(t)
	rdb := startServer(t)
	redisserver.Load(t, rdb, f.records)
	before, keys := digest(t, rdb), redisserver.Dump(t, rdb, "*")
	t.Run("phases", func(t *testing.T) {
		for phase, looks := range map[migration.Phase][2]bool{
			migration.Legacy: {true, false}, migration.Canary: {true, true}, migration.ReadRouting: {true, true},
			migration.DualWrite: {true, true}, migration.StrictNew: {true, true}, migration.NewOnly: {false, true},
		} {
			t.Run(phase.String(), func(t *testing.T) {
				t.Parallel()
				want := f.expected(t, looks[0], looks[1])
				require.Greater(t, len(want), 500)
				report, found := verify(t, rdb, usecase.VerifyInput{Phase: phase})
				requireThings(t, want, things(found))
				require.Equal(t, int64(155), report.IdempotencyKeys)
				require.False(t, report.Clean(nil))
			})
		}
	})
	require.Equal(t, before, digest(t, rdb))
	require.Equal(t, keys, redisserver.Dump(t, rdb, "*"))
}
