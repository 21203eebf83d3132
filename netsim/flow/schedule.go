// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"time"

	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

// schedule says when frames are due: first, first + period, … It never waits for an answer (open loop), and it tells
// why a frame was late: because its sender was, or because the connection did not take the frames before it.
type schedule struct {
	first, period int64
	timer         *time.Timer
	// writes are stretches in which a write waited, and that end after what is due next.
	writes []stretch
}

type stretch struct{ from, to int64 }

// slowWrite is from when on a write is held to have waited for the connection. An ordinary one takes 10 us.
const slowWrite = int64(time.Millisecond)

func newSchedule(first int64, period time.Duration) *schedule {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &schedule{first: first, period: int64(period), timer: timer}
}

// due returns when a frame is due.
func (s *schedule) due(sequence uint64) int64 { return s.first + int64(sequence)*s.period }

// next returns when the first frame at or after t is due.
func (s *schedule) next(t int64) int64 {
	return s.first + (max(t-s.first, 0)+s.period-1)/s.period*s.period
}

// wait returns true at t, or false if the schedule was halted before t, or as soon as dead is closed. What was due
// before the halt is still sent: a connection that takes nothing must not shorten its schedule.
func (s *schedule) wait(t int64, h *halt, dead <-chan struct{}) bool {
	for {
		select {
		case <-dead:
			return false
		case <-h.done:
			return t < h.at
		default:
		}
		left := record.Until(t)
		if left <= 0 {
			return true
		}
		s.timer.Reset(left)
		select {
		case <-s.timer.C:
		case <-h.done:
		case <-dead:
		}
		s.timer.Stop()
	}
}

// halt is the end of schedules.
type halt struct {
	done chan struct{}
	// at is when it was; it is set before done is closed.
	at int64
}

func newHalt() *halt { return &halt{done: make(chan struct{})} }

// over tells whether it has come, and with that whether at is set.
func (h *halt) over() bool {
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}

// now halts; once only.
func (h *halt) now() {
	h.at = record.Now()
	close(h.done)
}

// wrote notes how long a write took.
func (s *schedule) wrote(from, to int64) {
	if to-from > slowWrite {
		s.writes = append(s.writes, stretch{from, to})
	}
}

// own returns how much of sent - due is the sender's own: all of it but what earlier writes had to wait. Dues never
// decrease from call to call.
func (s *schedule) own(due, sent int64) int64 {
	own := sent - due
	keep := s.writes[:0]
	for _, w := range s.writes {
		if w.to > due {
			own -= w.to - max(w.from, due)
			keep = append(keep, w)
		}
	}
	s.writes = keep
	return max(own, 0)
}
