package telemetry

import (
	"maps"
	"sync"
	"sync/atomic"
)

// series keeps what is exported for each key at hand, so that an observation is a map read and an atomic addition. Keys
// past the limit share other.
type series[K comparable, V any] struct {
	open  func(K) V
	other V
	limit int

	mu   sync.Mutex // held while a key is added
	seen atomic.Pointer[map[K]V]
}

func newSeries[K comparable, V any](limit int, other V, open func(K) V) *series[K, V] {
	s := &series[K, V]{open: open, other: other, limit: limit}
	s.seen.Store(&map[K]V{})
	return s
}

// of gives what belongs to a key. One that is seen for the first time gets its own while the limit allows it.
func (s *series[K, V]) of(key K) V {
	seen := *s.seen.Load()
	if v, ok := seen[key]; ok {
		return v
	}
	if len(seen) >= s.limit {
		return s.other
	}
	return s.add(key)
}

// add copies the map, which readers use without a lock; there are no more copies than the limit.
func (s *series[K, V]) add(key K) V {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := *s.seen.Load()
	if v, ok := seen[key]; ok {
		return v
	}
	if len(seen) >= s.limit {
		return s.other
	}
	grown := maps.Clone(seen)
	v := s.open(key)
	grown[key] = v
	s.seen.Store(&grown)
	return v
}
