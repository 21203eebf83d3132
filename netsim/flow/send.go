// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"net"
	"time"

	"github.com/evenkeel/evenkeel/netsim/flow/record"
	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

// send sends by schedule until it is halted, then the last frame. It returns nil if the receiver has found the
// connection dead, and has said so.
func (w *watched) send(stop *halt) error {
	b := w.buffer()
	plan := newSchedule(w.first, time.Duration(w.Period))
	var sequence uint64
	switch w.kind.shape {
	case silent:
		w.until(stop)
	case push: // one frame says when the server has to begin
		if plan.wait(w.first, stop, w.dead) {
			if err := w.transmit(plan, b, &wire.Frame{Type: wire.Data, Due: w.first}); err != nil {
				return err
			}
			if err := w.conn.Socket.(*net.TCPConn).CloseWrite(); err != nil {
				return err
			}
		}
		w.until(stop)
		return nil
	default:
		for plan.wait(plan.due(sequence), stop, w.dead) {
			f := wire.Frame{Type: wire.Data, Sequence: sequence, Due: plan.due(sequence)}
			if err := w.transmit(plan, b, &f); err != nil {
				return err
			}
			sequence++
		}
	}
	select {
	case <-w.dead:
		return nil
	default:
	}
	// The last has its place in the schedule as well: all flows at once would be late.
	last := plan.next(stop.at)
	if !plan.wait(last, newHalt(), w.dead) {
		return nil
	}
	w.total.Store(sequence + 1)
	return w.transmit(plan, b, &wire.Frame{Type: wire.Bye, Sequence: sequence, Due: last})
}

// until returns when the flow is to end or has ended.
func (w *watched) until(stop *halt) {
	select {
	case <-stop.done:
	case <-w.dead:
	}
}

// buffer returns room for a frame, with a payload.
func (w *watched) buffer() []byte {
	b := make([]byte, w.Size)
	for i := range wire.Payload(b) {
		wire.Payload(b)[i] = byte(i*i*7 + i) // anything but zeros: they look like any other zeros
	}
	return b
}

// transmit sends one frame in b.
func (w *watched) transmit(plan *schedule, b []byte, f *wire.Frame) error {
	f.Flow, f.Sent = w.id, record.Now()
	f.Own = plan.own(f.Due, f.Sent)
	f.Encode(b)
	w.begin() // before it leaves: its answer must not find fewer
	if f.Own >= record.Notable {
		w.rec.Write(&record.Blind{Flow: w.id, Sequence: f.Sequence, Due: f.Due, By: f.Own, Role: "client"})
	}
	if err := w.conn.Send(b); err != nil {
		return err
	}
	plan.wrote(f.Sent, record.Now())
	return nil
}
