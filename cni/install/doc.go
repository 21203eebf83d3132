// SPDX-License-Identifier: Apache-2.0

// Package install puts the CNI plugin into a node's chain and takes it out: the binary, and an entry in the network
// configuration that the container runtime uses, which is another plugin's. It is called by the command and, to put back
// what others take out, by the agent; it takes nothing out unless it is told to. See docs/design/cni.md.
package install
