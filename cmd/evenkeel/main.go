// SPDX-License-Identifier: Apache-2.0

// Command evenkeel is the node agent and everything an operator types: it parses flags, composes engine, upgrade and
// netsim, and holds no logic of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// env is what a command may touch of its process, so that a test can run one whole without being one.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
}

// exitError ends the process with a code and no message: the command has already said what there is to say.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, env{os.Stdin, os.Stdout, os.Stderr, os.Getenv}, os.Args[1:])
	stop()
	os.Exit(code)
}

// run executes one command line and returns its exit code: 0 done and healthy, 1 it failed or found something
// unhealthy, 2 the command line was wrong.
func run(ctx context.Context, e env, args []string) int {
	root := newRootCommand(e)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit exitError
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, &usage):
		fmt.Fprintf(e.stderr, "evenkeel: %v\nRun '%s --help'.\n", err, usage.command)
		return 2
	}
	fmt.Fprintf(e.stderr, "evenkeel: %v\n", err)
	return 1
}

// usageError is a command line that cannot be run; command is the one whose help tells how.
type usageError struct {
	command string
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// unknownCommand says which command a typo may have meant.
func unknownCommand(c *cobra.Command, name string) error {
	err := fmt.Errorf("unknown command %q", name)
	if like := c.SuggestionsFor(name); len(like) > 0 {
		err = fmt.Errorf("%w, did you mean %s?", err, strings.Join(like, " or "))
	}
	return usage(c, err)
}

func newRootCommand(e env) *cobra.Command {
	root := &cobra.Command{
		Use:           "evenkeel",
		Short:         "A service mesh data plane in the kernel that can be replaced while it carries traffic",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       releaseName(),
		Args:          cobra.ArbitraryArgs,

		SuggestionsMinimumDistance: 2,

		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return unknownCommand(c, args[0])
		},
	}
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &usageError{command: c.CommandPath(), err: err}
	})
	root.AddCommand(newAgentCommand(e), newEnrolCommand(e), newWithdrawCommand(e), newStatusCommand(e),
		newDumpCommand(e), newExplainCommand(e), newUninstallCommand(e),
		newVersionCommand(e), newUpgradeCommand(e), newDoctorCommand(e), newSimCommand(e), newDemoCommand(e),
		newBenchCommand(e))
	root.InitDefaultCompletionCmd("completion") // cobra adds it later otherwise, and takes any shell's name
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			group(c)
		}
	}
	refuseArguments(root)
	complete(root)
	return root
}
