// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Services of UDP, as TestHooks makes them.
var (
	plain4      = netip.MustParseAddrPort("10.96.0.1:53") // on 10.9.0.1
	second4     = netip.MustParseAddrPort("10.96.0.2:53") // on 10.9.0.2
	spread4     = netip.MustParseAddrPort("10.96.0.3:53") // on four endpoints
	shared4     = netip.MustParseAddrPort("10.96.0.4:53") // on 10.9.0.1, too
	empty4      = netip.MustParseAddrPort("10.96.0.5:53") // on none
	unroutable4 = netip.MustParseAddrPort("10.96.0.6:53") // on one that there is no route to
	deaf4       = netip.MustParseAddrPort("10.96.0.7:80") // on one that nobody listens at

	endpoint4 = netip.MustParseAddrPort("10.9.0.1:5353")
	nowhere4  = netip.MustParseAddrPort("203.0.113.9:53") // no service, and no route
)

// datagrams is a UDP socket that speaks IPv4, be it of AF_INET or of AF_INET6.
type datagrams struct{ fd, family int }

func openDatagrams(family int) (datagrams, error) {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return datagrams{}, err
	}
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2})
	return datagrams{fd, family}, err
}

func (d datagrams) close() { unix.Close(d.fd) }

func (d datagrams) sockaddr(a netip.AddrPort) unix.Sockaddr {
	if d.family == unix.AF_INET6 {
		return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

func addrPort(from unix.Sockaddr) netip.AddrPort {
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(from.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(from.Addr).Unmap(), uint16(from.Port))
	}
	return netip.AddrPort{}
}

func (d datagrams) connect(to netip.AddrPort) error {
	if err := unix.Connect(d.fd, d.sockaddr(to)); err != nil {
		return fmt.Errorf("connect to %s: %w", to, err)
	}
	return nil
}

func (d datagrams) send(to netip.AddrPort) error {
	if err := unix.Sendto(d.fd, []byte("hello"), 0, d.sockaddr(to)); err != nil {
		return fmt.Errorf("send to %s: %w", to, err)
	}
	return nil
}

// ask sends to an address and returns the endpoint that answered; an answer that is shown as of another address than
// that is an error.
func (d datagrams) ask(to netip.AddrPort) (endpoint string, err error) {
	if err := d.send(to); err != nil {
		return "", err
	}
	return d.receive(to)
}

func (d datagrams) receive(want netip.AddrPort) (endpoint string, err error) {
	buffer := make([]byte, 100)
	n, from, err := unix.Recvfrom(d.fd, buffer, 0)
	if err != nil {
		return "", fmt.Errorf("answer of %s: %w", want, err)
	}
	if got := addrPort(from); got != want {
		return "", fmt.Errorf("%s was asked, the answer is shown as of %s", want, got)
	}
	endpoint, _, _ = strings.Cut(string(buffer[:n]), " ")
	return endpoint, nil
}

// expectPeer is for a connected socket: getpeername() and answers show want.
func (d datagrams) expectPeer(want netip.AddrPort) error {
	name, err := unix.Getpeername(d.fd)
	if err != nil {
		return err
	}
	if got := addrPort(name); got != want {
		return fmt.Errorf("getpeername is %s, want %s", got, want)
	}
	if _, err := unix.Write(d.fd, []byte("hello")); err != nil {
		return err
	}
	_, err = d.receive(want)
	return err
}

// connectedNamed asks by sockets that are connected to the service and name it, too.
func connectedNamed(family int) error {
	for range 20 { // that a choice of its own is always right has a chance of 4^-20
		d, err := openDatagrams(family)
		if err != nil {
			return err
		}
		defer d.close()
		if err := d.connect(spread4); err != nil {
			return err
		}
		if _, err := d.ask(spread4); err != nil {
			return err
		}
		if _, err := d.ask(spread4); err != nil {
			return err
		}
		if err := d.expectPeer(spread4); err != nil {
			return err
		}
	}
	return nil
}

// idleAmongMany keeps sockets that do nothing while more others send than there is room for in the map peers.
func idleAmongMany() error {
	var idle []datagrams
	var endpoints []string
	for range 10 { // that a choice of its own is always the same has a chance of 4^-10
		d, err := openDatagrams(unix.AF_INET)
		if err != nil {
			return err
		}
		defer d.close()
		endpoint, err := d.ask(spread4)
		if err != nil {
			return err
		}
		idle, endpoints = append(idle, d), append(endpoints, endpoint)
	}
	for range 2 * DefaultSizes().Peers {
		d, err := openDatagrams(unix.AF_INET)
		if err != nil {
			return err
		}
		err = d.send(spread4)
		d.close()
		if err != nil {
			return err
		}
	}
	for i, d := range idle {
		endpoint, err := d.ask(spread4)
		if err != nil {
			return err
		}
		if endpoint != endpoints[i] {
			return fmt.Errorf("socket %d moved from %s to %s", i, endpoints[i], endpoint)
		}
	}
	return nil
}

// withdrawnUDP withdraws the pod: its sockets go on with what they were given, and are given nothing new.
func withdrawnUDP() error {
	old, err := openDatagrams(unix.AF_INET)
	if err != nil {
		return err
	}
	defer old.close()
	was := make(map[netip.AddrPort]string)
	for _, service := range []netip.AddrPort{spread4, second4} {
		if was[service], err = old.ask(service); err != nil {
			return err
		}
	}
	if err := askNode("withdraw"); err != nil {
		return err
	}
	for range 5 {
		for service, want := range was {
			if got, err := old.ask(service); err != nil || got != want {
				return fmt.Errorf("the pod is withdrawn: %s answers for %s, it was %s: %w", got, service, want, err)
			}
		}
	}
	fresh, err := openDatagrams(unix.AF_INET)
	if err != nil {
		return err
	}
	defer fresh.close()
	for _, d := range []datagrams{fresh, old} {
		if err := d.send(plain4); !errors.Is(err, syscall.ENETUNREACH) {
			return fmt.Errorf("the pod is withdrawn, yet a socket that did not use it: %w, want no route", err)
		}
	}
	return nil
}

// reconnectFails makes connect() of a connected socket fail before and after the hook: it stays what it was.
func reconnectFails() error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		d, err := openDatagrams(family)
		if err != nil {
			return err
		}
		defer d.close()
		if err := d.connect(spread4); err != nil {
			return err
		}
		for _, failing := range []struct {
			to   netip.AddrPort
			want error
		}{
			{empty4, syscall.ECONNREFUSED}, {unroutable4, syscall.ENETUNREACH}, {nowhere4, syscall.ENETUNREACH},
			{unroutable4, syscall.ENETUNREACH},
		} {
			if err := d.connect(failing.to); !errors.Is(err, failing.want) {
				return fmt.Errorf("connect to %s: %w, want %w", failing.to, err, failing.want)
			}
			if err := d.expectPeer(spread4); err != nil {
				return fmt.Errorf("after connect to %s failed: %w", failing.to, err)
			}
			if _, err := d.ask(spread4); err != nil {
				return fmt.Errorf("after connect to %s failed: %w", failing.to, err)
			}
		}
		for _, to := range []netip.AddrPort{second4, plain4, endpoint4} { // it still can
			if err := d.connect(to); err != nil {
				return err
			}
			if err := d.expectPeer(to); err != nil {
				return err
			}
		}
	}
	return nil
}

