// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Group makes a command that only has others: it asks for one of them, and names them.
func Group(c *cobra.Command) *cobra.Command {
	c.Args, c.SuggestionsMinimumDistance = cobra.ArbitraryArgs, 2
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknown(c, args[0])
		}
		var names []string
		for _, child := range c.Commands() {
			if !child.Hidden {
				names = append(names, child.Name())
			}
		}
		return Usage(c, fmt.Errorf("%s what? %s", c.Name(), Either(names)))
	}
	return c
}

// Root makes the command of a binary: it prints its help.
func Root(e Env, c *cobra.Command) *cobra.Command {
	c.SetIn(e.Stdin)
	c.SetOut(e.Stdout)
	c.SetErr(e.Stderr)
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return Usage(c, plainFlag(err)) })
	c.SilenceErrors, c.SilenceUsage = true, true
	c.Args, c.SuggestionsMinimumDistance = cobra.ArbitraryArgs, 2
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknown(c, args[0])
		}
		return c.Help()
	}
	return c
}

// flagKinds are what values of flags are, by the type that the flag has.
var flagKinds = map[string]string{
	"bool": "true or false", "int": "a whole number", "int64": "a whole number", "float64": "a number",
	"uint16": "a whole number from 0 to 65535", "uint32": "a whole number from 0 to 4294967295",
	"uint64": "a whole number, not below 0", "duration": "a time, as 500ms or 1m30s",
}

// plainFlag says what is wrong with a value without the words of Go for it.
func plainFlag(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	flag := invalid.GetFlag()
	if flag.Value.Type() == (*path)(nil).Type() {
		instead := ""
		if flag.DefValue != "" {
			instead = " for " + flag.DefValue
		}
		return fmt.Errorf("--%s is empty: it takes a path (%s); or leave it out%s", flag.Name, flag.Usage, instead)
	}
	kind, known := flagKinds[flag.Value.Type()]
	if !known {
		return err
	}
	return fmt.Errorf("--%s %q: it is %s", flag.Name, invalid.GetValue(), kind)
}

// unknown says which command a typo may have meant.
func unknown(c *cobra.Command, name string) error {
	err := fmt.Errorf("unknown command %q", name)
	if like := c.SuggestionsFor(name); len(like) > 0 {
		err = fmt.Errorf("%w, did you mean %s?", err, strings.Join(like, " or "))
	}
	return Usage(c, err)
}

// Either lists alternatives: "a, b or c".
func Either(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// NoArgs refuses arguments.
func NoArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usage(c, fmt.Errorf("argument %q is one too many", args[0]))
	}
	return nil
}

// Exactly refuses another number of arguments.
func Exactly(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			what := fmt.Sprintf("%d arguments are", n)
			if n == 1 {
				what = "1 argument is"
			}
			return Usage(c, fmt.Errorf("%s needed, not %d: %s", what, len(args), c.UseLine()))
		}
		return nil
	}
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
			return Usage(c, err)
		}
	}
	for _, child := range c.Commands() {
		refuseArguments(child)
	}
}
