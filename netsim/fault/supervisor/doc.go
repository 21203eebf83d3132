// SPDX-License-Identifier: Apache-2.0

// Package supervisor runs a process under supervision: it sees every system call of the process that leaves something
// behind (bpf(2), rename, unlink, link, mkdir, mount …), in order, and can end, stop or wedge the process, or refuse
// the call, exactly before or exactly after any of them.
//
// The process is started through [Shim], which loads a seccomp filter and then becomes the process: the pid, the
// cgroup, the namespaces and the parent are what they would be without. The filter marks the watched calls with
// SECCOMP_RET_TRACE (seccomp(2)), so all others run at full speed; the supervisor is its tracer (PTRACE_SEIZE,
// ptrace(2)). See docs/design/fault.md for why it is not the notification of seccomp.
//
// It knows nothing of what it supervises.
package supervisor
