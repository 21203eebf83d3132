// SPDX-License-Identifier: Apache-2.0

package record

import (
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// epoch is an instant on both clocks: on Go's, which reads CLOCK_MONOTONIC without a system call but does not show it,
// and on CLOCK_MONOTONIC itself.
var epoch, epochNanoseconds = pairClocks()

// Now returns CLOCK_MONOTONIC in nanoseconds.
func Now() int64 { return epochNanoseconds + int64(time.Since(epoch)) }

// Until returns how long it is until t.
func Until(t int64) time.Duration { return time.Duration(t - Now()) }

// pairClocks reads both clocks as close together as they come: what lies between is the error of every time in this
// process, and is below a microsecond.
func pairClocks() (time.Time, int64) {
	best := int64(math.MaxInt64)
	var at time.Time
	var ns int64
	for range 16 {
		before := monotonic()
		now := time.Now()
		if between := monotonic() - before; between < best {
			best, at, ns = between, now, before+between/2
		}
	}
	return at, ns
}

func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(fmt.Sprintf("read CLOCK_MONOTONIC: %v", err)) // there is no Linux without it
	}
	return ts.Nano()
}

// bootID tells one run of CLOCK_MONOTONIC from another; empty where /proc does not say.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
