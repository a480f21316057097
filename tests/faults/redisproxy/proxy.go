// Package redisproxy stands between a client and a Redis server and breaks their connection where a test says: before
// a command, behind it, in its reply, behind its reply.
package redisproxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Point is where in the exchange of one command and its reply something happens to the connection.
type Point uint8

// The points.
const (
	BeforeCommand Point = iota // the server never sees the command
	AfterCommand               // the server has executed it, and the client gets nothing
	InReply                    // the client gets the first half of the reply
	AfterReply                 // the client gets the whole reply
)

// Points lists all.
func Points() []Point { return []Point{BeforeCommand, AfterCommand, InReply, AfterReply} }

// String says what a test's name needs.
func (p Point) String() string {
	return [...]string{"before the command", "after the command", "in the reply", "after the reply"}[p]
}

// How says what happens to the connection.
type How uint8

// The ways. Hold keeps the connection open and silent: what was held back goes on its way, late, once the client has
// gone or the fault was released.
const (
	FIN How = iota
	RST
	Hold
)

// String says what a test's name needs.
func (h How) String() string { return [...]string{"FIN", "RST", "hold"}[h] }

// Plan is a fault to come. Commands are counted over all connections from the moment the fault was armed; those with
// which a client opens or probes a connection are not counted.
type Plan struct {
	Point   Point
	How     How
	Command int  // 1 for the first to come
	Repeat  bool // again at each multiple of Command
}

// Fault is a plan at work.
type Fault struct {
	plan     Plan
	seen     int // guarded by Proxy.mu
	times    int // guarded by Proxy.mu
	proxy    *Proxy
	struck   chan struct{} // closed at the first strike
	over     chan struct{} // closed once the first strike's exchange is over, that of a late command included
	released chan struct{}
	release  sync.Once
}

// Struck is closed once the fault has happened.
func (f *Fault) Struck() <-chan struct{} { return f.struck }

// Over is closed once nothing of the exchange that was struck is to come: a command that was held back has been
// executed by then.
func (f *Fault) Over() <-chan struct{} { return f.over }

// Times tells how often the fault has happened.
func (f *Fault) Times() int {
	f.proxy.mu.Lock()
	defer f.proxy.mu.Unlock()
	return f.times
}

// Release lets go what is held, and disarms the fault.
func (f *Fault) Release() {
	f.proxy.mu.Lock()
	if f.proxy.fault == f {
		f.proxy.fault = nil
	}
	f.proxy.mu.Unlock()
	f.release.Do(func() { close(f.released) })
}

// Proxy listens on a free port of its own.
type Proxy struct {
	Addr string

	upstream *url.URL
	listener net.Listener
	serving  sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	conns    map[net.Conn]bool
	fault    *Fault
	commands int
	replies  int
}

// Start runs a proxy to the server of a redis:// URL until the test ends.
func Start(tb testing.TB, redisURL string) *Proxy {
	tb.Helper()
	upstream, err := url.Parse(redisURL)
	require.NoError(tb, err)
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	p := &Proxy{Addr: l.Addr().String(), upstream: upstream, listener: l, conns: make(map[net.Conn]bool)}
	p.serving.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // the listener was closed
			}
			p.serving.Go(func() { p.serve(client) })
		}
	})
	tb.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		f := p.fault
		for c := range p.conns {
			_ = c.Close() // it may have been closed before
		}
		p.mu.Unlock()
		if f != nil {
			f.Release()
		}
		require.NoError(tb, l.Close())
		p.serving.Wait()
	})
	return p
}

// URL is the server's URL with the proxy's address.
func (p *Proxy) URL() string {
	u := *p.upstream
	u.Host = p.Addr
	return u.String()
}

// Arm makes the plan the proxy's only fault.
func (p *Proxy) Arm(plan Plan) *Fault {
	f := &Fault{
		plan: plan, proxy: p,
		struck: make(chan struct{}), over: make(chan struct{}), released: make(chan struct{}),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	return f
}

// Commands counts the commands that came so far.
func (p *Proxy) Commands() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.commands
}

// Replies counts the replies to them that were passed on in full, or were about to be.
func (p *Proxy) Replies() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.replies
}

