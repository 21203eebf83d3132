// SPDX-License-Identifier: Apache-2.0

// Package wire has the frames of a flow and what carries them: a TCP stream, TLS, HTTP/1.1, an HTTP/2 stream, gRPC, a
// WebSocket, UDP datagrams. It owns the layout of a frame, and that a flow is one connection: Dial makes one socket, and
// nothing here can make another. netsim/flow sends and judges; this package knows neither schedules nor verdicts.
package wire
