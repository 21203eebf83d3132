// SPDX-License-Identifier: Apache-2.0

package load

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Prepare pins every thread of this process to a CPU, gives it the highest priority that is not a real-time one, and
// stops garbage collection, for as long as the process lives. cpu is -1 for any.
func Prepare(cpu int) error {
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0)))
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, -20); err != nil {
		return fmt.Errorf("raise priority: %w", err)
	}
	if cpu < 0 {
		return nil
	}
	var set unix.CPUSet
	set.Set(cpu)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("list threads: %w", err)
	}
	for _, t := range threads { // later ones inherit from these
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return fmt.Errorf("list threads: %w", err)
		}
		if err := unix.SchedSetaffinity(id, &set); err != nil {
			return fmt.Errorf("pin to CPU %d: %w", cpu, err)
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, id, -20); err != nil {
			return fmt.Errorf("raise priority: %w", err)
		}
	}
	return nil
}

// SetCongestion chooses the congestion control of new sockets in the network namespace of this process.
func SetCongestion(name string) error {
	const path = "/proc/sys/net/ipv4/tcp_congestion_control"
	if err := os.WriteFile(path, []byte(name), 0); err != nil {
		return fmt.Errorf("choose congestion control %s: %w", name, err)
	}
	return nil
}

// CPUTime returns what a process has used so far, all of its threads together, in nanoseconds as the scheduler counts
// them. 0 is this process.
func CPUTime(pid int) (time.Duration, error) {
	clock := int32(unix.CLOCK_PROCESS_CPUTIME_ID)
	if pid != 0 {
		// MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED), include/linux/posix-timers.h.
		clock = ^int32(pid)<<3 | 2
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// cpuTime sums what this and other processes have used.
func cpuTime(others []int) (time.Duration, error) {
	sum, err := CPUTime(0)
	for _, pid := range others {
		if err != nil {
			break
		}
		var used time.Duration
		used, err = CPUTime(pid)
		sum += used
	}
	return sum, err
}
