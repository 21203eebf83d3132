// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/engine/enrol"
	"github.com/evenkeel/evenkeel/netsim"
)

func newSimListCommand(e command.Env) *cobra.Command {
	var o command.Output
	c := &cobra.Command{
		Use:     "ls",
		Short:   "List the labs of this machine",
		Example: "  evenkeel sim ls\n  evenkeel sim ls -o json",
		Args:    command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.Check(c); err != nil {
				return err
			}
			list, err := listLabs()
			if err != nil {
				return err
			}
			return show(c, o, e.Stdout, list, func(t *table) {
				if len(list.Labs) == 0 {
					t.line("no lab is up")
					return
				}
				t.head("LAB", "STATE", "NODES", "PODS", "AGENTS", "OWNER", "AGE")
				for _, l := range list.Labs {
					t.row(l.Name, l.State, strconv.Itoa(l.Nodes), strconv.Itoa(l.Pods), strconv.Itoa(l.Agents), owner(l.Owner),
						l.age())
				}
			})
		},
	}
	o.Flag(c)
	return c
}

// labList is what `sim ls -o json` prints.
type labList struct {
	Version string      `json:"version"`
	Labs    []labListed `json:"labs"`
}

type labListed struct {
	Name string `json:"name"`
	// State is up, or halfway for one that is being made or removed, or was when that was interrupted.
	State   string          `json:"state"`
	Nodes   int             `json:"nodes"`
	Pods    int             `json:"pods"`
	Agents  int             `json:"agents"` // that run
	Owner   *netsim.Process `json:"owner,omitempty"`
	Created time.Time       `json:"created,omitzero"`
}

func (l labListed) age() string {
	if l.Created.IsZero() {
		return ""
	}
	return time.Since(l.Created).Round(time.Second).String()
}

func listLabs() (labList, error) {
	list := labList{Version: netsim.InfoVersion, Labs: []labListed{}}
	names, err := netsim.Names()
	if err != nil {
		return labList{}, err
	}
	for _, name := range names {
		lab, err := netsim.Attach(name, simOptions(nil))
		if errors.Is(err, netsim.ErrNotFound) {
			list.Labs = append(list.Labs, labListed{Name: name, State: "halfway"})
			continue
		}
		if err != nil {
			return labList{}, err
		}
		info := lab.Info()
		listed := labListed{Name: name, State: "up", Nodes: len(info.Nodes), Pods: len(info.Pods), Owner: info.Owner,
			Created: info.Created}
		for _, n := range info.Nodes {
			if n.Agent.State == netsim.AgentRunning {
				listed.Agents++
			}
		}
		list.Labs = append(list.Labs, listed)
	}
	return list, nil
}

func owner(p *netsim.Process) string {
	switch {
	case p == nil:
		return ""
	case p.Alive():
		return fmt.Sprint("process ", p.PID)
	}
	return fmt.Sprintf("process %d, which has ended: evenkeel sim gc removes the lab", p.PID)
}

func newSimInspectCommand(e command.Env) *cobra.Command {
	var o command.Output
	var lab labFlag
	c := &cobra.Command{
		Use:   "inspect [NAME]",
		Short: "Show the nodes and pods of a lab",
		Long: `Show the nodes, wires and pods of a lab, with addresses, processes and whether agents run, and how to ask
these. -o json has more: paths of network namespaces, cgroups and logs. The name is not needed where there is only one
lab.`,
		Example: "  evenkeel sim inspect\n  evenkeel sim inspect demo -o json | jq '.pods[].netns'",
		Args:    atMostOne,

		ValidArgsFunction: completeLab,

		RunE: func(c *cobra.Command, args []string) error {
			if err := o.Check(c); err != nil {
				return err
			}
			if err := lab.named(c, args); err != nil {
				return err
			}
			l, err := lab.attach()
			if err != nil {
				return err
			}
			info, err := labInfo(l)
			if err != nil {
				return err
			}
			return show(c, o, e.Stdout, info, func(t *table) { printLab(t, info) })
		},
	}
	o.Flag(c)
	lab.flag(c)
	return c
}

