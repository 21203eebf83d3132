// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// connectMPTCP connects by MPTCP: its hooks run on the first subflow, getpeername() on the socket above.
func connectMPTCP() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ENOPROTOOPT) {
		return nil // the kernel has no MPTCP, or it is switched off, so nobody can
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := netip.AddrPortFrom(service4, 80)
	d := datagrams{fd, unix.AF_INET}
	if err := d.connect(to); err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte("hello")); err != nil {
		return err
	}
	if _, err := unix.Read(fd, make([]byte, 5)); err != nil {
		return err
	}
	name, err := unix.Getpeername(fd)
	if err != nil {
		return err
	}
	if got := addrPort(name); got != to {
		return fmt.Errorf("getpeername is %s, want %s", got, to)
	}
	return nil
}
