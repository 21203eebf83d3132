// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"time"
)

// quarantineFull is how much may wait for a grace period before Run waits for one on its own: so much that Apply
// rarely has to.
const quarantineFull = 1024

// sweepRest is how many times as long as a sweep took is rested before the next: sweeps take a fifth of a core at most.
const sweepRest = 4

// sweepAgain is when a sweep that could not enter a namespace is tried again.
const sweepAgain = 10 * time.Second

// Run does what must not hold Apply up: it waits for grace periods, so that what was freed can be used again, and
// ends the UDP sockets whose endpoint is gone. It returns when ctx ends, with its error. One caller.
func (e *Engine) Run(ctx context.Context) error {
	again, verify := time.NewTimer(0), time.NewTicker(verifyPeriod)
	defer again.Stop()
	defer verify.Stop()
	<-again.C
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.wake:
		case <-verify.C:
			e.verify()
		case <-again.C:
			e.mu.Lock()
			e.sweepDue = true
			e.mu.Unlock()
		}
		rest, err := e.maintain()
		if err != nil {
			e.opts.Log.Error("clear up behind removed endpoints", "error", err)
			e.mu.Lock()
			e.stats.failed(err)
			e.mu.Unlock()
			again.Reset(sweepAgain)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rest):
		}
	}
}

// wakeRun tells Run that there is something to do, if there is. Callers hold mu.
func (e *Engine) wakeRun() {
	if e.sweepDue || len(e.mirror.quarantine) >= quarantineFull {
		select {
		case e.wake <- struct{}{}:
		default: // it has been told
		}
	}
}

// maintain waits for one grace period, and for UDP if an endpoint was removed, without holding up Apply. It returns how
// long to rest.
func (e *Engine) maintain() (time.Duration, error) {
	e.mu.Lock()
	freed, sweep := len(e.mirror.quarantine), e.sweepDue
	if freed == 0 && !sweep {
		e.mu.Unlock()
		return 0, nil
	}
	e.sweepDue = false
	period, mirror := e.periods.begin(), e.mirror
	e.mu.Unlock()
	// A program that chose an endpoint before it was removed may only now note it on a socket.
	if err := e.tables.grace(); err != nil {
		return 0, err
	}
	e.mu.Lock()
	// If a later period has ended meanwhile, Apply has made room, and what is first there now is younger than this one.
	if e.periods.ended < period && e.mirror == mirror {
		e.mirror.release(freed)
	}
	e.periods.end(period)
	e.stats.Graces++
	e.mu.Unlock()
	if !sweep {
		return 0, nil
	}
	begin := time.Now()
	err := e.sweep()
	e.mu.Lock()
	e.stats.Sweeps++
	e.mu.Unlock()
	return sweepRest * time.Since(begin), errors.Join(err)
}
