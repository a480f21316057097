// Package apikey authenticates opaque tokens whose SHA-256 is listed in a file.
package apikey

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/fault"
)

const (
	pollInterval = time.Second
	// maxFileBytes holds some 50 000 keys.
	maxFileBytes = 16 << 20
)

// Provider is a ports.AuthProvider over a set of keys.
type Provider struct {
	now  func() time.Time
	keys atomic.Pointer[keySet]
	stop func()
}

// Static serves the given entries, which never change. It is for keys that exist in this process only.
func Static(now func() time.Time, entries ...Entry) (*Provider, error) {
	set, err := newKeySet(entries)
	if err != nil {
		return nil, err
	}
	p := &Provider{now: now, stop: func() {}}
	p.keys.Store(&set)
	return p, nil
}

// Open serves the keys of the file at path and follows its changes until Close. A missing or broken file is an error
// here; later it is logged, and the last good keys stay.
func Open(path string, log *zap.Logger, now func() time.Time) (*Provider, error) {
	return open(path, log, now, pollInterval)
}

func open(path string, log *zap.Logger, now func() time.Time, interval time.Duration) (*Provider, error) {
	content, err := read(path)
	if err != nil {
		return nil, err
	}
	set, err := parseFile(content)
	if err != nil {
		return nil, fmt.Errorf("API key file %s: %w", path, err)
	}
	var watcher sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	p := &Provider{now: now, stop: func() { cancel(); watcher.Wait() }}
	p.keys.Store(&set)
	f := &follower{path: path, log: log.With(zap.String("file", path)), serve: p.keys.Store}
	f.seen = sha256.Sum256(content)
	f.judged = f.seen
	watcher.Go(func() { f.run(ctx, interval) })
	return p, nil
}

// Close stops following the file and waits for that. The keys stay usable.
func (p *Provider) Close() { p.stop() }

// Authenticate implements ports.AuthProvider.
func (p *Provider) Authenticate(ctx context.Context, credential string) (access.Principal, error) {
	if err := ctx.Err(); err != nil {
		return access.Principal{}, fault.Wrap(err, fault.KindOf(err), fault.CodeCanceled, "Authentication was abandoned")
	}
	if len(credential) > maxTokenBytes || !strings.HasPrefix(credential, tokenPrefix) {
		return access.Principal{}, refuse("not an API key")
	}
	k, known := (*p.keys.Load())[sha256.Sum256([]byte(credential))]
	switch {
	case !known:
		return access.Principal{}, refuse("unknown API key")
	case k.disabled:
		return access.Principal{}, refuse("API key " + k.id + " is disabled")
	case !k.expires.IsZero() && !p.now().Before(k.expires):
		return access.Principal{}, refuse("API key " + k.id + " has expired")
	}
	principal := k.principal
	principal.Scopes = slices.Clone(principal.Scopes)
	return principal, nil
}

func refuse(reason string) error { return access.ErrUnproven(errors.New(reason)) }

// follower takes over changes of a file. It reads all of it at each tick: the file is small, and neither time stamps
// nor sizes tell every change, least of all with renames, links and mounted volumes.
//
// Content counts once two ticks in a row saw the same, because a file cut short while it is written may well parse,
// and would revoke the keys that are not there yet.
type follower struct {
	path   string
	log    *zap.Logger
	serve  func(*keySet)
	seen   digest // content at the last tick; zero where the file could not be read
	judged digest // content that was last taken over or refused
	lost   bool   // the file could not be read, and that was logged
}

func (f *follower) run(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f.tick()
		}
	}
}

func (f *follower) tick() {
	content, err := read(f.path)
	if err != nil {
		if f.seen == (digest{}) && !f.lost { // twice in a row: a replacement may leave a gap
			f.lost = true
			f.log.Error("API key file cannot be read, the last good keys stay", zap.Error(err))
		}
		f.seen = digest{}
		return
	}
	f.lost = false
	now := digest(sha256.Sum256(content))
	settled := now == f.seen
	f.seen = now
	if !settled || now == f.judged {
		return
	}
	f.judged = now
	set, err := parseFile(content)
	if err != nil {
		f.log.Error("API key file refused, the last good keys stay", zap.Error(err))
		return
	}
	f.serve(&set)
	f.log.Info("API key file taken over", zap.Int("keys", len(set)))
}

// read returns the content of a regular file; anything else could block or never end.
func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("API key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("API key file %s is not a regular file", path)
	}
	file, err := os.Open(path) //nolint:gosec // the operator's own setting
	if err != nil {
		return nil, fmt.Errorf("API key file: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read from
	content, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("API key file: %w", err)
	}
	if len(content) > maxFileBytes {
		return nil, fmt.Errorf("API key file %s has more than %d bytes", path, maxFileBytes)
	}
	return content, nil
}
