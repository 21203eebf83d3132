// SPDX-License-Identifier: Apache-2.0

// Package footprint keeps the memory small of a process that reads 100,000 objects at once and then waits: the agent.
package footprint

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// gcPercent lets the heap grow by half before it is collected, not to twice its size: reading objects peaks 25 MB lower
// with 100,000 endpoints, what is kept lies closer together by 3 MB, and the work is done once.
const gcPercent = 50

// firstPercent is that until the first collection, which comes with a heap of 16 MiB then, and with 2 MiB otherwise: an
// agent's first start needed 21 of them, a fifth of its work, and needs 6 (GODEBUG=gctrace=1).
const firstPercent = 400

// Limit sets how far the heap may grow, unless the environment says (GOGC).
func Limit() {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(firstPercent)
	type sentinel struct{ _ *byte } // with a pointer: small objects without share their place with others
	runtime.AddCleanup(&sentinel{}, func(percent int) { debug.SetGCPercent(percent) }, gcPercent)
}

// Brief is for a process that soon ends: what it leaves behind is collected later, if at all.
func Brief() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(firstPercent)
	}
}

// Release gives back to the kernel what work has left behind that is over: garbage, and the pages of the program's
// constants and tables that only that work has looked at. Those are in the page cache, and come back by themselves.
func Release() error {
	debug.FreeOSMemory()
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("release memory: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("release memory: %w", err)
	}
	for line := range strings.Lines(string(maps)) {
		begin, end, ok := constants(line, self)
		if !ok {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, begin, end-begin, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("release memory of %s: %w", strings.TrimSpace(line), errno)
		}
	}
	return nil
}

// constants returns the range of a line of proc_pid_maps(5) if that is constants of the program: its pages are those of
// the file, whatever is done to the process. Code is not: a debugger or a uprobe may have written to it.
func constants(line, program string) (begin, end uintptr, ok bool) {
	fields := strings.Fields(line)
	if len(fields) != 6 || fields[1] != "r--p" || fields[5] != program {
		return 0, 0, false
	}
	if n, err := fmt.Sscanf(fields[0], "%x-%x", &begin, &end); n != 2 || err != nil {
		return 0, 0, false
	}
	return begin, end, true
}
