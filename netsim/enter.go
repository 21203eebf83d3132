// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// CommandError says that a command cannot be run, wherever it is entered.
type CommandError struct {
	Command string
	Missing bool // there is no such file; otherwise there is, but it cannot be executed
	Err     error
}

func (e *CommandError) Error() string { return fmt.Sprintf("run %s: %v", e.Command, e.Err) }
func (e *CommandError) Unwrap() error { return e.Err }

// Enter replaces this process with a command in a network namespace and a cgroup. It returns only if it cannot; the
// process is then in a state that is good for nothing but to end. It returns a [CommandError] if that is the command's
// fault.
//
// It may run on the main thread: execve(2) makes the calling thread the only one, with its namespace.
func Enter(netns, cgroup string, command []string) error {
	if len(command) == 0 {
		return fmt.Errorf("enter %s: no command is given", netns)
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		var of *exec.Error // repeats the command
		if errors.As(err, &of) {
			err = of.Err
		}
		missing := errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist)
		return &CommandError{Command: command[0], Missing: missing, Err: err}
	}
	runtime.LockOSThread()
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("enter cgroup: %w", err)
	}
	if err := enterNamespace(netns); err != nil {
		return err
	}
	if err := unix.Exec(path, command, os.Environ()); err != nil {
		return &CommandError{Command: path, Err: err} // the file was there: it is its interpreter that is not
	}
	return nil
}
