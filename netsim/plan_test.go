// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// topologies draws small topologies that are valid.
func topologies(t *rapid.T) *Topology {
	topology := &Topology{Name: "lab", File: "rapid", Dataplane: Evenkeel, lines: map[string]int{}}
	names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}), 1, 5, rapid.ID).Draw(t, "nodes")
	for _, name := range names {
		shift := rapid.IntRange(0, 1).Draw(t, "shift") // another prefix makes another node
		topology.Nodes = append(topology.Nodes, NodeSpec{Name: name, PodCIDRs: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, name[0], byte(16 * shift), 0}), 28)}})
	}
	for i := range names {
		for j := range i {
			if rapid.Bool().Draw(t, "wire") {
				topology.Wires = append(topology.Wires, WireSpec{Between: []string{names[i], names[j]},
					MTU: rapid.SampledFrom([]int{0, 1400}).Draw(t, "mtu")})
			}
		}
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "pods") {
		topology.Pods = append(topology.Pods, PodSpec{Name: fmt.Sprint("p", i), Namespace: "default",
			Node: rapid.SampledFrom(names).Draw(t, "node"), Count: rapid.IntRange(0, 3).Draw(t, "count"),
			HostNetwork: rapid.IntRange(0, 5).Draw(t, "host") == 0})
	}
	return topology
}

// From any lab to any other: who stays keeps addresses, nobody shares one, and what goes and what comes add up.
func TestPlanFromAnyToAny(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := topologies(t)
		if err := first.validate(); err != nil {
			t.Fatalf("the generator makes invalid topologies: %v", err)
		}
		before := plan(first, &state{})
		after := plan(topologies(t), before)
		d := compare(before, after)
		if got := len(before.Pods) - len(d.oldPods) + len(d.newPods); got != len(after.Pods) {
			t.Fatalf("%d pods - %d + %d are not %d", len(before.Pods), len(d.oldPods), len(d.newPods), len(after.Pods))
		}
		if got := len(before.Wires) - len(d.oldWires) + len(d.newWires); got != len(after.Wires) {
			t.Fatalf("%d wires - %d + %d are not %d", len(before.Wires), len(d.oldWires), len(d.newWires), len(after.Wires))
		}
		for _, p := range d.kept(after).Pods {
			if old := before.pod(p.Spec.key()); old.Ordinal != p.Ordinal || !same(old.Addresses, p.Addresses) {
				t.Fatalf("pod %s stays and had %v, has %v", p.Spec.key(), old.Addresses, p.Addresses)
			}
		}
		taken := map[netip.Addr]string{}
		for _, p := range after.Pods {
			if p.Spec.HostNetwork {
				continue
			}
			if other, twice := taken[p.Addresses[0]]; twice {
				t.Fatalf("pods %s and %s have address %s", other, p.Spec.key(), p.Addresses[0])
			}
			taken[p.Addresses[0]] = p.Spec.key()
		}
		numbers := map[int]bool{}
		for _, w := range after.Wires {
			if numbers[w.Number] {
				t.Fatalf("two wires have number %d", w.Number)
			}
			numbers[w.Number] = true
		}
		for _, w := range d.newWires {
			for _, old := range before.Wires {
				if old.Number == w.Number {
					t.Fatalf("wire %d may still be going away when its name is used again", w.Number)
				}
			}
		}
		if again := compare(after, plan(topologyOf(after), after)).changes(); again != (Changes{}) {
			t.Fatalf("the same again changes %+v", again)
		}
	})
}

// topologyOf returns the topology that a state was made of.
func topologyOf(s *state) *Topology {
	t := &Topology{Name: s.Name, Agent: s.Agent}
	for _, n := range s.Nodes {
		t.Nodes = append(t.Nodes, n.Spec)
	}
	for _, w := range s.Wires {
		t.Wires = append(t.Wires, WireSpec{Between: w.Ends[:], MTU: w.MTU})
	}
	for _, p := range s.Pods {
		t.Pods = append(t.Pods, p.Spec)
	}
	return t
}

// Following first hops leads to where one wants to go, over as few wires as there can be.
// Without a data plane there is nothing to be enrolled in, and the same file is good for it.
func TestPlanWithoutDataplane(t *testing.T) {
	const text = "  nodes: [{name: a, podCIDRs: [10.0.0.0/24]}]\n  agent: {enabled: true}\n  pods: [{name: p, node: a, enrol: true}]\n"
	for dataplane, enrol := range map[Dataplane]bool{None: false, Evenkeel: true, Ambient: true} {
		s := plan(mustParse(t, "lab", text+"  dataplane: "+string(dataplane)+"\n"), &state{})
		if s.Dataplane != dataplane || s.Agent.Enabled != enrol || s.Pods[0].Spec.Enrol != enrol {
			t.Errorf("%s: agents %t, enrolment %t", s.Dataplane, s.Agent.Enabled, s.Pods[0].Spec.Enrol)
		}
	}
}

func TestFirstHopsAreShortest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := plan(topologies(t), &state{})
		wires := map[int]*wireState{}
		for _, w := range s.Wires {
			wires[w.Number] = w
		}
		hops, distance := firstHops(s), distances(s)
		for _, from := range s.Nodes {
			for _, to := range s.Nodes {
				a, b := from.Spec.Name, to.Spec.Name
				_, reachable := hops[a][b]
				if want, is := distance[[2]string{a, b}]; a != b && reachable != is {
					t.Fatalf("%s to %s: reachable %v, at distance %d", a, b, reachable, want)
				}
				if a == b || !reachable {
					continue
				}
				steps := 0
				for at := a; at != b; steps++ {
					w := wires[hops[at][b]]
					if w.Ends[0] == at {
						at = w.Ends[1]
					} else {
						at = w.Ends[0]
					}
					if steps > len(s.Nodes) {
						t.Fatalf("%s to %s goes round in circles", a, b)
					}
				}
				if steps != distance[[2]string{a, b}] {
					t.Fatalf("%s to %s takes %d steps, not %d", a, b, steps, distance[[2]string{a, b}])
				}
			}
		}
	})
}

// distances is Floyd's algorithm: another way to the same numbers.
func distances(s *state) map[[2]string]int {
	d := map[[2]string]int{}
	for _, n := range s.Nodes {
		d[[2]string{n.Spec.Name, n.Spec.Name}] = 0
	}
	for _, w := range s.Wires {
		d[w.Ends] = 1
		d[[2]string{w.Ends[1], w.Ends[0]}] = 1
	}
	for _, via := range s.Nodes {
		for _, from := range s.Nodes {
			for _, to := range s.Nodes {
				first, ok1 := d[[2]string{from.Spec.Name, via.Spec.Name}]
				second, ok2 := d[[2]string{via.Spec.Name, to.Spec.Name}]
				key := [2]string{from.Spec.Name, to.Spec.Name}
				if old, known := d[key]; ok1 && ok2 && (!known || first+second < old) {
					d[key] = first + second
				}
			}
		}
	}
	return d
}
