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
	"github.com/evenkeel/evenkeel/upgrade"
)

func newDumpCommand(e command.Env) *cobra.Command {
	c := &cobra.Command{
		Use:   "dump services|endpoints|workloads|flows",
		Short: "List what is in the kernel",
		Long: `List what is in the kernel: services, the endpoints behind them, the pods of this node, the connections of workloads.

Without an agent it is read from the pins, with addresses where only the agent knows names. An empty list means that
there is nothing; what cannot be read is an error.`,
		Example: "  evenkeel dump services\n  evenkeel dump flows -o json | jq '.flows[] | select(.stamp != .ran)'",
	}
	c.AddCommand(
		newDumpOf(e, "services", "List services", (*admin.Client).Services,
			func(v *report.View) (*report.Services, error) { return v.Services(), nil }, printServices),
		newDumpOf(e, "endpoints", "List endpoints of services", (*admin.Client).Endpoints,
			func(v *report.View) (*report.Endpoints, error) { return v.Endpoints(), nil }, printEndpoints),
		newDumpOf(e, "workloads", "List the pods of this node, enrolled or not", (*admin.Client).Workloads,
			(*report.View).WorkloadList, printWorkloads),
		newDumpFlows(e),
	)
	return command.Group(c)
}

// newDumpOf makes a command that prints a document of the agent, or one made from the pins.
func newDumpOf[D any](e command.Env, name, short string, ask func(*admin.Client, context.Context) (*D, error),
	read func(*report.View) (*D, error), people func(*table, *D)) *cobra.Command {
	var r reach
	var o command.Output
	c := &cobra.Command{
		Use: name, Short: short, Args: command.NoArgs,
		Example: fmt.Sprintf("  evenkeel dump %s\n  evenkeel dump %s -o json", name, name),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.Check(c); err != nil {
				return err
			}
			document, err := fromAgentOrPins(c.Context(), &r, ask, read)
			if err != nil {
				return err
			}
			return show(c, o, e.Stdout, document, func(t *table) { people(t, document) })
		},
	}
	r.flags(c)
	o.Flag(c)
	return c
}

func fromAgentOrPins[D any](ctx context.Context, r *reach, ask func(*admin.Client, context.Context) (*D, error),
	read func(*report.View) (*D, error)) (*D, error) {
	client := admin.NewClient(r.socket, r.dir)
	defer client.Close()
	document, err := ask(client, ctx)
	if err == nil || !errors.Is(err, admin.ErrNobody) {
		return document, err
	}
	v, closeView, err := report.OpenPins(ctx, r.dir)
	if err != nil {
		return nil, err
	}
	defer closeView()
	return read(v)
}

func newDumpFlows(e command.Env) *cobra.Command {
	var r reach
	var o command.Output
	c := &cobra.Command{
		Use: "flows", Short: "List connections of workloads to services", Args: command.NoArgs,
		Long: `List the connections of workloads to services, TCP and connected UDP, as the sockets of the clients have them: what was
dialled, which endpoint was given, and the generation that the connection is stamped with.`,
		Example: "  evenkeel dump flows\n  evenkeel dump flows -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.Check(c); err != nil {
				return err
			}
			flows, err := r.flows(c.Context())
			if err != nil {
				return err
			}
			return show(c, o, e.Stdout, flows, func(t *table) { printFlows(t, flows) })
		},
	}
	r.flags(c)
	o.Flag(c)
	return c
}

// flows reads the sockets itself and asks the agent only for names.
func (r *reach) flows(ctx context.Context) (*report.Flows, error) {
	w, err := upgrade.OpenWriter(ctx, r.dir)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	flows, err := report.ReadFlows(w)
	if err != nil {
		return nil, err
	}
	client := admin.NewClient(r.socket, r.dir)
	defer client.Close()
	services, endpoints := flows.Refs()
	names, err := client.Names(ctx, services, endpoints)
	switch {
	case err == nil:
		flows.Name(names)
	case !errors.Is(err, admin.ErrNobody):
		return nil, err
	}
	return flows, nil
}

func printServices(t *table, d *report.Services) {
	t.head("SERVICE", "PORT", "ADDRESS", "PROTOCOL", "LEVEL", "ENDPOINTS", "OPTIONS", "ORIGIN")
	for _, s := range d.Services {
		if len(s.Ports) == 0 {
			t.row(s.Name, "", "", "", "", "", unserved(s), s.Origin)
		}
		for _, p := range s.Ports {
			n := 0
			if len(p.Levels) > 0 {
				n = len(p.Levels[0].Endpoints)
			}
			t.row(s.Name, p.Name, p.Address.String(), p.Protocol, p.Level, count(uint64(n)), options(s), s.Origin)
		}
	}
	for _, s := range d.Services {
		for _, p := range s.Problems {
			t.line("  ! %s", p)
		}
	}
}

// unserved says why a service has no port in the kernel.
func unserved(s engine.ServiceView) string {
	switch {
	case s.ExternalName != "":
		return "another name for " + s.ExternalName
	case len(s.Addresses) == 0:
		return "headless"
	case len(s.Problems) == 0:
		return "refused: no port of TCP or UDP"
	}
	return "not served"
}

func options(s engine.ServiceView) string {
	var parts []string
	if s.Affinity > 0 {
		parts = append(parts, fmt.Sprintf("affinity %s", s.Affinity))
	}
	if s.ConsistentHash {
		parts = append(parts, "consistent hash")
	}
	if s.LocalOnly {
		parts = append(parts, "this node only")
	}
	if s.Distribution != "" {
		parts = append(parts, "prefers "+s.Distribution)
	}
	return strings.Join(parts, ", ")
}

func printEndpoints(t *table, d *report.Endpoints) {
	t.head("SERVICE", "DIALLED", "PROTOCOL", "ENDPOINT", "LEVEL", "WEIGHT", "STATE", "POD", "NODE", "ZONE")
	for _, x := range d.Endpoints {
		t.row(x.Service, x.Port.String(), x.Protocol, x.Address.String(), x.Level, count(uint64(x.Weight)),
			conditions(x), x.Workload, x.Node, x.Zone)
	}
}

func conditions(x engine.EndpointView) string {
	switch {
	case x.Adopted && x.Terminating:
		return "terminating, as found"
	case x.Adopted:
		return "ready, as found"
	case x.Ready:
		return "ready"
	case x.Terminating && x.Serving:
		return "terminating, serves"
	case x.Terminating:
		return "terminating"
	}
	return "not ready"
}

func printWorkloads(t *table, d *report.Workloads) {
	t.head("WORKLOAD", "ENROLLED", "ADDRESSES", "SOURCE CHECK", "CANARY", "NETNS", "WHY")
	for _, w := range d.Workloads {
		t.row(w.Name, yes(w.Enrolled), addresses(w.Addresses), mark(w.SourceChecked), mark(w.Canary), w.Netns, w.Reason)
	}
}

func mark(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

func printFlows(t *table, d *report.Flows) {
	t.head("CLIENT", "LOCAL", "PROTOCOL", "SERVICE", "DIALLED", "ENDPOINT", "PEER", "STATE", "STAMP", "RAN", "SINCE")
	for _, f := range d.Flows {
		t.row(f.Client, addressPort(f.Local), f.Protocol, f.Service, addressPort(f.Dialled), f.Endpoint,
			addressPort(f.Peer), f.State, count(uint64(f.Stamp)), count(uint64(f.Ran)), when(f.Since))
	}
}

func addressPort(a netip.AddrPort) string {
	if !a.Addr().IsValid() {
		return fmt.Sprintf("?:%d", a.Port())
	}
	return a.String()
}
