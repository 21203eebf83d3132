// SPDX-License-Identifier: Apache-2.0

// Package inventory lists what a lab has in the kernel: BPF programs, maps, links and pins, network namespaces and
// interfaces, cgroups, mounts, processes and their file descriptors. Two inventories of a lab show what a fault has
// taken or left, one of a lab that is down shows what has leaked. It needs root.
//
// Nothing outside a lab is in its inventory, so that labs of other processes on the same machine do not show. The price
// is that a BPF object which neither a pin nor a process of the lab leads to is seen only if an earlier inventory had it.
package inventory
