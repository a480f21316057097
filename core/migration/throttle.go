package migration

import "time"

// Load is how busy the storage is, and what its operator asks of a pass.
type Load struct {
	Version        string        // of the server, such as 7.0.15
	EvictionPolicy string        // what the server does where it may take no more memory
	Ping           time.Duration // one round trip
	UsedMemory     int64         // bytes
	MaxMemory      int64         // bytes; 0 for no bound
	ReplicaDelay   time.Duration // since the slowest replica was heard of; 0 without replicas
	ReplicaBehind  int64         // bytes that the slowest replica lacks
	Saving         bool          // a snapshot or a rewrite of the log is running
	Paused         bool          // the operator holds the pass
	Rate           int           // jobs a second that the operator asked for since the start; 0 for none, RateUnbounded for no bound
}

// RateUnbounded is the Rate of an operator who wants no bound.
const RateUnbounded = -1

// Pace is how fast a pass may go on. Share is the part of the time that it may work in, 0 to stand still.
type Pace struct {
	Rate   int // jobs a second at most; 0 for no bound
	Share  float64
	Reason SlowReason // what slows the pass most, empty where only the rate does
}

// Keys of one step, where its operator does not say, and jobs of it that storage is asked about together: others wait for few
// behind those, and the pass waits for few answers itself where it is to be quick. See ARCHITECTURE.md on its speed.
const (
	stepKeys, tripJobs                   = 100, 10
	stepKeysUnbounded, tripJobsUnbounded = 500, 100
)

// StepKeys is how many keys a step of this pace looks at.
func (p Pace) StepKeys() int {
	if p.unbounded() {
		return stepKeysUnbounded
	}
	return stepKeys
}

// TripJobs is how many jobs of a step a pass of this pace asks storage about together.
func (p Pace) TripJobs() int {
	if p.unbounded() {
		return tripJobsUnbounded
	}
	return tripJobs
}

func (p Pace) unbounded() bool { return p.Rate == 0 && p.Share == 1 }

// SlowReason is what slows a pass, or holds it, in words for its operator.
type SlowReason string

// The reasons.
const (
	SlowedByPause   SlowReason = "paused by its key"
	SlowedByMemory  SlowReason = "memory"
	SlowedByReplica SlowReason = "replica lag"
	SlowedByLatency SlowReason = "latency"
	SlowedBySaving  SlowReason = "save or rewrite running"
)

// SlowReasons lists them all.
func SlowReasons() []SlowReason {
	return []SlowReason{SlowedByPause, SlowedByMemory, SlowedByReplica, SlowedByLatency, SlowedBySaving}
}

// The bounds at which a pass slows down, and stands still.
const (
	slowPing, stopPing           = 5 * time.Millisecond, 50 * time.Millisecond
	slowDelay, stopDelay         = 3 * time.Second, 10 * time.Second
	slowBehind, stopBehind int64 = 16 << 20, 128 << 20
	slowMemory, stopMemory       = 0.85, 0.93
	slowShare                    = 0.25
	savingShare                  = 0.5
)

// PaceOf decides from the asked rate and the load; the strictest bound wins.
func PaceOf(rate int, l Load) Pace {
	p := Pace{Rate: rate, Share: 1}
	switch {
	case l.Rate == RateUnbounded:
		p.Rate = 0
	case l.Rate > 0:
		p.Rate = l.Rate
	}
	bound := func(share float64, reason SlowReason) {
		if share < p.Share {
			p.Share, p.Reason = share, reason
		}
	}
	grade := func(slow, stop bool, reason SlowReason) {
		if stop {
			bound(0, reason)
		} else if slow {
			bound(slowShare, reason)
		}
	}
	if l.Paused {
		bound(0, SlowedByPause)
	}
	full := 0.0
	if l.MaxMemory > 0 {
		full = float64(l.UsedMemory) / float64(l.MaxMemory)
	}
	grade(full > slowMemory, full > stopMemory, SlowedByMemory)
	grade(l.ReplicaDelay > slowDelay || l.ReplicaBehind > slowBehind,
		l.ReplicaDelay > stopDelay || l.ReplicaBehind > stopBehind, SlowedByReplica)
	grade(l.Ping > slowPing, l.Ping > stopPing, SlowedByLatency)
	if l.Saving {
		bound(savingShare, SlowedBySaving)
	}
	return p
}
