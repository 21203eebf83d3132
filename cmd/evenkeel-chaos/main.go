// SPDX-License-Identifier: Apache-2.0

// Command evenkeel-chaos says whether a release may be rolled out: it watches counted flows while faults happen, and
// judges what they recorded.
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
}

// exitError ends the process with a code and no message: the command has already said what there is to say.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usageError is a command line that cannot be run; command is the one whose help tells how.
type usageError struct {
	command string
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(c *cobra.Command, err error) error { return &usageError{c.CommandPath(), err} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, env{os.Stdin, os.Stdout, os.Stderr}, os.Args[1:])
	stop()
	os.Exit(code)
}

// run executes one command line and returns its exit code: 0 every expectation came true, 1 it failed or one did not,
// 2 the command line was wrong.
func run(ctx context.Context, e env, args []string) int {
	root := newRootCommand(e)
	root.SetArgs(args)
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	err := root.ExecuteContext(ctx)
	var exit exitError
	var wrong *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, &wrong):
		fmt.Fprintf(e.stderr, "evenkeel-chaos: %v\nRun '%s --help'.\n", err, wrong.command)
		return 2
	}
	fmt.Fprintf(e.stderr, "evenkeel-chaos: %v\n", err)
	return 1
}

func newRootCommand(e env) *cobra.Command {
	root := &cobra.Command{
		Use:           "evenkeel-chaos",
		Short:         "Break what carries traffic, and say what became of every connection",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          helpOrUnknown,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage(c, err) })
	root.AddCommand(newJudgeCommand(e), newFaultCommand(e), newFlowCommand())
	return root
}

// helpOrUnknown is what a command does that only has others below it.
func helpOrUnknown(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	c.SuggestionsMinimumDistance = 2
	err := fmt.Errorf("unknown command %q", args[0])
	if like := c.SuggestionsFor(args[0]); len(like) > 0 {
		err = fmt.Errorf("%w, did you mean %s?", err, strings.Join(like, " or "))
	}
	return usage(c, err)
}

// noArgs refuses what a command has no use for.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(c, fmt.Errorf("it takes no argument, and not %q", args[0]))
	}
	return nil
}
