// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// insideChecks are what the child of TestHooks does in its pod, by the name of the subtest.
var insideChecks = map[string]func() error{
	"tcp4":            func() error { return exchangeTCP("tcp4", "10.96.0.1:80") },
	"tcp6":            func() error { return exchangeTCP("tcp6", "[fd00:96::1]:80") },
	"tcp mapped":      func() error { return connectMapped(unix.SOCK_STREAM, service4, 80) },
	"udp4 connected":  func() error { return exchangeUDP("udp4", "10.96.0.1:53") },
	"udp6 connected":  func() error { return exchangeUDP("udp6", "[fd00:96::1]:53") },
	"udp mapped":      func() error { return connectMapped(unix.SOCK_DGRAM, service4, 53) },
	"udp unconnected": unconnectedUDP,
	"udp unconnected mapped": func() error {
		return unconnectedMapped(service4, 53)
	},
	"no port":     func() error { return refused("tcp4", "10.96.0.1:81") },
	"no endpoint": func() error { return refused("tcp4", "10.96.0.2:80") },
	"no listener": func() error { return refused("tcp4", deaf4.String()) },
	"direct":      func() error { return exchangeTCP("tcp4", "10.9.0.1:8080") },
	"reconnected": reconnectedUDP,

	"udp connected, service named":        func() error { return connectedNamed(unix.AF_INET) },
	"udp mapped connected, service named": func() error { return connectedNamed(unix.AF_INET6) },
	"udp idle while others send":          idleAmongMany,
	"udp withdrawn":                       withdrawnUDP,
	"udp reconnect fails":                 reconnectFails,
	"udp reconnected while looked at":     reconnectedLookedAt,
	"udp endpoint addressed directly":     addressedDirectly,
	"udp endpoint of two services":        sharedEndpoint,
	"udp-lite":                            refusedUDPLite,
	"mptcp":                               connectMPTCP,
}

// TestInside is the child: it skips when it is not one.
func TestInside(t *testing.T) {
	name := os.Getenv("EVENKEEL_TEST_INSIDE")
	if name == "" {
		t.Skip("run by TestHooks, in a namespace of its own")
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	for _, a := range podAddresses {
		ip := netip.MustParseAddr(a)
		alone := &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}
		if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: alone, Flags: unix.IFA_F_NODAD}); err != nil {
			t.Fatal(err)
		}
	}
	if err := askNode("enrol"); err != nil {
		t.Fatal(err)
	}
	for _, a := range podAddresses {
		serveEcho(t, a)
	}
	awaitLocal(t, "fd00:9::1")
	if err := insideChecks[name](); err != nil {
		t.Fatal(err)
	}
}

// askNode makes the parent enrol or withdraw this namespace, and returns when that is done.
func askNode(what string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "%s %d\n", what, cookie)
	_, err = bufio.NewReader(os.Stdin).ReadString('\n') // nothing more comes before the next request
	return err
}

// awaitLocal returns once packets to an address of our own are ours: the kernel adds the local route of an IPv6 address
// in a work item of its own (addrconf_dad_work, net/ipv6/addrconf.c, also for IFA_F_NODAD), which waits for RTNL and so
// for every namespace that is being made or removed. Until then a packet leaves by the prefix route and is lost.
func awaitLocal(t *testing.T, address string) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		routes, err := netlink.RouteGet(net.ParseIP(address))
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("route to %s: %v, %v", address, routes, err)
		}
	}
}

func serveEcho(t *testing.T, address string) {
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "8080"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(conn, conn) // the client sees it if not all came back
			conn.Close()
		}
	}()
	packets, err := net.ListenPacket("udp", net.JoinHostPort(address, "5353"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(append([]byte(address+" "), buffer[:n]...), from) // the client waits for it
		}
	}()
}

