// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the built binaries on simulated nodes, behaviour by behaviour: one file each. It sees what an
// operator sees: commands, their output, sockets in pods, what is pinned and what is left behind. `make e2e` builds
// what it needs and runs it. It imports netsim and nothing else of ours; the clients that it runs in pods are
// e2e/client.
package e2e
