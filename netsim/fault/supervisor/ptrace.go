// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// traceOptions: stops at marked calls, new threads and children are traced too, and all die with the tracer.
const traceOptions = unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE |
	unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL

func ptrace(request, tid int, address, data uintptr) (uintptr, error) {
	result, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), address, data, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return result, nil
}

// seize makes the calling thread the tracer of another one.
func seize(tid int) error {
	if _, err := ptrace(unix.PTRACE_SEIZE, tid, 0, traceOptions); err != nil {
		return fmt.Errorf("trace thread %d: %w", tid, err)
	}
	return nil
}

// systemCall is struct ptrace_syscall_info (linux/ptrace.h, Linux 5.3).
type systemCall struct {
	op       uint8
	_        [3]byte
	arch     uint32
	_        [2]uint64 // instruction and stack pointer
	number   uint64    // at exit: the result
	args     [6]uint64 // at exit: the first byte tells whether the result is an error
	retData  uint32
	reserved uint32
}

const (
	callExit    = 2 // PTRACE_SYSCALL_INFO_EXIT
	callSeccomp = 3 // PTRACE_SYSCALL_INFO_SECCOMP
)

func readCall(tid int) (systemCall, error) {
	var c systemCall
	if _, err := ptrace(unix.PTRACE_GET_SYSCALL_INFO, tid, unsafe.Sizeof(c), uintptr(unsafe.Pointer(&c))); err != nil {
		return c, fmt.Errorf("read system call of thread %d: %w", tid, err)
	}
	return c, nil
}

// processOf returns the process of a thread, 0 if it is gone.
func processOf(tid int) int {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return 0
	}
	_, after, _ := bytes.Cut(text, []byte("\nTgid:"))
	number, _, _ := bytes.Cut(after, []byte("\n"))
	pid, err := strconv.Atoi(string(bytes.TrimSpace(number)))
	if err != nil {
		return 0
	}
	return pid
}
