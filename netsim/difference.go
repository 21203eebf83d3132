// SPDX-License-Identifier: Apache-2.0

package netsim

// difference is what has to be done to get from one state of a lab to another.
type difference struct {
	before, after      *state
	oldPods, newPods   []*podState
	oldNodes, newNodes []*nodeState
	oldWires, newWires []*wireState
	// withdrawn are pods of before that are enrolled and will not be; withdrawing sets that on the pods of after, too.
	withdrawn []*podState
}

func compare(before, after *state) *difference {
	d := &difference{before: before, after: after}
	for _, n := range before.Nodes {
		if !after.keepsNode(before, n.Spec.Name) {
			d.oldNodes = append(d.oldNodes, n)
		}
	}
	for _, n := range after.Nodes {
		if !after.keepsNode(before, n.Spec.Name) {
			d.newNodes = append(d.newNodes, n)
		}
	}
	d.compareWires()
	d.comparePods()
	return d
}

func (d *difference) compareWires() {
	was, is := map[wireState]bool{}, map[wireState]bool{}
	for _, w := range d.before.Wires {
		was[*w] = true
	}
	for _, w := range d.after.Wires {
		is[*w] = true
		if !was[*w] {
			d.newWires = append(d.newWires, w)
		}
	}
	for _, w := range d.before.Wires {
		if !is[*w] {
			d.oldWires = append(d.oldWires, w)
		}
	}
}

func (d *difference) comparePods() {
	was, is := map[string]*podState{}, map[string]*podState{}
	for _, p := range d.before.Pods {
		was[p.Spec.key()] = p
	}
	for _, p := range d.after.Pods {
		is[p.Spec.key()] = p
		if old := was[p.Spec.key()]; old == nil || !d.after.keepsPod(d.before, old, &p.Spec) {
			d.newPods = append(d.newPods, p)
		}
	}
	for _, old := range d.before.Pods {
		p := is[old.Spec.key()]
		kept := p != nil && d.after.keepsPod(d.before, old, &p.Spec)
		if !kept {
			d.oldPods = append(d.oldPods, old)
		}
		if old.Enrolled && !(kept && p.Spec.Enrol) {
			d.withdrawn = append(d.withdrawn, old)
			if kept {
				p.Enrolled = false
			}
		}
	}
}

// kept is after without what is new: what is there once the old has gone and the new has not come.
func (d *difference) kept(after *state) *state {
	kept := *after
	kept.Nodes = without(after.Nodes, d.newNodes)
	kept.Wires = without(after.Wires, d.newWires)
	kept.Pods = without(after.Pods, d.newPods)
	return &kept
}

func without[T comparable](all, out []T) []T {
	skip := map[T]bool{}
	for _, item := range out {
		skip[item] = true
	}
	var rest []T
	for _, item := range all {
		if !skip[item] {
			rest = append(rest, item)
		}
	}
	return rest
}

func (d *difference) changes() Changes {
	return Changes{
		PodsWithdrawn: len(without(d.withdrawn, d.oldPods)),
		PodsAdded:     len(d.newPods), PodsRemoved: len(d.oldPods), NodesAdded: len(d.newNodes), NodesRemoved: len(d.oldNodes),
		WiresAdded: len(d.newWires), WiresRemoved: len(d.oldWires),
	}
}
