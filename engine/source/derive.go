// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/evenkeel/evenkeel/engine"
	corev1 "k8s.io/api/core/v1"
)

// derive returns the slices of a service that selects pods, as the EndpointSlice controller would have written them
// (k8s.io/endpointslice of Kubernetes 1.37), but one for each family and distinct set of ports, however many
// endpoints that has. pods are those that the selector matches, in the order of their names; zone returns the zone of
// a node.
func (s *service) derive(pods []*pod, zone func(node string) string) ([]*engine.Slice, notes) {
	d := deriver{service: s, zone: zone, slices: map[string]*engine.Slice{}, resolved: make([]bool, len(s.ports))}
	candidates := 0
	for _, p := range pods {
		if p.finished || len(p.workload.Addresses) == 0 {
			continue
		}
		candidates++
		ports := d.portsIn(p)
		if len(ports) == 0 && len(s.ports) > 0 {
			continue
		}
		for _, family := range s.families {
			d.add(p, family, ports)
		}
	}
	var notes notes
	for i, ok := range d.resolved {
		if t := s.ports[i]; !ok && candidates > 0 {
			notes.add("port %q: no pod that it selects has a %s port named %q", t.name, t.protocol, t.named)
		}
	}
	out := make([]*engine.Slice, 0, len(d.slices))
	for _, slice := range d.slices {
		out = append(out, slice)
	}
	slices.SortFunc(out, func(a, b *engine.Slice) int { return cmp.Compare(a.Name, b.Name) })
	return out, notes
}

type deriver struct {
	service *service
	zone    func(string) string
	slices  map[string]*engine.Slice
	// resolved tells which of the service's ports some pod has.
	resolved []bool
}

func (d *deriver) portsIn(p *pod) []engine.SlicePort {
	ports := make([]engine.SlicePort, 0, len(d.service.ports))
	for i, t := range d.service.ports {
		if number, ok := p.resolve(t); ok {
			d.resolved[i] = true
			ports = append(ports, engine.SlicePort{Name: t.name, Protocol: t.protocol, Port: number})
		}
	}
	return ports
}

func (d *deriver) add(p *pod, family corev1.IPFamily, ports []engine.SlicePort) {
	address, ok := p.address(family)
	if !ok {
		return
	}
	name := sliceName(d.service.Name, family, ports)
	slice := d.slices[name]
	if slice == nil {
		slice = &engine.Slice{Name: name, Service: d.service.Name, Ports: ports, Origin: d.service.Origin}
		d.slices[name] = slice
	}
	e := engine.Endpoint{
		Address:     address,
		Workload:    p.workload.Name,
		Node:        p.workload.Node,
		Zone:        d.zone(p.workload.Node),
		Weight:      p.weight,
		Ready:       d.service.publishNotReady || p.ready && !p.terminating,
		Serving:     p.ready,
		Terminating: p.terminating,
	}
	e.Hints = hints(d.service.Distribution, &e)
	slice.Endpoints = append(slice.Endpoints, e)
}

// hints sends clients to ready endpoints of their own zone, and node where the service asks for that.
func hints(d engine.Distribution, e *engine.Endpoint) *engine.Hints {
	if d == engine.Anywhere || !e.Ready {
		return nil
	}
	h := &engine.Hints{}
	if e.Zone != "" {
		h.Zones = []string{e.Zone}
	}
	if d == engine.SameNode && e.Node != "" {
		h.Nodes = []string{e.Node}
	}
	return h
}

// sliceName is "shop/web/ipv4/http=8080/TCP,9090/TCP". A written EndpointSlice has one slash in its name, so the two
// never meet.
func sliceName(service string, family corev1.IPFamily, ports []engine.SlicePort) string {
	var b strings.Builder
	b.WriteString(service)
	b.WriteByte('/')
	b.WriteString(strings.ToLower(string(family)))
	separator := byte('/')
	for _, p := range ports {
		b.WriteByte(separator)
		if p.Name != "" {
			b.WriteString(p.Name)
			b.WriteByte('=')
		}
		b.WriteString(strconv.Itoa(int(p.Port)))
		b.WriteByte('/')
		b.WriteString(p.Protocol.String())
		separator = ','
	}
	return b.String()
}

// selects tells whether a selector, which is not empty, matches labels.
func selects(selector, labels map[string]string) bool {
	for name, value := range selector {
		if v, ok := labels[name]; !ok || v != value {
			return false
		}
	}
	return true
}
