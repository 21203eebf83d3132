// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/netsim/flow/record"
	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

// server answers flows.
type server struct {
	// id tells this process from others in every answer.
	id        uint64
	listeners []*wire.Listener
}

// Port is a port that a server listens on for a protocol, of any address. Its text is "stream:8080".
type Port struct {
	Protocol *wire.Protocol
	Number   uint16
}

// ParsePort reads what String writes.
func ParsePort(text string) (Port, error) {
	name, port, _ := strings.Cut(text, ":")
	p := Port{Protocol: wire.Find(name)}
	if p.Protocol == nil {
		return p, fmt.Errorf("port %q: it is PROTOCOL:NUMBER, and there is no protocol %q", text, name)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return p, fmt.Errorf("port %q: it is PROTOCOL:NUMBER, from 1 to 65535", text)
	}
	p.Number = uint16(number)
	return p, nil
}

func (p Port) String() string { return fmt.Sprintf("%s:%d", p.Protocol.Name, p.Number) }

// RunServer listens on ports, or else for every protocol on its default port, says "ready" on out, and answers until the
// context or in ends. It remembers nothing beyond a connection: what is missing or comes twice the client sees in the
// answers. Its recording, on out like a client's, says when it did not run, and what it cost.
func RunServer(ctx context.Context, in io.Reader, out io.Writer, scheduling string, on ...Port) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if len(on) == 0 {
		for _, p := range wire.Protocols() {
			on = append(on, Port{p, uint16(p.Port)})
		}
	}
	s, err := listen(ctx, "", on)
	if err != nil {
		return err
	}
	rec := record.NewWriter(out, "server", scheduling)
	if err := rec.Say(Ready); err != nil {
		return errors.Join(err, s.close())
	}
	go func() { // ends with in; the process ends with it
		_, _ = io.Copy(io.Discard, in)
		stop()
	}()
	var pulse sync.WaitGroup
	pulse.Go(func() { rec.Pulse("server", ctx.Done()) })
	err = s.run(ctx)
	pulse.Wait()
	return errors.Join(err, rec.Finish())
}

// listen opens all listeners, or none. No host is any address.
func listen(ctx context.Context, host string, on []Port) (*server, error) {
	s := &server{id: rand.Uint64N(1 << 52)}
	for _, p := range on {
		l, err := p.Protocol.Listen(ctx, fmt.Sprintf("%s:%d", host, p.Number))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("serve %s: %w", p.Protocol.Name, err), s.close())
		}
		s.listeners = append(s.listeners, l)
	}
	return s, nil
}

func (s *server) close() error {
	var err error
	for _, l := range s.listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

// run answers until the context ends, and closes the listeners.
func (s *server) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		group.Go(func() error {
			if err := s.serve(ctx, l); err != nil {
				return fmt.Errorf("serve %s: %w", l.Protocol().Name, err)
			}
			return nil
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		return s.close()
	})
	return group.Wait()
}

// serve answers one protocol until the listener is closed.
func (s *server) serve(ctx context.Context, l *wire.Listener) error {
	if l.Packets() != nil {
		return s.packets(l.Packets())
	}
	return l.Serve(func(conn *wire.Accepted) {
		c := &connection{Accepted: conn, server: s}
		if conn.Socket != nil {
			stop := context.AfterFunc(ctx, func() { _ = conn.Socket.Close() })
			defer stop()
			// 0 if it has gone already: the client will say so.
			c.socket, _ = wire.Cookie(conn.Socket)
		}
		c.converse(ctx, l.Protocol().Greets)
	})
}

