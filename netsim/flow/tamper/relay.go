// SPDX-License-Identifier: Apache-2.0

package tamper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/netsim/flow"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

// sayDone begins the answer to an order.
const sayDone = "done"

// relay passes connections of every protocol on to the same port of another address.
type relay struct {
	to netip.Addr

	mu      sync.Mutex
	rng     *rand.Rand
	victims map[*victim]bool
	// left is how many orders are not carried out yet.
	left int
}

// Run listens on every protocol's port and passes what comes on to the same port of to. It says "ready" on out, then
// carries out an order for each line of in, on every connection that there is, and says "done N" when it was done to N
// connections. It ends with in or the context. What it records is when it did not run.
func Run(ctx context.Context, in io.Reader, out io.Writer, scheduling string, to netip.Addr, seed uint64) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	r := &relay{to: to, rng: rand.New(rand.NewPCG(seed, seed)), victims: map[*victim]bool{}}
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range wire.Protocols() {
		serve, err := r.listen(ctx, p, fmt.Sprintf(":%d", p.Port))
		if err != nil {
			stop()
			return errors.Join(fmt.Errorf("relay %s: %w", p.Name, err), group.Wait())
		}
		group.Go(serve)
	}
	rec := record.NewWriter(out, "relay", scheduling)
	group.Go(func() error {
		rec.Pulse("relay", ctx.Done())
		return nil
	})
	err := rec.Say(flow.Ready)
	if err == nil {
		err = r.obey(ctx, in, rec)
	}
	stop()
	return errors.Join(err, group.Wait(), rec.Finish())
}

// obey carries out orders until in ends.
func (r *relay) obey(ctx context.Context, in io.Reader, rec *record.Writer) error {
	orders := flow.Commands(ctx, bufio.NewReader(in))
	for {
		var text string
		var more bool
		select {
		case <-ctx.Done():
			return nil
		case text, more = <-orders:
			if !more {
				return nil
			}
		}
		o, err := ParseOrder(text)
		if err != nil {
			return err
		}
		n, err := r.carryOut(ctx, o)
		if err != nil {
			return err
		}
		if err := rec.Say(fmt.Sprint(sayDone, " ", n)); err != nil {
			return err
		}
	}
}

// carryOut does what is ordered, and returns to how many it was done.
func (r *relay) carryOut(ctx context.Context, o Order) (int, error) {
	if o.Wrong == Allow {
		return o.Count, r.allow(ctx, o)
	}
	n, done := r.arm(o)
	select {
	case <-done:
	case <-ctx.Done():
	}
	return n, nil
}

// allow takes one connection at each port, at moments of their own.
func (r *relay) allow(ctx context.Context, o Order) error {
	group, ctx := errgroup.WithContext(ctx)
	for port := o.Port; port < o.Port+o.Count; port++ {
		wait := time.Duration(r.rng.Int64N(int64(spread)))
		group.Go(func() error {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return nil
			}
			listener, err := new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf(":%d", port))
			if err != nil {
				return fmt.Errorf("allow: %w", err)
			}
			defer listener.Close()
			stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
			defer stop()
			conn, err := listener.Accept()
			if err != nil {
				return fmt.Errorf("allow: %w", err)
			}
			return conn.Close()
		})
	}
	return group.Wait()
}

// arm gives every connection an order.
func (r *relay) arm(o Order) (n int, done <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(chan struct{})
	r.left = len(r.victims)
	if r.left == 0 {
		close(all)
	}
	for v := range r.victims {
		v.arm(o, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.left--; r.left == 0 {
				close(all)
			}
		})
	}
	return r.left, all
}

// enter adds a connection, which cut resets; leave takes it out.
func (r *relay) enter(cut func()) *victim {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := &victim{cut: cut, rng: rand.New(rand.NewPCG(r.rng.Uint64(), r.rng.Uint64()))}
	r.victims[v] = true
	return v
}

func (r *relay) leave(v *victim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.victims, v)
}

// listen opens a protocol's port and returns what serves it until the context ends.
func (r *relay) listen(ctx context.Context, p *wire.Protocol, address string) (serve func() error, err error) {
	if p.Network == "udp" {
		return r.listenUDP(ctx, p, address)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = listener.Close() })
	return func() error {
		var open sync.WaitGroup
		defer open.Wait()
		for {
			client, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("relay %s: %w", p.Name, err)
			}
			open.Go(func() { r.pass(ctx, p, client.(*net.TCPConn)) })
		}
	}, nil
}

