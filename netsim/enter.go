// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Enter replaces this process with a command in a network namespace and a cgroup. It returns only if it cannot; the
// process is then in a state that is good for nothing but to end.
//
// It may run on the main thread: execve(2) makes the calling thread the only one, with its namespace.
func Enter(netns, cgroup string, command []string) error {
	if len(command) == 0 {
		return fmt.Errorf("enter %s: no command is given", netns)
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("find command: %w", err)
	}
	runtime.LockOSThread()
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("enter cgroup: %w", err)
	}
	if err := enterNamespace(netns); err != nil {
		return err
	}
	if err := unix.Exec(path, command, os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil
}
