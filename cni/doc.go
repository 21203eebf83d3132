// SPDX-License-Identifier: Apache-2.0

// Package cni is the chained CNI plugin: it makes a pod a workload while its sandbox is made, by the pinned maps alone,
// whether or not an agent runs. See docs/design/cni.md.
//
// It owns two things on the node: what was decided about namespaces and pods ([Decisions]), which the agent writes and
// the plugin reads, and a record of each attachment that it has seen ([Attachments]), by which DEL and GC find again
// what ADD did. It never loads or pins a program, asks no server, and believes neither labels nor annotations: those
// are the agent's to read.
package cni
