// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim/flow/record"
	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

// attemptTimeout is how long an attempt may take. A refusal that is silence takes as long.
const attemptTimeout = time.Second

// passed is the outcome of an attempt that was answered.
const passed = "passed"

// prober makes attempts by schedule, each with a socket of its own. One that waits does not delay the next.
type prober struct {
	Spec
	tally
	id    uint64
	rec   *record.Writer
	first int64
	ended int64 // when run returned

	outcomesMu sync.Mutex
	outcomes   map[string]uint64
	unproved   atomic.Uint64
}

func (p *prober) declare() {
	p.rec.Write(&record.Flow{Time: record.Now(), ID: p.id, Name: p.Name, Kind: p.Kind, To: p.To.String(),
		Period: int64(p.Period), First: p.first, Must: p.Must})
}

// run makes attempts until it is halted, and returns when the last has ended.
func (p *prober) run(ctx context.Context, stop *halt) {
	plan := newSchedule(p.first, time.Duration(p.Period))
	var attempts sync.WaitGroup
	var sequence uint64
	for plan.wait(plan.due(sequence), stop, nil) {
		due, now, number := plan.due(sequence), record.Now(), sequence
		own := plan.own(due, now)
		if own >= record.Notable {
			p.rec.Write(&record.Blind{Flow: p.id, Sequence: number, Due: due, By: own, Role: "client"})
		}
		p.begin()
		attempts.Go(func() { p.attempt(ctx, number, due, now) })
		sequence++
	}
	attempts.Wait()
	p.ended = record.Now()
}

// finish writes what became of the attempts.
func (p *prober) finish(stop *halt) {
	done := &record.Done{Flow: p.id, Time: p.ended, Stop: stop.at, Unproved: p.unproved.Load(), Outcomes: p.outcomes}
	p.tally.close(p.rec, done)
}

// attempt makes one attempt that began at start and judges how it ended.
func (p *prober) attempt(ctx context.Context, sequence uint64, due, start int64) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	err := p.try(ctx, sequence)
	now := record.Now()
	outcome := outcomeOf(err)
	p.outcomesMu.Lock()
	p.outcomes[outcome]++
	p.outcomesMu.Unlock()
	switch {
	case err != nil && local(err):
		p.unproved.Add(1)
		p.broke(p.rec, p.id, record.Unproved, sequence, err.Error())
	case err == nil && p.Must == record.MustFail:
		p.broke(p.rec, p.id, record.Allowed, sequence, "")
	case err != nil && p.Must == record.MustPass:
		p.broke(p.rec, p.id, record.Denied, sequence, err.Error())
	case err != nil: // as it must
		p.end(0)
	default:
		lateness := now - start
		if lateness >= record.Notable {
			p.rec.Write(&record.Late{Flow: p.id, Sequence: sequence, Due: due, Received: now, Lateness: lateness})
		}
		p.end(time.Duration(lateness))
	}
}

// try makes a connection and, unless to be connected is already too much, has one frame answered on it.
func (p *prober) try(ctx context.Context, sequence uint64) error {
	if p.Must == record.MustFail && p.kind.Protocol.Network == "tcp" {
		socket, err := new(net.Dialer).DialContext(ctx, "tcp", p.To.String())
		if err != nil {
			return err
		}
		abort(socket)
		return nil
	}
	conn, err := p.kind.Protocol.Dial(ctx, p.To.String())
	if err != nil {
		return err
	}
	defer func() {
		abort(conn.Socket)
		_ = conn.Close() // the library's part of it
	}()
	deadline, _ := ctx.Deadline()
	if err := conn.Socket.SetDeadline(deadline); err != nil {
		return err
	}
	_, err = greet(conn, p.kind.Protocol.Greets, p.id+sequence, hello{})
	return err
}

// abort closes a connection with RST: TIME_WAIT would use up the ports of a client that makes hundreds a second.
func abort(socket net.Conn) {
	if tcp, is := socket.(*net.TCPConn); is {
		_ = tcp.SetLinger(0) // it cannot fail on an open socket, and nothing depends on it
	}
	_ = socket.Close()
}

// outcomeOf names how an attempt ended: an errno's name where there is one.
func outcomeOf(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return passed
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, wire.ErrCorrupt):
		return "corrupt"
	}
	return fmt.Sprintf("%.60s", err)
}

// local tells whether an attempt failed for want of something on this side: nobody was asked.
func local(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EADDRNOTAVAIL, unix.EADDRINUSE, unix.EAFNOSUPPORT,
		unix.EINVAL:
		return true
	}
	return false
}
