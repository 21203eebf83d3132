// SPDX-License-Identifier: Apache-2.0

package load

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Raw system calls keep the Go scheduler out of what is measured: it would hand the processor of a call that blocks to
// another thread, 50,000 times a second. A process that makes them must have no garbage collection going on, and one
// processor more than threads that may block; see Prepare.

func socket(kind int) (int, error) {
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, uintptr(kind|unix.SOCK_CLOEXEC), 0)
	if errno != 0 {
		return -1, fmt.Errorf("open socket: %w", errno)
	}
	return int(fd), nil
}

// target is where a socket connects to, as the kernel takes it.
type target unix.RawSockaddrInet4

func targetOf(a netip.AddrPort) target {
	t := target{Family: unix.AF_INET, Addr: a.Addr().As4()}
	// In network order, whatever this machine's is.
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&t.Port))[:], a.Port())
	return t
}

func connect(fd int, to *target) unix.Errno {
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(to)), unix.SizeofSockaddrInet4)
		if errno != unix.EINTR {
			return errno
		}
	}
}

func read(fd int, buffer *[size]byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(buffer)), size)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// write sends the first n bytes of buffer.
func write(fd int, buffer *[size]byte, n int) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(buffer)), uintptr(n))
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// closeSocket cannot fail in a way that anything could be done about.
func closeSocket(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// resetOnClose makes close() send a RST: the connection leaves nothing behind, on either side.
func resetOnClose(fd int) error {
	l := unix.Linger{Onoff: 1}
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER,
		uintptr(unsafe.Pointer(&l)), unsafe.Sizeof(l), 0)
	if errno != 0 {
		return fmt.Errorf("set SO_LINGER: %w", errno)
	}
	return nil
}

// exchange sends a request and reads the whole answer.
func exchange(fd int, buffer *[size]byte) error {
	if n, errno := write(fd, buffer, size); errno != 0 || n != size {
		return fmt.Errorf("write: %d bytes of %d: %w", n, size, errno)
	}
	for got := 0; got < size; {
		n, errno := read(fd, buffer)
		if errno != 0 {
			return fmt.Errorf("read: %w", errno)
		}
		if n == 0 {
			return fmt.Errorf("read: the server has closed the connection after %d bytes of %d", got, size)
		}
		got += n
	}
	return nil
}
