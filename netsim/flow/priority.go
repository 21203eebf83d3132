// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

// Prefer makes this process an instrument: the scheduler runs it before others, and it uses one processor at a time. It
// returns how it is preferred: fifo, nice or normal. The instrument needs little time, but when it needs it: otherwise
// it measures how busy the machine is. On one processor no goroutine has to wake a thread for another, which is most of
// what a frame would cost.
//
// Real-time scheduling is refused without CAP_SYS_NICE, and in a cgroup without real-time budget (RT_GROUP_SCHED).
//
// Garbage is collected only when there is much of it: to collect it makes frames late.
func Prefer() string {
	runtime.GOMAXPROCS(1)
	return prefer(1)
}

// prefer is Prefer without a word about processors. priority is the real-time one, from 1.
func prefer(priority uint32) string {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(256 << 20)
	if everyThread(func(thread int) error {
		return unix.SchedSetAttr(thread,
			&unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: priority}, 0)
	}) {
		return "fifo"
	}
	if everyThread(func(thread int) error { return unix.Setpriority(unix.PRIO_PROCESS, thread, -20) }) {
		return "nice"
	}
	return "normal"
}

// everyThread does something to all threads; new ones take after those that make them.
func everyThread(do func(thread int) error) bool {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil || do(id) != nil {
			return false
		}
	}
	return true
}

// Streams returns standard input and output for a process with one processor. Pipes are polled by Go: a goroutine that
// waits in read(2) or write(2) itself keeps the processor until Go's monitor notices, up to 20 ms later, and every flow
// waits with it. The output's pipe is made large, for a reader that is slow.
func Streams() (in io.Reader, out io.Writer) {
	const size = 1 << 20
	// It fails on what is no pipe.
	_, _ = unix.FcntlInt(os.Stdout.Fd(), unix.F_SETPIPE_SZ, size)
	return polled(os.Stdin), polled(os.Stdout)
}

func polled(file *os.File) *os.File {
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return file
	}
	fd := file.Fd()
	if err := unix.SetNonblock(int(fd), true); err != nil {
		return file
	}
	return os.NewFile(fd, file.Name()) // polls what does not block
}
