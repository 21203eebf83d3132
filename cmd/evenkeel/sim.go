// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/netsim"
)

func newSimCommand(e command.Env) *cobra.Command {
	c := &cobra.Command{
		Use:   "sim",
		Short: "Build clusters out of network namespaces on this machine",
		Long: `Build clusters out of network namespaces on this machine: nodes, wires between them, pods with addresses
and servers, and one agent per node, from one YAML file. It needs root and no container runtime, and nothing of it
appears in the network namespace of the host.

The file has one Topology and any Kubernetes documents (Service, EndpointSlice, …) that the agents are to read:

  apiVersion: netsim.evenkeel.io/v1
  kind: Topology
  metadata: {name: demo}
  spec:
    nodes:
    - {name: a, podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"]}
    - {name: b, podCIDRs: [10.10.2.0/24, "fd00:10:2::/64"]}
    wires: [{between: [a, b]}]
    agent: {enabled: true}
    pods:
    - {name: client, node: a, enrol: true}
    - {name: web, node: b, count: 3, labels: {app: web}, serve: ["http :8080"], enrol: true}
  ---
  apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: default}
  spec: {clusterIP: 10.96.0.10, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}

While pods are enrolled, and removed, /sys/kernel/rcu_expedited is 1: to attach the check of a pod's packets' sources
takes the kernel 13 ms otherwise. Where it cannot be set, agent: {enabled: true, unchecked: true} leaves the check out.`,
		Example: `  evenkeel sim up demo.yaml
  evenkeel sim call client http://10.96.0.10/
  evenkeel sim inspect
  evenkeel sim down --name demo`,
	}
	c.AddCommand(newSimUpCommand(e), newSimApplyCommand(e), newSimDownCommand(e), newSimListCommand(e),
		newSimInspectCommand(e), newSimExecCommand(e), newSimCallCommand(e), newSimLogsCommand(e), newSimGraphCommand(e), newSimCollectCommand(e),
		newSimServeCommand(), newSimDialCommand(e), newSimEnterCommand(e), newSimAmbientCommand(e), newSimHandoverCommand(e),
		newSimIsolateCommand())
	return command.Group(c)
}

// simOptions are those of labs of the command line: they outlive it, and run this very program, whatever it is called.
func simOptions(p *progress) netsim.Options {
	o := netsim.Options{Binary: "/proc/self/exe", Detached: true}
	if self, err := os.Executable(); err == nil {
		o.Binary = self
	}
	if p != nil {
		o.Progress = p.show
	}
	return o
}

// labFlag is --name for commands on a lab that is up.
type labFlag string

func (l *labFlag) flag(c *cobra.Command) {
	c.Flags().StringVar((*string)(l), "name", "", "lab; not needed where there is only one")
}

// attach returns the lab that the command is about.
func (l labFlag) attach() (*netsim.Lab, error) {
	name := string(l)
	if name == "" {
		names, err := netsim.Names()
		if err != nil {
			return nil, err
		}
		if name, err = onlyLab(names, isUp); err != nil {
			return nil, err
		}
	}
	return netsim.Attach(name, simOptions(nil))
}

