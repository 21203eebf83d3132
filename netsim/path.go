// SPDX-License-Identifier: Apache-2.0

package netsim

// firstHops returns for every node and every other one that it can reach the number of the wire on which a shortest
// path begins. Between paths of one length the earlier wire wins, so the answer depends on nothing but the topology.
func firstHops(s *state) map[string]map[string]int {
	type step struct {
		to   string
		wire int
	}
	next := map[string][]step{}
	for _, w := range s.Wires {
		next[w.Ends[0]] = append(next[w.Ends[0]], step{w.Ends[1], w.Number})
		next[w.Ends[1]] = append(next[w.Ends[1]], step{w.Ends[0], w.Number})
	}
	hops := map[string]map[string]int{}
	for _, n := range s.Nodes {
		from := n.Spec.Name
		first := map[string]int{}
		queue := []string{from}
		for len(queue) > 0 {
			at := queue[0]
			queue = queue[1:]
			for _, st := range next[at] {
				if _, seen := first[st.to]; seen || st.to == from {
					continue
				}
				first[st.to] = st.wire
				if at != from {
					first[st.to] = first[at]
				}
				queue = append(queue, st.to)
			}
		}
		hops[from] = first
	}
	return hops
}
