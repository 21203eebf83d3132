// SPDX-License-Identifier: Apache-2.0

// Package load makes traffic for measurements: requests on one connection, a connection for each request, and connect()
// alone, by one thread on a given CPU that makes its system calls itself. Package bench runs it in pods, through the
// program evenkeel-load, and tells it what to do a block at a time. It decides nothing and judges nothing.
package load

import (
	"net/netip"
	"time"
)

// Kind is what a block does.
type Kind string

// The kinds. Each request and each answer is 64 bytes.
const (
	// Request asks over and over on one connection, which is opened before the clock starts.
	Request Kind = "request"
	// Connect opens a connection for each request and resets it after the answer, so that none is left in TIME_WAIT.
	Connect Kind = "connect"
	// Fresh opens a UDP socket, connects it, and closes it; only connect() is timed. No packet is sent.
	Fresh Kind = "fresh"
	// Again connects one UDP socket over and over; in between it is disconnected, which is not timed.
	Again Kind = "again"
	// HTTPKeep and HTTPNew are GET requests by Fortio, on kept connections and on new ones.
	HTTPKeep Kind = "http-keep"
	HTTPNew  Kind = "http-new"
)

// Block is one order to a client, a JSON object on a line.
type Block struct {
	Kind Kind           `json:"kind"`
	To   netip.AddrPort `json:"to"`
	// Addresses is how many consecutive addresses from To on are dialled, in an order drawn from Seed; for Fresh and
	// Again.
	Addresses int    `json:"addresses,omitempty"`
	Seed      uint64 `json:"seed,omitempty"`
	// Connections is how many are open at a time; for Connect and HTTP. 0 means 1.
	Connections int           `json:"connections,omitempty"`
	Duration    time.Duration `json:"duration"`
	// Handicap is time that is wasted in each operation: a control, to show that a slower variant is seen to be slower.
	Handicap time.Duration `json:"handicap,omitempty"`
	// Charged are processes whose CPU time counts, beside the client's own.
	Charged []int `json:"charged,omitempty"`
}

// Result is the client's answer, a JSON object on a line. With an Error nothing else means anything.
type Result struct {
	Operations int64         `json:"operations"`
	Elapsed    time.Duration `json:"elapsed"`
	// Mean, Median and P99 are of one operation: of connect() alone for Fresh and Again.
	Mean   time.Duration `json:"mean"`
	Median time.Duration `json:"median"`
	P99    time.Duration `json:"p99"`
	// CPU is what the client and the charged processes used while the clock ran.
	CPU   time.Duration `json:"cpu"`
	Error string        `json:"error,omitempty"`
}

// size is how long requests and answers are, in bytes.
const size = 64
