// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
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
	f.StringVar(&o.Config, "config", "", "what it knows of the lab; it is read once")
	f.DurationVar(&o.Drain, "drain", o.Drain, "how long connections go on after SIGTERM before they are cut")
	f.BoolVar(&o.Plaintext, "plaintext", false, "connect pods without TLS")
	f.StringVar(&level, "log-level", level, "least level that is logged: debug (every failed connection), info, warn, error")
	return c
}
