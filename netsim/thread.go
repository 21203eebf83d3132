// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs fn on an operating system thread of its own, which may change namespaces: it ends with fn and never
// runs anything else.
//
// It is never the main thread. That one cannot end, so a goroutine that changed its namespace and returned would leave
// it, and with it /proc/PID/ns and every later child, in a pod.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onThread(fn) // cannot be here again while this goroutine holds the main thread
			runtime.UnlockOSThread()
			return
		}
		done <- fn() // not unlocked: the runtime ends the thread
	}()
	return <-done
}

// Within runs fn on a thread of its own in the network namespace at a path.
func Within(netns string, fn func() error) error {
	return onThread(func() error {
		if err := enterNamespace(netns); err != nil {
			return err
		}
		return fn()
	})
}
