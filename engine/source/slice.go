// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"strings"

	"github.com/evenkeel/evenkeel/engine"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// slice is what is kept of an EndpointSlice. What its endpoints get from pods and nodes is added when those are
// known.
type slice struct {
	// Slice is nil if the EndpointSlice is of no use here; notes tell why.
	*engine.Slice
	origin string
	notes  notes
}

func newSlice(s *discoveryv1.EndpointSlice, origin string) *slice {
	out := &slice{origin: origin}
	name := s.Labels[discoveryv1.LabelServiceName]
	switch {
	case name == "":
		out.notes.add("has no label %s, so it belongs to no service", discoveryv1.LabelServiceName)
		return out
	case s.AddressType == discoveryv1.AddressTypeFQDN:
		out.notes.add("has addressType FQDN: endpoints are addresses here, names are never resolved")
		return out
	}
	out.Slice = &engine.Slice{
		Name:    s.Namespace + "/" + s.Name,
		Service: s.Namespace + "/" + name,
		Origin:  origin,
	}
	for _, p := range s.Ports {
		out.addPort(p)
	}
	names := newWorkloadNames(s)
	out.Endpoints = make([]engine.Endpoint, 0, len(s.Endpoints))
	for i := range s.Endpoints {
		out.addEndpoint(&s.Endpoints[i], names)
	}
	return out
}

// workloadNames makes the names of all workloads of an EndpointSlice in one string: they live as long as each other, and
// 100,000 small ones among what is garbage soon would keep twice their memory.
type workloadNames struct {
	namespace string // of the EndpointSlice
	all       strings.Builder
}

func newWorkloadNames(s *discoveryv1.EndpointSlice) *workloadNames {
	n := &workloadNames{namespace: s.Namespace}
	size := 0
	for i := range s.Endpoints {
		if namespace, name := n.parts(&s.Endpoints[i]); name != "" {
			size += len(namespace) + len("/") + len(name)
		}
	}
	n.all.Grow(size)
	return n
}

// parts are empty for an endpoint that is no pod.
func (n *workloadNames) parts(e *discoveryv1.Endpoint) (namespace, name string) {
	t := e.TargetRef
	if t == nil || t.Kind != "Pod" || t.Name == "" {
		return "", ""
	}
	return cmp.Or(t.Namespace, n.namespace), t.Name
}

// of returns "namespace/name" of an endpoint's pod; empty if it is none.
func (n *workloadNames) of(e *discoveryv1.Endpoint) string {
	namespace, name := n.parts(e)
	if name == "" {
		return ""
	}
	begin := n.all.Len()
	n.all.WriteString(namespace)
	n.all.WriteByte('/')
	n.all.WriteString(name)
	return n.all.String()[begin:]
}

func (s *slice) addPort(p discoveryv1.EndpointPort) {
	protocol, ok := protocolOf(or(p.Protocol, ""))
	name := or(p.Name, "")
	switch {
	case p.Port == nil:
		s.notes.add("port %q has no number and is left out", name)
	case !ok:
		s.notes.add("port %d/%s is left to the cluster: only TCP and UDP are governed", *p.Port, *p.Protocol)
	default:
		s.Ports = append(s.Ports, engine.SlicePort{Name: name, Protocol: protocol, Port: uint16(*p.Port)})
	}
}

// addEndpoint takes the first address: the others are the same endpoint by other routes (discovery/v1, Endpoint), and
// an endpoint counts once.
func (s *slice) addEndpoint(e *discoveryv1.Endpoint, names *workloadNames) {
	if len(e.Addresses) == 0 {
		return
	}
	address, ok := s.notes.address("address", e.Addresses[0])
	if !ok {
		return
	}
	out := engine.Endpoint{
		Address:     address,
		Workload:    names.of(e),
		Node:        or(e.NodeName, ""),
		Zone:        or(e.Zone, ""),
		Weight:      defaultWeight,
		Ready:       or(e.Conditions.Ready, true),
		Terminating: or(e.Conditions.Terminating, false),
	}
	out.Serving = or(e.Conditions.Serving, true) // as discovery/v1 and kube-proxy have it
	if h := e.Hints; h != nil {
		out.Hints = &engine.Hints{}
		for _, z := range h.ForZones {
			out.Hints.Zones = append(out.Hints.Zones, z.Name)
		}
		for _, n := range h.ForNodes {
			out.Hints.Nodes = append(out.Hints.Nodes, n.Name)
		}
	}
	s.Endpoints = append(s.Endpoints, out)
}