// reconnectedLookedAt asks for the peer of a socket that another thread connects to this service and that: it is
// always one of them, also between the hook and what the kernel does then.
func reconnectedLookedAt() error {
	d, err := openDatagrams(unix.AF_INET)
	if err != nil {
		return err
	}
	defer d.close()
	if err := d.connect(plain4); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		for range 20_000 {
			for _, to := range []netip.AddrPort{second4, plain4} {
				if err := d.connect(to); err != nil {
					done <- err
					return
				}
			}
		}
		done <- nil
	}()
	for {
		select {
		case err := <-done:
			return err
		default:
		}
		name, err := unix.Getpeername(d.fd)
		if err != nil {
			return errors.Join(err, <-done)
		}
		if got := addrPort(name); got != plain4 && got != second4 {
			return errors.Join(fmt.Errorf("getpeername is %s", got), <-done)
		}
	}
}

// addressedDirectly uses an endpoint of a service as itself, too: what it is shown as follows its last use.
func addressedDirectly() error {
	for _, first := range []netip.AddrPort{plain4, second4} { // the first service is kept elsewhere than the others
		d, err := openDatagrams(unix.AF_INET)
		if err != nil {
			return err
		}
		defer d.close()
		if _, err := d.ask(first); err != nil {
			return err
		}
		for range 2 {
			for _, to := range []netip.AddrPort{plain4, plain4, endpoint4, endpoint4, first} {
				if _, err := d.ask(to); err != nil {
					return err
				}
			}
		}
		if err := d.connect(endpoint4); err != nil {
			return err
		}
		if err := d.expectPeer(endpoint4); err != nil {
			return err
		}
	}
	return nil
}

// sharedEndpoint asks one endpoint as two services and as itself.
func sharedEndpoint() error {
	d, err := openDatagrams(unix.AF_INET)
	if err != nil {
		return err
	}
	defer d.close()
	for range 2 {
		for _, to := range []netip.AddrPort{plain4, shared4, plain4, endpoint4, shared4, shared4, endpoint4, plain4} {
			if _, err := d.ask(to); err != nil {
				return err
			}
		}
	}
	return nil
}

// refusedUDPLite speaks UDP-Lite, of which no service has a port: what is sent to the address of one is refused at once,
// and elsewhere it is untouched. Of connect() no hook hears (udplite_prot has no pre_connect, net/ipv4/udplite.c), so
// that is as it would be without us: there is no route.
func refusedUDPLite() error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDPLITE)
		if errors.Is(err, unix.EPROTONOSUPPORT) {
			return nil // the kernel has no UDP-Lite, so nobody can
		}
		if err != nil {
			return err
		}
		d := datagrams{fd, family}
		defer d.close()
		for _, test := range []struct {
			call func(netip.AddrPort) error
			to   netip.AddrPort
			want error
		}{
			{d.send, plain4, syscall.ECONNREFUSED}, {d.send, nowhere4, syscall.ENETUNREACH}, {d.send, endpoint4, nil},
			{d.connect, plain4, syscall.ENETUNREACH}, {d.connect, endpoint4, nil},
		} {
			if err := test.call(test.to); !errors.Is(err, test.want) {
				return fmt.Errorf("%s: %w, want %w", test.to, err, test.want)
			}
		}
	}
	return nil
}