// packets answers datagrams, each by itself.
func (s *server) packets(socket *net.UDPConn) error {
	buffer, control := make([]byte, 64<<10), make([]byte, 128)
	for {
		n, c, _, from, err := socket.ReadMsgUDPAddrPort(buffer, control)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			continue // of one datagram
		}
		arrived := record.Now()
		b := buffer[:n]
		f, err := wire.Decode(b)
		if err != nil {
			b = faultFrame(err)
		} else {
			f.Arrived, f.Responder = arrived, s.id
			f.Answered = record.Now()
			f.Encode(b)
		}
		wire.AnswerFrom(control[:c])
		if _, _, err := socket.WriteMsgUDPAddrPort(b, control[:c], from); errors.Is(err, net.ErrClosed) {
			return nil
		} // any other error is of one datagram, which the client will miss
	}
}

// connection is the server's end of a flow.
type connection struct {
	*wire.Accepted
	server *server
	socket uint64
	count  uint64
	hello  hello
}

// converse answers until the client has said bye or is gone.
func (c *connection) converse(ctx context.Context, greets bool) {
	if greets {
		b := make([]byte, wire.HeaderSize)
		c.stamp(&wire.Frame{Type: wire.Greeting}, record.Now(), b)
		if err := c.Send(b); err != nil {
			return
		}
	}
	for {
		b, err := c.Receive()
		if err != nil && !errors.Is(err, wire.ErrCorrupt) {
			return // the client is gone, and knows best why
		}
		arrived := record.Now()
		var f wire.Frame
		if err == nil {
			f, err = wire.Decode(b)
		}
		if err == nil && f.Type == wire.Hello {
			c.hello, err = parseHello(wire.Payload(b))
		}
		if err != nil {
			c.report(err)
			return
		}
		c.count++
		if f.Type == wire.Data && c.hello.Push > 0 {
			c.push(ctx, f)
			return
		}
		if f.Type == wire.Data && c.hello.Hold > 0 {
			pause(ctx, arrived+int64(c.hello.Hold))
		}
		// The frame that came is the answer, its payload untouched.
		c.stamp(&f, arrived, b)
		if err := c.Send(b); err != nil || f.Type == wire.Bye {
			return
		}
	}
}

func (c *connection) stamp(f *wire.Frame, arrived int64, b []byte) {
	f.Responder, f.Socket, f.Count = c.server.id, c.socket, c.count
	f.Arrived, f.Answered = arrived, record.Now()
	f.Encode(b)
}

// push sends frames by schedule from the first frame's due time on, until the client is gone.
func (c *connection) push(ctx context.Context, start wire.Frame) {
	// The client closes its direction first; anything else than that is wrong.
	if _, err := c.Receive(); !errors.Is(err, io.EOF) {
		c.report(errors.Join(errors.New("after the frame that was to be the last there was another, or no end"), err))
		return
	}
	stop := newHalt()
	cancel := context.AfterFunc(ctx, stop.now)
	defer cancel()
	plan := newSchedule(start.Due, time.Duration(c.hello.Push))
	b := make([]byte, c.hello.Size)
	for sequence := uint64(0); plan.wait(plan.due(sequence), stop, nil); sequence++ {
		f := wire.Frame{Type: wire.Data, Flow: start.Flow, Sequence: sequence, Due: plan.due(sequence), Sent: record.Now()}
		f.Own = plan.own(f.Due, f.Sent)
		c.stamp(&f, f.Sent, b)
		if err := c.Send(b); err != nil {
			return
		}
		plan.wrote(f.Sent, record.Now())
	}
}

// report tells the client what was wrong with what it sent, and waits until it has gone: to close before it has read
// all would reset the connection, and the report with it.
func (c *connection) report(wrong error) {
	if err := c.Send(faultFrame(wrong)); err != nil {
		return
	}
	if c.Drain != nil {
		c.Drain()
	}
}

func faultFrame(wrong error) []byte {
	b := append(make([]byte, wire.HeaderSize), wrong.Error()...)
	(&wire.Frame{Type: wire.Fault, Sent: record.Now()}).Encode(b)
	return b
}

// pause returns at t or when the context ends.
func pause(ctx context.Context, t int64) {
	timer := time.NewTimer(record.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
