// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/bpf"
)

// ServiceView is a service as it is served, for people and their tools.
type ServiceView struct {
	// Name is empty for what an earlier process left and no source has named yet.
	Name           string        `json:"name"`
	Network        uint32        `json:"network,omitempty"`
	Addresses      []netip.Addr  `json:"addresses"`
	Affinity       time.Duration `json:"affinityNanoseconds,omitempty"`
	ConsistentHash bool          `json:"consistentHash,omitempty"`
	LocalOnly      bool          `json:"localOnly,omitempty"`
	Distribution   string        `json:"distribution,omitempty"`
	ExternalName   string        `json:"externalName,omitempty"` // what it is another name for
	Origin         string        `json:"origin,omitempty"`
	Ports          []PortView    `json:"ports"`
	// Problems say why it is not served as it should be; none if it is.
	Problems []string `json:"problems"`
}

// PortView is one address, port and protocol of a service.
type PortView struct {
	Name     string         `json:"name,omitempty"`
	Address  netip.AddrPort `json:"address"`
	Protocol string         `json:"protocol"`
	// Served is false if the kernel does not know of it; then Problems of the service say why.
	Served bool `json:"served"`
	// Record and Incarnation are the index of its record in map services and which of its uses it is: what flows name.
	Record      uint32 `json:"record,omitempty"`
	Incarnation uint32 `json:"incarnation,omitempty"`
	// Level is the one that new connections use, empty if all are refused.
	Level  string      `json:"level,omitempty"`
	Levels []LevelView `json:"levels"`
}

// LevelView is a level that has endpoints; see enum service_level of the kernel side.
type LevelView struct {
	Level     string         `json:"level"`
	Endpoints []EndpointView `json:"endpoints"`
}

// EndpointView is one endpoint behind one port of a service.
type EndpointView struct {
	Service string `json:"service,omitempty"`
	// Port is what clients dial, Address where they get to.
	Port     netip.AddrPort `json:"port"`
	Protocol string         `json:"protocol"`
	Address  netip.AddrPort `json:"address"`
	Level    string         `json:"level"`
	Workload string         `json:"workload,omitempty"`
	Node     string         `json:"node,omitempty"`
	Zone     string         `json:"zone,omitempty"`
	Weight   uint32         `json:"weight"`
	Ready    bool           `json:"ready"`
	// Serving and Terminating, as Ready, are as the source says, or as Level tells of what no source has named.
	Serving     bool `json:"serving"`
	Terminating bool `json:"terminating,omitempty"`
	// Adopted is set while no source has named it: an earlier process left it.
	Adopted bool `json:"adopted,omitempty"`
}

var levelNames = [levels]string{"node", "zone", "ready", "serving"}

func (d Distribution) String() string {
	switch d {
	case SameZone:
		return "same zone"
	case SameNode:
		return "same node"
	}
	return "anywhere"
}

