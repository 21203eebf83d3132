// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Changes counts what Apply did.
type Changes struct {
	PodsAdded, PodsRemoved   int
	NodesAdded, NodesRemoved int
	WiresAdded, WiresRemoved int
	// Manifests are the files for agents to read that were written anew or removed.
	Manifests int
	// PodsWithdrawn are those that stay without being enrolled; pods that go are not counted.
	PodsEnrolled, PodsWithdrawn  int
	AgentsStarted, AgentsStopped int
}

// Apply makes the lab what the topology says and leaves alone what is as it says already: pods, nodes, wires,
// documents. A pod whose node, servers, command or network changes is another pod and comes after the old one has
// gone; so is a node whose podCIDRs change. Arguments of agents count from their next start.
//
// Apply that fails or is interrupted leaves a lab that is in between; applying again goes on from there.
func (l *Lab) Apply(ctx context.Context, t *Topology) (Changes, error) {
	if t.Name != l.Name() {
		return Changes{}, fmt.Errorf("apply to lab %s: the topology %s is of lab %s", l.Name(), t.File, t.Name)
	}
	if err := t.validate(); err != nil { // it may have been changed since it was read
		return Changes{}, err
	}
	unlock, err := l.change()
	if err != nil {
		return Changes{}, err
	}
	defer unlock()
	self, err := ProcessOf(os.Getpid())
	if err != nil {
		return Changes{}, err
	}
	if err := l.paths.note(actApply, false, self); err != nil {
		return Changes{}, err
	}
	changes, err := l.apply(ctx, t)
	if err != nil {
		return changes, fmt.Errorf("apply to lab %s: %w", l.Name(), err)
	}
	return changes, l.paths.note(actApply, true, self)
}

// apply first takes away what must go and notes what is left; then it makes what is new and notes that, too. Where it
// is interrupted, the state has less than there is, and the next apply clears the place of each thing that it makes.
func (l *Lab) apply(ctx context.Context, t *Topology) (Changes, error) {
	before := l.state
	l.forgetUninstalled()
	if t.Dataplane != before.Dataplane {
		return Changes{}, fmt.Errorf("the lab's data plane is %s, that of %s is %s: take the lab down first", before.Dataplane,
			t.File, t.Dataplane)
	}
	after := plan(t, before)
	after.Up = true
	d := compare(before, after)
	rs := routers{}
	defer rs.close()
	for _, n := range before.Nodes {
		r, err := l.paths.existingRouter(n.Spec.Name)
		if err != nil {
			return Changes{}, err
		}
		rs[n.Spec.Name] = r
	}
	changes := d.changes()
	if !after.Agent.Enabled {
		changes.AgentsStopped = len(after.Nodes) - len(after.idle())
	}
	announced, told, err := l.announce(ctx, d)
	if err != nil {
		return changes, err
	}
	if err := l.removeOld(ctx, rs, d); err != nil {
		return changes, err
	}
	l.mu.Lock()
	l.state = after
	l.mu.Unlock()
	if err := d.kept(after).write(l.paths.state()); err != nil {
		return changes, err
	}
	if err := l.addNew(ctx, rs, d); err != nil {
		return changes, err
	}
	texts, err := encodeManifests(l.state, t.Documents)
	if err != nil {
		return changes, err
	}
	if err := l.bringServers(ctx, texts, d.newPods, &changes); err != nil {
		return changes, err
	}
	if told && bytes.Equal(announced, texts[podsFile]) { // one file that has changed, and was not written again
		changes.Manifests++
	}
	if err := l.bringAgents(ctx, &changes); err != nil {
		return changes, err
	}
	if err := l.enlist(ctx, d.newPods, &changes); err != nil {
		return changes, err
	}
	return changes, after.write(l.paths.state())
}

