// SPDX-License-Identifier: Apache-2.0

package supervisor

import "golang.org/x/sys/unix"

// report is what the tracer says, one JSON object after the other: an empty one when it listens for its process, one
// with a call at each moment of it, answered by an order, and one when the process has ended.
type report struct {
	PID    int    `json:"pid,omitempty"`
	Call   *Call  `json:"call,omitempty"`
	When   When   `json:"when,omitempty"`
	Halted bool   `json:"halted,omitempty"`
	Ended  bool   `json:"ended,omitempty"`
	Status uint32 `json:"status,omitempty"` // of wait(2)
	Error  string `json:"error,omitempty"`
}

// order is what the tracer is told: what to do at the moment that it has reported, or to resume what it holds. If the
// first one is to watch, no other is expected, and every call is let through.
type order struct {
	Watch  bool       `json:"watch,omitempty"`
	Kind   actionKind `json:"kind,omitempty"`
	Errno  unix.Errno `json:"errno,omitempty"`
	Resume bool       `json:"resume,omitempty"`
}
