package redisjobs

import (
	"context"
	_ "embed"

	"github.com/redis/go-redis/v9"

	"github.com/relay-jobs/relay/core/migration"
)

//go:embed script/retire_job.lua
var retireSource string

// OldCopies implements ports.OldCopies.
type OldCopies struct {
	rdb    redis.UniversalClient
	retire *redis.Script
}

// NewOldCopies makes it. It does not touch the network.
func NewOldCopies(rdb redis.UniversalClient) *OldCopies {
	return &OldCopies{rdb: rdb, retire: redis.NewScript(retireJobSource())}
}

func retireJobSource() string {
	return versionSource + keepNowSource + placeSource + statesSource + entriesSource + mendSource + contentsSource + retireSource
}

// Retire implements ports.OldCopies. It takes the round trips of evalEach.
func (o *OldCopies) Retire(ctx context.Context, jobs []migration.JobRef, dry bool) ([]migration.Retired, error) {
	flag := ""
	if dry {
		flag = "1"
	}
	replies, err := evalEach(ctx, o.rdb, o.retire, len(jobs), func(i int) ([]string, []any) {
		ref := jobs[i]
		return append(indexedKeys(ref.Workspace, ref.ID), retiredKey), []any{ref.Workspace.String(), ref.ID.String(), ref.ID.SortBytes(), flag}
	})
	if err != nil {
		return nil, err
	}
	out := make([]migration.Retired, len(jobs))
	for i, reply := range replies {
		out[i].Job = jobs[i]
		if out[i].Entries, err = readOutcome(reply, &out[i].Outcome); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Held implements ports.OldCopies. It takes one round trip; each job's two keys are asked one after the other.
func (o *OldCopies) Held(ctx context.Context, jobs []migration.JobRef) ([]migration.Held, error) {
	inOld, inNew := make([]*redis.SliceCmd, len(jobs)), make([]*redis.SliceCmd, len(jobs))
	err := pipelined(ctx, o.rdb, func(p redis.Pipeliner) {
		for i, ref := range jobs {
			inOld[i] = p.HMGet(ctx, oldKey(ref.ID), fieldID, fieldWorkspace)
			inNew[i] = p.HMGet(ctx, newKey(ref.Workspace, ref.ID), fieldID, fieldWorkspace)
		}
	})
	if err != nil {
		return nil, err
	}
	out := make([]migration.Held, len(jobs))
	for i, ref := range jobs {
		if inOld[i].Err() == nil {
			owner, _ := ownerOf(inOld[i].Val()).inOld(ref.Workspace, ref.ID)
			out[i].Old = owner == mine
		}
		out[i].New = inNew[i].Err() == nil && ownerOf(inNew[i].Val()).inNew(ref.Workspace, ref.ID) == mine
	}
	return out, nil
}
