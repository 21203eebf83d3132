// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

// webSocket is either end of a WebSocket (RFC 6455).
type webSocket struct {
	// ctx ends nothing: deadlines of the socket do.
	ctx  context.Context
	conn *websocket.Conn
}

func newWebSocket(ctx context.Context, conn *websocket.Conn) *webSocket {
	conn.SetReadLimit(MaxSize)
	return &webSocket{context.WithoutCancel(ctx), conn}
}

func dialWebSocket(ctx context.Context, socket net.Conn) (Conn, error) {
	dial := once(socket)
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}
	// The response's body is the library's.
	address := "ws://" + socket.RemoteAddr().String() + "/flow"
	conn, _, err := websocket.Dial(ctx, address, &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		return nil, err
	}
	return newWebSocket(ctx, conn), nil
}

func serveWebSocket(listener net.Listener, handle func(*Accepted)) error {
	return serveHandler(listener, nil, func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return // it has answered, and the client says why
		}
		defer func() { _ = conn.CloseNow() }() // the client has what it waited for
		handle(&Accepted{Conn: newWebSocket(r.Context(), conn), Socket: socketOf(r.Context())})
	})
}

func (w *webSocket) Send(frame []byte) error {
	return w.conn.Write(w.ctx, websocket.MessageBinary, frame)
}

func (w *webSocket) Receive() ([]byte, error) {
	kind, frame, err := w.conn.Read(w.ctx)
	if err == nil && kind != websocket.MessageBinary {
		err = fmt.Errorf("%w: a text message", ErrCorrupt)
	}
	return frame, err
}

func (w *webSocket) Close() error { return w.conn.CloseNow() }
