// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Call is a watched system call of a supervised process.
type Call struct {
	// Number counts the watched calls of the process from 1, in the order in which they were let through.
	Number int `json:"number"`
	Thread int `json:"thread"`
	// Name is the call's, for bpf(2) with its command: "renameat2", "bpf OBJ_PIN".
	Name string `json:"name"`
	// Argument says what it is done to: absolute paths, names of maps and programs. It has no number that differs from
	// one run to the next (descriptors, ids, addresses).
	Argument string `json:"argument,omitempty"`
	// Result and Errno are the call's, once it has returned: Done.
	Result int64      `json:"result"`
	Errno  unix.Errno `json:"errno,omitempty"`
	Done   bool       `json:"done"`
	// Refused tells that the supervisor answered in place of the kernel.
	Refused bool `json:"refused,omitempty"`
}

// String is the call's name and argument: what makes it the same call in another run.
func (c Call) String() string {
	if c.Argument == "" {
		return c.Name
	}
	return c.Name + " " + c.Argument
}

// When is a moment of a call.
type When int

// The moments. Before a call nothing of it has been done; After it all of it is, and its process has not seen that yet.
const (
	Before When = iota
	After
)

// String is "before" or "after".
func (w When) String() string {
	if w == Before {
		return "before"
	}
	return "after"
}

// Action is what is done to a process at a moment of a call.
type Action struct {
	kind  actionKind
	errno unix.Errno
}

type actionKind int

const (
	actionGo actionKind = iota
	actionKill
	actionStop
	actionWedge
	actionRefuse
)

// Go lets the call through; it is the zero Action.
func Go() Action { return Action{} }

// Kill ends the process by SIGKILL. No watched call of it begins after that, in any of its threads.
func Kill() Action { return Action{kind: actionKill} }

// Stop stops all threads of the process, as SIGSTOP does, until [Supervisor.Resume].
func Stop() Action { return Action{kind: actionStop} }

// Wedge stops the one thread that makes the call until [Supervisor.Resume]; the others go on.
func Wedge() Action { return Action{kind: actionWedge} }

// Refuse answers the call with an error in place of the kernel, which does not see it. It is for Before only.
func Refuse(errno unix.Errno) Action { return Action{kind: actionRefuse, errno: errno} }

func (a Action) String() string {
	switch a.kind {
	case actionKill:
		return "kill"
	case actionStop:
		return "stop"
	case actionWedge:
		return "wedge"
	case actionRefuse:
		return fmt.Sprintf("refuse with %s", unix.ErrnoName(a.errno))
	}
	return "go"
}

// Point is a moment of a call that is found again in another run: the Occurrence-th call, from 1, that reads the same.
type Point struct {
	Call       string `json:"call"`
	Occurrence int    `json:"occurrence"`
	When       When   `json:"when"`
}

// String is "before bpf OBJ_PIN /sys/fs/bpf/x/super", and which one if there are several.
func (p Point) String() string {
	if p.Occurrence > 1 {
		return fmt.Sprintf("%v %s #%d", p.When, p.Call, p.Occurrence)
	}
	return fmt.Sprintf("%v %s", p.When, p.Call)
}

// Points lists both moments of every call, in order.
func Points(calls []Call) []Point {
	points := make([]Point, 0, 2*len(calls))
	seen := make(map[string]int)
	for _, c := range calls {
		text := c.String()
		seen[text]++
		points = append(points, Point{text, seen[text], Before}, Point{text, seen[text], After})
	}
	return points
}

// Decide says what is done at a moment of a call. It is called by one thread, for one call at a time; the process waits
// meanwhile.
type Decide func(Call, When) Action

// At acts at a point and lets everything else through.
func At(p Point, a Action) Decide {
	seen := 0
	return func(c Call, when When) Action {
		if c.String() != p.Call {
			return Go()
		}
		if when == Before {
			seen++
		}
		if seen == p.Occurrence && when == p.When {
			return a
		}
		return Go()
	}
}

// AtNumber acts at a moment of the k-th watched call, from 1.
func AtNumber(k int, when When, a Action) Decide {
	return func(c Call, now When) Action {
		if c.Number == k && now == when {
			return a
		}
		return Go()
	}
}
