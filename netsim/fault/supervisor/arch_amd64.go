// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const auditArch = unix.AUDIT_ARCH_X86_64

// oldCalls are those that newer architectures lack: paths without a directory to start from.
var oldCalls = map[uint64]pathCall{
	unix.SYS_RENAME:  {name: "rename", paths: []pathArgument{here(0), here(1)}},
	unix.SYS_LINK:    {name: "link", paths: []pathArgument{here(0), here(1)}},
	unix.SYS_UNLINK:  {name: "unlink", paths: []pathArgument{here(0)}},
	unix.SYS_SYMLINK: {name: "symlink", paths: []pathArgument{verbatim(0), here(1)}},
	unix.SYS_MKDIR:   {name: "mkdir", paths: []pathArgument{here(0)}},
	unix.SYS_RMDIR:   {name: "rmdir", paths: []pathArgument{here(0)}},
}

// refuse makes a thread that stands before a call return an error without doing it: call number -1 is none, and the
// kernel then leaves the result register alone (arch/x86/entry).
func refuse(tid int, errno unix.Errno) error {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		return fmt.Errorf("read registers of thread %d: %w", tid, err)
	}
	regs.Orig_rax = ^uint64(0)
	regs.Rax = uint64(-int64(errno))
	if err := unix.PtraceSetRegs(tid, &regs); err != nil {
		return fmt.Errorf("write registers of thread %d: %w", tid, err)
	}
	return nil
}
