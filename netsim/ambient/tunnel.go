// SPDX-License-Identifier: Apache-2.0

package ambient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// tunnel is a client's end of an HTTP/2 CONNECT stream (RFC 9113, section 8.5), the only one of its TLS connection.
type tunnel struct {
	conn *http.ClientConn
	in   io.ReadCloser
	out  *io.PipeWriter
}

// http2 is HTTP/2 and nothing else.
func http2() *http.Protocols {
	p := &http.Protocols{}
	p.SetHTTP2(true)
	return p
}

// connect opens a tunnel to an address over a connection, and closes the connection if it cannot. The context limits
// the beginning only.
func connect(ctx context.Context, conn net.Conn, config *tls.Config, to netip.AddrPort) (*tunnel, error) {
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("TLS handshake with %s: %w", conn.RemoteAddr(), err), conn.Close())
	}
	transport := &http.Transport{
		Protocols:      http2(),
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return secure, nil },
	}
	client, err := transport.NewClientConn(ctx, "https", conn.RemoteAddr().String())
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	body, out := io.Pipe()
	t := &tunnel{conn: client, out: out}
	request, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodConnect, "https://"+to.String(), body)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	// The beginning is limited by closing the connection: a context would go on to limit the stream.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	response, err := client.RoundTrip(request)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("CONNECT %s: %w", to, err), client.Close())
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("CONNECT %s: %s", to, response.Status), client.Close())
	}
	t.in = response.Body
	return t, nil
}

func (t *tunnel) Read(b []byte) (int, error)  { return t.in.Read(b) }
func (t *tunnel) Write(b []byte) (int, error) { return t.out.Write(b) }

// CloseWrite ends the stream in this direction.
func (t *tunnel) CloseWrite() error { return t.out.Close() }

// Close closes the stream and its connection; an unfinished stream is reset.
func (t *tunnel) Close() error {
	return errors.Join(t.out.CloseWithError(errAborted), t.in.Close(), t.conn.Close())
}

var errAborted = errors.New("aborted")

// accepted is a server's end of a stream: it ends with the handler that has it.
type accepted struct {
	io.Reader
	w http.ResponseWriter
}

func (a *accepted) Write(b []byte) (int, error) {
	n, err := a.w.Write(b)
	if err == nil {
		err = http.NewResponseController(a.w).Flush()
	}
	return n, err
}

// halves is a connection whose directions end one by one.
type halves interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// relay carries bytes both ways until both directions have ended or one has failed, and closes both connections.
func relay(a, b halves) {
	both := func() { _, _ = a.Close(), b.Close() } // what is closed already, or by the peer, is closed
	var ways sync.WaitGroup
	for _, way := range [][2]halves{{a, b}, {b, a}} {
		ways.Go(func() {
			err := carry(way[1], way[0])
			if err == nil {
				err = way[1].CloseWrite()
			}
			if err != nil {
				reset(a)
				reset(b)
				both() // which ends the other way
			}
		})
	}
	ways.Wait()
	both()
}

// reset makes closing a TCP connection tell the peer that it was not the end of the stream.
func reset(c io.Closer) {
	if c, ok := c.(*net.TCPConn); ok {
		_ = c.SetLinger(0) // it may be closed already
	}
}

// carry copies until the end of a stream. It reads and writes as ztunnel does: io.Copy would splice.
func carry(to io.Writer, from io.Reader) error {
	const size = 16 << 10
	buffer := make([]byte, size)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
