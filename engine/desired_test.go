// SPDX-License-Identifier: Apache-2.0

package engine

import "testing"

// A node that is named wrongly is told from one that the sources do not speak of.
func TestStranger(t *testing.T) {
	named := func(names ...string) (nodes map[string]*Node) {
		nodes = make(map[string]*Node)
		for _, name := range names {
			nodes[name] = &Node{Name: name}
		}
		return nodes
	}
	runs := func(node string) map[string]*Workload { return map[string]*Workload{"a/" + node: {Node: node}} }
	for _, test := range []struct {
		name    string
		changes [2]Change // of two sources
		want    bool
	}{
		{"nothing is said", [2]Change{}, false},
		{"no node is named", [2]Change{{Workloads: runs("")}, {}}, false},
		{"another node", [2]Change{{Nodes: named("n2")}, {}}, true},
		{"a pod of another node", [2]Change{{}, {Workloads: runs("n2")}}, true},
		{"this node", [2]Change{{Nodes: named("n1", "n2")}, {}}, false},
		{"this node, by another source", [2]Change{{Nodes: named("n2")}, {Nodes: named("n1")}}, false},
		{"a pod of this node", [2]Change{{Nodes: named("n2")}, {Workloads: runs("n1")}}, false},
	} {
		d := newDesired("n1", []string{"low", "high"})
		for i, c := range test.changes {
			if _, _, err := d.take(d.sources[i], c); err != nil {
				t.Fatal(err)
			}
		}
		if got := d.stranger(); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
		gone := Change{Nodes: map[string]*Node{"n2": nil}, Workloads: map[string]*Workload{"a/n2": nil}}
		for _, source := range d.sources {
			if _, _, err := d.take(source, gone); err != nil {
				t.Fatal(err)
			}
		}
		if d.stranger() {
			t.Errorf("%s, and the others gone: stranger", test.name)
		}
	}
}
