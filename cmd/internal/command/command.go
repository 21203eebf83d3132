// SPDX-License-Identifier: Apache-2.0

// Package command is what the binaries have in common as commands: what they touch of their process, their exit codes,
// and how they answer a command line that is wrong.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Env is what a command may touch of its process, so that a test can run one whole without being one.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
}

// Exit is an error that ends the process with a code and no message: the command has already said what there is to say.
type Exit int

func (e Exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usageError is a command line that cannot be run; command is the one whose help tells how.
type usageError struct {
	command string
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Usage makes err one of the command line of c: the exit code is 2, and the message ends with whose help tells more.
func Usage(c *cobra.Command, err error) error { return &usageError{c.CommandPath(), err} }

// Main runs the command line of this process until that has ended, or a signal asks it to. It returns the exit code.
func Main(root func(Env) *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, root, Env{os.Stdin, os.Stdout, os.Stderr, os.Getenv}, os.Args[1:])
}

// Run executes one command line and returns its exit code: 0 done and well, 1 it failed or found something that is not
// well, 2 the command line was wrong.
func Run(ctx context.Context, root func(Env) *cobra.Command, e Env, args []string) int {
	c := root(e)
	c.SetArgs(args)
	refuseArguments(c)
	err := c.ExecuteContext(ctx)
	var exit Exit
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, &usage):
		fmt.Fprintf(e.Stderr, "%s: %v\nRun '%s --help'.\n", c.Name(), err, usage.command)
		return 2
	}
	fmt.Fprintf(e.Stderr, "%s: %v%s\n", c.Name(), err, remedy(err, os.Geteuid()))
	return 1
}

// remedy is what to do about an error that says only that something is not permitted to the user.
func remedy(err error, user int) string {
	if user != 0 && errors.Is(err, fs.ErrPermission) {
		return ": run it as root, with sudo"
	}
	return ""
}
