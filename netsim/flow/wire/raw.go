// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawSocket reads and writes a socket without telling Go's scheduler, which need not know: the socket does not block.
// Where it is told, its monitor takes the processor from a process that has one, amid a write. A frame costs 40 us this
// way and 55 the other; docs/design/flow.md has the measurement.
type rawSocket struct {
	raw     syscall.RawConn
	packets bool
	in, out transfer
}

// transfer is a read or a write that goes on, and how it went.
type transfer struct {
	b     []byte
	n     int
	errno syscall.Errno
	do    func(fd uintptr) (done bool)
}

// newRawSocket makes one of a TCP or a connected UDP socket.
func newRawSocket(socket Socket) (*rawSocket, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	packets := socket.LocalAddr().Network() == "udp"
	s := &rawSocket{raw: raw, packets: packets}
	s.in.do = func(fd uintptr) bool { return s.in.call(unix.SYS_RECVFROM, fd, 0) }
	s.out.do = func(fd uintptr) bool { return s.out.call(unix.SYS_SENDTO, fd, unix.MSG_NOSIGNAL) }
	return s, nil
}

// call returns false if it has to wait.
func (t *transfer) call(number, fd uintptr, flags uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall6(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.b))), uintptr(len(t.b)),
			flags, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		t.n, t.errno = int(n), errno
		return errno != unix.EAGAIN
	}
}

// Read is io.Reader. Of a UDP socket it reads one datagram.
func (s *rawSocket) Read(b []byte) (int, error) {
	s.in.b = b
	if err := s.raw.Read(s.in.do); err != nil {
		return 0, err
	}
	if s.in.errno != 0 {
		return 0, os.NewSyscallError("read", s.in.errno)
	}
	if s.in.n == 0 && !s.packets && len(b) > 0 {
		return 0, io.EOF
	}
	return s.in.n, nil
}

// Write is io.Writer. To a UDP socket it writes one datagram.
func (s *rawSocket) Write(b []byte) (written int, err error) {
	for {
		s.out.b = b[written:]
		if err := s.raw.Write(s.out.do); err != nil {
			return written, err
		}
		if s.out.errno != 0 {
			return written, os.NewSyscallError("write", s.out.errno)
		}
		written += s.out.n
		if written == len(b) {
			return written, nil
		}
	}
}