// labInfo is what a lab knows of itself, with what its nodes' kernels say of enrolment: pods can be enrolled, withdrawn and
// lost behind its back.
func labInfo(l *netsim.Lab) (netsim.Info, error) {
	info := l.Info()
	if info.Dataplane != netsim.Evenkeel {
		return info, nil
	}
	enrolled := map[string][]string{} // by node
	for _, n := range info.Nodes {
		names, err := enrolledPods(n.PinDir)
		switch {
		case errors.Is(err, fs.ErrPermission): // anybody may ask what the lab knows
			return info, nil
		case err != nil:
			return info, fmt.Errorf("read enrolled pods of node %s: %w", n.Name, err)
		}
		enrolled[n.Name] = names
	}
	for i := range info.Pods {
		pod := &info.Pods[i]
		pod.Enrolled = slices.Contains(enrolled[pod.Node], pod.Namespace+"/"+pod.Name)
	}
	return info, nil
}

// enrolledPods reads the names that a data plane has pinned, without a lock; none if there is no data plane.
func enrolledPods(dir string) ([]string, error) {
	path := filepath.Join(dir, "maps", bpf.MeshMapWorkloadNames)
	names, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer names.Close()
	return enrol.Names(names)
}

// named takes a lab's name that is an argument.
func (l *labFlag) named(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if *l != "" && string(*l) != args[0] {
		return command.Usage(c, fmt.Errorf("one lab at a time: %s, or --name %s", args[0], *l))
	}
	*l = labFlag(args[0])
	return nil
}

func atMostOne(c *cobra.Command, args []string) error {
	if err := cobra.MaximumNArgs(1)(c, args); err != nil {
		return command.Usage(c, err)
	}
	return nil
}

func printLab(t *table, info netsim.Info) {
	t.pair("lab", info.Name)
	t.pair("age", time.Since(info.Created).Round(time.Second).String())
	if info.Owner != nil {
		t.pair("owner", owner(info.Owner))
	}
	t.pair("dataplane", string(info.Dataplane))
	t.pair("manifests", info.Manifests)
	t.head("NODE", "ADDRESSES", "PODS", "AGENT")
	pods := map[string]int{}
	for _, pod := range info.Pods {
		pods[pod.Node]++
	}
	for _, n := range info.Nodes {
		agent := n.Agent.State
		if n.Agent.PID != 0 {
			agent = fmt.Sprintf("%s, process %d", agent, n.Agent.PID)
		}
		t.row(n.Name, addresses(n.Addresses), strconv.Itoa(pods[n.Name]), agent)
	}
	if len(info.Wires) > 0 {
		t.head("WIRE", "LINK", "MTU")
		for _, w := range info.Wires {
			t.row(w.Between[0]+" - "+w.Between[1], w.Link, strconv.Itoa(w.MTU))
		}
	}
	if len(info.Pods) > 0 {
		t.head("POD", "NODE", "ADDRESSES", "ENROLLED", "SERVES", "PROCESSES")
		for _, pod := range info.Pods {
			t.row(pod.Namespace+"/"+pod.Name, pod.Node, addresses(pod.Addresses), enrolled(pod), strings.Join(pod.Serve, ", "),
				processes(pod))
		}
	}
	asked := false
	for _, n := range info.Nodes {
		if n.Agent.Admin == "" {
			continue
		}
		if !asked {
			t.head("NODE", "TO ASK IT: evenkeel status, dump OR explain WITH")
			asked = true
		}
		t.row(n.Name, fmt.Sprintf("--pin-dir %s --admin %s", n.PinDir, n.Agent.Admin))
	}
}

func enrolled(pod netsim.PodInfo) string {
	switch {
	case pod.Enrolled:
		return "yes"
	case pod.Refusal != "":
		return "refused: " + pod.Refusal
	}
	return "no"
}

func processes(pod netsim.PodInfo) string {
	var texts []string
	for _, p := range pod.Processes {
		text := strconv.Itoa(p.PID)
		if !p.Running {
			text += " (ended)"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}
