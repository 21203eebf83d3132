// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a blocking socket of the kernel and the family that its addresses are written in.
type socket struct {
	fd   int
	inet bool // AF_INET; otherwise AF_INET6
}

// openSocket opens a socket that can talk to to; an IPv4 address is reached through AF_INET6 if mapped.
func openSocket(to netip.Addr, kind int, mapped bool, timeout time.Duration) (socket, error) {
	s := socket{inet: to.Is4() && !mapped}
	family := unix.AF_INET6
	if s.inet {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return socket{}, fmt.Errorf("open socket: %w", err)
	}
	s.fd = fd
	tv := unix.NsecToTimeval(timeout.Nanoseconds())
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} { // the first bounds connect(), too
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &tv); err != nil {
			return socket{}, errors.Join(fmt.Errorf("set timeout: %w", err), s.close())
		}
	}
	return s, nil
}

func (s socket) close() error { return unix.Close(s.fd) }

func (s socket) sockaddr(to netip.AddrPort) unix.Sockaddr {
	if s.inet {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
}

// addressOf keeps the mapped form of IPv4 on AF_INET6: it is what the application sees.
func addressOf(sa unix.Sockaddr) string {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)).String()
	}
	return ""
}

// errnoName returns the symbol of an error of a system call, or its text if it has none.
func errnoName(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		if name := unix.ErrnoName(errno); name != "" {
			return name
		}
	}
	return err.Error()
}

// monotonic returns CLOCK_MONOTONIC in nanoseconds, which all processes of a machine share.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // the clock is always there
	}
	return ts.Nano()
}
