// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/netsim/flow"
	"github.com/evenkeel/evenkeel/netsim/flow/tamper"
)

// newFlowCommand is what runs inside pods.
func newFlowCommand() *cobra.Command {
	c := &cobra.Command{
		Use:    "flow",
		Short:  "The two ends of counted flows",
		Hidden: true,
	}
	c.AddCommand(newFlowClientCommand(), newFlowServerCommand(), newFlowRelayCommand(), newFlowProcessorsCommand())
	return command.Group(c)
}

func newFlowClientCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "client < PLAN",
		Short: "Run the flows of a plan, the first line of standard input, and record them until that ends",
		Args:  command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			scheduling := flow.Prefer()
			in, out := flow.Streams()
			return flow.RunClient(c.Context(), in, out, scheduling)
		},
	}
}

func newFlowServerCommand() *cobra.Command {
	var listen []string
	c := &cobra.Command{
		Use:   "server",
		Short: "Answer flows of every kind until standard input ends",
		Args:  command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var on []flow.Port
			for _, text := range listen {
				p, err := flow.ParsePort(text)
				if err != nil {
					return command.Usage(c, fmt.Errorf("--listen: %w", err))
				}
				on = append(on, p)
			}
			scheduling := flow.Prefer()
			in, out := flow.Streams()
			return flow.RunServer(c.Context(), in, out, scheduling, on...)
		},
	}
	c.Flags().StringArrayVar(&listen, "listen", nil, "PROTOCOL:PORT to listen on; default: every protocol on its own port")
	return c
}

func newFlowRelayCommand() *cobra.Command {
	var address string
	var seed uint64
	c := &cobra.Command{
		Use:   "relay --to ADDRESS",
		Short: "Pass flows on, and do the wrong that standard input orders to each: the control of the judge",
		Args:  command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			to, err := netip.ParseAddr(address)
			if err != nil {
				return command.Usage(c, fmt.Errorf("--to %q: %w", address, err))
			}
			scheduling := flow.Prefer()
			in, out := flow.Streams()
			return tamper.Run(c.Context(), in, out, scheduling, to, seed)
		},
	}
	c.Flags().StringVar(&address, "to", "", "address of the servers; each protocol has the same port there")
	c.Flags().Uint64Var(&seed, "seed", 1, "decides when, and to which bit, a wrong is done")
	return c
}

func newFlowProcessorsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "processors",
		Short: "Record when a processor of the machine stood still, until standard input ends",
		Args:  command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			in, out := flow.Streams()
			return flow.RunProcessors(c.Context(), in, out)
		},
	}
}
