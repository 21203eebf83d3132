// SPDX-License-Identifier: Apache-2.0

// Package report holds what the client tool of the suite prints, one JSON object per line, and the suite reads. It is
// types only; both sides use it so that neither can drift.
package report

// Attempt is one connection or one datagram and what came of it. Addresses are "a.b.c.d:port" or "[v6]:port"; on an
// AF_INET6 socket that carries IPv4 they keep the mapped form, "[::ffff:a.b.c.d]:port".
type Attempt struct {
	// To is what was dialled.
	To string `json:"to"`
	// Errno is the symbolic error of the first call that failed ("ECONNREFUSED"), Call that call; empty if none did.
	Errno string `json:"errno,omitempty"`
	Call  string `json:"call,omitempty"`
	// Took is how long the whole attempt lasted, in milliseconds.
	Took float64 `json:"took_ms"`
	// Peer is what getpeername() showed, From the source of the datagram that recvfrom() showed.
	Peer string `json:"peer,omitempty"`
	From string `json:"from,omitempty"`
	// Answer is what the server sent back.
	Answer string `json:"answer,omitempty"`
}

// Draw is a batch of UDP sockets that were connected to one address and the endpoints that the kernel gave them.
type Draw struct {
	To string `json:"to"`
	// Start and End are CLOCK_MONOTONIC before the first and after the last connect(), in nanoseconds.
	Start int64 `json:"start"`
	End   int64 `json:"end"`
	// Endpoints counts sockets by the remote address that /proc/net/udp shows.
	Endpoints map[string]int `json:"endpoints"`
	// Ended counts sockets that were no longer connected when that was read: their endpoint was gone.
	Ended int `json:"ended,omitempty"`
	// Errors counts connect() calls that failed by symbolic error.
	Errors map[string]int `json:"errors,omitempty"`
}

// Flow is a running exchange of numbered requests: a line when the first was made, one now and then, one when one
// failed first and one at its end, all with totals.
type Flow struct {
	// Event is "ready", "progress", "failed" or "end".
	Event string `json:"event"`
	// Index tells the flows of one client apart, in the order of its arguments from 0.
	Index int    `json:"index"`
	Kind  string `json:"kind"`
	To    string `json:"to"`
	// Done and Failed count requests; a kept connection that broke fails every request from then on.
	Done   uint64 `json:"done"`
	Failed uint64 `json:"failed"`
	// Error is the first failure, At its CLOCK_MONOTONIC in nanoseconds.
	Error string `json:"error,omitempty"`
	At    int64  `json:"at,omitempty"`
	// Gap is the longest time between two answers, in milliseconds.
	Gap float64 `json:"gap_ms"`
	// Servers counts answers by the pod that gave them, where the protocol tells.
	Servers map[string]uint64 `json:"servers,omitempty"`
}

// Window is a time in which many connections asked, or all of one name, and how long answers took, in milliseconds.
type Window struct {
	// Event is "ready" once all connections are made, "window" when one has ended, "total" in the end.
	Event string `json:"event"`
	// Name is the one that it was begun with.
	Name string `json:"name,omitempty"`
	// Requests counts those that ended in it. A connection whose request failed asks no more.
	Requests int `json:"requests"`
	Failed   int `json:"failed"`
	// Error is the first failure.
	Error  string  `json:"error,omitempty"`
	Median float64 `json:"median_ms"`
	P999   float64 `json:"p999_ms"`
	Worst  float64 `json:"worst_ms"`
}

// Datagram is one that a receiver got.
type Datagram struct {
	From    string `json:"from"`
	Payload string `json:"payload"`
}

// Listening says that a receiver is ready, and on what.
type Listening struct {
	Listening string `json:"listening"`
}

// Response is the answer to an HTTP request.
type Response struct {
	Status int    `json:"status"`
	Body   string `json:"body"`
}

// Capture is what was seen on a link: IP packets, and those that contain what was looked for.
type Capture struct {
	Link    string `json:"link"`
	Packets int    `json:"packets"`
	Found   int    `json:"found"`
}
