// SPDX-License-Identifier: Apache-2.0

package ambient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace that sockets are made in.
type namespace struct{ fd int }

func openNamespace(path string) (*namespace, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return &namespace{fd}, nil
}

func (n *namespace) close() error { return os.NewSyscallError("close", unix.Close(n.fd)) }

// do runs fn on a thread in the namespace. What fn starts is not in it.
func (n *namespace) do(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and not unlocked where the thread cannot go back: the runtime ends it
		done <- func() error {
			home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open own network namespace: %w", err)
			}
			defer unix.Close(home)
			if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter network namespace: %w", err)
			}
			err = fn()
			if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
				return errors.Join(err, fmt.Errorf("leave network namespace: %w", back))
			}
			runtime.UnlockOSThread()
			return err
		}()
	}()
	return <-done
}

// listen opens a listener on a port of all of the namespace's addresses, beside those of other processes.
func (n *namespace) listen(ctx context.Context, port uint16) (listener *net.TCPListener, err error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return set(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	}}
	config.SetMultipathTCP(false) // SO_ORIGINAL_DST is of plain TCP
	err = n.do(func() error {
		l, err := config.Listen(ctx, "tcp", fmt.Sprintf("[::]:%d", port))
		if err == nil {
			listener = l.(*net.TCPListener)
		}
		return err
	})
	return listener, err
}

// connectTime is how long a connection may take to be established.
const connectTime = 10 * time.Second

// dial opens a connection from the namespace that its rules do not redirect. A source that is valid is the address that
// it comes from, whosever that is.
func (n *namespace) dial(ctx context.Context, source netip.Addr, to netip.AddrPort) (conn *net.TCPConn, err error) {
	dialer := net.Dialer{Timeout: connectTime, Control: func(network, _ string, c syscall.RawConn) error {
		return set(c, func(fd int) error {
			err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, ownMark)
			switch {
			case err != nil || !source.IsValid():
			case network == "tcp4":
				err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
			default:
				err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
			}
			return err
		})
	}}
	dialer.SetMultipathTCP(false)
	if source.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	err = n.do(func() error {
		c, err := dialer.DialContext(ctx, "tcp", to.String())
		if err == nil {
			conn = c.(*net.TCPConn)
		}
		return err
	})
	return conn, err
}

// set sets options of a socket.
func set(c syscall.RawConn, options func(fd int) error) error {
	var err error
	if failed := c.Control(func(fd uintptr) { err = options(int(fd)) }); failed != nil {
		return failed
	}
	return os.NewSyscallError("setsockopt", err)
}

// soOriginalDst is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST (linux/netfilter_ipv4.h, netfilter_ipv6/ip6_tables.h).
const soOriginalDst = 80

// originalDestination returns what a redirected connection was for.
func originalDestination(conn *net.TCPConn) (to netip.AddrPort, err error) {
	c, err := conn.SyscallConn()
	if err != nil {
		return to, err
	}
	four := peer(conn).Addr().Is4()
	err = errors.Join(c.Control(func(fd uintptr) {
		if four {
			// struct sockaddr_in fits into the sixteen bytes of struct ipv6_mreq.
			var r *unix.IPv6Mreq
			if r, err = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, soOriginalDst); err == nil {
				b := r.Multiaddr
				to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
			}
			return
		}
		// struct sockaddr_in6 fits into struct ipv6_mtuinfo.
		var r *unix.IPv6MTUInfo
		if r, err = unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, soOriginalDst); err == nil {
			var port [2]byte // in network order
			binary.NativeEndian.PutUint16(port[:], r.Addr.Port)
			to = netip.AddrPortFrom(netip.AddrFrom16(r.Addr.Addr), binary.BigEndian.Uint16(port[:]))
		}
	}), err)
	if err != nil {
		return to, fmt.Errorf("ask for what a connection was for: %w", err)
	}
	return to, nil
}

// peer returns who is at the other end.
func peer(conn net.Conn) netip.AddrPort { return plain(conn.RemoteAddr()) }

// local returns this end.
func local(conn net.Conn) netip.AddrPort { return plain(conn.LocalAddr()) }

func plain(a net.Addr) netip.AddrPort {
	t := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(t.Addr().Unmap().WithZone(""), t.Port())
}
