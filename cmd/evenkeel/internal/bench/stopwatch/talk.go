// SPDX-License-Identifier: Apache-2.0

package stopwatch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// echoPort is where endpoints of services listen.
const echoPort = 7100

// echo answers with what it was sent, by TCP and UDP.
type echo struct {
	tcp   net.Listener
	udp   net.PacketConn
	group sync.WaitGroup
}

func newEcho(ctx context.Context) (*echo, error) {
	var of net.ListenConfig
	address := fmt.Sprintf("0.0.0.0:%d", echoPort)
	tcp, err := of.Listen(ctx, "tcp4", address)
	if err != nil {
		return nil, err
	}
	udp, err := of.ListenPacket(ctx, "udp4", address)
	if err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	e := &echo{tcp: tcp, udp: udp}
	e.group.Go(func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() { // ends with its client
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	})
	e.group.Go(func() {
		b := make([]byte, 64)
		for {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(b[:n], from)
		}
	})
	return e, nil
}

func (e *echo) close() error {
	err := errors.Join(e.tcp.Close(), e.udp.Close())
	e.group.Wait()
	return err
}

// pause is between two messages of a connection.
const pause = 100 * time.Millisecond

// conversation is connections that each send a number and wait for the answer, over and over.
type conversation struct {
	stop  context.CancelFunc
	group *errgroup.Group
	ctx   context.Context
	worst atomic.Int64 // nanoseconds
}

func converse(ctx context.Context, to netip.AddrPort, connections int) (*conversation, error) {
	ctx, stop := context.WithCancel(ctx)
	c := &conversation{stop: stop}
	c.group, c.ctx = errgroup.WithContext(ctx)
	var dialer net.Dialer
	for i := range connections {
		connection, err := dialer.DialContext(ctx, "tcp4", to.String())
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.group.Go(func() error {
			defer connection.Close()
			return c.talk(connection, time.Duration(i)*pause/time.Duration(connections))
		})
	}
	return c, nil
}

func (c *conversation) talk(connection net.Conn, offset time.Duration) error {
	timer := time.NewTimer(offset)
	defer timer.Stop()
	question, answer := make([]byte, 8), make([]byte, 8)
	for n := uint64(1); ; n++ {
		select {
		case <-c.ctx.Done():
			return nil
		case <-timer.C:
		}
		timer.Reset(pause)
		binary.BigEndian.PutUint64(question, n)
		begin := time.Now()
		_, err := connection.Write(question)
		if err == nil {
			_, err = io.ReadFull(connection, answer)
		}
		if err != nil {
			return fmt.Errorf("connection %v: after %d answers: %w", connection.LocalAddr(), n-1, err)
		}
		if got := binary.BigEndian.Uint64(answer); got != n {
			return fmt.Errorf("connection %v: answer %d to message %d", connection.LocalAddr(), got, n)
		}
		for took := int64(time.Since(begin)); ; {
			worst := c.worst.Load()
			if took <= worst || c.worst.CompareAndSwap(worst, took) {
				break
			}
		}
	}
}

// longest is the longest wait for an answer since it was called last.
func (c *conversation) longest() time.Duration { return time.Duration(c.worst.Swap(0)) }

// failed returns why a connection broke, if one did.
func (c *conversation) failed() error {
	if c.ctx.Err() == nil {
		return nil
	}
	return c.close()
}

func (c *conversation) close() error {
	c.stop()
	return c.group.Wait()
}

// passing is sockets that are opened, used and closed, all the time.
type passing struct {
	cancel context.CancelFunc
	group  *errgroup.Group
	events atomic.Uint64 // calls that meet a hook
}

// comeAndGo connects by TCP and sends by UDP, each socket some times, so that it meets several hooks.
func comeAndGo(ctx context.Context, to netip.AddrPort) *passing {
	ctx, cancel := context.WithCancel(ctx)
	p := &passing{cancel: cancel}
	p.group, ctx = errgroup.WithContext(ctx)
	for _, do := range []func(context.Context, netip.AddrPort) error{p.tcp, p.udp} {
		p.group.Go(func() error {
			for ctx.Err() == nil {
				if err := do(ctx, to); err != nil && ctx.Err() == nil {
					return err
				}
			}
			return nil
		})
	}
	return p
}

func (p *passing) stop() error {
	p.cancel()
	return p.group.Wait()
}

// tcp meets connect, sock_ops three times, and getpeername, which Go asks of every connection.
func (p *passing) tcp(ctx context.Context, to netip.AddrPort) error {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp4", to.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if got := c.RemoteAddr().String(); got != to.String() {
		return fmt.Errorf("a connection to %v shows its peer as %s", to, got)
	}
	b := make([]byte, 8)
	if _, err := c.Write(b); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	p.events.Add(5)
	return c.(*net.TCPConn).SetLinger(0) // or its port would be taken for a minute
}

// udp meets sendmsg and recvmsg, eight times.
func (p *passing) udp(ctx context.Context, to netip.AddrPort) error {
	var of net.ListenConfig
	listener, err := of.ListenPacket(ctx, "udp4", "0.0.0.0:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	c := listener.(*net.UDPConn)
	b := make([]byte, 8)
	for range 8 {
		if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		if _, err := c.WriteToUDPAddrPort(b, to); err != nil {
			return err
		}
		if _, from, err := c.ReadFromUDPAddrPort(b); err != nil {
			return err
		} else if from != to {
			return fmt.Errorf("an answer of %v shows %v as its source", to, from)
		}
		p.events.Add(2)
	}
	return nil
}

func middle(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
