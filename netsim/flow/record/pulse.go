// SPDX-License-Identifier: Apache-2.0

package record

import "time"

// pulse is how often a process looks whether it still runs. A stall is told from this much less than its length on.
const pulse = 5 * time.Millisecond

// Pulse records when this process did not run although it wanted to, until stop is closed: because the machine was busy
// with something that it prefers, or stood still itself, as virtual ones do.
func (w *Writer) Pulse(role string, stop <-chan struct{}) {
	due := Now() + int64(pulse)
	timer := time.NewTimer(pulse)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-timer.C:
		}
		now := Now()
		if now-due >= Notable {
			w.Write(&Stall{Role: role, From: due, To: now})
			_ = w.Flush() // a server has nothing else to flush; the error stays
		}
		due = now + int64(pulse)
		timer.Reset(pulse)
	}
}
