// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// selfNetns is the namespace of the calling thread. /proc/self would be that of the process's first one.
const selfNetns = "/proc/thread-self/ns/net"

// firstNetns is the namespace of the first process.
const firstNetns = "/proc/1/ns/net"

// errNotNetns says that a file leads to no network namespace.
var errNotNetns = errors.New("not a network namespace")

// openNetns opens the file of a network namespace: a bind mount such as /run/netns/NAME, or /proc/PID/ns/net. It
// refuses everything else with an error that wraps errNotNetns, and opens nothing before it knows: opening a device or
// a FIFO can have effects.
func openNetns(path string) (*os.File, error) {
	found, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(found)
	var about unix.Statfs_t
	if err := unix.Fstatfs(found, &about); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if about.Type != unix.NSFS_MAGIC {
		return nil, fmt.Errorf("%s is %w: give the file under /run/netns or /proc/PID/ns/net", path, errNotNetns)
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/thread-self/fd/%d", found), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	ns := os.NewFile(uintptr(fd), path)
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		ns.Close()
		return nil, fmt.Errorf("%s is a namespace, but %w: its name ends in ns/net", path, errNotNetns)
	}
	return ns, nil
}

// sameNamespace reports whether two open files are of one namespace: while it is open, its inode means no other.
func sameNamespace(a, b *os.File) (bool, error) {
	x, err := a.Stat()
	if err != nil {
		return false, err
	}
	y, err := b.Stat()
	if err != nil {
		return false, err
	}
	return os.SameFile(x, y), nil
}

// isNode reports whether a namespace is the node's: the caller's own, or that of the first process. In a container, or
// where the first process has more rights, that one cannot be looked at; then the caller's own is all there is to go
// by.
func isNode(ns *os.File) (bool, error) {
	for _, path := range []string{selfNetns, firstNetns} {
		node, err := os.Open(path)
		if path == firstNetns && errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("compare with the namespace of the node: %w", err)
		}
		same, err := sameNamespace(ns, node)
		node.Close()
		if same || err != nil {
			return same, err
		}
	}
	return false, nil
}

// inside runs do on a thread that is in the namespace, and returns when it has.
func inside(ns *os.File, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- visit(ns, do) }()
	return <-done
}

// visit must be all that its goroutine does. A thread that cannot go back is lost to the runtime: the goroutine ends
// with the thread locked, which ends the thread. That works for every thread but the first of the process, whose
// namespace /proc/PID/ns/net shows as well; so that one never enters another namespace.
func visit(ns *os.File, do func() error) error {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		return inside(ns, do) // on another thread, for this one is held meanwhile
	}
	home, err := os.Open(selfNetns)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("remember own namespace: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter namespace %s: %w", ns.Name(), err)
	}
	err = do()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leave namespace %s: %w", ns.Name(), back))
	}
	runtime.UnlockOSThread()
	return err
}
