package jwtauth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const maxSetBytes = 1 << 20

// pace says how often a source is read.
type pace struct {
	every    time.Duration // after a good read
	retry    time.Duration // after the first failed one; doubled with each further one
	maxRetry time.Duration
	onDemand time.Duration // at least between two reads that unknown keys ask for; 0 is none on demand
	patience time.Duration // at most, what a request waits for such a read
}

// The file's changes are seen as they come, so that an unknown key need not ask for a read.
func filePace() pace { return pace{every: time.Second, retry: time.Second, maxRetry: time.Second} }

func urlPace() pace {
	return pace{
		every: 5 * time.Minute, retry: time.Second, maxRetry: 30 * time.Second,
		onDemand: 30 * time.Second, patience: 3 * time.Second,
	}
}

// source keeps the last good keys of a file or a URL.
type source struct {
	read  func(ctx context.Context) ([]byte, error)
	parse func(content []byte) (keySet, error)
	log   *zap.Logger
	now   func() time.Time
	pace

	keys atomic.Pointer[keySet] // nil until they were loaded once

	// Of whoever calls load, one at a time.
	judged  [sha256.Size]byte // content last taken over
	lastErr string            // last failure that was logged

	wake  chan struct{} // of capacity 1
	mu    sync.Mutex
	asked time.Time     // when a read was last asked for
	round chan struct{} // closed when the read that was asked for is over; nil where none is
}

// load reads once and takes the keys over; on an error the last good ones stay.
func (s *source) load(ctx context.Context) error {
	content, err := s.read(ctx)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	if s.keys.Load() != nil && sum == s.judged {
		return nil
	}
	set, err := s.parse(content)
	if err != nil {
		return err
	}
	s.keys.Store(&set)
	s.judged = sum
	s.log.Info("JWT keys taken over", zap.Strings("algorithms", slices.Sorted(maps.Keys(set)))) // none: all are revoked
	return nil
}

// run loads again and again until ctx ends, the first time after wait.
func (s *source) run(ctx context.Context, wait time.Duration) {
	retry := s.retry
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-s.wake:
			timer.Stop()
		}
		s.mu.Lock()
		asked := s.round // nil where nobody did: whoever does during such a read, which may have begun too early, waits for the next
		s.mu.Unlock()
		err := s.load(ctx)
		switch {
		case err == nil:
			s.lastErr, retry, wait = "", s.retry, s.every
		case ctx.Err() != nil:
			return
		default:
			if err.Error() != s.lastErr { // not at each retry
				s.lastErr = err.Error()
				s.log.Error("JWT keys cannot be loaded", zap.Bool("last_good_stay", s.keys.Load() != nil), zap.Error(err))
			}
			wait, retry = retry, min(2*retry, s.maxRetry)
		}
		if asked != nil {
			s.mu.Lock()
			close(asked)
			s.round = nil
			s.mu.Unlock()
		}
	}
}

// refresh asks for a read, unless one was asked for a short while ago, and waits for it. Whatever number of callers
// with made-up keys there is, they cause one read per interval.
func (s *source) refresh(ctx context.Context) {
	s.mu.Lock()
	if s.round == nil {
		now := s.now()
		if s.onDemand == 0 || !s.asked.IsZero() && now.Sub(s.asked) < s.onDemand {
			s.mu.Unlock()
			return
		}
		s.asked = now
		s.round = make(chan struct{})
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	round := s.round
	s.mu.Unlock()

	timer := time.NewTimer(s.patience)
	defer timer.Stop()
	select {
	case <-round:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// fromFile reads a regular file; anything else could block or never end.
func fromFile(path string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("cannot be read: %w", err)
		}
		if !info.Mode().IsRegular() {
			return nil, errors.New("is not a regular file")
		}
		file, err := os.Open(path) //nolint:gosec // the operator's own setting
		if err != nil {
			return nil, fmt.Errorf("cannot be read: %w", err)
		}
		defer file.Close() //nolint:errcheck // only read from
		return bounded(file)
	}
}

// fromURL fetches with a deadline of its own. Errors don't repeat the URL, whose query may hold a secret.
func fromURL(address string) func(context.Context) ([]byte, error) {
	client := &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > 3 || !trustworthy(req.URL) {
				return errors.New("redirected too often, or to where keys cannot be trusted")
			}
			return nil
		},
	}
	return func(ctx context.Context) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return nil, errors.New("JWKS URL cannot be requested")
		}
		req.Header.Set("Accept", "application/jwk-set+json, application/json")
		resp, err := client.Do(req)
		if err != nil {
			if wrapped, ok := errors.AsType[*url.Error](err); ok {
				err = wrapped.Err
			}
			return nil, fmt.Errorf("JWKS URL: %w", err)
		}
		defer resp.Body.Close() //nolint:errcheck // only read from
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("JWKS URL answered with status %d", resp.StatusCode)
		}
		return bounded(resp.Body)
	}
}

func bounded(r io.Reader) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(r, maxSetBytes+1))
	if err != nil {
		return nil, fmt.Errorf("JWKS: %w", err)
	}
	if len(content) > maxSetBytes {
		return nil, fmt.Errorf("JWKS has more than %d bytes", maxSetBytes)
	}
	return content, nil
}
