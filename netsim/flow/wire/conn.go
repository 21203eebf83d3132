// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn carries frames. One goroutine may send while another receives.
type Conn interface {
	// Send writes one frame; it may wait for the peer to read.
	Send(frame []byte) error
	// Receive returns the next frame, undecoded and valid until the next call. It returns io.EOF only where the peer has
	// closed between two frames.
	Receive() ([]byte, error)
}

// Protocol is a way to carry frames.
type Protocol struct {
	Name string
	// Port is the port that a server listens on by default. UDP and TCP ports do not meet.
	Port int
	// Network is "tcp" or "udp".
	Network string
	// Greets says that the server sends the first frame.
	Greets bool

	// dial makes frames of a connected socket. The socket is the caller's to close.
	dial func(ctx context.Context, socket net.Conn) (Conn, error)
	// serve calls handle for each connection until the listener is closed, and waits for all. nil for UDP, which has
	// no connections.
	serve func(listener net.Listener, handle func(*Accepted)) error
}

// The protocols.
var (
	// Stream is TCP, frames follow each other without anything between them.
	Stream = &Protocol{Name: "stream", Port: 7000, Network: "tcp", dial: dialStream, serve: serveStream}
	// Greet is Stream, but the server sends the first frame.
	Greet = &Protocol{Name: "greet", Port: 7001, Network: "tcp", Greets: true, dial: dialStream, serve: serveStream}
	// UDP has a frame in each datagram.
	UDP = &Protocol{Name: "udp", Port: 7002, Network: "udp", dial: dialDatagram}
	// TLS is Stream in TLS 1.3.
	TLS = &Protocol{Name: "tls", Port: 7003, Network: "tcp", dial: dialTLS, serve: serveTLS}
	// HTTP is HTTP/1.1 with one connection: a frame is the body of a request, the answer the body of the response.
	HTTP = &Protocol{Name: "http", Port: 7004, Network: "tcp", dial: dialHTTP, serve: serveHTTP}
	// HTTP2 is one stream of HTTP/2 without TLS: Stream in the bodies of one request and its response.
	HTTP2 = &Protocol{Name: "http2", Port: 7005, Network: "tcp", dial: dialHTTP2, serve: serveHTTP2}
	// GRPC is one bidirectional call; a frame is a google.protobuf.BytesValue.
	GRPC = &Protocol{Name: "grpc", Port: 7006, Network: "tcp", dial: dialGRPC, serve: serveGRPC}
	// WebSocket has a frame in each binary message.
	WebSocket = &Protocol{Name: "websocket", Port: 7007, Network: "tcp", dial: dialWebSocket, serve: serveWebSocket}
)

// Protocols returns all of them.
func Protocols() []*Protocol {
	return []*Protocol{Stream, Greet, UDP, TLS, HTTP, HTTP2, GRPC, WebSocket}
}

// Find returns the protocol of a name, nil if there is none.
func Find(name string) *Protocol {
	for _, p := range Protocols() {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Client is the client's end of a connection.
type Client struct {
	Conn
	// Socket is what the connection runs on. To set its deadline ends what waits in Send and Receive.
	Socket Socket

	witness *witness
}

// Socket is a TCP or UDP socket.
type Socket interface {
	net.Conn
	syscall.Conn
}

// Dial connects once. What fails later stays failed.
func (p *Protocol) Dial(ctx context.Context, address string) (*Client, error) {
	// Without keepalive, which would be traffic that nobody scheduled; kinds that want it set it.
	dialer := net.Dialer{KeepAlive: -1}
	conn, err := dialer.DialContext(ctx, p.Network, address)
	if err != nil {
		return nil, err
	}
	socket := conn.(Socket) // as are all of package net
	if err := p.prepare(socket); err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	c := &Client{Socket: socket, witness: &witness{Socket: socket}}
	// Libraries that shake hands have no other way to be stopped.
	stop := context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Now()) })
	c.Conn, err = p.dial(ctx, c.witness)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s to %s: %w", p.Name, address, err), c.Close())
	}
	return c, nil
}

// Cause returns the first error of the socket, nil if it had none: libraries say it in words of their own.
func (c *Client) Cause() error {
	c.witness.mu.Lock()
	defer c.witness.mu.Unlock()
	return c.witness.err
}

// Close closes the connection and what a library has running for it.
func (c *Client) Close() error {
	err := c.Socket.Close()
	if closer, is := c.Conn.(io.Closer); is {
		_ = closer.Close() // of a connection that has gone
	}
	return err
}

// witness is a socket that remembers what went wrong first.
type witness struct {
	Socket
	mu  sync.Mutex
	err error
}

