// SPDX-License-Identifier: Apache-2.0

package ambient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
)

// inbound takes a plaintext connection to the application that it was for, from the address that it came from.
func (p *held) inbound(ctx context.Context, conn *net.TCPConn) error {
	to, err := originalDestination(conn)
	if err == nil && to == local(conn) {
		err = errSelf
	}
	if err != nil {
		reset(conn)
		return errors.Join(err, conn.Close())
	}
	app, err := p.netns.dial(ctx, peer(conn).Addr(), to)
	if err != nil {
		reset(conn)
		return errors.Join(err, conn.Close())
	}
	relay(conn, app)
	return nil
}

// errSelf refuses a connection to the proxy itself: it would go round for ever.
var errSelf = errors.New("it is for the proxy itself")

// terminate is the server's end of a tunnel.
func (p *held) terminate(w http.ResponseWriter, r *http.Request) {
	defer p.count.begin()()
	from, to, err := p.admit(r)
	if err != nil {
		p.log.Debug("tunnel refused", "pod", p.pod.Name, "from", r.RemoteAddr, "error", err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	app, err := p.netns.dial(r.Context(), from, to)
	if err != nil {
		p.log.Debug("no connection to the application", "pod", p.pod.Name, "from", from, "to", to, "error", err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer app.Close()
	stream := &accepted{r.Body, w}
	w.WriteHeader(http.StatusOK)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return // the client has gone
	}
	go func() { // ends with the handler, which closes the body
		if err := carry(app, r.Body); err != nil {
			reset(app)
			_ = app.Close() // the other direction ends, too
			return
		}
		_ = app.CloseWrite() // fails if the application has gone, as the other direction notices
	}()
	if err := carry(stream, app); err != nil {
		panic(http.ErrAbortHandler) // resets the stream
	}
}

// admit returns whom a tunnel is from and where in the pod it leads.
func (p *held) admit(r *http.Request) (from netip.Addr, to netip.AddrPort, err error) {
	if r.Method != http.MethodConnect {
		return from, to, fmt.Errorf("method %s: only CONNECT is answered", r.Method)
	}
	if to, err = netip.ParseAddrPort(r.Host); err != nil {
		return from, to, fmt.Errorf("authority: %w", err)
	}
	own, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || plain(own).Addr() != to.Addr() {
		return from, to, fmt.Errorf("authority %s is not where the connection went, %s", to, own)
	}
	switch to.Port() {
	case outboundPort, inboundPort, encryptedPort:
		return from, to, errSelf
	}
	client, err := netip.ParseAddrPort(r.RemoteAddr)
	return client.Addr().Unmap(), to, err
}
