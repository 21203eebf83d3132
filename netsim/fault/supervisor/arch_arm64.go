// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const auditArch = unix.AUDIT_ARCH_AARCH64

// oldCalls: this architecture has none of them.
var oldCalls map[uint64]pathCall

// refuse makes a thread that stands before a call return an error without doing it: call number -1 is none, and the
// kernel then leaves the result register alone (arch/arm64/kernel/syscall.c).
func refuse(tid int, errno unix.Errno) error {
	const registers, systemCall = 1, 0x404 // NT_PRSTATUS, NT_ARM_SYSTEM_CALL
	none := int32(-1)
	iov := unix.Iovec{Base: (*byte)(unsafe.Pointer(&none)), Len: 4}
	if _, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SETREGSET, uintptr(tid), systemCall,
		uintptr(unsafe.Pointer(&iov)), 0, 0); e != 0 {
		return fmt.Errorf("write call number of thread %d: %w", tid, e)
	}
	var regs unix.PtraceRegsArm64
	if err := unix.PtraceGetRegSetArm64(tid, registers, &regs); err != nil {
		return fmt.Errorf("read registers of thread %d: %w", tid, err)
	}
	regs.Regs[0] = uint64(-int64(errno))
	if err := unix.PtraceSetRegSetArm64(tid, registers, &regs); err != nil {
		return fmt.Errorf("write registers of thread %d: %w", tid, err)
	}
	return nil
}