func (w *witness) saw(err error) {
	if err == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

func (w *witness) Read(b []byte) (int, error) {
	n, err := w.Socket.Read(b)
	w.saw(err)
	return n, err
}

func (w *witness) Write(b []byte) (int, error) {
	n, err := w.Socket.Write(b)
	w.saw(err)
	return n, err
}

// once returns a function for libraries that want to dial: it gives them the one socket there is.
func once(socket net.Conn) func(context.Context) (net.Conn, error) {
	var given atomic.Bool
	return func(context.Context) (net.Conn, error) {
		if given.Swap(true) {
			return nil, errors.New("the connection is gone, and there is no other")
		}
		return socket, nil
	}
}

// prepare makes room for datagrams that come while the process waits for a processor: what the kernel drops there would
// look like a loss on the way.
func (p *Protocol) prepare(socket any) error {
	if udp, ok := socket.(*net.UDPConn); ok {
		return growReadBuffer(udp)
	}
	return nil
}

// Listener accepts the connections of one protocol.
type Listener struct {
	protocol *Protocol
	tcp      net.Listener
	packets  *net.UDPConn
}

// Listen opens a listening socket at address, such as ":7000".
func (p *Protocol) Listen(ctx context.Context, address string) (*Listener, error) {
	config := net.ListenConfig{KeepAlive: -1}
	if p.Network == "udp" {
		packets, err := config.ListenPacket(ctx, "udp", address)
		if err != nil {
			return nil, err
		}
		udp := packets.(*net.UDPConn) // what ListenPacket makes of "udp"
		if err := errors.Join(p.prepare(udp), askDestination(udp)); err != nil {
			return nil, errors.Join(err, udp.Close())
		}
		return &Listener{protocol: p, packets: udp}, nil
	}
	tcp, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &Listener{protocol: p, tcp: tcp}, nil
}

// Protocol returns what the listener speaks.
func (l *Listener) Protocol() *Protocol { return l.protocol }

// Packets returns the socket of UDP, nil of the others.
func (l *Listener) Packets() *net.UDPConn { return l.packets }

// Port returns the port that it listens on.
func (l *Listener) Port() int {
	if l.packets != nil {
		return l.packets.LocalAddr().(*net.UDPAddr).Port
	}
	return l.tcp.Addr().(*net.TCPAddr).Port
}

// Serve calls handle in a goroutine of its own for each connection, which is closed when handle returns. It returns when
// the listener is closed and every handle has returned. UDP has no connections: see Packets.
func (l *Listener) Serve(handle func(*Accepted)) error {
	err := l.protocol.serve(l.tcp, handle)
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Close ends Serve.
func (l *Listener) Close() error {
	if l.packets != nil {
		return l.packets.Close()
	}
	return l.tcp.Close()
}

// stream is a connection on which frames follow each other.
type stream struct {
	w io.Writer
	r *bufio.Reader
	// taken is the length of the frame that the last Receive returned.
	taken int
}

func newStream(r io.Reader, w io.Writer) *stream {
	return &stream{w: w, r: bufio.NewReaderSize(r, 4096)}
}

func (s *stream) Send(frame []byte) error {
	_, err := s.w.Write(frame)
	return err
}

func (s *stream) Receive() ([]byte, error) {
	// What was returned before lies in the reader's buffer.
	if _, err := s.r.Discard(s.taken); err != nil {
		return nil, err
	}
	s.taken = 0
	header, err := s.r.Peek(12)
	if err != nil {
		return nil, torn(err, len(header))
	}
	length, err := frameLength(header)
	if err != nil {
		return nil, err
	}
	if length > s.r.Size() {
		s.r = bufio.NewReaderSize(s.r, length+4096)
	}
	frame, err := s.r.Peek(length)
	if err != nil {
		return nil, torn(err, len(frame))
	}
	s.taken = length
	return frame, nil
}

// torn makes an end of file amid a frame what it is.
func torn(err error, have int) error {
	if errors.Is(err, io.EOF) && have > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

func dialStream(_ context.Context, socket net.Conn) (Conn, error) {
	raw, err := newRawSocket(socket.(Socket))
	if err != nil {
		return nil, err
	}
	return newStream(raw, raw), nil
}

func serveStream(listener net.Listener, handle func(*Accepted)) error {
	return serveSockets(listener, func(socket Socket) {
		if raw, err := newRawSocket(socket); err == nil { // it is open
			handle(accepted(newStream(raw, raw), socket))
		}
	})
}

// Accepted is a server's end.
type Accepted struct {
	Conn
	// Socket is what the connection runs on, nil where a library does not show it.
	Socket Socket
	// Drain returns when the client has gone. It is nil where a library sees to it that what was sent arrives before
	// the connection is closed; a bare socket with unread bytes is reset.
	Drain func()
}

// accepted makes one of a bare socket.
func accepted(conn Conn, socket Socket) *Accepted {
	return &Accepted{conn, socket, func() { _, _ = io.Copy(io.Discard, socket) }}
}

// serveSockets is Serve for protocols without a server of their own.
func serveSockets(listener net.Listener, handle func(Socket)) error {
	var open sync.WaitGroup
	for {
		socket, err := listener.Accept()
		if err != nil {
			open.Wait()
			return err
		}
		open.Go(func() {
			defer socket.Close()
			handle(socket.(Socket)) // as are all of package net
		})
	}
}

// datagram is a connected UDP socket: one frame, one datagram.
type datagram struct {
	socket *rawSocket
	buffer []byte
}

func dialDatagram(_ context.Context, socket net.Conn) (Conn, error) {
	raw, err := newRawSocket(socket.(Socket))
	if err != nil {
		return nil, err
	}
	return &datagram{raw, make([]byte, 64<<10)}, nil
}

func (d *datagram) Send(frame []byte) error {
	_, err := d.socket.Write(frame)
	return err
}

func (d *datagram) Receive() ([]byte, error) {
	n, err := d.socket.Read(d.buffer)
	return d.buffer[:n], err
}

// Frames returns what reads one frame after the other from a stream, undecoded; see Conn.Receive.
func Frames(r io.Reader) func() ([]byte, error) { return newStream(r, nil).Receive }
