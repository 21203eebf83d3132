// SPDX-License-Identifier: Apache-2.0

package record

import (
	"time"

	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

// Version is that of the format. A line of an unknown type or with an unknown field belongs to another version.
const Version = 1

// Notable is the lateness from which a frame has a line of its own. A budget is never below three times as much, so a
// frame that is merely counted can neither make a budget nor break one.
const Notable = int64(3 * time.Millisecond)

// Start opens a file: who writes, on which boot's clock.
type Start struct {
	Version int       `json:"version"`
	Time    int64     `json:"time"`
	Wall    time.Time `json:"wall"`
	Boot    string    `json:"boot"`
	// Role is client, server, relay, processors or suite.
	Role string `json:"role"`
	PID  int    `json:"pid"`
	// Scheduling is how the process is preferred by the scheduler: fifo, nice or normal.
	Scheduling string `json:"scheduling,omitempty"`
}

// Phase begins a part of the run; it lasts until the next. What happens before the first is set-up: it can break a flow,
// but nothing is late.
type Phase struct {
	Time int64  `json:"time"`
	Name string `json:"name"`
	// FaultFree marks a phase from which the budget is taken.
	FaultFree bool `json:"fault_free,omitempty"`
	// Limit is the budget beyond which the run is void: LimitRestart if it is 0. The smallest of a run's phases holds.
	Limit int64 `json:"limit,omitempty"`
}

// Limits of the budget: where the machine itself is later than a third of that, a run shows nothing.
const (
	LimitRestart = int64(20 * time.Millisecond) // restart, kill, hang
	LimitUpgrade = int64(50 * time.Millisecond)
)

// What a probe must do, every time.
const (
	MustPass = "pass"
	MustFail = "fail"
)

// Flow declares a flow, once it is established, or a probe.
type Flow struct {
	Time int64  `json:"time"`
	ID   uint64 `json:"id"`
	Name string `json:"name"`
	Kind string `json:"kind"`
	// To is what was dialled; Local and Remote are what the socket says, empty for a probe.
	To     string `json:"to"`
	Local  string `json:"local,omitempty"`
	Remote string `json:"remote,omitempty"`
	Cookie uint64 `json:"cookie,omitempty"`
	Period int64  `json:"period"`
	// First is when the first frame or attempt is due.
	First int64 `json:"first"`
	// Silent flows send no frames between their first and their last.
	Silent bool `json:"silent,omitempty"`
	// Must is pass or fail for a probe, whose frames are attempts.
	Must string `json:"must,omitempty"`
}

// Window counts a stretch of a flow.
type Window struct {
	Flow uint64 `json:"flow"`
	From int64  `json:"from"`
	To   int64  `json:"to"`
	// Sent and Received are frames; of a probe, attempts begun and those that ended as they must.
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"`
	// Worst is the largest lateness of those received.
	Worst int64 `json:"worst"`
}

// Late is a frame that came at least Notable beyond the schedule.
type Late struct {
	Flow     uint64 `json:"flow"`
	Sequence uint64 `json:"sequence"`
	Due      int64  `json:"due"`
	Received int64  `json:"received"`
	// Lateness is Received - Due without what the two ends were late by themselves.
	Lateness int64 `json:"lateness"`
}

// Blind is a frame that an end itself sent at least Notable late: what happened meanwhile on the way was not seen.
type Blind struct {
	Flow     uint64 `json:"flow"`
	Sequence uint64 `json:"sequence"`
	Due      int64  `json:"due"`
	By       int64  `json:"by"`
	// Role is the end: client or server.
	Role string `json:"role"`
}

// Stall is a stretch in which a process of the instrument did not run although it wanted to: it tells by a pulse. What
// was late meanwhile was not late on the way.
type Stall struct {
	Role string `json:"role"`
	From int64  `json:"from"`
	To   int64  `json:"to"`
}

// Standstill is a stretch in which a processor ran nothing that the instrument asked of it: its hypervisor had others run,
// or the kernel was at something that it does not interrupt. Unlike for a Stall, it cannot be told whether the data plane
// was that something, so it excuses no frame: where it may be why one was late, nothing can be concluded.
type Standstill struct {
	Processor int `json:"processor"`
	// From is when it was last seen to run, To when it was seen again.
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// Reason is why a flow is broken or a probe went wrong.
type Reason string

// The reasons.
const (
	Closed     Reason = "closed"     // the peer closed: FIN, where none was due
	Reset      Reason = "reset"      // RST, or the socket was aborted
	Refused    Reason = "refused"    // ICMP or the data plane refused a datagram
	TimedOut   Reason = "timed_out"  // the kernel gave up
	Corrupt    Reason = "corrupt"    // the bytes are not those that were sent
	Lost       Reason = "lost"       // a frame did not come
	Duplicated Reason = "duplicated" // a frame came twice
	Foreign    Reason = "foreign"    // a frame came that this flow has not sent
	Moved      Reason = "moved"      // another server answered
	Unanswered Reason = "unanswered" // still open, but nothing came until the end of the run
	Failed     Reason = "failed"     // a library gave up; see the detail
	Allowed    Reason = "allowed"    // an attempt passed that must fail
	Denied     Reason = "denied"     // an attempt failed that must pass
	Unproved   Reason = "unproved"   // an attempt failed for want of something on the client's own side: it shows nothing
)

// Break is what broke a flow, or an attempt of a probe that went wrong. A flow may have several.
type Break struct {
	Flow     uint64 `json:"flow"`
	Time     int64  `json:"time"`
	Reason   Reason `json:"reason"`
	Sequence uint64 `json:"sequence"`
	Detail   string `json:"detail,omitempty"`
}

// Done closes a flow. A flow without it was not watched to its end.
type Done struct {
	Flow uint64 `json:"flow"`
	Time int64  `json:"time"`
	// Stop is when the schedule ended: what was due before was sent.
	Stop int64 `json:"stop"`
	// Sent and Received count as those of Window do.
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"`
	// Breaks counts all, of which only the first hundred have lines.
	Breaks uint64 `json:"breaks"`
	// Unproved counts attempts among them that failed for want of something on the client's own side.
	Unproved uint64 `json:"unproved,omitempty"`
	// Reordered counts datagrams that came after a later one, which UDP may do.
	Reordered uint64    `json:"reordered,omitempty"`
	Cookie    uint64    `json:"cookie,omitempty"`
	TCP       *wire.TCP `json:"tcp,omitempty"`
	// Histogram counts frames by lateness: element 0 below 1 us, element i from 2^(i-1) to 2^i us.
	Histogram []uint64 `json:"histogram,omitempty"`
	// Outcomes counts the attempts of a probe by how they ended: "passed", or an error such as ECONNREFUSED.
	Outcomes map[string]uint64 `json:"outcomes,omitempty"`
}

// End closes a file, with what the process has cost.
type End struct {
	Time   int64 `json:"time"`
	User   int64 `json:"user"`
	System int64 `json:"system"`
}
