// SPDX-License-Identifier: Apache-2.0

package source

import (
	"maps"
	"slices"

	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/manifest"
)

// sent is what the engine has taken, and the difference that it has been offered.
type sent struct {
	services  map[string]*engine.Service
	slices    map[string]*engine.Slice
	nodes     map[string]*engine.Node
	workloads map[string]*engine.Workload
	spaces    map[string]*engine.Namespace
	// derived are the names of the slices that were written for a service.
	derived map[manifest.Key][]string

	offered        engine.Change
	offeredDerived map[manifest.Key][]string
}

func newSent() sent {
	return sent{
		services:  map[string]*engine.Service{},
		slices:    map[string]*engine.Slice{},
		nodes:     map[string]*engine.Node{},
		workloads: map[string]*engine.Workload{},
		spaces:    map[string]*engine.Namespace{},
		derived:   map[manifest.Key][]string{},
	}
}

// Change returns the differences between what the engine has been sent and what the objects now say; maps without a
// difference are nil. The values are shared with the State and must not be changed. Synced is the caller's to fill.
func (s *State) Change() engine.Change {
	d := differences{
		services:  difference[engine.Service]{sent: s.sent.services, equal: equalService},
		slices:    difference[engine.Slice]{sent: s.sent.slices, equal: equalSlice},
		nodes:     difference[engine.Node]{sent: s.sent.nodes, equal: equalNode},
		workloads: difference[engine.Workload]{sent: s.sent.workloads, equal: equalWorkload},
		spaces:    difference[engine.Namespace]{sent: s.sent.spaces, equal: equalNamespace},
		derived:   map[manifest.Key][]string{},
	}
	s.expect(&d)
	for key := range s.dirty {
		switch key.Kind {
		case manifest.KindNamespace:
			d.spaces.put(key.Name, s.namespace(key.Name))
		case manifest.KindNode:
			d.nodes.put(key.Name, s.nodes[key.Name])
		case manifest.KindPod:
			d.workloads.put(name(key), s.workload(key))
		case manifest.KindService:
			s.compareService(&d, key)
		case manifest.KindEndpointSlice:
			d.slices.put(name(key), s.resolve(key))
		}
	}
	s.sent.offered = engine.Change{
		Services:  d.services.changes,
		Slices:    d.slices.changes,
		Nodes:     d.nodes.changes,
		Workloads: d.workloads.changes, Namespaces: d.spaces.changes,
	}
	s.sent.offeredDerived = d.derived
	return s.sent.offered
}

// expect makes room where all that there is comes at once.
func (s *State) expect(d *differences) {
	if len(s.sent.services)+len(s.sent.slices) > 0 || len(s.dirty) < len(s.slices) {
		return
	}
	terms := 0
	for _, l := range s.slices {
		if l.Slice != nil {
			terms += len(l.Endpoints)
		}
	}
	s.using.grow(len(s.slices), terms)
	d.services.expected, d.slices.expected = len(s.services), len(s.slices)
	s.sent.services = make(map[string]*engine.Service, len(s.services))
	s.sent.slices = make(map[string]*engine.Slice, len(s.slices))
}

// Commit notes that the engine has taken the last Change. There must be no Upsert or Delete between the two.
func (s *State) Commit() {
	take(s.sent.services, s.sent.offered.Services)
	take(s.sent.slices, s.sent.offered.Slices)
	take(s.sent.nodes, s.sent.offered.Nodes)
	take(s.sent.workloads, s.sent.offered.Workloads)
	take(s.sent.spaces, s.sent.offered.Namespaces)
	for key, names := range s.sent.offeredDerived {
		if len(names) == 0 {
			delete(s.sent.derived, key)
		} else {
			s.sent.derived[key] = names
		}
	}
	s.sent.offered, s.sent.offeredDerived = engine.Change{}, nil
	s.dirty = map[manifest.Key]struct{}{}
}

func take[T any](sent, changes map[string]*T) {
	for name, v := range changes {
		if v == nil {
			delete(sent, name)
		} else {
			sent[name] = v
		}
	}
}

type differences struct {
	services  difference[engine.Service]
	slices    difference[engine.Slice]
	nodes     difference[engine.Node]
	workloads difference[engine.Workload]
	spaces    difference[engine.Namespace]
	derived   map[manifest.Key][]string
}

type difference[T any] struct {
	sent    map[string]*T
	equal   func(a, b *T) bool
	changes map[string]*T
	// expected is how many changes there will be, if that is known.
	expected int
}

// put notes a value, nil for none, if the engine has another one.
func (d *difference[T]) put(name string, v *T) {
	was := d.sent[name]
	if v == nil && was == nil || v != nil && was != nil && d.equal(was, v) {
		return
	}
	if d.changes == nil {
		d.changes = make(map[string]*T, d.expected)
	}
	d.changes[name] = v
}

func name(key manifest.Key) string { return key.Namespace + "/" + key.Name }

func (s *State) workload(key manifest.Key) *engine.Workload {
	if p := s.pods[key]; p != nil {
		return p.in(s.namespaces[key.Namespace])
	}
	return nil
}

func (s *State) namespace(name string) *engine.Namespace {
	if n := s.namespaces[name]; n != nil {
		return n.said
	}
	return nil
}

func (s *State) zone(node string) string {
	if n := s.nodes[node]; n != nil {
		return n.Zone
	}
	return ""
}

// compareService compares a service and the slices that follow from its selector.
func (s *State) compareService(d *differences, key manifest.Key) {
	var now *engine.Service
	var written []*engine.Slice
	delete(s.notes, key)
	inputs := map[input]bool{}
	if v := s.services[key]; v != nil {
		now = v.Service
		if s.derive && len(v.selector) > 0 {
			pods := s.selected(key.Namespace, v.selector)
			var notes notes
			written, notes = v.derive(pods, s.zone)
			if len(notes) > 0 {
				s.notes[key] = notes
			}
		}
	}
	d.services.put(name(key), now)
	var names []string
	for _, slice := range written {
		names = append(names, slice.Name)
		d.slices.put(slice.Name, slice)
		for i := range slice.Endpoints {
			inputs[input{kind: manifest.KindNode, name: slice.Endpoints[i].Node}] = true
		}
	}
	for _, old := range s.sent.derived[key] {
		if !slices.Contains(names, old) {
			d.slices.put(old, nil)
		}
	}
	d.derived[key] = names
	s.using.put(key, slices.Collect(maps.Keys(inputs)))
}
