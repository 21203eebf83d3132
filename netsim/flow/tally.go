// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

// maxBreakLines is how many breaks of a flow have lines; the others are counted.
const maxBreakLines = 100

// tally counts frames of a flow, or attempts of a probe.
type tally struct {
	mu             sync.Mutex
	sent, received uint64
	breaks         uint64
	reordered      uint64
	histogram      [40]uint64

	window record.Window // what was counted since its From
}

// begin counts a frame that is sent or an attempt that is made.
func (t *tally) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent++
	t.window.Sent++
}

// begun returns how many there were.
func (t *tally) begun() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sent
}

// end counts one that came back, or went as it must, and how late it was.
func (t *tally) end(lateness time.Duration) {
	lateness = max(lateness, 0)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.received++
	t.window.Received++
	t.window.Worst = max(t.window.Worst, int64(lateness))
	t.histogram[min(bits.Len64(uint64(lateness.Microseconds())), len(t.histogram)-1)]++
}

func (t *tally) reorder() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reordered++
}

// broke counts a break and writes it.
func (t *tally) broke(rec *record.Writer, flow uint64, reason record.Reason, sequence uint64, detail string) {
	t.mu.Lock()
	t.breaks++
	line := t.breaks <= maxBreakLines
	t.mu.Unlock()
	if line {
		rec.Write(&record.Break{Flow: flow, Time: record.Now(), Reason: reason, Sequence: sequence, Detail: detail})
	}
}

// turn writes the window that ends now and begins another.
func (t *tally) turn(rec *record.Writer, flow uint64, now int64) {
	t.mu.Lock()
	over := t.window
	t.window = record.Window{From: now}
	t.mu.Unlock()
	over.Flow, over.To = flow, now
	if over.From != 0 {
		rec.Write(&over)
	}
}

// close completes and writes the last line of a flow.
func (t *tally) close(rec *record.Writer, done *record.Done) {
	t.turn(rec, done.Flow, done.Time)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.window.From = 0 // no more windows
	done.Sent, done.Received, done.Breaks, done.Reordered = t.sent, t.received, t.breaks, t.reordered
	last := len(t.histogram)
	for last > 0 && t.histogram[last-1] == 0 {
		last--
	}
	done.Histogram = slices.Clone(t.histogram[:last])
	rec.Write(done)
}

// bitmap is a set of small numbers.
type bitmap struct {
	words []uint64
	count uint64 // of its elements
}

func (b *bitmap) has(n uint64) bool {
	return n/64 < uint64(len(b.words)) && b.words[n/64]&(1<<(n%64)) != 0
}

// set adds a number that is not in it.
func (b *bitmap) set(n uint64) {
	for n/64 >= uint64(len(b.words)) {
		b.words = append(b.words, 0)
	}
	b.words[n/64] |= 1 << (n % 64)
	b.count++
}
