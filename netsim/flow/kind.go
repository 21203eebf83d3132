// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"net/netip"
	"time"

	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

// Kind is a way in which applications use a connection.
type Kind struct {
	Name string
	// About is one line for people.
	About    string
	Protocol *wire.Protocol
	// Period and Size are used where a Spec has none.
	Period time.Duration
	Size   int

	shape shape
}

// shape is who sends what when.
type shape int

const (
	echo    shape = iota // the client sends by schedule, the server answers each frame at once
	silent               // a frame at the beginning and one at the end
	push                 // the client closes its direction, the server sends by schedule
	hold                 // the server answers each frame a while later
	attempt              // a new connection each time: a probe
)

// holdShare of the period is how long a long poll is held.
const holdShare = 0.8

// Kinds returns all kinds in the order in which they are documented.
func Kinds() []Kind {
	const ms = time.Millisecond
	small := wire.HeaderSize
	return []Kind{
		{"idle", "open and silent, TCP keepalive only, until the last frame", wire.Stream, 10 * ms, small, silent},
		{"trickle", "small frames on a TCP connection", wire.Stream, 10 * ms, small, echo},
		{"bulk", "64 KiB frames both ways, 52 Mbit/s each", wire.Stream, 10 * ms, 64 << 10, echo},
		{"half-closed", "the client has sent FIN, the server goes on", wire.Stream, 10 * ms, small, push},
		{"server-first", "the server speaks first, as SMTP does", wire.Greet, 10 * ms, small, echo},
		{"tls", "small frames in TLS 1.3", wire.TLS, 10 * ms, small, echo},
		{"http", "requests on one kept HTTP/1.1 connection", wire.HTTP, 10 * ms, small, echo},
		{"long-poll", "HTTP/1.1 requests that are held for 200 ms", wire.HTTP, 250 * ms, small, hold},
		{"http2", "one HTTP/2 stream, open in both directions", wire.HTTP2, 10 * ms, small, echo},
		{"grpc", "one bidirectional gRPC call", wire.GRPC, 10 * ms, small, echo},
		{"websocket", "messages on a WebSocket", wire.WebSocket, 10 * ms, small, echo},
		{"udp", "datagrams of a connected socket", wire.UDP, 10 * ms, small, echo},
		{"storm", "a new TCP connection with one frame each time; every one must pass", wire.Stream, 5 * ms, small, attempt},
		{"probe", "a new connection each time; must says whether it has to pass or to fail", wire.Stream, 10 * ms, small,
			attempt},
	}
}

// findKind returns the kind of a name, nil if there is none.
func findKind(name string) *Kind {
	for _, k := range Kinds() {
		if k.Name == name {
			return &k
		}
	}
	return nil
}

// Address returns where flows of the kind find a server that listens on its default ports.
func (k Kind) Address(server netip.Addr) netip.AddrPort {
	return netip.AddrPortFrom(server, uint16(k.Protocol.Port))
}

// Attempts tells whether each frame has a connection of its own.
func (k Kind) Attempts() bool { return k.shape == attempt }
