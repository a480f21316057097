package redisjobs

import (
	"context"
	_ "embed"
	"encoding/json"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/core/migration"
)

//go:embed script/server_beat.lua
var serverBeatSource string

// MigrationState implements ports.LiveServers, ports.FallbackHits, ports.MigrationLog and ports.GateFacts: what a
// migration knows of itself, beside the jobs.
type MigrationState struct {
	rdb        redis.UniversalClient
	beat, hits *redis.Script
}

// NewMigrationState makes it. It does not touch the network.
func NewMigrationState(rdb redis.UniversalClient) *MigrationState {
	return &MigrationState{rdb: rdb, beat: redis.NewScript(serverBeatSource), hits: redis.NewScript(fallbackHitsSource)}
}

// Beat implements ports.LiveServers. It takes one round trip.
func (m *MigrationState) Beat(ctx context.Context, s migration.Server) error {
	text, err := json.Marshal(s)
	if err != nil {
		return untrusted(err)
	}
	return translate(m.beat.Run(ctx, m.rdb, []string{serverKey(s.ID), serversKey, phasesSeenKey},
		s.ID, text, migration.ServerLife.Milliseconds(), s.Phase.String()).Err())
}

// Leave implements ports.LiveServers.
func (m *MigrationState) Leave(ctx context.Context, s migration.Server) error {
	return pipelined(ctx, m.rdb, func(p redis.Pipeliner) {
		p.Del(ctx, serverKey(s.ID))
		p.ZRem(ctx, serversKey, s.ID)
	})
}

// servers reads what those of ids say that live. One that says nothing which can be read is in no phase.
func (m *MigrationState) servers(ctx context.Context, ids []string) ([]migration.Server, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = serverKey(id)
	}
	values, err := m.rdb.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, translate(err)
	}
	var live []migration.Server
	for i, value := range values {
		text, ok := value.(string)
		if !ok {
			continue
		}
		var s migration.Server
		if json.Unmarshal([]byte(text), &s) != nil || s.ID != ids[i] {
			s = migration.Server{ID: ids[i]}
		}
		live = append(live, s)
	}
	return live, nil
}

// phasesSeen reads the hash that beats leave.
func phasesSeen(hash map[string]string) map[migration.Phase]migration.PhaseSeen {
	seen := map[migration.Phase]migration.PhaseSeen{}
	for _, p := range migration.Phases() {
		since, last := microTime(hash[p.String()+":since"]), microTime(hash[p.String()+":last"])
		if !last.IsZero() {
			seen[p] = migration.PhaseSeen{Since: since, Last: last}
		}
	}
	return seen
}

// microTime reads microseconds since 1970, the zero time where there are none.
func microTime(text string) time.Time {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}
