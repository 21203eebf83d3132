// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Traffic is events on a bed.
type Traffic struct {
	bed   *Bed
	ctx   context.Context // ends with the traffic, also when a worker fails
	stop  context.CancelFunc
	group *errgroup.Group
}

// Start starts workers, a thread on a CPU each, that together make rate events a second, of hot keys and of keys of their
// own. They go on until Stop, or until ctx ends.
func (b *Bed) Start(ctx context.Context, workers int, rate float64) *Traffic {
	ctx, stop := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for w := range workers {
		group.Go(func() error { return b.work(ctx, start, w, rate/float64(workers)) })
	}
	return &Traffic{bed: b, ctx: ctx, stop: stop, group: group}
}

// Stop ends the traffic and returns the first error that a worker met.
func (t *Traffic) Stop() error {
	t.stop()
	return t.group.Wait()
}

// Await returns once there were n more events.
func (t *Traffic) Await(n uint64) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	sum, err := t.bed.Totals()
	for until := sum.Events + n; err == nil && sum.Events < until; sum, err = t.bed.Totals() {
		select {
		case <-tick.C:
		case <-t.ctx.Done():
			return errors.Join(errors.New("the traffic has ended"), t.Stop())
		}
	}
	return err
}

func (b *Bed) work(ctx context.Context, start time.Time, worker int, rate float64) error {
	runtime.LockOSThread() // and never unlock: the thread, which is bound to a CPU, ends with its goroutine
	var cpu unix.CPUSet
	cpu.Set(worker % runtime.NumCPU())
	if err := unix.SchedSetaffinity(0, &cpu); err != nil {
		return fmt.Errorf("worker %d: bind to a CPU: %w", worker, err)
	}
	const batch = 1000
	timer := time.NewTimer(0)
	defer timer.Stop()
	data := make([]byte, 64)
	for done := 0; ; done += batch {
		due := start.Add(time.Duration(float64(done) / rate * float64(time.Second)))
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
			}
		} else if ctx.Err() != nil {
			return nil
		}
		_, err := b.enter.Run(&ebpf.RunOptions{Data: data, Repeat: batch, Context: skb{Mark: uint32(worker)}})
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("worker %d: %w", worker, err)
		}
	}
}
