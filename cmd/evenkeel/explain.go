// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/admin"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/engine"
)

func newExplainCommand(e command.Env) *cobra.Command {
	var r reach
	var o command.Output
	c := &cobra.Command{
		Use:   "explain NAMESPACE/POD SERVICE:PORT[/udp]",
		Short: "Say what becomes of a connection of a pod to a service, and why",
		Long: `Say what becomes of a connection of a pod of this node to a service as the kernel stands now: which endpoints it can be
given and why these, or why it is refused, or why it goes its own way; and which generation it would run.

SERVICE is NAMESPACE/NAME, a name in the pod's own namespace, or an address. Names only the agent knows; of an address
the kernel tells without one, too. It exits 1 for a pod or a service that nobody on this node has heard of.`,
		Example: `  evenkeel explain default/client web:80
  evenkeel explain default/client kube-system/dns:53/udp
  evenkeel explain default/client '[fd00:96::10]:80'`,
		Args: command.Exactly(2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.Check(c); err != nil {
				return err
			}
			service, port, protocol := splitTarget(args[1])
			q, err := report.ParseQuestion(args[0], service, port, protocol)
			if err != nil {
				return command.Usage(c, err)
			}
			x, err := r.explain(c.Context(), q)
			if err != nil {
				return err
			}
			if err := show(c, o, e.Stdout, x, func(t *table) { printExplanation(t, x) }); err != nil {
				return err
			}
			if x.Outcome == engine.OutcomeUnknown {
				return command.Exit(1)
			}
			return nil
		},
	}
	r.flags(c)
	o.Flag(c)
	return c
}

// splitTarget takes SERVICE:PORT[/PROTOCOL] apart; what is missing is empty. The brackets of an IPv6 address go.
func splitTarget(target string) (service, port, protocol string) {
	service = target
	if i := strings.LastIndexByte(target, ':'); i >= 0 {
		service, port = target[:i], target[i+1:]
		port, protocol, _ = strings.Cut(port, "/")
	}
	if inner, ok := strings.CutPrefix(service, "["); ok {
		service = strings.TrimSuffix(inner, "]")
	}
	return service, port, protocol
}

// explain asks the agent. Without one, what is in the kernel still tells about an address.
func (r *reach) explain(ctx context.Context, q report.Question) (*report.Explanation, error) {
	client := admin.NewClient(r.socket, r.dir)
	defer client.Close()
	x, err := client.Explain(ctx, q)
	if err == nil || !errors.Is(err, admin.ErrNobody) {
		return x, err
	}
	if _, parsed := netip.ParseAddr(q.Service); parsed != nil {
		return nil, fmt.Errorf("%w, and nobody else knows names: start it, or ask for the service's address", err)
	}
	v, closeView, err := report.OpenPins(ctx, r.dir)
	if err != nil {
		return nil, err
	}
	defer closeView()
	return v.Explain(q)
}

func printExplanation(t *table, x *report.Explanation) {
	t.line("%s -> %s: %s", x.Workload, x.Service, x.Outcome)
	t.line("  %s", x.Reason)
	for _, p := range x.Ports {
		t.head(p.Address.String(), p.Outcome, p.Why)
		if p.Given.IsValid() {
			t.line("  the next connection gets %s", p.Given)
		}
		for _, endpoint := range p.Endpoints {
			t.row("  "+endpoint.Address.String(), "weight "+count(uint64(endpoint.Weight)), endpoint.Workload,
				endpoint.Node, endpoint.Zone)
		}
	}
	if x.Generation == 0 {
		return
	}
	t.head("generation", generationText(x))
}

func generationText(x *report.Explanation) string {
	s := fmt.Sprintf("%d", x.Generation)
	if x.Canary != 0 {
		s += fmt.Sprintf(", or %d for %d of 4096 connections", x.Canary, x.Share)
	}
	return s
}
