// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
)

// sweep ends the connected UDP sockets of every workload whose endpoint is gone.
func (e *Engine) sweep() error {
	if e.opts.DestroyUDP == nil {
		return nil
	}
	cookies, names, err := lookupAll[uint64, bpf.MeshWorkloadName](e.opts.Maps.WorkloadNames)
	if err != nil {
		return fmt.Errorf("read map workload_names: %w", err)
	}
	if len(cookies) == 0 {
		return nil
	}
	it, err := link.AttachIter(link.IterOptions{Program: e.opts.DestroyUDP})
	if err != nil {
		return fmt.Errorf("attach iterator over UDP sockets: %w", err)
	}
	defer it.Close()
	return onOwnThread(func() error {
		var errs []error
		for i, cookie := range cookies {
			err := sweepNamespace(it, cString(names[i].Netns[:]), cookie)
			if err != nil && e.isEnrolled(cookie) {
				errs = append(errs, fmt.Errorf("end UDP sockets of workload %s: %w", cString(names[i].Pod[:]), err))
			}
		}
		return errors.Join(errs...)
	})
}

// isEnrolled reports whether the workload is there still: what happens to the namespace of one that left is no error.
func (e *Engine) isEnrolled(cookie uint64) bool {
	var name bpf.MeshWorkloadName
	return e.opts.Maps.WorkloadNames.Lookup(cookie, &name) == nil
}

// onOwnThread runs do on a thread that ends with it, so that do may leave it in any namespace. The first thread of a
// process does not end, it would only be parked, and keep a pod's namespace alive for ever: another is taken then.
func onOwnThread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with this goroutine
		if unix.Gettid() != unix.Getpid() {
			done <- do()
			return
		}
		err := onOwnThread(do) // this goroutine occupies the first thread until the other has begun, and longer
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// sweepNamespace runs the iterator over the UDP sockets of one network namespace, which the thread then is in. The
// kernel binds the iterator to the namespace when it is opened (bpf_iter_init_seq_net).
func sweepNamespace(it *link.Iter, path string, cookie uint64) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	there, err := netnsCookie()
	if err != nil {
		return fmt.Errorf("read cookie of network namespace %s: %w", path, err)
	}
	if there != cookie {
		return fmt.Errorf("network namespace %s has cookie %d, the workload was enrolled with %d", path, there, cookie)
	}
	file, err := it.Open()
	if err != nil {
		return fmt.Errorf("open iterator in network namespace %s: %w", path, err)
	}
	_, err = io.Copy(io.Discard, file)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("iterate in network namespace %s: %w", path, err)
	}
	return nil
}

// netnsCookie returns the cookie of the thread's network namespace (SO_NETNS_COOKIE, Linux 5.14).
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
}

func cString(b []int8) string {
	s := make([]byte, 0, len(b))
	for _, c := range b {
		if c == 0 {
			break
		}
		s = append(s, byte(c))
	}
	return string(s)
}
