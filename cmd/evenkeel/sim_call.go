// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/netsim"
)

// defaultCallTimeout is how long an answer is waited for.
const defaultCallTimeout = 5 * time.Second

func newSimCallCommand(e command.Env) *cobra.Command {
	var lab labFlag
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "call POD|node/NODE ADDRESS [TEXT]",
		Short: "Ask a server from a pod or a node, and print its answer",
		Long: `Ask a server once from a pod (NAME or NAMESPACE/NAME) or a node, and print what it answers:
http://ADDRESS:PORT/PATH (a POST if there is a text), tcp://ADDRESS:PORT until the other side closes,
udp://ADDRESS:PORT one datagram. It needs no client on this machine. It exits 1 if there is no answer: refused,
unreachable, or not in time.`,
		Example: `  evenkeel sim call client http://10.96.0.10/
  evenkeel sim call --name demo client-left udp://10.96.0.20:7 "who? me"`,
		Args: between(2, 3, "a pod or node, an address, and at most one text"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := netsim.CheckCall(args[1]); err != nil {
				return command.Usage(c, err)
			}
			l, err := lab.attach()
			if err != nil {
				return err
			}
			where, err := findCommander(l, args[0])
			if err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			return commandFailed(e, where.Enter(append([]string{self, "sim", "dial", "--timeout", timeout.String(), "--"}, args[1:]...)))
		},
	}
	lab.flag(c)
	c.ValidArgsFunction = completePlaces(&lab)
	c.Flags().DurationVar(&timeout, "timeout", defaultCallTimeout, "how long to wait for the answer")
	return c
}

// newSimDialCommand is what call becomes once it is in the pod.
func newSimDialCommand(e command.Env) *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use:    "dial ADDRESS [TEXT]",
		Short:  "Ask a server from here",
		Hidden: true,
		Args:   between(1, 2, "an address, and at most one text"),
		RunE: func(c *cobra.Command, args []string) error {
			text := ""
			if len(args) == 2 {
				text = args[1]
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			answer, err := netsim.Call(ctx, args[0], text)
			if err != nil {
				return err
			}
			if !bytes.HasSuffix(answer, []byte("\n")) {
				answer = append(answer, '\n')
			}
			_, err = e.Stdout.Write(answer)
			return err
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", defaultCallTimeout, "how long to wait for the answer")
	return c
}
