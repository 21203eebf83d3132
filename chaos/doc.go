// SPDX-License-Identifier: Apache-2.0

// Package chaos has the suites that break what carries traffic, and the one that breaks the instrument's own flows to
// see whether it notices. They run as Ginkgo suites (make chaos), and compiled into evenkeel-chaos for those who have no
// Go tool chain. They see what an operator sees: built binaries, and netsim.
package chaos