// pass relays one TCP connection until both directions have ended.
func (r *relay) pass(ctx context.Context, p *wire.Protocol, client *net.TCPConn) {
	defer client.Close()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", r.target(p).String())
	if err != nil {
		return // the client sees the end
	}
	server := conn.(*net.TCPConn)
	defer server.Close()
	stop := context.AfterFunc(ctx, func() { reset(client, server) })
	defer stop()
	v := r.enter(func() { reset(client, server) })
	defer r.leave(v)
	gate := &gate{}
	var pumps sync.WaitGroup
	for _, d := range [][2]*net.TCPConn{{client, server}, {server, client}} {
		pumps.Go(func() {
			pump(v, gate, whole(p), units(p, d[0]), d[1].Write)
			_ = d[1].CloseWrite() // it may be gone
		})
	}
	pumps.Wait()
}

func (r *relay) target(p *wire.Protocol) netip.AddrPort {
	return netip.AddrPortFrom(r.to, uint16(p.Port))
}

func reset(sockets ...*net.TCPConn) {
	for _, s := range sockets {
		_ = s.SetLinger(0)
		_ = s.Close()
	}
}

// gate is closed while a hole lasts, for both directions of a connection.
type gate struct {
	mu   sync.Mutex
	open time.Time
}

func (g *gate) close(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = time.Now().Add(d)
}

func (g *gate) wait() {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	<-time.After(time.Until(open))
}

// pump passes units of one direction on until there are no more.
func pump(v *victim, g *gate, whole bool, next func() ([]byte, error), write func([]byte) (int, error)) {
	for {
		unit, err := next()
		if err != nil {
			return
		}
		times := 1
		if o := v.take(unit, whole); o != nil {
			switch o.Wrong {
			case Hole:
				g.close(o.For)
			case Duplicate:
				times = 2
			case Lose:
				times = 0
			}
			v.done()
		}
		g.wait()
		for range times {
			if _, err := write(unit); err != nil {
				return
			}
		}
	}
}

// whole tells whether every bit of the protocol counts.
func whole(p *wire.Protocol) bool { return framed(p) || p == wire.TLS || p.Network == "udp" }

// framed tells whether the relay sees frames in the stream.
func framed(p *wire.Protocol) bool { return p == wire.Stream || p == wire.Greet }

// units returns what reads the next unit: a frame, or what there is.
func units(p *wire.Protocol, socket net.Conn) func() ([]byte, error) {
	if framed(p) {
		return wire.Frames(socket)
	}
	buffer := make([]byte, 64<<10)
	return func() ([]byte, error) {
		n, err := socket.Read(buffer)
		if err != nil {
			return nil, err
		}
		return buffer[:n], nil
	}
}

// listenUDP is listen for datagrams: each client is a connection of its own.
func (r *relay) listenUDP(ctx context.Context, p *wire.Protocol, address string) (serve func() error, err error) {
	packets, err := new(net.ListenConfig).ListenPacket(ctx, "udp", address)
	if err != nil {
		return nil, err
	}
	socket := packets.(*net.UDPConn)
	context.AfterFunc(ctx, func() { _ = socket.Close() })
	return func() error {
		var open sync.WaitGroup
		defer open.Wait()
		inbox := map[netip.AddrPort]chan []byte{}
		defer func() {
			for _, c := range inbox {
				close(c)
			}
		}()
		buffer := make([]byte, 64<<10)
		for {
			n, from, err := socket.ReadFromUDPAddrPort(buffer)
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("relay %s: %w", p.Name, err)
			}
			box := inbox[from]
			if box == nil {
				box = make(chan []byte, 1024)
				inbox[from] = box
				open.Go(func() { r.passUDP(ctx, p, box, socket, from) })
			}
			select {
			case box <- append([]byte(nil), buffer[:n]...):
			default: // a hole longer than a thousand datagrams: UDP loses
			}
		}
	}, nil
}

// passUDP relays the datagrams of one client until its inbox is closed.
func (r *relay) passUDP(ctx context.Context, p *wire.Protocol, inbox <-chan []byte, socket *net.UDPConn,
	from netip.AddrPort) {
	server, err := new(net.Dialer).DialContext(ctx, "udp", r.target(p).String())
	if err != nil {
		return
	}
	v := r.enter(nil)
	defer r.leave(v)
	gate := &gate{}
	var back sync.WaitGroup
	back.Go(func() {
		pump(v, gate, true, units(p, server), func(b []byte) (int, error) { return socket.WriteToUDPAddrPort(b, from) })
	})
	next := func() ([]byte, error) {
		if b, more := <-inbox; more {
			return b, nil
		}
		return nil, io.EOF
	}
	pump(v, gate, true, next, server.Write)
	_ = server.Close()
	back.Wait()
}
