// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/netsim/flow"
)

// newFlowCommand is what runs inside pods.
func newFlowCommand(e env) *cobra.Command {
	c := &cobra.Command{
		Use:    "flow",
		Short:  "The two ends of counted flows",
		Hidden: true,
		Args:   cobra.ArbitraryArgs,
		RunE:   helpOrUnknown,
	}
	c.AddCommand(newFlowClientCommand(e), newFlowServerCommand(e))
	return c
}

func newFlowClientCommand(e env) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "client --record FILE < PLAN",
		Short: "Run the flows of a plan, the first line of standard input, until standard input ends",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				return usage(c, errors.New("--record FILE is needed"))
			}
			file, err := os.Create(path)
			if err != nil {
				return fmt.Errorf("create recording: %w", err)
			}
			err = flow.RunClient(c.Context(), e.stdin, e.stdout, file, flow.Prefer())
			return errors.Join(err, file.Close())
		},
	}
	c.Flags().StringVar(&path, "record", "", "file to write the recording to")
	return c
}

func newFlowServerCommand(e env) *cobra.Command {
	return &cobra.Command{
		Use:   "server",
		Short: "Answer flows of every kind until standard input ends",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			flow.Prefer()
			return flow.RunServer(c.Context(), e.stdin, e.stdout)
		},
	}
}
