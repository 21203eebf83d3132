// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Shim puts this process under the supervisor that listens at socket, and replaces it with a command. It returns only
// if it cannot.
//
// The protocol: the shim sends the id of the thread that will call execve(2), 8 bytes, and the supervisor becomes its
// tracer; then it sends the filter, struct sock_filter for struct sock_filter, and closes the connection. All integers
// are in the machine's byte order.
func Shim(socket string, command []string) error {
	if len(command) == 0 {
		return errors.New("supervise: no command is given")
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("find command: %w", err)
	}
	runtime.LockOSThread() // which the filter and the tracer are bound to
	filter, err := meet(socket)
	if err != nil {
		return fmt.Errorf("meet supervisor at %s: %w", socket, err)
	}
	if err := loadFilter(filter); err != nil {
		return err
	}
	if err := unix.Exec(path, command, os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil
}

func meet(socket string) ([]unix.SockFilter, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var tid [8]byte
	binary.NativeEndian.PutUint64(tid[:], uint64(unix.Gettid()))
	if _, err := conn.Write(tid[:]); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, errors.New("it has refused to supervise this process")
	}
	var filter []unix.SockFilter
	for ; len(text) >= 8; text = text[8:] {
		filter = append(filter, unix.SockFilter{Code: binary.NativeEndian.Uint16(text), Jt: text[2], Jf: text[3],
			K: binary.NativeEndian.Uint32(text[4:])})
	}
	return filter, nil
}

// encodeFilter is the other end of meet.
func encodeFilter(filter []unix.SockFilter) []byte {
	var text []byte
	for _, f := range filter {
		text = binary.NativeEndian.AppendUint16(text, f.Code)
		text = append(text, f.Jt, f.Jf)
		text = binary.NativeEndian.AppendUint32(text, f.K)
	}
	return text
}

// loadFilter loads a seccomp filter for the calling thread and whatever it becomes. Privileged processes need not give
// up new privileges for that.
func loadFilter(filter []unix.SockFilter) error {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("load seccomp filter: %w", errno)
	}
	return nil
}
