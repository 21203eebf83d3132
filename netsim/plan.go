// SPDX-License-Identifier: Apache-2.0

package netsim

import "time"

// plan returns the state that a topology asks for. What before has and the topology keeps, stays as it is: addresses,
// numbers of wires, processes. before may be empty.
func plan(t *Topology, before *state) *state {
	s := &state{Version: stateVersion, Name: t.Name, Created: before.Created, Owner: before.Owner, Agent: t.Agent,
		Dataplane: t.Dataplane, Ztunnel: before.Ztunnel}
	if s.Dataplane == None {
		s.Agent.Enabled = false
	}
	if s.Created.IsZero() {
		s.Created = time.Now()
	}
	for _, spec := range t.Nodes {
		n := before.node(spec.Name)
		if n == nil || !same(n.Spec.PodCIDRs, spec.PodCIDRs) {
			n = &nodeState{}
		}
		s.Nodes = append(s.Nodes, &nodeState{Spec: spec, Agent: n.Agent, Handover: n.Handover})
	}
	s.planWires(t, before)
	s.planPods(t, before)
	return s
}

// planWires numbers wires. A number is not used again while one that had it may still be going away.
func (s *state) planWires(t *Topology, before *state) {
	next := 0
	kept := map[[2]string]*wireState{}
	for _, w := range before.Wires {
		next = max(next, w.Number+1)
		kept[w.Ends] = w
	}
	for _, spec := range t.Wires {
		w := &wireState{Number: next, Ends: spec.ends(), MTU: spec.MTU}
		if w.MTU == 0 {
			w.MTU = defaultMTU
		}
		old := kept[w.Ends]
		if old != nil && old.MTU == w.MTU && s.keepsNode(before, w.Ends[0]) && s.keepsNode(before, w.Ends[1]) {
			w.Number = old.Number
		} else {
			next++
		}
		s.Wires = append(s.Wires, w)
	}
}

// keepsNode tells whether a node of before goes on.
func (s *state) keepsNode(before *state, node string) bool {
	a, b := s.node(node), before.node(node)
	return a != nil && b != nil && same(a.Spec.PodCIDRs, b.Spec.PodCIDRs)
}

// planPods gives pods their numbers, and by them their addresses.
func (s *state) planPods(t *Topology, before *state) {
	old := map[string]*podState{}
	for _, p := range before.Pods {
		old[p.Spec.key()] = p
	}
	nodes := map[string]*nodeState{}
	taken := map[string]map[int]bool{}
	for _, n := range s.Nodes {
		nodes[n.Spec.Name] = n
		taken[n.Spec.Name] = map[int]bool{}
	}
	specs := t.pods()
	for _, spec := range specs {
		spec.Enrol = spec.Enrol && s.Dataplane != None
		p := old[spec.key()]
		if p == nil || !s.keepsPod(before, p, &spec) {
			p = &podState{}
		} else if !spec.HostNetwork {
			taken[spec.Node][p.Ordinal] = true
		}
		p = &podState{Spec: spec, Ordinal: p.Ordinal, Enrolled: p.Enrolled, Refusal: p.Refusal, Processes: p.Processes}
		s.Pods = append(s.Pods, p)
	}
	lowest := map[string]int{} // what is below is taken, by node
	for _, p := range s.Pods {
		switch {
		case p.Spec.HostNetwork:
			p.Ordinal = nodeOrdinal
		case p.Ordinal == 0:
			p.Ordinal = nextOrdinal(taken[p.Spec.Node], lowest[p.Spec.Node])
			lowest[p.Spec.Node] = p.Ordinal + 1
		}
		p.Addresses = nodes[p.Spec.Node].Spec.addresses(p.Ordinal)
	}
}

// keepsPod tells whether a pod can go on as what the topology now wants. Labels, annotations, the service account,
// ports and containers are words in a document; anything else makes it another pod.
func (s *state) keepsPod(before *state, p *podState, want *PodSpec) bool {
	a, b := p.Spec, *want
	if !s.keepsNode(before, a.Node) {
		return false
	}
	return a.Node == b.Node && a.HostNetwork == b.HostNetwork && same(a.Serve, b.Serve) && same(a.Command, b.Command)
}
