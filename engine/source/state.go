// SPDX-License-Identifier: Apache-2.0

package source

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/manifest"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Options of a State.
type Options struct {
	// Derive writes the slices of services that have a selector, from the pods that it selects: for sources behind
	// which no EndpointSlice controller runs.
	Derive bool
}

// State holds the objects of one source and what the engine has been sent of them. The work for a change grows with
// what the changed objects touch, not with what there is.
//
// It belongs to one goroutine. The order of calls is any number of Upsert and Delete, then Change, then Commit if the
// engine has taken it; without Commit the next Change has these differences again, and newer ones.
type State struct {
	derive bool

	namespaces map[string]*namespace
	nodes      map[string]*engine.Node
	pods       map[manifest.Key]*pod
	services   map[manifest.Key]*service
	slices     map[manifest.Key]*slice

	// podsOf finds pods by their labels, selecting finds services by one label of their selector.
	podsOf, selecting *index[label]
	// byNamespace, byAddress find pods; using finds what is computed from a pod, an address or a node.
	byNamespace *index[string]
	byAddress   *index[netip.Addr]
	// byNodeAddress finds nodes, to warn of services with their addresses.
	byNodeAddress *index[netip.Addr]
	using         *index[input]
	inputs        []input // room for those of one EndpointSlice

	// dirty objects have changed, or something that they are computed from has, since the last Commit.
	dirty map[manifest.Key]struct{}
	// notes are what was found while computing; what was found while reading is kept with the object.
	notes map[manifest.Key]notes
	sent  sent
}

// input is what the slices of an EndpointSlice or a Service are computed from beside itself: a pod ("ns/name"), the
// pod that has an address, or a node.
type input struct {
	kind    string
	name    string
	address netip.Addr
}

// New returns a State without objects.
func New(o Options) *State {
	return &State{
		derive:      o.Derive,
		namespaces:  map[string]*namespace{},
		nodes:       map[string]*engine.Node{},
		pods:        map[manifest.Key]*pod{},
		services:    map[manifest.Key]*service{},
		slices:      map[manifest.Key]*slice{},
		podsOf:      newIndex[label](),
		selecting:   newIndex[label](),
		byNamespace: newIndex[string](),
		byAddress:   newIndex[netip.Addr](),

		byNodeAddress: newIndex[netip.Addr](),
		using:         newIndex[input](),
		dirty:         map[manifest.Key]struct{}{},
		notes:         map[manifest.Key]notes{},
		sent:          newSent(),
	}
}

// Prepared is what a State keeps of an object, made apart from it: who reads many can let each go before the next.
type Prepared struct {
	key  manifest.Key
	kept any // *namespace, *node, *pod, *service or *slice; nil for what is not kept
}

// Prepare takes what is needed of an object. origin says for people where it was read. The object is not changed, and
// its labels and selector must not be changed later.
func Prepare(o manifest.Object, origin string) Prepared {
	p := Prepared{key: manifest.KeyOf(o)}
	switch o := o.(type) {
	case *corev1.Namespace:
		p.kept = newNamespace(o, origin)
	case *corev1.Node:
		p.kept = newNode(o, origin)
	case *corev1.Pod:
		p.kept = newPod(o, origin)
	case *corev1.Service:
		p.kept = newService(o, origin)
	case *discoveryv1.EndpointSlice:
		p.kept = newSlice(o, origin)
	}
	return p
}

// Key is that of the object.
func (p Prepared) Key() manifest.Key { return p.key }

// Upsert is Put of what Prepare makes of an object.
func (s *State) Upsert(o manifest.Object, origin string) { s.Put(Prepare(o, origin)) }

// Put adds an object or replaces the one with its key.
func (s *State) Put(p Prepared) {
	switch kept := p.kept.(type) {
	case *namespace:
		s.namespaces[p.key.Name] = kept
		s.touchAll(s.byNamespace.with(p.key.Name))
	case *node:
		s.nodes[p.key.Name] = kept.Node
		s.byNodeAddress.put(p.key, distinct(kept.addresses))
		s.touchAll(s.using.with(input{kind: manifest.KindNode, name: p.key.Name}))
	case *pod:
		s.putPod(p.key, kept)
	case *service:
		s.putService(p.key, kept)
	case *slice:
		s.slices[p.key] = kept
	default:
		return
	}
	s.touch(p.key)
}

// Delete removes an object; one that is not there is no error.
func (s *State) Delete(key manifest.Key) {
	switch key.Kind {
	case manifest.KindNamespace:
		delete(s.namespaces, key.Name)
		s.touchAll(s.byNamespace.with(key.Name))
	case manifest.KindNode:
		delete(s.nodes, key.Name)
		s.byNodeAddress.put(key, nil)
		s.touchAll(s.using.with(input{kind: manifest.KindNode, name: key.Name}))
	case manifest.KindPod:
		s.putPod(key, nil)
	case manifest.KindService:
		s.putService(key, nil)
	case manifest.KindEndpointSlice:
		delete(s.slices, key)
	}
	s.touch(key)
}

