// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
)

// child is a process that this one talks to. Standard input is what keeps it alive.
type child struct {
	name    string
	command *exec.Cmd
	stdin   io.WriteCloser
	stdout  io.Reader
	stderr  bytes.Buffer
}

// startChild starts a command that nobody has started yet; name is what errors call it.
func startChild(name string, command *exec.Cmd) (*child, error) {
	c := &child{name: name, command: command}
	command.Stderr = &c.stderr
	var err, failed error
	c.stdin, err = command.StdinPipe()
	c.stdout, failed = command.StdoutPipe()
	if err := errors.Join(err, failed); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

// failed ends a child that does not do what it should, and adds to the error what it said.
func (c *child) failed(err error) error { return errors.Join(err, c.close()) }

// close ends the child. It may be called again.
func (c *child) close() error {
	c.stdin.Close()
	if c.command.ProcessState != nil {
		return nil
	}
	if err := c.command.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", c.name, err, bytes.TrimSpace(c.stderr.Bytes()))
	}
	return nil
}
