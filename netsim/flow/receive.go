// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"fmt"
	"time"

	"github.com/evenkeel/evenkeel/netsim/flow/record"
	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

// errOver ends a flow as it should end.
var errOver = errors.New("over")

// listen receives until nothing more is to come. The error says why that is; it is never nil.
func (w *watched) listen(stop *halt) error {
	for {
		b, err := w.conn.Receive()
		if err != nil {
			return err
		}
		now := record.Now()
		f, err := wire.Decode(b)
		if err == nil && f.Type == wire.Fault {
			err = fmt.Errorf("%w, says the server: %s", wire.ErrCorrupt, wire.Payload(b))
		}
		if err != nil {
			if !w.datagrams() {
				return err
			}
			w.wrong(record.Corrupt, w.next, err.Error()) // the next datagram begins anew
			continue
		}
		if w.take(&f, now, stop) {
			return errOver
		}
	}
}

// take checks a frame. It returns true if it was the last.
func (w *watched) take(f *wire.Frame, now int64, stop *halt) (last bool) {
	if f.Flow != w.id || f.Type != wire.Data && f.Type != wire.Bye {
		w.wrong(record.Foreign, f.Sequence, fmt.Sprintf("type %d of flow %d", f.Type, f.Flow))
		return false
	}
	if f.Responder != w.responder || f.Socket != w.socket {
		w.wrong(record.Moved, f.Sequence, fmt.Sprintf("server %x, connection %d; it was %x, %d", f.Responder, f.Socket,
			w.responder, w.socket))
		w.responder, w.socket = f.Responder, f.Socket // each move once
	}
	fresh := w.inOrder(f)
	if w.datagrams() {
		fresh = w.among(f)
	}
	if fresh {
		w.time(f, now)
	}
	switch {
	case w.datagrams():
		return w.seen.count == w.total.Load()
	case w.kind.shape == push:
		return stop.over() && f.Due >= stop.at
	}
	return f.Type == wire.Bye
}

// inOrder checks the sequence of a stream: each frame once, after the one before it. fresh: it did not come before.
func (w *watched) inOrder(f *wire.Frame) (fresh bool) {
	switch {
	case f.Sequence < w.next:
		w.wrong(record.Duplicated, f.Sequence, "")
		return false
	case f.Sequence > w.next:
		// The server has counted what came: the hello, and each frame before this one, or not.
		way := "on the way back"
		if w.kind.shape != push && f.Count < f.Sequence+2 {
			way = "on the way there"
		}
		w.wrong(record.Lost, w.next, fmt.Sprintf("%d frames up to %d, %s", f.Sequence-w.next, f.Sequence-1, way))
	}
	w.next = f.Sequence + 1
	return true
}

// among checks the sequence of datagrams: each frame once, in any order. What is lost is known at the end.
func (w *watched) among(f *wire.Frame) (fresh bool) {
	switch {
	case f.Sequence >= w.begun():
		w.wrong(record.Foreign, f.Sequence, "it was never sent")
		return false
	case w.seen.has(f.Sequence):
		w.wrong(record.Duplicated, f.Sequence, "")
		return false
	}
	w.seen.set(f.Sequence)
	if f.Sequence+1 < w.next {
		w.reorder()
	}
	w.next = max(w.next, f.Sequence+1)
	return true
}

// time compares when a frame came with when it was due, and leaves out what the two ends were late by themselves: what
// happened on the way remains. Backpressure is of the way.
func (w *watched) time(f *wire.Frame, now int64) {
	lateness := now - f.Due - f.Own
	server := f.Own // of a frame that the server sent by schedule
	if w.kind.shape != push {
		kept := f.Answered - f.Arrived
		lateness -= kept
		server = kept - int64(w.held())
	}
	if server >= record.Notable {
		w.rec.Write(&record.Blind{Flow: w.id, Sequence: f.Sequence, Due: f.Due, By: server, Role: "server"})
	}
	if lateness >= record.Notable {
		w.rec.Write(&record.Late{Flow: w.id, Sequence: f.Sequence, Due: f.Due, Received: now, Lateness: lateness})
	}
	w.end(time.Duration(lateness))
}

func (w *watched) wrong(reason record.Reason, sequence uint64, detail string) {
	w.broke(w.rec, w.id, reason, sequence, detail)
}