// isUp tells whether a lab is whole.
func isUp(name string) (bool, error) {
	_, err := netsim.Attach(name, simOptions(nil))
	if errors.Is(err, netsim.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// onlyLab returns the only lab that is up: what was left halfway does not count.
func onlyLab(names []string, isUp func(string) (bool, error)) (string, error) {
	var up, halfway []string
	for _, name := range names {
		whole, err := isUp(name)
		switch {
		case err != nil:
			return "", err
		case whole:
			up = append(up, name)
		default:
			halfway = append(halfway, name)
		}
	}
	switch {
	case len(up) == 1:
		return up[0], nil
	case len(up) > 1:
		return "", fmt.Errorf("there are several labs: choose one of %s with --name", strings.Join(up, ", "))
	case len(halfway) > 0:
		return "", fmt.Errorf("no lab is up, and halfway is %s: evenkeel sim gc removes what was left there",
			strings.Join(halfway, ", "))
	}
	return "", errors.New("no lab is up: evenkeel sim up FILE makes one")
}

// commander is a pod or a node.
type commander interface{ Enter(command []string) error }

// findPlace finds a pod ("NAME" or "NAMESPACE/NAME") or a node ("node/NAME") of a lab.
func findPlace(lab *netsim.Lab, name string) (pod *netsim.Pod, node *netsim.Node, err error) {
	if short, isNode := strings.CutPrefix(name, "node/"); isNode {
		if node = lab.Node(short); node != nil {
			return nil, node, nil
		}
	}
	if pod = lab.Pod(name); pod != nil {
		return pod, nil, nil
	}
	meant := ""
	for _, p := range lab.Info().Pods { // whoever leaves the namespace out
		if p.Name == name {
			meant = fmt.Sprintf(" (did you mean %s/%s?)", p.Namespace, name)
		}
	}
	return nil, nil, fmt.Errorf("%s is neither a pod nor a node/NAME of lab %s%s: evenkeel sim inspect %s lists them", name,
		lab.Name(), meant, lab.Name())
}

// findCommander finds what a command can be run in.
func findCommander(lab *netsim.Lab, name string) (commander, error) {
	pod, node, err := findPlace(lab, name)
	if err != nil {
		return nil, err
	}
	if node != nil {
		return node, nil
	}
	return pod, nil
}

func newSimExecCommand(e command.Env) *cobra.Command {
	var lab labFlag
	c := &cobra.Command{
		Use:   "exec POD|node/NODE -- COMMAND [ARGUMENT…]",
		Short: "Run a command in a pod or on a node",
		Long: `Run a command in the network namespace and cgroup of a pod (NAME or NAMESPACE/NAME), or in the network
namespace of a node, outside its pods. Files and processes are those of this machine. evenkeel turns into the
command, so standard streams, signals and the exit status are the command's own. A command that is not there ends
with 127, one that cannot be executed with 126, as in a shell; if there is no such pod or lab, it is 1.`,
		Example: `  evenkeel sim exec client -- ping -c 3 10.10.2.2
  evenkeel sim exec shop/web-0 -- sh
  evenkeel sim exec --name demo node/a -- cat /proc/net/dev`,
		Args: atLeast(2, "a pod or node, and a command"),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := lab.attach()
			if err != nil {
				return err
			}
			where, err := findCommander(l, args[0])
			if err != nil {
				return err
			}
			line := args[1:]
			if line[0] == "--" {
				line = line[1:]
			}
			return commandFailed(e, where.Enter(line))
		},
	}
	c.Flags().SetInterspersed(false) // flags after the pod are the command's
	lab.flag(c)
	c.ValidArgsFunction = completePlaces(&lab)
	return c
}

// commandFailed gives the exit code that a shell has for a command that cannot be run; scripts know it by that.
func commandFailed(e command.Env, err error) error {
	var failed *netsim.CommandError
	if !errors.As(err, &failed) {
		return err
	}
	fmt.Fprintln(e.Stderr, "evenkeel:", err)
	if failed.Missing {
		return command.Exit(127)
	}
	return command.Exit(126)
}

// newSimEnterCommand is exec by path: what the library runs.
func newSimEnterCommand(e command.Env) *cobra.Command {
	var netns, cgroup string
	c := &cobra.Command{
		Use:    "enter --netns PATH --cgroup PATH -- COMMAND [ARGUMENT…]",
		Short:  "Turn into a command in a network namespace and a cgroup",
		Hidden: true,
		Args:   atLeast(1, "a command"),
		RunE: func(_ *cobra.Command, args []string) error {
			return commandFailed(e, netsim.Enter(netns, cgroup, args))
		},
	}
	c.Flags().SetInterspersed(false)
	command.PathVar(c.Flags(), &netns, "netns", "", "path of the network namespace")
	command.PathVar(c.Flags(), &cgroup, "cgroup", "", "directory of the cgroup")
	return c
}

// newSimServeCommand is what runs in a pod with servers.
func newSimServeCommand() *cobra.Command {
	var pod string
	c := &cobra.Command{
		Use:    "serve --pod NAME -- SERVER…",
		Short:  "Run the servers of a pod",
		Hidden: true,
		Args:   atLeast(1, "a server"),
		RunE: func(c *cobra.Command, args []string) error {
			err := netsim.Serve(c.Context(), pod, args, netsim.ReadyFile())
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	c.Flags().StringVar(&pod, "pod", "", "name to answer with")
	return c
}

// between refuses fewer and more arguments; what says which are needed.
func between(least, most int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return command.Usage(c, fmt.Errorf("it needs %s", what))
		}
		return nil
	}
}

// atLeast refuses fewer arguments; what says which are needed.
func atLeast(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < n {
			return command.Usage(c, fmt.Errorf("it needs %s", what))
		}
		return nil
	}
}
