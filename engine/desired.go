// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// desired is what the sources say, in whatever order they say it: references to what is not there yet are kept.
type desired struct {
	node      string
	sources   []string // in rising precedence
	services  layers[Service]
	slices    layers[Slice]
	nodes     layers[Node]      // this node only: nothing else depends on one
	others    []map[string]bool // by source: names of nodes that are not this one
	workloads layers[Workload]
	spaces    layers[Namespace]
	synced    [][kinds]bool // by source
	zone      string        // of this node
	byName    map[string]*service
}

// service is everything known about one service name. It exists while a source has the service or a slice of it.
type service struct {
	name     string
	spec     *Service // nil if only slices name it
	slices   []*Slice // in order of name
	sets     []*set   // its addresses, ports and protocols in the kernel
	guards   []key    // addresses of one without ports, which refuse all
	problems []error  // why it is not served as it should be
}

// elsewhere stands for every workload of another node: its key may hide one of a lower source, no more is needed.
var elsewhere = &Workload{}

func newDesired(node string, sources []string) *desired {
	n := len(sources)
	return &desired{
		node: node, sources: sources,
		services: newLayers[Service](n), slices: newLayers[Slice](n),
		nodes: newLayers[Node](n), workloads: newLayers[Workload](n), spaces: newLayers[Namespace](n),
		others: make([]map[string]bool, n), synced: make([][kinds]bool, n), byName: make(map[string]*service),
	}
}

// stranger reports whether the sources know nodes, by name or as where a pod runs, but none of them knows this one.
func (d *desired) stranger() bool {
	if d.nodes.winner(d.node) != nil {
		return false
	}
	others := slices.ContainsFunc(d.others, func(names map[string]bool) bool { return len(names) > 0 })
	for _, of := range d.workloads {
		for _, w := range of {
			if w.Node == d.node {
				return false
			}
			others = others || w == elsewhere
		}
	}
	return others
}

// isSynced reports whether every source has sent every kind.
func (d *desired) isSynced() bool {
	for _, s := range d.synced {
		for _, synced := range s {
			if !synced {
				return false
			}
		}
	}
	return true
}

// heard reports whether whoever may have a say about s has said all: its source and those above it and, if s prefers
// near endpoints, whoever knows where this node is.
func (d *desired) heard(s *service) bool {
	for _, synced := range d.synced[d.services.source(s.name):] {
		if !synced[Services] || !synced[Slices] {
			return false
		}
	}
	if s.spec.Distribution == Anywhere || d.nodes.winner(d.node) != nil {
		return true
	}
	return !slices.ContainsFunc(d.synced, func(synced [kinds]bool) bool { return !synced[Nodes] })
}

// take records a change and returns the services that it may affect, and what of it cannot be.
func (d *desired) take(source string, c Change) (map[string]*service, []error, error) {
	from := slices.Index(d.sources, source)
	if from < 0 {
		return nil, nil, fmt.Errorf("apply change of source %q: not one of %s", source, strings.Join(d.sources, ", "))
	}
	dirty := make(map[string]*service)
	errs := d.takeServices(from, c.Services, dirty)
	errs = append(errs, d.takeSlices(from, c.Slices, dirty)...)
	d.takeNodes(from, c.Nodes, dirty)
	for name, w := range c.Workloads {
		if w != nil && w.Node != "" && w.Node != d.node {
			w = elsewhere
		}
		d.workloads.set(from, name, w)
	}
	for name, n := range c.Namespaces {
		d.spaces.set(from, name, n)
	}
	for _, k := range c.Synced {
		if k < kinds {
			d.synced[from][k] = true
		}
	}
	return dirty, errs, nil
}

func (d *desired) takeServices(from int, changed map[string]*Service, dirty map[string]*service) []error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(changed)) {
		spec := changed[name]
		if spec != nil {
			if err := validate(name, spec); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		before, after := d.services.set(from, name, spec)
		if before != after {
			s := d.service(name)
			s.spec = after
			dirty[name] = s
		}
	}
	return errs
}

func (d *desired) takeSlices(from int, changed map[string]*Slice, dirty map[string]*service) []error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(changed)) {
		slice := changed[name]
		if slice != nil {
			var invalid []error
			slice, invalid = usable(name, slice)
			errs = append(errs, invalid...)
		}
		before, after := d.slices.set(from, name, slice)
		if before == after {
			continue
		}
		if before != nil {
			s := d.service(before.Service)
			s.slices = slices.DeleteFunc(s.slices, func(x *Slice) bool { return x == before })
			dirty[s.name] = s
		}
		if after != nil {
			s := d.service(after.Service)
			at, _ := slices.BinarySearchFunc(s.slices, name, func(x *Slice, name string) int {
				return strings.Compare(x.Name, name)
			})
			s.slices = slices.Insert(s.slices, at, after)
			dirty[s.name] = s
		}
	}
	return errs
}

// takeNodes keeps this node's entry. Its zone decides about every service that prefers near endpoints.
func (d *desired) takeNodes(from int, changed map[string]*Node, dirty map[string]*service) {
	for name, node := range changed {
		switch {
		case name == d.node:
		case node == nil:
			delete(d.others[from], name)
		default:
			if d.others[from] == nil {
				d.others[from] = make(map[string]bool)
			}
			d.others[from][name] = true
		}
	}
	node, ok := changed[d.node]
	if !ok {
		return
	}
	zone := ""
	if _, after := d.nodes.set(from, d.node, node); after != nil {
		zone = after.Zone
	}
	if zone == d.zone {
		return
	}
	d.zone = zone
	for name, s := range d.byName {
		if s.spec != nil && s.spec.Distribution != Anywhere {
			dirty[name] = s
		}
	}
}

// service returns what is known of a name, new if nothing was.
func (d *desired) service(name string) *service {
	s := d.byName[name]
	if s == nil {
		s = &service{name: name}
		d.byName[name] = s
	}
	return s
}

// forget drops a service of which nothing is left.
func (d *desired) forget(s *service) {
	if s.spec == nil && len(s.slices) == 0 && len(s.sets) == 0 && len(s.guards) == 0 {
		delete(d.byName, s.name)
	}
}

// validate says what is wrong with a service as a whole: it is then not taken, and what was known of it stays.
func validate(name string, s *Service) error {
	bad := func(format string, args ...any) error { return invalid(Services, name, s.Origin, format, args...) }
	for i, a := range s.Addresses {
		if a = a.Unmap(); !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
			return bad("address %s is not one that can be dialled", a)
		}
		for _, b := range s.Addresses[:i] {
			if b.Unmap().Is4() == a.Is4() {
				return bad("two addresses of one family, %s and %s", b, a)
			}
		}
	}
	if s.Affinity < 0 || s.Affinity > math.MaxUint32*time.Second {
		return bad("affinity of %s is not between 0 and %d seconds", s.Affinity, uint32(math.MaxUint32))
	}
	for i, p := range s.Ports {
		if p.Port == 0 {
			return bad("port %q has number 0", p.Name)
		}
		if p.Protocol != TCP && p.Protocol != UDP {
			return bad("port %d has %s, neither TCP nor UDP", p.Port, p.Protocol)
		}
		for _, q := range s.Ports[:i] {
			if q.Port == p.Port && q.Protocol == p.Protocol {
				return bad("port %d of %s is there twice", p.Port, p.Protocol)
			}
		}
	}
	return nil
}
