// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"time"
)

// verifyPeriod is how often the keys of services are counted: nobody else writes them, but nothing keeps root from it.
const verifyPeriod = 30 * time.Second

// errForeign is the fault of maps that somebody else has written to.
var errForeign = errors.New("somebody else has changed service_ids")

// verify compares how many services the kernel knows with how many it should, and restores them all if that differs.
// It costs about 0.1 us a service. What was changed and not removed or added it does not see; a restart does.
func (e *Engine) verify() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fault != nil {
		return // the next Apply reads all of it
	}
	n, err := e.tables.countKeys()
	if err != nil {
		e.opts.Log.Warn("count services in the kernel", "err", err)
		return
	}
	if n == e.mirror.ids {
		return
	}
	e.opts.Log.Error("services are not as they were written: restoring them", "err", errForeign, "found", n,
		"expected", e.mirror.ids)
	e.stats.failed(errForeign)
	e.fault = errForeign
	if err := errors.Join(e.recover(), e.fault); err != nil {
		e.opts.Log.Error("restore services", "err", err)
		e.stats.failed(err)
	}
	e.wakeRun()
}
