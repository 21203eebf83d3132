// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

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

// beat is how often a processor is asked whether it still runs.
const beat = 2 * time.Millisecond

// Beat records when a processor stood still, until stop is closed. It is for a process of its own that the scheduler
// prefers to the rest of the instrument, with a Go processor more than it beats on: this one sleeps in the system call
// without giving it back, because to do that and get another costs more than the beat.
func (w *Writer) Beat(processor int, stop <-chan struct{}) error {
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	var set unix.CPUSet
	set.Set(processor)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("run on processor %d: %w", processor, err)
	}
	last := Now()
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		until := unix.NsecToTimespec(last + int64(beat))
		_, _, errno := unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME,
			uintptr(unsafe.Pointer(&until)), 0, 0, 0)
		if errno != 0 && !errors.Is(errno, unix.EINTR) {
			return fmt.Errorf("sleep on processor %d: %w", processor, errno)
		}
		now := Now()
		if now-last >= int64(beat)+Notable {
			w.Write(&Standstill{Processor: processor, From: last, To: now})
			_ = w.Flush() // the error stays
		}
		last = now
	}
}