// exchangeOf begins the exchange of one command: it may be the one that the fault strikes.
func (p *Proxy) exchangeOf(command frame) exchange {
	switch strings.ToUpper(string(command.first)) {
	case "HELLO", "AUTH", "SELECT", "CLIENT", "READONLY", "PING":
		return exchange{}
	}
	if bytes.Contains(command.raw, []byte("ai:server")) || bytes.Contains(command.raw, []byte("ai:fallback-hits")) {
		return exchange{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commands++
	f := p.fault
	if f == nil {
		return exchange{counted: true}
	}
	f.seen++
	struck := f.seen == f.plan.Command || f.plan.Repeat && f.seen%f.plan.Command == 0
	if !struck {
		return exchange{counted: true}
	}
	f.times++
	return exchange{counted: true, fault: f, first: f.times == 1}
}

// keep remembers a connection so that the end of the test closes it; false where that has come already.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	_ = c.Close() // it may have been closed before
}

// exchange is one command and its reply.
type exchange struct {
	counted bool
	fault   *Fault // what strikes it, nil for nothing
	first   bool   // it is the fault's first
}

// strike does to the client's connection what the fault says.
func (e exchange) strike(client net.Conn) {
	if tcp, ok := client.(*net.TCPConn); ok && e.fault.plan.How == RST {
		_ = tcp.SetLinger(0) // of no effect only where the client has gone
	}
	_ = client.Close()
}

func (e exchange) begun() {
	if e.first {
		close(e.fault.struck)
	}
}

func (e exchange) ended() {
	if e.first {
		close(e.fault.over)
	}
}

// maxPipelined bounds the commands of one connection that wait for a reply.
const maxPipelined = 1 << 16

// serve passes on commands; a second goroutine passes on replies. Either ends the other by closing both connections.
func (p *Proxy) serve(client net.Conn) {
	defer p.drop(client)
	server, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.upstream.Host)
	if err != nil || !p.keep(client) || !p.keep(server) {
		if server != nil {
			_ = server.Close()
		}
		return
	}
	waiting := make(chan exchange, maxPipelined)
	gone := make(chan struct{}) // closed once the client has ended its side
	var replies sync.WaitGroup
	replies.Go(func() {
		defer p.drop(server)
		defer client.Close() //nolint:errcheck // it may have been closed before
		p.passReplies(client, server, waiting, gone)
	})
	p.passCommands(client, server, waiting)
	close(gone)
	close(waiting)
	replies.Wait()
}

func (p *Proxy) passCommands(client, server net.Conn, waiting chan<- exchange) {
	in := bufio.NewReader(client)
	for {
		command, err := readFrame(in)
		if err != nil {
			return
		}
		e := p.exchangeOf(command)
		if e.fault != nil && e.fault.plan.Point == BeforeCommand {
			e.begun()
			if e.fault.plan.How != Hold {
				e.strike(client)
				e.ended()
				return
			}
			if !awaitClient(client, e.fault.released) {
				// The client is gone; what it sent arrives all the same.
				waiting <- e
				_, _ = server.Write(command.raw) // where the server is gone too, there is no reply
				return
			}
		}
		waiting <- e
		if _, err := server.Write(command.raw); err != nil {
			return
		}
	}
}

// awaitClient waits until the client ends its side, false, or the channel is closed, true. A client that waits for a
// reply sends nothing meanwhile.
func awaitClient(client net.Conn, released <-chan struct{}) bool {
	left := make(chan struct{})
	var readErr error
	go func() {
		defer close(left)
		_, readErr = client.Read(make([]byte, 1))
	}()
	select {
	case <-left:
		return false
	case <-released:
		_ = client.SetReadDeadline(time.Unix(1, 0)) // ends the read above
		<-left
		_ = client.SetReadDeadline(time.Time{})
		return errors.Is(readErr, os.ErrDeadlineExceeded)
	}
}

func (p *Proxy) passReplies(client, server net.Conn, waiting <-chan exchange, gone <-chan struct{}) {
	in := bufio.NewReader(server)
	for e := range waiting {
		reply, err := readFrame(in)
		for err == nil && reply.raw[0] == '>' { // belongs to no command
			_, _ = client.Write(reply.raw)
			reply, err = readFrame(in)
		}
		if err != nil {
			if e.fault != nil {
				e.settle()
			}
			return
		}
		if e.fault == nil || e.fault.plan.Point == BeforeCommand {
			p.passed(e)
			_, err := client.Write(reply.raw)
			if e.fault != nil {
				e.ended()
			}
			if err != nil {
				return
			}
			continue
		}
		switch e.fault.plan.Point {
		case BeforeCommand, AfterCommand:
		case InReply:
			_, _ = client.Write(reply.raw[:len(reply.raw)/2])
			reply.raw = reply.raw[len(reply.raw)/2:]
		case AfterReply:
			p.passed(e)
			_, _ = client.Write(reply.raw)
			reply.raw = nil
		}
		e.begun()
		if e.fault.plan.How != Hold {
			e.strike(client)
			e.ended()
			return
		}
		select {
		case <-gone:
			e.ended()
			return
		case <-e.fault.released:
			p.passed(e)
			_, _ = client.Write(reply.raw)
			e.ended()
		}
	}
}

// settle ends an exchange whose reply never came, because the server went away.
func (e exchange) settle() {
	if e.fault.plan.Point != BeforeCommand || e.fault.plan.How != Hold {
		e.begun()
	}
	e.ended()
}

func (p *Proxy) passed(e exchange) {
	if !e.counted {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.replies++
}
