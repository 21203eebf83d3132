// SPDX-License-Identifier: Apache-2.0

// Package flow watches connections while something is done to what carries them. A flow is one connection for its whole
// life: numbered, checksummed frames go out by a schedule that waits for nothing (open loop) and come back; there is no
// code that connects again. Probes are the opposite: an attempt every period that must pass, or must fail, every time.
//
// RunClient and RunServer are processes of their own inside a pod's network namespace; StartClient and StartServer run
// them there from outside. Whoever injects faults calls these. What happened is in the recordings, and record.Judge
// says what it means; this package holds no opinion.
package flow
