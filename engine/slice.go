// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"
	"strings"
	"unique"

	"github.com/evenkeel/evenkeel/bpf"
)

// Conditions and hints of an endpoint, as this node sees them.
const (
	isReady uint8 = 1 << iota
	isServing
	isTerminating
	isHere     // it runs on this node
	hasNodes   // it has hints for nodes
	isHinted   // one of them is this node
	hasZones   // it has hints for zones
	isMappedV4 // its address is IPv4
)

// endpoint is an Endpoint as the engine keeps it: 64 bytes, for there are 100,000 of them. Names that many share are
// stored once.
type endpoint struct {
	address    bpf.MeshAddress
	workload   string
	node, zone unique.Handle[string]
	zones      unique.Handle[string] // hints, joined by NUL
	weight     uint32
	is         uint8
}

// slice is a Slice as the engine keeps it.
type slice struct {
	name, service string
	ports         []SlicePort
	endpoints     []endpoint
	origin        string
}

// newSlice copies s as the node of that name sees it. Endpoints that cannot be are left out and reported: the others
// must not wait for them. before is an earlier version of it, or nil: most of what it says is the same.
func newSlice(s *Slice, before *slice, node string) (*slice, []error) {
	var errs []error
	c := &slice{
		name: s.Name, service: s.Service, origin: s.Origin,
		ports:     slices.Clone(s.Ports),
		endpoints: make([]endpoint, 0, len(s.Endpoints)),
	}
	like := endpoint{node: unique.Make(""), zone: unique.Make(""), zones: unique.Make("")}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if before != nil && i < len(before.endpoints) {
			like = before.endpoints[i]
		}
		switch a := e.Address.Unmap(); {
		case !a.IsValid() || a.IsUnspecified() || a.IsMulticast():
			errs = append(errs, invalid(Slices, s.Name, s.Origin,
				"endpoint %d: address %s is not one that can be dialled", i, e.Address))
		case a.Zone() != "":
			errs = append(errs, invalid(Slices, s.Name, s.Origin,
				"endpoint %d: address %s has a zone, which means nothing on another machine", i, e.Address))
		default:
			like = newEndpoint(e, like, node)
			c.endpoints = append(c.endpoints, like)
		}
	}
	return c, errs
}

// newEndpoint copies e. It is probably like another in much.
func newEndpoint(e *Endpoint, like endpoint, node string) endpoint {
	c := endpoint{
		address: bpf.AddressOf(e.Address), workload: e.Workload, weight: e.Weight,
		node: intern(e.Node, like.node), zone: intern(e.Zone, like.zone),
		zones: intern(strings.Join(e.ForZones, "\x00"), like.zones),
	}
	set := func(bit uint8, on bool) {
		if on {
			c.is |= bit
		}
	}
	set(isReady, e.Ready)
	set(isServing, e.Serving)
	set(isTerminating, e.Terminating)
	set(isHere, e.Node != "" && e.Node == node)
	set(hasNodes, len(e.ForNodes) > 0)
	set(isHinted, slices.Contains(e.ForNodes, node))
	set(hasZones, len(e.ForZones) > 0)
	set(isMappedV4, e.Address.Unmap().Is4())
	return c
}

// intern is unique.Make, which costs more than a look at whether it is the expected string.
func intern(s string, expected unique.Handle[string]) unique.Handle[string] {
	if expected.Value() == s {
		return expected
	}
	return unique.Make(s)
}

func (e *endpoint) hintedTo(zone string) bool {
	if zone == "" || e.is&hasZones == 0 {
		return false
	}
	for z := range strings.SplitSeq(e.zones.Value(), "\x00") {
		if z == zone {
			return true
		}
	}
	return false
}

// target returns the port of s that stands behind a service port, 0 if it has none.
func (s *slice) target(port *ServicePort) uint16 {
	for i := range s.ports {
		if p := &s.ports[i]; p.Name == port.Name && p.Protocol == port.Protocol {
			return p.Port
		}
	}
	return 0
}