func exchangeTCP(network, address string) error {
	conn, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if got := conn.RemoteAddr().String(); got != address {
		return fmt.Errorf("getpeername is %s, dialled %s", got, address)
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return err
	}
	answer := make([]byte, 5)
	_, err = io.ReadFull(conn, answer)
	return err
}

func exchangeUDP(network, address string) error {
	conn, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if got := conn.RemoteAddr().String(); got != address {
		return fmt.Errorf("getpeername is %s, dialled %s", got, address)
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	buffer := make([]byte, 100)
	_, from, err := conn.(*net.UDPConn).ReadFrom(buffer)
	if err == nil && from.String() != address {
		return fmt.Errorf("the answer came from %s, dialled %s", from, address)
	}
	return err
}

// unconnectedUDP asks two services by one socket.
func unconnectedUDP() error {
	conn, err := net.ListenPacket("udp4", ":0")
	if err != nil {
		return err
	}
	defer conn.Close()
	buffer := make([]byte, 100)
	for range 3 {
		for service, endpoint := range map[string]string{"10.96.0.1:53": "10.9.0.1", "10.96.0.2:53": "10.9.0.2"} {
			to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(service))
			if _, err := conn.WriteTo([]byte("hello"), to); err != nil {
				return err
			}
			if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				return err
			}
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return err
			}
			if got := string(buffer[:n]); from.String() != service || got != endpoint+" hello" {
				return fmt.Errorf("sent to %s, got %q from %s", service, got, from)
			}
		}
	}
	return nil
}

// reconnectedUDP connects a socket to a service and then to a plain address: nothing of the service may be left.
func reconnectedUDP() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, to := range []string{"10.96.0.1:53", "10.9.0.1:5353", "10.96.0.2:53"} {
		ap := netip.MustParseAddrPort(to)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}); err != nil {
			return err
		}
		name, err := unix.Getpeername(fd)
		if err != nil {
			return err
		}
		got := name.(*unix.SockaddrInet4)
		if netip.AddrPortFrom(netip.AddrFrom4(got.Addr), uint16(got.Port)) != ap {
			return fmt.Errorf("connected to %s, getpeername is %v:%d", to, got.Addr, got.Port)
		}
	}
	return nil
}

// connectMapped connects an AF_INET6 socket to ::ffff:a.b.c.d.
func connectMapped(kind int, a netip.Addr, port int) error {
	fd, err := unix.Socket(unix.AF_INET6, kind, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrInet6{Addr: a.As16(), Port: port}
	if err := unix.Connect(fd, to); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	name, err := unix.Getpeername(fd)
	if err != nil {
		return err
	}
	if got := name.(*unix.SockaddrInet6); got.Addr != to.Addr || got.Port != port {
		return fmt.Errorf("getpeername is %v:%d", got.Addr, got.Port)
	}
	if _, err := unix.Write(fd, []byte("hello")); err != nil {
		return err
	}
	return receiveFrom(fd, to, kind == unix.SOCK_DGRAM)
}

func unconnectedMapped(a netip.Addr, port int) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrInet6{Addr: a.As16(), Port: port}
	if err := unix.Sendto(fd, []byte("hello"), 0, to); err != nil {
		return err
	}
	return receiveFrom(fd, to, true)
}

func receiveFrom(fd int, want *unix.SockaddrInet6, datagram bool) error {
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return err
	}
	_, from, err := unix.Recvfrom(fd, make([]byte, 100), 0)
	if err != nil || !datagram {
		return err
	}
	if got := from.(*unix.SockaddrInet6); got.Addr != want.Addr || got.Port != want.Port {
		return fmt.Errorf("the answer came from %v:%d", got.Addr, got.Port)
	}
	return nil
}

func refused(network, address string) error {
	start := time.Now()
	conn, err := net.DialTimeout(network, address, 5*time.Second)
	if err == nil {
		conn.Close()
		return errors.New("it was connected")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(start) > time.Second {
		return fmt.Errorf("after %v: %w, want connection refused at once", time.Since(start), err)
	}
	return nil
}