// Len returns the number of objects by kind.
func (s *State) Len() map[string]int {
	return map[string]int{
		manifest.KindNamespace:     len(s.namespaces),
		manifest.KindNode:          len(s.nodes),
		manifest.KindPod:           len(s.pods),
		manifest.KindService:       len(s.services),
		manifest.KindEndpointSlice: len(s.slices),
	}
}

// Warnings returns what there is to say about the objects, sorted by object. It is complete after Change.
func (s *State) Warnings() []Warning {
	var all []Warning
	add := func(key manifest.Key, origin string, notes ...notes) {
		for _, n := range notes {
			for _, text := range n {
				all = append(all, Warning{Key: key, Origin: origin, Text: text})
			}
		}
	}
	for name, n := range s.namespaces {
		add(manifest.Key{Kind: manifest.KindNamespace, Name: name}, n.said.Origin, n.notes)
	}
	for key, p := range s.pods {
		add(key, p.workload.Origin, p.notes)
	}
	for key, v := range s.services {
		add(key, v.Origin, v.notes, s.notes[key], s.collisions(v))
	}
	for key, l := range s.slices {
		add(key, l.origin, l.notes)
	}
	slices.SortFunc(all, compareWarnings)
	return all
}

// collisions says which of a service's addresses a pod or a node has, too: who means that one gets the service.
func (s *State) collisions(v *service) (found notes) {
	for _, a := range v.Addresses {
		if p := s.podAt(a); p != nil {
			found.add("clusterIP %s is the address of Pod %s, too: a workload that dials the pod gets this service, and is refused "+
				"at ports that it does not have", a, p.workload.Name)
		}
		for key := range s.byNodeAddress.with(a) { // an index may err, once in 2^64
			found.add("clusterIP %s is an address of Node %s, too: a workload that dials the node gets this service, and is "+
				"refused at ports that it does not have", a, key.Name)
		}
	}
	return found
}

func (s *State) touch(key manifest.Key) { s.dirty[key] = struct{}{} }

func (s *State) touchAll(keys iter.Seq[manifest.Key]) {
	for key := range keys {
		s.touch(key)
	}
}

// putPod replaces a pod, nil removes it, and touches what depends on the old or the new one.
func (s *State) putPod(key manifest.Key, p *pod) {
	before := s.pods[key]
	s.touchDependents(key, before)
	if p == nil {
		delete(s.pods, key)
		s.byNamespace.put(key, nil)
		s.byAddress.put(key, nil)
		s.podsOf.put(key, nil)
		return
	}
	s.pods[key] = p
	s.byNamespace.put(key, []string{key.Namespace})
	s.byAddress.put(key, distinct(p.identified()))
	if s.derive {
		s.podsOf.put(key, labelsOf(key.Namespace, p.workload.Labels))
	}
	s.touchDependents(key, p)
}

func (s *State) touchDependents(key manifest.Key, p *pod) {
	if p == nil {
		return
	}
	s.touchAll(s.using.with(input{kind: manifest.KindPod, name: p.workload.Name}))
	for _, a := range p.identified() {
		s.touchAll(s.using.with(input{address: a}))
	}
	for name, value := range p.workload.Labels {
		for service := range s.selecting.with(label{key.Namespace, name, value}) {
			if selects(s.services[service].selector, p.workload.Labels) {
				s.touch(service)
			}
		}
	}
}

// putService replaces a service; nil removes it. Its entry in selecting is under one label only: a pod that it
// selects has that one too.
func (s *State) putService(key manifest.Key, v *service) {
	if v == nil {
		delete(s.services, key)
		s.selecting.put(key, nil)
		return
	}
	s.services[key] = v
	terms := labelsOf(key.Namespace, v.selector)
	if !s.derive || len(terms) == 0 {
		terms = nil
	} else {
		terms = terms[:1]
	}
	s.selecting.put(key, terms)
}

// selected returns the pods of a selector in the order of their names. It looks through those that have the rarest of
// the selector's labels.
func (s *State) selected(namespace string, selector map[string]string) []*pod {
	terms := labelsOf(namespace, selector)
	if len(terms) == 0 {
		return nil
	}
	rarest := slices.MinFunc(terms, func(a, b label) int { return s.podsOf.count(a) - s.podsOf.count(b) })
	var pods []*pod
	for key := range s.podsOf.with(rarest) {
		if p := s.pods[key]; selects(selector, p.workload.Labels) {
			pods = append(pods, p)
		}
	}
	slices.SortFunc(pods, comparePods)
	return pods
}

// distinct drops repetitions and keeps the order.
func distinct[T comparable](list []T) []T {
	var out []T
	for _, v := range list {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}
