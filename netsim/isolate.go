// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// Isolate replaces this process with a command in a network namespace of its own, that has loopback and nothing else. It
// returns only if it cannot.
func Isolate(command []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("find command: %w", err)
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("create network namespace: %w", err)
	}
	s, err := newStack()
	if err != nil {
		return err
	}
	err = s.up("lo", loopback)
	s.Close()
	if err != nil {
		return err
	}
	if err := unix.Exec(path, command, os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil
}
