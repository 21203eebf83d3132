// SPDX-License-Identifier: Apache-2.0

// Package wire spoils wires of a lab: it drops, loses and delays the packets that arrive at their ends. There is no
// sch_netem on many kernels, so dropping and losing is done by a BPF program at tcx (back end "bpf"), and packets to be
// delayed make a detour over a TAP device that user space reads (back end "bpf+relay").
//
// All of it belongs to one process, see [Run]: programs, device and queue end with that, however it does.
package wire
