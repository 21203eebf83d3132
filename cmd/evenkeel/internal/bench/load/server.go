// SPDX-License-Identifier: Apache-2.0

package load

import (
	"fmt"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"
)

// backlog is more than there are ever connections to be accepted.
const backlog = 1024

func listen(at netip.AddrPort, kind int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|kind, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, fmt.Errorf("set SO_REUSEADDR: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != nil {
		return -1, fmt.Errorf("listen on %v: %w", at, err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return -1, fmt.Errorf("listen on %v: %w", at, err)
	}
	return fd, nil
}

func accept(fd, flags int) (int, unix.Errno) {
	for {
		conn, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, uintptr(flags|unix.SOCK_CLOEXEC), 0, 0)
		if errno != unix.EINTR && errno != unix.ECONNABORTED {
			return int(conn), errno
		}
	}
}

// ServeOne echoes what comes on one connection after the other: the fewest system calls there can be. It calls ready
// once it listens and returns only with an error.
func ServeOne(at netip.AddrPort, ready func() error) error {
	runtime.LockOSThread()
	fd, err := listen(at, 0)
	if err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	var buffer [size]byte
	for {
		conn, errno := accept(fd, 0)
		if errno != 0 {
			return fmt.Errorf("accept: %w", errno)
		}
		for {
			n, errno := read(conn, &buffer)
			if errno != 0 || n == 0 { // the client resets connections that it is done with
				break
			}
			if _, errno := write(conn, &buffer, n); errno != 0 {
				break
			}
		}
		closeSocket(conn)
	}
}

// ServeMany echoes what comes on any number of connections. It calls ready once it listens and returns only with an
// error.
func ServeMany(at netip.AddrPort, ready func() error) error {
	runtime.LockOSThread()
	fd, err := listen(at, unix.SOCK_NONBLOCK)
	if err != nil {
		return err
	}
	e, err := newEpoll()
	if err != nil {
		return err
	}
	if err := e.add(fd, unix.EPOLLIN); err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	var buffer [size]byte
	for {
		events, err := e.wait(-1)
		if err != nil {
			return err
		}
		for _, event := range events {
			if int(event.Fd) == fd {
				if err := acceptAll(e, fd); err != nil {
					return err
				}
				continue
			}
			conn := int(event.Fd)
			n, errno := read(conn, &buffer)
			if errno == unix.EAGAIN {
				continue
			}
			if errno == 0 && n > 0 {
				_, errno = write(conn, &buffer, n)
			}
			if errno != 0 || n == 0 {
				closeSocket(conn)
			}
		}
	}
}

func acceptAll(e *epoll, fd int) error {
	for {
		conn, errno := accept(fd, unix.SOCK_NONBLOCK)
		if errno == unix.EAGAIN {
			return nil
		}
		if errno != 0 {
			return fmt.Errorf("accept: %w", errno)
		}
		if err := e.add(conn, unix.EPOLLIN); err != nil {
			return err
		}
	}
}
