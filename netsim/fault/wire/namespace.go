// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// inNamespace runs fn on a thread of its own in a network namespace. The thread ends with it; it is never the main
// thread, which cannot.
func inNamespace(netns string, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- inNamespace(netns, fn)
			runtime.UnlockOSThread()
			return
		}
		fd, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- fmt.Errorf("open network namespace: %w", err)
			return
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		done <- fn() // not unlocked: the runtime ends the thread
	}()
	return <-done
}
