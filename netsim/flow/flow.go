// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim/flow/record"
	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

// watched is one flow of a client.
type watched struct {
	Spec
	tally
	id     uint64
	rec    *record.Writer
	conn   *wire.Client
	cookie uint64
	// first is when the first frame is due.
	first int64
	// responder and socket are the server's end: first as it answered the hello, then the last that answered.
	responder, socket uint64

	// total is how many frames there are to come, once that is known.
	total atomic.Uint64
	// dead is closed when the connection carries no more.
	dead    chan struct{}
	dieOnce sync.Once

	// ended is when run returned; lastCookie and tcp are what the kernel said then.
	ended      int64
	lastCookie uint64
	tcp        *wire.TCP

	// next is what has to come on a stream; seen is what has come of datagrams. The receiver's.
	next uint64
	seen bitmap
}

// open connects, and returns when the server has answered.
func (w *watched) open(ctx context.Context) (err error) {
	w.conn, err = w.kind.Protocol.Dial(ctx, w.To.String())
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() {
		if err != nil {
			_ = w.conn.Close() // what went wrong before counts
		}
	}()
	deadline, _ := ctx.Deadline()
	if err := w.conn.Socket.SetDeadline(deadline); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	answer, err := greet(w.conn, w.kind.Protocol.Greets, w.id, w.hello())
	if err != nil {
		return err
	}
	w.responder, w.socket = answer.Responder, answer.Socket
	if err := w.conn.Socket.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("clear deadline: %w", err)
	}
	if w.cookie, err = wire.Cookie(w.conn.Socket); err != nil {
		return err
	}
	if tcp, is := w.conn.Socket.(*net.TCPConn); is && w.kind.shape == silent {
		// Often enough to be traffic, patient enough not to be what breaks the connection.
		config := net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 60}
		if err := tcp.SetKeepAliveConfig(config); err != nil {
			return fmt.Errorf("set keepalive: %w", err)
		}
	}
	return nil
}

func (w *watched) hello() hello {
	h := hello{Hold: Duration(w.held())}
	if w.kind.shape == push {
		h.Push, h.Size = w.Period, w.Size
	}
	return h
}

// greet says hello on a new connection and returns the answer.
func greet(conn wire.Conn, serverFirst bool, id uint64, h hello) (wire.Frame, error) {
	if serverFirst {
		greeting, err := receive(conn)
		if err == nil && greeting.Type != wire.Greeting {
			err = fmt.Errorf("a frame of type %d", greeting.Type)
		}
		if err != nil {
			return wire.Frame{}, fmt.Errorf("wait for the server's greeting: %w", err)
		}
	}
	payload, err := json.Marshal(h)
	if err != nil {
		return wire.Frame{}, fmt.Errorf("encode hello: %w", err)
	}
	b := append(make([]byte, wire.HeaderSize), payload...)
	now := record.Now()
	first := wire.Frame{Type: wire.Hello, Flow: id, Due: now, Sent: now}
	first.Encode(b)
	if err := conn.Send(b); err != nil {
		return wire.Frame{}, fmt.Errorf("say hello: %w", err)
	}
	answer, err := receive(conn)
	if err == nil && (answer.Type != wire.Hello || answer.Flow != id) {
		err = fmt.Errorf("a frame of type %d of flow %d", answer.Type, answer.Flow)
	}
	if err != nil {
		return wire.Frame{}, fmt.Errorf("wait for the answer to hello: %w", err)
	}
	return answer, nil
}

func receive(conn wire.Conn) (wire.Frame, error) {
	b, err := conn.Receive()
	if err != nil {
		return wire.Frame{}, err
	}
	f, err := wire.Decode(b)
	if err == nil && f.Type == wire.Fault {
		err = fmt.Errorf("the server reports: %s", wire.Payload(b))
	}
	return f, err
}

// declare writes what the flow is.
func (w *watched) declare() {
	line := &record.Flow{Time: record.Now(), ID: w.id, Name: w.Name, Kind: w.Kind, To: w.To.String(), Cookie: w.cookie,
		Period: int64(w.Period), First: w.first, Silent: w.kind.shape == silent, Must: w.Must}
	if w.conn != nil {
		line.Local, line.Remote = w.conn.Socket.LocalAddr().String(), w.conn.Socket.RemoteAddr().String()
	}
	w.rec.Write(line)
}

// run sends and receives until the schedule is halted and all is answered, or the connection is dead.
func (w *watched) run(stop *halt, drain time.Duration) {
	var sender sync.WaitGroup
	sender.Go(func() {
		err := w.send(stop)
		if err == nil { // what has not come by then does not come
			err = w.conn.Socket.SetReadDeadline(time.Now().Add(drain))
		}
		if err != nil {
			w.die(err)
		}
	})
	err := w.listen(stop)
	w.inspect(err)
	w.die(err)
	sender.Wait()
	w.ended = record.Now()
}

// die ends the flow for a reason; only the first counts.
func (w *watched) die(err error) {
	w.dieOnce.Do(func() {
		close(w.dead)
		cause := w.conn.Cause()
		// Whoever waits in Send or Receive has no more to wait for. It fails on a closed socket only.
		_ = w.conn.Socket.SetDeadline(time.Now())
		if cause != nil && !errors.Is(err, errOver) {
			err = fmt.Errorf("%w (%w)", err, cause)
		}
		reason := reasonOf(err)
		if w.datagrams() && reason == record.Unanswered {
			return // which are missing is known one by one
		}
		if reason != "" {
			w.wrong(reason, w.next, err.Error())
		}
	})
}

func (w *watched) datagrams() bool { return w.kind.Protocol.Network == "udp" }

// finish writes what became of the flow and closes it. It is called when all flows have ended: the time that it takes
// would make the last frames of others late.
func (w *watched) finish(stop *halt) {
	if w.datagrams() {
		for sequence := range w.total.Load() {
			if !w.seen.has(sequence) {
				w.wrong(record.Lost, sequence, "")
			}
		}
	}
	done := &record.Done{Flow: w.id, Time: w.ended, Stop: min(w.ended, stop.at), Cookie: w.lastCookie, TCP: w.tcp}
	if w.kind.shape == push { // the server's, of which those that are lost are known
		w.sent = w.next
	}
	w.tally.close(w.rec, done)
	// It was only waiting for this; the peer may have closed before.
	_ = w.conn.Close()
}

// inspect asks the kernel about the socket at its end, before anybody closes it: libraries do when a connection fails.
func (w *watched) inspect(end error) {
	var err error
	if w.lastCookie, err = wire.Cookie(w.conn.Socket); err == nil && w.lastCookie != w.cookie {
		err = fmt.Errorf("socket %d has become %d", w.cookie, w.lastCookie)
	}
	if err == nil && !w.datagrams() {
		w.tcp, err = wire.Info(w.conn.Socket)
	}
	if err != nil && errors.Is(end, errOver) {
		w.wrong(record.Failed, w.next, err.Error())
	}
}

// reasonOf names what ended a connection; empty if it ended as it should.
func reasonOf(err error) record.Reason {
	switch {
	case err == nil, errors.Is(err, errOver):
		return ""
	case errors.Is(err, wire.ErrCorrupt):
		return record.Corrupt
	case errors.Is(err, os.ErrDeadlineExceeded):
		return record.Unanswered
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNABORTED):
		return record.Reset
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH),
		errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return record.Refused
	case errors.Is(err, unix.ETIMEDOUT):
		return record.TimedOut
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return record.Closed
	}
	return record.Failed
}
