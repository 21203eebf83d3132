// SPDX-License-Identifier: Apache-2.0

// Package bench measures what the mesh costs, against no mesh and against nftables NAT, and says which of the figures
// that are to be reached are. It builds labs, runs the traffic of package load in their pods, the engine of package stopwatch
// on their nodes, and the built agent; it decides by intervals, and never has a figure that it did not measure. The
// command bench runs it. docs/design/bench.md has the method.
package bench
