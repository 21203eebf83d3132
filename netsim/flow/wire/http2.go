// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// unencryptedHTTP2 is HTTP/2 with prior knowledge (RFC 9113, section 3.3), of net/http: its ClientConn is one connection
// and never another.
func unencryptedHTTP2() *http.Protocols {
	p := &http.Protocols{}
	p.SetUnencryptedHTTP2(true)
	return p
}

// http2Conn is a client's stream.
type http2Conn struct {
	*stream
	conn     *http.ClientConn
	request  *io.PipeWriter
	response io.Closer
}

func dialHTTP2(ctx context.Context, socket net.Conn) (Conn, error) {
	dial := once(socket)
	transport := &http.Transport{
		Protocols:   unencryptedHTTP2(),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}
	address := socket.RemoteAddr().String()
	conn, err := transport.NewClientConn(ctx, "http", address)
	if err != nil {
		return nil, err
	}
	body, out := io.Pipe()
	// The stream outlives what limits its beginning.
	request, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, "http://"+address+"/flow", body)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	response, err := conn.RoundTrip(request)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.Join(fmt.Errorf("status %s", response.Status), response.Body.Close())
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &http2Conn{newStream(response.Body, out), conn, out, response.Body}, nil
}

func (c *http2Conn) Close() error {
	return errors.Join(c.request.Close(), c.response.Close(), c.conn.Close())
}

func serveHTTP2(listener net.Listener, handle func(*Accepted)) error {
	return serveHandler(listener, unencryptedHTTP2(), func(w http.ResponseWriter, r *http.Request) {
		out := &flushing{w, http.NewResponseController(w)}
		w.WriteHeader(http.StatusOK)
		if err := out.control.Flush(); err != nil { // the client waits for it
			return // it has gone
		}
		handle(&Accepted{Conn: newStream(r.Body, out), Socket: socketOf(r.Context())})
	})
}

// flushing sends every write at once.
type flushing struct {
	w       io.Writer
	control *http.ResponseController
}

func (f *flushing) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}

// socketKey is where the context of a request has its socket.
type socketKey struct{}

func socketOf(ctx context.Context) Socket {
	socket, _ := ctx.Value(socketKey{}).(Socket)
	return socket
}

// serveHandler is Serve by net/http.
func serveHandler(listener net.Listener, protocols *http.Protocols, handler http.HandlerFunc) error {
	server := &http.Server{ // without timeouts: to be slow is no reason to close
		Protocols: protocols,
		Handler:   handler,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, socketKey{}, c)
		},
	}
	err := server.Serve(listener)
	return errors.Join(err, server.Close())
}
