// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
)

// BootStep is a part of a node that comes up by itself after a reboot, so no order is certain.
type BootStep string

// The steps. Pods are enrolled as soon as both agent and network are there, as a plugin would do it that is told to try
// again.
const (
	BootAgent   BootStep = "agent"   // the node agent
	BootNetwork BootStep = "network" // namespaces and links of pods, as the primary CNI makes them
	BootServers BootStep = "servers" // processes of pods
)

// BootOrders are all orders in which a node can come up: a pod's processes need its network.
func BootOrders() [][]BootStep {
	return [][]BootStep{
		{BootAgent, BootNetwork, BootServers},
		{BootNetwork, BootAgent, BootServers},
		{BootNetwork, BootServers, BootAgent},
	}
}

// Reboot loses everything of a node that a reboot loses: processes, namespaces, links, cgroups, pins. What is on disk
// stays. Then the node comes up in the order of the steps, and Reboot returns when it has.
func (l *Lab) Reboot(ctx context.Context, node string, order []BootStep) error {
	if !slices.ContainsFunc(BootOrders(), func(o []BootStep) bool { return slices.Equal(o, order) }) {
		return fmt.Errorf("reboot node %s: %v is none of the orders %v", node, order, BootOrders())
	}
	unlock, err := l.change()
	if err != nil {
		return err
	}
	defer unlock()
	n := l.state.node(node)
	if n == nil {
		return l.noNode(node)
	}
	var pods []*podState
	for _, pod := range l.state.Pods {
		if pod.Spec.Node == node {
			pods = append(pods, pod)
		}
	}
	rs := routers{}
	defer rs.close()
	err = l.powerOff(ctx, rs, n, pods)
	if err == nil {
		err = l.boot(ctx, rs, n, pods, order)
	}
	if err := errors.Join(err, l.state.write(l.paths.state())); err != nil {
		return fmt.Errorf("reboot node %s: %w", node, err)
	}
	return nil
}

// powerOff removes what there is of a node; it may be only a part. It opens the other nodes.
func (l *Lab) powerOff(ctx context.Context, rs routers, n *nodeState, pods []*podState) error {
	name := n.Spec.Name
	cgroups := []string{l.paths.agentCgroup(name), l.paths.hostCgroup(name), l.paths.nodeCgroup(name)}
	for _, cgroup := range cgroups { // all at once: nobody says good-bye
		if err := killCgroup(ctx, cgroup); err != nil {
			return err
		}
	}
	for _, other := range l.state.Nodes {
		if !isNamespace(l.paths.nodeNetns(other.Spec.Name)) && other == n {
			continue // it was interrupted
		}
		r, err := l.paths.existingRouter(other.Spec.Name)
		if err != nil {
			return err
		}
		rs[other.Spec.Name] = r
	}
	for _, w := range l.state.Wires {
		if !slices.Contains(w.Ends[:], name) {
			continue
		}
		if err := disconnect(rs, w); err != nil {
			return err
		}
	}
	for _, pod := range pods {
		pod.Enrolled, pod.Processes = false, nil
		if !pod.Spec.HostNetwork {
			if err := removeNamespace(l.paths.podNetns(pod)); err != nil {
				return err
			}
		}
	}
	if r := rs[name]; r != nil {
		r.close()
		delete(rs, name)
	}
	if err := l.paths.hideNode(name); err != nil {
		return err
	}
	if err := removeNamespace(l.paths.nodeNetns(name)); err != nil {
		return err
	}
	if err := os.RemoveAll(l.paths.nodePins(name)); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	for _, cgroup := range cgroups {
		if err := removeCgroup(cgroup); err != nil {
			return err
		}
	}
	return nil
}

// boot makes a node that is off. Its own network comes first in any order: it is the kernel's and the machine's.
func (l *Lab) boot(ctx context.Context, rs routers, n *nodeState, pods []*podState, order []BootStep) error {
	name := n.Spec.Name
	r, err := l.paths.newRouter(&n.Spec)
	if err != nil {
		return err
	}
	rs[name] = r
	if err := l.makeNodeDirectories([]*nodeState{n}); err != nil {
		return err
	}
	for _, w := range l.state.Wires {
		if slices.Contains(w.Ends[:], name) {
			if err := mendWire(rs, w); err != nil { // if it was interrupted, an end may be left
				return fmt.Errorf("connect %s and %s: %w", w.Ends[0], w.Ends[1], err)
			}
		}
	}
	if err := route(rs, l.state); err != nil {
		return err
	}
	done := map[BootStep]bool{}
	for _, step := range order {
		if err := l.bootStep(ctx, rs, n, pods, step); err != nil {
			return err
		}
		done[step] = true
		if step != BootServers && done[BootAgent] && done[BootNetwork] {
			if err := l.enrolAgain(ctx, pods); err != nil {
				return err
			}
		}
	}
	return l.startCommands(pods)
}

func (l *Lab) bootStep(ctx context.Context, rs routers, n *nodeState, pods []*podState, step BootStep) error {
	switch step {
	case BootAgent:
		if !l.state.Agent.Enabled {
			return nil
		}
		return l.startAgent(ctx, n, nil, l.state.Agent.Args)
	case BootNetwork:
		return l.paths.makePods(ctx, l.state, rs, pods, func() {})
	}
	return l.reviveServers(ctx, pods)
}
