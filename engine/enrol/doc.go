// SPDX-License-Identifier: Apache-2.0

// Package enrol makes a pod a workload of the data plane and undoes it. It owns what is written into the maps workloads
// and workload_names, and the order in which that and the pod's links come to be: links first, so that a pod is never
// half governed, the entry under the cookie of its network namespace last, for that one publishes.
//
// The agent, the commands enrol and withdraw, and a CNI plugin call it, with maps and a way to attach programs that
// they opened. It never loads or pins anything itself, starts no process and keeps nothing in memory: all that it knows
// is in the kernel, so it works with the agent dead.
package enrol
