// SPDX-License-Identifier: Apache-2.0

// Package rcu waits for BPF programs that run, as the kernel does before it frees what they may see.
package rcu

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// Synchronize returns when every BPF program that was running when it was called has ended: one RCU grace period, 8 to
// 16 ms where it was measured. Sleepable programs are not covered.
//
// An update of a map of maps ends with one (maybe_wait_bpf_programs in kernel/bpf/syscall.c, since Linux 5.0), so that
// user space knows which inner map programs see. membarrier would be shorter to write, but by kernel/sched/membarrier.c
// of Linux 6.18 MEMBARRIER_CMD_GLOBAL is refused under nohz_full, and waits for nothing on one CPU, where a program can be
// preempted half-way all the same.
func Synchronize() error {
	spec := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	inner, err := ebpf.NewMap(spec)
	if err != nil {
		return fmt.Errorf("create map for a grace period: %w", err)
	}
	defer inner.Close()
	outer, err := ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: spec,
	})
	if err != nil {
		return fmt.Errorf("create map of maps for a grace period: %w", err)
	}
	defer outer.Close()
	if err := outer.Put(uint32(0), inner); err != nil {
		return fmt.Errorf("wait for a grace period: %w", err)
	}
	return nil
}
