// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/graph"
)

// group makes a command that only has others: it asks for one of them, and names them.
func group(c *cobra.Command) *cobra.Command {
	c.Args, c.SuggestionsMinimumDistance = cobra.ArbitraryArgs, 2
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(c, args[0])
		}
		var names []string
		for _, child := range c.Commands() {
			if !child.Hidden {
				names = append(names, child.Name())
			}
		}
		return usage(c, fmt.Errorf("%s what? %s", c.Name(), either(names)))
	}
	return c
}

// either lists alternatives: "a, b or c".
func either(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// refuseArguments makes what any command says of its arguments an error of the command line.
func refuseArguments(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			err := check(c, args)
			var already *usageError
			if err == nil || errors.As(err, &already) {
				return err
			}
			return usage(c, err)
		}
	}
	for _, child := range c.Commands() {
		refuseArguments(child)
	}
}

// complete tells shells the values of flags that have few: for a flag of that name, wherever it is.
func complete(c *cobra.Command) {
	for flag, values := range map[string][]string{
		"output": {"table", "json"}, "format": graph.Formats(), "log-level": {"debug", "info", "warn", "error"},
		"log-format": {"text", "json"}, "batch": {"-"},
	} {
		if c.Flags().Lookup(flag) != nil {
			mustComplete(c, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
		}
	}
	if c.HasParent() && c.Parent().Name() == "sim" && c.Flags().Lookup("name") != nil {
		mustComplete(c, "name", completeLabs)
	}
	for _, child := range c.Commands() {
		complete(child)
	}
}

// mustComplete panics where a flag was given two completions.
func mustComplete(c *cobra.Command, flag string, how cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, how); err != nil {
		panic(err)
	}
}

// completeLabs offers the labs of this machine.
func completeLabs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	names, err := netsim.Names()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeLab offers them as the one argument of a command.
func completeLab(c *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completeLabs(c, args, begin)
}
