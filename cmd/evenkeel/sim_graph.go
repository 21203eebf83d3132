// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/netsim/graph"
)

func newSimGraphCommand(e command.Env) *cobra.Command {
	var lab labFlag
	var format string
	c := &cobra.Command{
		Use:   "graph [NAME]",
		Short: "Draw a lab",
		Long: `Draw a lab: nodes, wires and pods as they are now. html is one file that needs no network and nothing
else to be looked at in a browser.`,
		Example: "  evenkeel sim graph --format html > lab.html\n  evenkeel sim graph --format dot | dot -Tsvg > lab.svg",
		Args:    atMostOne,

		ValidArgsFunction: completeLab,

		RunE: func(c *cobra.Command, args []string) error {
			if err := lab.named(c, args); err != nil {
				return err
			}
			if !slices.Contains(graph.Formats(), format) {
				return command.Usage(c, fmt.Errorf("--format %q: it is %s", format, command.Either(graph.Formats())))
			}
			l, err := lab.attach()
			if err != nil {
				return err
			}
			info, err := labInfo(l)
			if err != nil {
				return err
			}
			return graph.Write(e.Stdout, info, format)
		},
	}
	lab.flag(c)
	c.Flags().StringVar(&format, "format", graph.Mermaid, "mermaid, dot or html")
	return c
}
