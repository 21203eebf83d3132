// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
)

// httpConn is HTTP/1.1 on one socket. It is not http.Client, which sends a request again on another connection when one
// was closed under it, and waits for each answer before the next request: this one goes by the clock (pipelining, RFC
// 9112 section 9.3.2).
type httpConn struct {
	socket io.Writer
	r      *bufio.Reader
	// before is sent before each frame, with its length.
	before string
	// body reads the next message's.
	body func(*bufio.Reader) (io.ReadCloser, int64, error)

	out, in []byte
}

func dialHTTP(_ context.Context, socket net.Conn) (Conn, error) {
	return &httpConn{socket: socket, r: bufio.NewReader(socket),
		before: "POST /flow HTTP/1.1\r\nHost: " + socket.RemoteAddr().String() +
			"\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n",
		body: func(r *bufio.Reader) (io.ReadCloser, int64, error) {
			response, err := http.ReadResponse(r, nil)
			if err != nil {
				return nil, 0, err
			}
			if response.StatusCode != http.StatusOK {
				return nil, 0, fmt.Errorf("status %s", response.Status)
			}
			return response.Body, response.ContentLength, nil
		}}, nil
}

func serveHTTP(listener net.Listener, handle func(*Accepted)) error {
	return serveSockets(listener, func(socket Socket) {
		handle(accepted(&httpConn{socket: socket, r: bufio.NewReader(socket),
			before: "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n",
			body: func(r *bufio.Reader) (io.ReadCloser, int64, error) {
				request, err := http.ReadRequest(r)
				if err != nil {
					return nil, 0, err
				}
				return request.Body, request.ContentLength, nil
			}}, socket))
	})
}

func (c *httpConn) Send(frame []byte) error {
	c.out = fmt.Appendf(c.out[:0], c.before, len(frame))
	c.out = append(c.out, frame...)
	_, err := c.socket.Write(c.out)
	return err
}

func (c *httpConn) Receive() ([]byte, error) {
	if _, err := c.r.Peek(1); err != nil {
		return nil, err // io.EOF here only: between two messages
	}
	body, length, err := c.body(c.r)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if length < HeaderSize || length > MaxSize {
		return nil, fmt.Errorf("%w: a body of %d bytes", ErrCorrupt, length)
	}
	if int(length) > cap(c.in) {
		c.in = make([]byte, length)
	}
	c.in = c.in[:length]
	if _, err := io.ReadFull(body, c.in); err != nil {
		return nil, err
	}
	return c.in, nil
}
