// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
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