// removeOld takes pods, wires and nodes away that the new state has no place for.
func (l *Lab) removeOld(ctx context.Context, rs routers, d *difference) error {
	for _, n := range d.before.Nodes {
		if err := l.withdrawPods(ctx, n.Spec.Name, d.withdrawn); err != nil {
			return err
		}
	}
	if err := l.clearPods(ctx, rs, d.oldPods); err != nil {
		return err
	}
	for _, w := range d.oldWires {
		if err := disconnect(rs, w); err != nil {
			return err
		}
	}
	for _, n := range d.oldNodes {
		if err := l.removeNode(ctx, rs, n); err != nil {
			return fmt.Errorf("remove node %s: %w", n.Spec.Name, err)
		}
	}
	for _, r := range rs {
		for _, n := range d.oldNodes {
			if err := r.unroute(n.Spec.PodCIDRs); err != nil {
				return err
			}
		}
	}
	if !d.after.Agent.Enabled {
		return l.stopAgents(ctx, d.after.Nodes)
	}
	return nil
}

// clearPods removes pods, or what is at the place where pods will be.
func (l *Lab) clearPods(ctx context.Context, rs routers, pods []*podState) error {
	for _, pod := range pods {
		if err := killCgroup(ctx, l.paths.podCgroup(pod)); err != nil {
			return err
		}
		if err := removeCgroup(l.paths.podCgroup(pod)); err != nil {
			return err
		}
		if pod.Spec.HostNetwork {
			continue
		}
		if err := l.paths.removePod(rs[pod.Spec.Node], pod); err != nil {
			return err
		}
	}
	return nil
}

// removeNode removes a node whose pods are gone. Its wires go with its namespace; the kernel takes its time for that.
func (l *Lab) removeNode(ctx context.Context, rs routers, n *nodeState) error {
	name := n.Spec.Name
	if r := rs[name]; r != nil {
		r.close()
		delete(rs, name)
	}
	cgroups := []string{l.paths.agentCgroup(name), l.paths.hostCgroup(name), l.paths.nodeCgroup(name)}
	for _, cgroup := range cgroups {
		if err := killCgroup(ctx, cgroup); err != nil {
			return err
		}
	}
	if err := l.uninstall(ctx, name); err != nil {
		return err
	}
	for _, cgroup := range cgroups {
		if err := removeCgroup(cgroup); err != nil {
			return err
		}
	}
	if err := l.paths.hideNode(name); err != nil {
		return err
	}
	if err := removeNamespace(l.paths.nodeNetns(name)); err != nil {
		return err
	}
	if err := os.RemoveAll(l.paths.nodeDir(name)); err != nil {
		return fmt.Errorf("remove directory of node: %w", err)
	}
	return nil
}

// stopAgents ends agents as an operator would; what they have set up stays.
func (l *Lab) stopAgents(ctx context.Context, nodes []*nodeState) error {
	for _, n := range nodes {
		if n.Agent == nil {
			continue
		}
		if err := n.Agent.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop agent of node %s: %w", n.Spec.Name, err)
		}
		if err := n.Agent.Wait(ctx); err != nil {
			return fmt.Errorf("wait for agent of node %s: %w", n.Spec.Name, err)
		}
	}
	return nil
}

// addNew makes the nodes, wires and pods that are new.
func (l *Lab) addNew(ctx context.Context, rs routers, d *difference) error {
	for _, n := range d.newNodes {
		if err := l.removeNode(ctx, rs, n); err != nil {
			return fmt.Errorf("clear the place of node %s: %w", n.Spec.Name, err)
		}
		r, err := l.paths.newRouter(&n.Spec)
		if err != nil {
			return err
		}
		rs[n.Spec.Name] = r
	}
	if err := l.makeNodeDirectories(d.newNodes); err != nil {
		return err
	}
	for _, w := range d.newWires {
		if err := disconnect(rs, w); err != nil {
			return err
		}
		if err := connect(rs, w); err != nil {
			return fmt.Errorf("connect %s and %s: %w", w.Ends[0], w.Ends[1], err)
		}
	}
	if err := route(rs, d.after); err != nil {
		return err
	}
	if err := l.clearPods(ctx, rs, d.newPods); err != nil {
		return err
	}
	return l.paths.makePods(ctx, d.after, rs, d.newPods, l.options.steps("pods", len(d.newPods)))
}
