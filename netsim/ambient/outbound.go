// SPDX-License-Identifier: Apache-2.0

package ambient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
)

// outbound takes a connection of the pod to where it is for: to a pod whose connections are held, in a tunnel.
func (p *held) outbound(ctx context.Context, conn *net.TCPConn) error {
	peer, err := p.open(ctx, conn)
	if err != nil {
		reset(conn)
		return errors.Join(err, conn.Close())
	}
	relay(conn, peer)
	return nil
}

// open opens the other end of a connection of the pod.
func (p *held) open(ctx context.Context, conn *net.TCPConn) (halves, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	to, err := originalDestination(conn)
	if err == nil && to == local(conn) {
		err = errSelf
	}
	if err != nil {
		return nil, err
	}
	endpoint, err := p.directory.choose(to, rand.IntN)
	if err != nil {
		return nil, err
	}
	server := p.directory.workloads[endpoint.Addr()]
	if p.plaintext || server == nil || !server.Captured {
		return p.netns.dial(ctx, netip.Addr{}, endpoint)
	}
	to = netip.AddrPortFrom(endpoint.Addr(), encryptedPort)
	under, err := p.netns.dial(ctx, netip.Addr{}, to)
	if err != nil {
		return nil, err
	}
	t, err := connect(ctx, under, p.authority.client(p.certificate, server.Identity()), endpoint)
	if err != nil {
		return nil, fmt.Errorf("tunnel to %s/%s: %w", server.Namespace, server.Name, err)
	}
	return t, nil
}
