package migration_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/migration"
)

func TestPaceOf(t *testing.T) {
	const gib = 1 << 30
	memory := func(percent int64) migration.Load {
		return migration.Load{UsedMemory: gib * percent / 100, MaxMemory: gib}
	}
	for name, c := range map[string]struct {
		rate int
		load migration.Load
		want migration.Pace
	}{
		"nothing to bear":            {2000, migration.Load{}, migration.Pace{Rate: 2000, Share: 1}},
		"no rate":                    {0, migration.Load{}, migration.Pace{Share: 1}},
		"the operator's rate":        {2000, migration.Load{Rate: 50}, migration.Pace{Rate: 50, Share: 1}},
		"the operator's, none asked": {0, migration.Load{Rate: 50}, migration.Pace{Rate: 50, Share: 1}},
		"the operator wants none":    {2000, migration.Load{Rate: migration.RateUnbounded}, migration.Pace{Share: 1}},
		"paused":                     {9, migration.Load{Paused: true}, migration.Pace{Rate: 9, Reason: "paused by its key"}},
		"ping at the bound":          {0, migration.Load{Ping: 5 * time.Millisecond}, migration.Pace{Share: 1}},
		"slow ping":                  {0, migration.Load{Ping: 6 * time.Millisecond}, migration.Pace{Share: 0.25, Reason: "latency"}},
		"ping at the second bound":   {0, migration.Load{Ping: 50 * time.Millisecond}, migration.Pace{Share: 0.25, Reason: "latency"}},
		"ping beyond bearing":        {0, migration.Load{Ping: 51 * time.Millisecond}, migration.Pace{Reason: "latency"}},
		"a replica is behind in time": {
			0, migration.Load{ReplicaDelay: 4 * time.Second}, migration.Pace{Share: 0.25, Reason: "replica lag"},
		},
		"a replica is far behind in time": {0, migration.Load{ReplicaDelay: 11 * time.Second}, migration.Pace{Reason: "replica lag"}},
		"a replica is near":               {0, migration.Load{ReplicaDelay: 3 * time.Second, ReplicaBehind: 16 << 20}, migration.Pace{Share: 1}},
		"a replica lacks much":            {0, migration.Load{ReplicaBehind: 17 << 20}, migration.Pace{Share: 0.25, Reason: "replica lag"}},
		"a replica lacks too much":        {0, migration.Load{ReplicaBehind: 129 << 20}, migration.Pace{Reason: "replica lag"}},
		"memory at the bound":             {0, memory(85), migration.Pace{Share: 1}},
		"memory is short":                 {0, memory(86), migration.Pace{Share: 0.25, Reason: "memory"}},
		"memory is too short":             {0, memory(94), migration.Pace{Reason: "memory"}},
		"memory without a bound":          {0, migration.Load{UsedMemory: gib}, migration.Pace{Share: 1}},
		"saving":                          {7, migration.Load{Saving: true}, migration.Pace{Rate: 7, Share: 0.5, Reason: "save or rewrite running"}},
		"the strictest is named": {
			0, migration.Load{Saving: true, Ping: 6 * time.Millisecond}, migration.Pace{Share: 0.25, Reason: "latency"},
		},
		"of two that stop it the first is named": {
			0, migration.Load{Paused: true, Ping: time.Second, Saving: true}, migration.Pace{Reason: "paused by its key"},
		},
		"a stop is above a slowing": {
			0, migration.Load{UsedMemory: 90, MaxMemory: 100, Ping: time.Second}, migration.Pace{Reason: "latency"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, migration.PaceOf(c.rate, c.load))
			require.Contains(t, append(migration.SlowReasons(), ""), c.want.Reason)
		})
	}
}

// TestStepKeys: a pass that has to go easy looks at few keys in a step, and at few of their jobs together.
func TestStepKeys(t *testing.T) {
	for want, paces := range map[[2]int][]migration.Pace{
		{500, 100}: {{Share: 1}},
		{100, 10}:  {{Rate: 2000, Share: 1}, {Share: 0.25, Reason: migration.SlowedByLatency}, {}},
	} {
		for _, pace := range paces {
			require.Equal(t, want, [2]int{pace.StepKeys(), pace.TripJobs()}, pace)
		}
	}
}
