// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/footprint"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/netsim"
)

// needRoot names what a command of the lab cannot do otherwise.
func needRoot(what string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s needs root, for network namespaces, cgroups and BPF: run it with sudo", what)
	}
	return nil
}

func newSimUpCommand(e command.Env) *cobra.Command {
	var name, ztunnel string
	c := &cobra.Command{
		Use:   "up FILE",
		Short: "Make the lab that a file describes",
		Long: `Make the lab that a file describes and return when it is ready: all servers listen, all agents have
attached and read everything, all pods that should be are enrolled. It stays until "evenkeel sim down". If something
fails, or with Ctrl-C, everything is removed again. With - for FILE it is read from standard input.`,
		Example: "  evenkeel sim up demo.yaml\n  evenkeel sim up demo.yaml --name second",
		Args:    command.Exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := needRoot("sim up"); err != nil {
				return err
			}
			footprint.Brief()
			t, err := readTopology(e.Stdin, args[0], name)
			if err != nil {
				return err
			}
			p := newProgress(e.Stderr)
			start := time.Now()
			options := simOptions(p)
			options.Ztunnel = ztunnel
			lab, err := netsim.Up(c.Context(), t, options)
			p.clear()
			if err != nil {
				return err
			}
			info := lab.Info()
			fmt.Fprintf(e.Stdout, "lab %s is up: %d nodes, %d pods in %.2f s\n", info.Name, len(info.Nodes), len(info.Pods),
				time.Since(start).Seconds())
			for _, pod := range info.Pods {
				if pod.Refusal != "" {
					fmt.Fprintf(e.Stdout, "pod %s/%s is not enrolled: %s\n", pod.Namespace, pod.Name, pod.Refusal)
				}
			}
			printSkipped(e, t)
			return nil
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the lab, instead of that in the file")
	command.PathVar(c.Flags(), &ztunnel, "ztunnel", "", "the ztunnel of a lab with that data plane (default: $"+
		netsim.ZtunnelVariable+")")
	return c
}

func newSimApplyCommand(e command.Env) *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "apply FILE",
		Short: "Change a lab that is up to what a file describes now",
		Long: `Change a lab that is up to what a file describes now, and leave alone what is as it should be: pods,
nodes, wires and documents. A pod whose node, servers, command or network changes is replaced; other changes of a
pod go into its document. An agent that does not run is started.`,
		Example: "  evenkeel sim apply demo.yaml",
		Args:    command.Exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := needRoot("sim apply"); err != nil {
				return err
			}
			footprint.Brief()
			t, err := readTopology(e.Stdin, args[0], name)
			if err != nil {
				return err
			}
			p := newProgress(e.Stderr)
			lab, err := netsim.Attach(t.Name, simOptions(p))
			if err != nil {
				return err
			}
			changes, err := lab.Apply(c.Context(), t)
			p.clear()
			if err != nil {
				return err
			}
			fmt.Fprintf(e.Stdout, "lab %s: %s\n", t.Name, changesText(changes))
			printSkipped(e, t)
			return nil
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the lab, instead of that in the file")
	return c
}

// printSkipped names documents that mean nothing to agents, so that nobody waits for what they describe.
func printSkipped(e command.Env, t *netsim.Topology) {
	for _, s := range t.Skipped {
		fmt.Fprintf(e.Stdout, "%s: %s %s is skipped: agents do not read this kind\n", s.Origin(), s.Kind, s.Name)
	}
}

// changesText says what apply did, and leaves out what it did not.
func changesText(c netsim.Changes) string {
	var parts []string
	for _, part := range []struct {
		n    int
		text string
	}{
		{c.PodsAdded, "pods +%d"}, {c.PodsRemoved, "pods -%d"}, {c.NodesAdded, "nodes +%d"}, {c.NodesRemoved, "nodes -%d"},
		{c.WiresAdded, "wires +%d"}, {c.WiresRemoved, "wires -%d"}, {c.Manifests, "files of documents changed: %d"},
		{c.AgentsStarted, "agents started: %d"}, {c.AgentsStopped, "agents stopped: %d"},
		{c.PodsEnrolled, "pods enrolled: %d"}, {c.PodsWithdrawn, "pods withdrawn: %d"},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf(part.text, part.n))
		}
	}
	if len(parts) == 0 {
		return "nothing had to be changed"
	}
	return strings.Join(parts, ", ")
}

// readTopology reads a file, or standard input for "-"; name, if not empty, is the lab's instead of that in the file.
func readTopology(stdin io.Reader, path, name string) (t *netsim.Topology, err error) {
	if path == "-" {
		t, err = netsim.Parse(stdin, "standard input")
	} else {
		t, err = netsim.ParseFile(path)
	}
	if err != nil {
		return nil, err
	}
	if name != "" {
		t.Name = name
	}
	return t, nil
}

func newSimDownCommand(e command.Env) *cobra.Command {
	var name string
	var every bool
	c := &cobra.Command{
		Use:   "down FILE | --name NAME | --all",
		Short: "Remove a lab",
		Long: `Remove a lab: its processes, namespaces, cgroups, pins and files. It works in whatever state the lab is,
also after an interrupted up or down, without the file, and may be repeated.`,
		Example: "  evenkeel sim down demo.yaml\n  evenkeel sim down --name demo\n  evenkeel sim down --all",
		RunE: func(c *cobra.Command, args []string) error {
			ways := len(args)
			if name != "" {
				ways++
			}
			if every {
				ways++
			}
			if ways != 1 {
				return command.Usage(c, errors.New("it needs one of FILE, --name NAME and --all"))
			}
			if err := needRoot("sim down"); err != nil {
				return err
			}
			names := []string{name}
			all, err := netsim.Names()
			if err != nil {
				return err
			}
			if every {
				names = all
			}
			if len(args) == 1 {
				t, err := readTopology(e.Stdin, args[0], "")
				if err != nil {
					return fmt.Errorf("%w; evenkeel sim down --name NAME needs no file", err)
				}
				names = []string{t.Name}
			}
			var problems []error
			for _, name := range names {
				start := time.Now()
				if err := netsim.Down(c.Context(), name, simOptions(nil)); err != nil {
					problems = append(problems, err)
					continue
				}
				if !slices.Contains(all, name) {
					fmt.Fprintf(e.Stdout, "lab %s was not up\n", name)
					continue
				}
				fmt.Fprintf(e.Stdout, "lab %s is down, in %.2f s\n", name, time.Since(start).Seconds())
			}
			return errors.Join(problems...)
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the lab")
	c.Flags().BoolVar(&every, "all", false, "remove every lab of this machine, also those that others use")
	return c
}

func newSimCollectCommand(e command.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "gc",
		Short: "Remove labs that nobody will take down",
		Long: `Remove labs that nobody will take down: those whose up or down was interrupted, and those of a test
process that has ended. Whatever is up and belongs to someone stays, and so does what another process is working on.`,
		Example: "  evenkeel sim gc",
		Args:    command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := needRoot("sim gc"); err != nil {
				return err
			}
			removed, err := netsim.Collect(c.Context(), simOptions(nil))
			switch {
			case len(removed) > 0:
				fmt.Fprintln(e.Stdout, "removed:", strings.Join(removed, ", "))
			case err == nil:
				fmt.Fprintln(e.Stdout, "there was nothing to remove")
			}
			return err
		},
	}
}
