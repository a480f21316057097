package redisjobs

import (
	"context"
	_ "embed"
)

//go:embed script/fallback_hits.lua
var fallbackHitsSource string

// AddHits implements ports.FallbackHits. It takes one round trip; hits whose reply is lost may be counted twice.
func (m *MigrationState) AddHits(ctx context.Context, n int64) error {
	return translate(m.hits.Run(ctx, m.rdb, []string{fallbackKey}, n).Err())
}
