package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// connection is one HTTP/1.1 connection that is kept alive. It knows just enough of the protocol, so that the
// generator costs little and the same on both sides.
type connection struct {
	net    net.Conn
	in     *bufio.Reader
	answer []byte // the last one, whole
}

func dial(ctx context.Context, addr string) (*connection, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	return &connection{net: c, in: bufio.NewReaderSize(c, 4096)}, nil
}

func (c *connection) close() { _ = c.net.Close() } // nothing is lost with it

// exchange sends a whole request and reads a whole answer of a known length into c.answer.
func (c *connection) exchange(request []byte) (status int, err error) {
	if _, err := c.net.Write(request); err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	c.answer = c.answer[:0]
	length := -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, fmt.Errorf("receive: %w", err)
		}
		c.answer = append(c.answer, line...)
		if len(line) == 2 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, fmt.Errorf("receive: %w", err)
			}
		}
	}
	if length < 0 || len(c.answer) < len("HTTP/1.1 200") {
		return 0, fmt.Errorf("an answer of unknown form: %q", c.answer)
	}
	head := len(c.answer)
	c.answer = append(c.answer, make([]byte, length)...)
	for at := head; at < len(c.answer); {
		n, err := c.in.Read(c.answer[at:])
		if err != nil {
			return 0, fmt.Errorf("receive: %w", err)
		}
		at += n
	}
	status, err = strconv.Atoi(string(c.answer[9:12]))
	if err != nil {
		return 0, fmt.Errorf("an answer of unknown form: %q", c.answer)
	}
	return status, nil
}

// request is the text of a request for a token's workspace.
func request(method, path, token, requestID, body string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer %s\r\n", method, path, token)
	if requestID != "" {
		fmt.Fprintf(&b, "X-Request-Id: %s\r\n", requestID)
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	return []byte(b.String() + "\r\n" + body)
}

// load is a kind of request. Where numbered is not nil, it stands in text, and each request has another number of as
// many digits in its place.
type load struct {
	name     string
	text     []byte
	numbered []byte
	modulo   uint64 // numbers start again from 0 there; 0 for never
}

// measured is what one round gave.
type measured struct {
	rate float64 // requests a second
	cpu  float64 // of Redis, in seconds a request
	own  float64 // of the service, in seconds a request
	sent uint64  // requests of the whole round, warm-up included
}

// run sends requests on n connections at once, each waiting for its answer before the next, and measures after the
// warm-up. An answer other than 200 ends it.
func (l load) run(
	ctx context.Context, s service, rdb *redis.Client, n int, warmUp, length time.Duration,
) (measured, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, done atomic.Uint64
	var stop atomic.Bool
	var workers sync.WaitGroup
	for range n {
		c, err := dial(ctx, s.addr)
		if err != nil {
			stop.Store(true)
			workers.Wait()
			return measured{}, err
		}
		workers.Go(func() {
			defer c.close()
			text := bytes.Clone(l.text)
			at := bytes.Index(text, l.numbered)
			for !stop.Load() {
				if l.numbered != nil {
					number := next.Add(1) - 1
					if l.modulo > 0 {
						number %= l.modulo
					}
					write(text[at:at+len(l.numbered)], number)
				}
				status, err := c.exchange(text)
				if err == nil && status != 200 {
					err = fmt.Errorf("%s: %s", l.name, c.answer)
				}
				if err != nil {
					cancel(err)
					return
				}
				done.Add(1)
			}
		})
	}
	var before, after sample
	err := pause(ctx, warmUp)
	if err == nil {
		before, err = take(ctx, s, rdb, &done)
	}
	if err == nil {
		err = pause(ctx, length)
	}
	if err == nil {
		after, err = take(ctx, s, rdb, &done)
	}
	stop.Store(true)
	workers.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(cause, err)
	}
	requests := float64(after.done - before.done)
	return measured{
		rate: requests / after.at.Sub(before.at).Seconds(), sent: done.Load(),
		cpu: (after.cpu - before.cpu) / requests, own: (after.own - before.own) / requests,
	}, err
}

func write(digits []byte, number uint64) {
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = byte('0' + number%10)
		number /= 10
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// sample is where a round stands.
type sample struct {
	at   time.Time
	done uint64
	cpu  float64 // seconds that the main process of Redis has used
	own  float64 // seconds that the service has used
}

func take(ctx context.Context, of service, rdb *redis.Client, done *atomic.Uint64) (sample, error) {
	info, err := rdb.InfoMap(ctx, "cpu").Result()
	if err != nil {
		return sample{}, fmt.Errorf("INFO cpu: %w", err)
	}
	s := sample{at: time.Now(), done: done.Load()}
	for _, field := range []string{"used_cpu_sys", "used_cpu_user"} {
		seconds, err := strconv.ParseFloat(info["CPU"][field], 64)
		if err != nil {
			return sample{}, fmt.Errorf("INFO cpu: %w", err)
		}
		s.cpu += seconds
	}
	s.own, err = of.cpu()
	return s, err
}