// Services returns every service in order of name, those without one first.
func (e *Engine) Services() []ServiceView {
	e.mu.Lock()
	defer e.mu.Unlock()
	var views []ServiceView
	for _, st := range e.sortedSets() {
		if st.owner == nil {
			views = append(views, e.foundView(st))
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(e.mirror.guards), func(a, b key) int { return compareKeys(&a, &b) }) {
		if g := e.mirror.guards[k]; g.listed && g.users == 0 { // of a service without ports that an earlier process left
			views = append(views, ServiceView{Network: k.Network, Addresses: []netip.Addr{k.Address.Addr()}})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.desired.byName)) {
		if s := e.desired.byName[name]; s.spec != nil {
			views = append(views, e.serviceView(s))
		}
	}
	return views
}

// foundView shows a set that an earlier process left, as far as its record tells.
func (e *Engine) foundView(st *set) ServiceView {
	v := ServiceView{
		Network: st.key.Network, Addresses: []netip.Addr{st.key.Address.Addr()}, Ports: []PortView{e.portView(st, nil)},
	}
	if st.damaged || st.flags == ^uint32(0) { // it is of a form that this release does not know
		return v
	}
	v.ConsistentHash = st.flags&uint32(bpf.MeshServiceFlagSERVICE_CONSISTENT) != 0
	if st.flags&uint32(bpf.MeshServiceFlagSERVICE_AFFINITY) != 0 {
		v.Affinity = time.Duration(st.affinity) * time.Second
	}
	return v
}

func (e *Engine) serviceView(s *service) ServiceView {
	v := ServiceView{
		Name: s.name, Network: s.spec.Network, Addresses: slices.Clone(s.spec.Addresses), Affinity: s.spec.Affinity,
		ConsistentHash: s.spec.ConsistentHash, LocalOnly: s.spec.LocalOnly, Origin: s.spec.Origin,
		ExternalName: s.spec.ExternalName,
	}
	if s.spec.Distribution != Anywhere {
		v.Distribution = s.spec.Distribution.String()
	}
	for _, st := range s.sets {
		v.Ports = append(v.Ports, e.portView(st, s.spec.port(st.key)))
	}
	for _, p := range s.problems {
		v.Problems = append(v.Problems, p.Error())
	}
	return v
}

// port returns the port of s that k is of; nil if none is.
func (s *Service) port(k key) *ServicePort {
	for i := range s.Ports {
		if p := &s.Ports[i]; bpf.BigEndian(p.Port) == k.Port && uint8(p.Protocol) == k.Protocol {
			return p
		}
	}
	return nil
}

// portView shows a set; port is nil for one that nobody has claimed.
func (e *Engine) portView(st *set, port *ServicePort) PortView {
	v := PortView{
		Address: addressOf(st.key), Protocol: Protocol(st.key.Protocol).String(),
		Served: st.index != 0, Record: st.index, Incarnation: st.incarnation,
	}
	if port != nil {
		v.Name = port.Name
	}
	endpoints := e.endpointViews(st, port)
	for l, name := range levelNames {
		if st.levels[l].count == 0 {
			continue
		}
		if v.Level == "" {
			v.Level = name
		}
		of := slices.DeleteFunc(slices.Clone(endpoints), func(x EndpointView) bool { return x.Level != name })
		v.Levels = append(v.Levels, LevelView{Level: name, Endpoints: of})
	}
	return v
}

// endpointViews shows the endpoints of a set, in order of address within a level.
func (e *Engine) endpointViews(st *set, port *ServicePort) []EndpointView {
	w := newWants()
	name := ""
	if st.owner != nil && st.owner.spec != nil && port != nil {
		name = st.owner.name
		w.gather(st.owner, port, isMappedAddress(st.key.Address), e.desired)
	} else {
		w.reset(0)
	}
	var views []EndpointView
	for l := range st.levels {
		begin := len(views)
		for _, index := range st.levels[l].members {
			r := e.mirror.records.at(index)
			var of *Endpoint
			if x := w.find(r.address, r.port); x != nil {
				of = x.of
			}
			views = append(views, r.view(name, of))
		}
		slices.SortFunc(views[begin:], func(a, b EndpointView) int { return a.Address.Compare(b.Address) })
	}
	return views
}

// view shows a record; of is what the sources say of it, nil if nothing. Then its level tells its conditions.
func (r *record) view(service string, of *Endpoint) EndpointView {
	v := EndpointView{
		Service: service, Port: addressOf(r.set.key), Protocol: Protocol(r.set.key.Protocol).String(),
		Address: netip.AddrPortFrom(r.address.Addr(), r.port), Level: levelNames[r.level], Weight: r.weight,
		Adopted: r.held,
	}
	if of == nil {
		v.Ready, v.Serving, v.Terminating = r.level != levelServing, true, r.level == levelServing
	} else {
		v.Workload, v.Node, v.Zone = of.Workload, of.Node, of.Zone
		v.Ready, v.Serving, v.Terminating = of.Ready, of.Serving, of.Terminating
	}
	return v
}

// Endpoints returns every endpoint in the kernel, in order of the port that clients dial.
func (e *Engine) Endpoints() []EndpointView {
	e.mu.Lock()
	defer e.mu.Unlock()
	var views []EndpointView
	for _, st := range e.sortedSets() {
		var port *ServicePort
		if st.owner != nil {
			port = st.owner.spec.port(st.key)
		}
		views = append(views, e.endpointViews(st, port)...)
	}
	return views
}

func (e *Engine) sortedSets() []*set {
	return slices.SortedFunc(maps.Values(e.mirror.sets), func(a, b *set) int {
		return cmp.Or(addressOf(a.key).Compare(addressOf(b.key)), cmp.Compare(a.key.Protocol, b.key.Protocol),
			cmp.Compare(a.key.Network, b.key.Network))
	})
}

func addressOf(k key) netip.AddrPort {
	return netip.AddrPortFrom(k.Address.Addr(), bpf.BigEndian(k.Port))
}

// ServiceAt names the service and port of a record: "web/shop:http"; false if it is another's by now.
func (e *Engine) ServiceAt(index, incarnation uint32) (service string, port netip.AddrPort, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if int(index) >= len(e.mirror.byIndex) {
		return "", port, false
	}
	st := e.mirror.byIndex[index]
	if st == nil || st.incarnation != incarnation {
		return "", port, false
	}
	if st.owner != nil {
		service = st.owner.name
	}
	return service, addressOf(st.key), true
}

// EndpointAt returns the address and the workload, if it is one, of an endpoint as flows refer to it
// (bpf.EndpointRef); false if it is gone.
func (e *Engine) EndpointAt(ref uint64) (EndpointView, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	index, incarnation := uint32(ref), uint32(ref>>32)
	if index >= e.tables.capacity().endpoints {
		return EndpointView{}, false
	}
	r := e.mirror.records.at(index)
	if r.set == nil || r.incarnation != incarnation {
		return EndpointView{}, false
	}
	owner := r.set.owner
	if owner == nil || owner.spec == nil {
		return r.view("", nil), true
	}
	return r.view(owner.name, owner.endpoint(owner.spec.port(r.set.key), r)), true
}

// endpoint returns what the slices say of r, as for [wants.gather]; nil if none has it.
func (s *service) endpoint(port *ServicePort, r *record) (found *Endpoint) {
	for _, sl := range s.slices {
		if port == nil || sl.target(port) != r.port {
			continue
		}
		for i := range sl.Endpoints {
			e := &sl.Endpoints[i]
			if bpf.AddressOf(e.Address) == r.address && (found == nil || e.usable() >= found.usable()) {
				found = e
			}
		}
	}
	return found
}
