// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/ambient"
)

// newSimAmbientCommand is the proxy of a node in labs with the data plane ambient.
func newSimAmbientCommand(e command.Env) *cobra.Command {
	o := ambient.Options{Drain: ambient.DefaultDrain}
	level := "info"
	c := &cobra.Command{
		Use:    "ambient --config FILE",
		Short:  "Hold the connections of a node's pods, as ztunnel does",
		Hidden: true,
		Args:   command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Drain < 0 {
				return command.Usage(c, fmt.Errorf("--drain %s is negative", o.Drain))
			}
			if o.Config == "" {
				return command.Usage(c, errors.New("--config is needed"))
			}
			log, err := newLog(e.Stderr, level, "text")
			if err != nil {
				return command.Usage(c, err)
			}
			o.Log, o.Notify = log, e.Getenv("NOTIFY_SOCKET")
			return ambient.Run(c.Context(), o)
		},
	}
	f := c.Flags()
	command.PathVar(f, &o.Config, "config", "", "what it knows of the lab; it is read once")
	f.DurationVar(&o.Drain, "drain", o.Drain, "how long connections go on after SIGTERM before they are cut")
	f.BoolVar(&o.Plaintext, "plaintext", false, "connect pods without TLS")
	f.StringVar(&level, "log-level", level, "least level that is logged: debug (every failed connection), info, warn, error")
	return c
}

// newSimHandoverCommand gives a ztunnel the pods of its node.
func newSimHandoverCommand(e command.Env) *cobra.Command {
	var h ambient.Handover
	c := &cobra.Command{
		Use:    "handover --config FILE --socket PATH",
		Short:  "Give ztunnels the network namespaces of a node's pods",
		Hidden: true,
		Args:   command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if h.Config == "" || h.Socket == "" {
				return command.Usage(c, errors.New("--config and --socket are needed"))
			}
			var err error
			if h.Log, err = newLog(e.Stderr, "info", "text"); err != nil {
				return err
			}
			return ambient.ServeZDS(c.Context(), h)
		},
	}
	f := c.Flags()
	command.PathVar(f, &h.Config, "config", "", "what is known of the lab; it is read for each ztunnel that comes")
	command.PathVar(f, &h.Socket, "socket", "", "socket that ztunnels dial")
	f.StringVar(&h.Notify, "notify", "", "socket that is told when a ztunnel has taken all pods")
	return c
}

// newSimIsolateCommand turns into a program that must not share its ports.
func newSimIsolateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:    "isolate -- COMMAND [ARGUMENT…]",
		Short:  "Turn into a command in a network namespace of its own",
		Hidden: true,
		Args:   atLeast(1, "a command"),
		RunE:   func(_ *cobra.Command, args []string) error { return netsim.Isolate(args) },
	}
	c.Flags().SetInterspersed(false)
	return c
}
