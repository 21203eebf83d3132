// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/manifest"
)

// resolve returns an EndpointSlice with what its endpoints have from their pods and nodes: the weight always, the
// workload, the node and the zone where the EndpointSlice does not say. It is nil if there is no such slice, and the
// very one that is kept if there is nothing to add: most slices say all themselves.
func (s *State) resolve(key manifest.Key) *engine.Slice {
	l := s.slices[key]
	if l == nil || l.Slice == nil {
		s.using.put(key, nil)
		return nil
	}
	inputs := s.inputs[:0]
	var added []engine.Endpoint // nil until something is
	for i := range l.Endpoints {
		e := l.Endpoints[i]
		var p *pod
		if e.Workload != "" {
			inputs = append(inputs, input{kind: manifest.KindPod, name: e.Workload})
			p = s.podNamed(e.Workload)
		} else {
			inputs = append(inputs, input{address: e.Address})
			p = s.podAt(e.Address)
		}
		if p != nil {
			e.Weight = p.weight
			e.Workload = p.workload.Name
			e.Node = cmp.Or(e.Node, p.workload.Node)
		}
		if e.Zone == "" && e.Node != "" {
			inputs = append(inputs, input{kind: manifest.KindNode, name: e.Node})
			e.Zone = s.zone(e.Node)
		}
		if added == nil && !equalEndpoint(e, l.Endpoints[i]) {
			added = slices.Clone(l.Endpoints)
		}
		if added != nil {
			added[i] = e
		}
	}
	s.using.put(key, inputs)
	s.inputs = inputs
	if added == nil {
		return l.Slice
	}
	out := *l.Slice
	out.Endpoints = added
	return &out
}

func (s *State) podNamed(workload string) *pod {
	namespace, name, _ := strings.Cut(workload, "/")
	return s.pods[manifest.Key{Kind: manifest.KindPod, Namespace: namespace, Name: name}]
}

// podAt returns the pod that has an address. Two can have it for the moment in which one takes over from the other;
// the one that is not terminating is the answer then, and the first by name if that does not decide.
func (s *State) podAt(a netip.Addr) *pod {
	var best *pod
	for key := range s.byAddress.with(a) {
		p := s.pods[key]
		if !slices.Contains(p.identified(), a) {
			continue // an index may err
		}
		if best == nil || best.terminating && !p.terminating ||
			best.terminating == p.terminating && comparePods(p, best) < 0 {
			best = p
		}
	}
	return best
}

func comparePods(a, b *pod) int { return cmp.Compare(a.workload.Name, b.workload.Name) }
