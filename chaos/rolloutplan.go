// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/manifest"
	"github.com/evenkeel/evenkeel/engine/source"
	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/flow"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

// rolloutPlan is who talks to whom on somebody's topology: worked out from his manifests by this program, not by either
// of the releases.
type rolloutPlan struct {
	// servers are the ports of pods behind services, by "namespace/name".
	servers map[string][]flow.Port
	// clients are the flows of one enrolled pod of each node.
	clients map[string][]flow.Spec
	// catchers are the ports at which each client's node takes what the data plane lets pass, of the addresses.
	catchers  map[string][]flow.Port
	addresses []netip.Addr
	// notes say what is not watched, and why.
	notes []string
}

// flowsAtTen is how many flows are watched at their own period; with twice as many it is twice that, and so on: the
// instrument is to cost the machine no more than that.
const flowsAtTen = 100

// planRollout makes the plan of a lab: from one enrolled pod of each node to every port of every service, by each address,
// and to a pod behind it without the service. What has no endpoint for that node must be refused at every instant.
func planRollout(lab netsim.Info, documents []manifest.Document) (*rolloutPlan, error) {
	state := source.New(source.Options{Derive: true})
	for _, d := range documents {
		state.Upsert(d.Object, d.File)
	}
	change := state.Change()
	p := &rolloutPlan{servers: map[string][]flow.Port{}, clients: map[string][]flow.Spec{},
		catchers: map[string][]flow.Port{}}
	pods, clients := map[string]netsim.PodInfo{}, map[string]string{} // by name; by node
	for _, pod := range lab.Pods {
		name := pod.Namespace + "/" + pod.Name
		pods[name] = pod
		if pod.Enrolled && !pod.HostNetwork && clients[pod.Node] == "" {
			clients[pod.Node] = name
		}
	}
	for _, node := range slices.Sorted(maps.Keys(clients)) {
		p.clients[clients[node]] = nil
	}
	services := sortedServices(change)
	for _, s := range services {
		p.addresses = append(p.addresses, s.Addresses...)
		for _, port := range s.Ports {
			p.addPort(s, port, targets(change, s, port), pods, clients)
		}
	}
	if len(p.addresses) > 0 {
		p.addUnknownPorts(services, clients)
	}
	for client, flows := range p.clients {
		if len(flows) == 0 {
			delete(p.clients, client)
		}
	}
	if len(p.clients) == 0 {
		return nil, fmt.Errorf("there is nothing to watch: the topology needs enrolled pods, and services with addresses " +
			"whose endpoints are pods of it")
	}
	p.catch(lab, services, clients)
	p.pace()
	return p, nil
}

func sortedServices(c engine.Change) (all []*engine.Service) {
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		if s := c.Services[name]; s != nil && len(s.Addresses) > 0 {
			all = append(all, s)
		}
	}
	return all
}

// target is an endpoint of a port of a service.
type target struct {
	engine.Endpoint
	port uint16
}

// targets are the endpoints of a port that may get connections, in order.
func targets(c engine.Change, s *engine.Service, port engine.ServicePort) (all []target) {
	for _, name := range slices.Sorted(maps.Keys(c.Slices)) {
		slice := c.Slices[name]
		if slice == nil || slice.Service != s.Name {
			continue
		}
		i := slices.IndexFunc(slice.Ports, func(p engine.SlicePort) bool {
			return p.Name == port.Name && p.Protocol == port.Protocol
		})
		if i < 0 {
			continue
		}
		for _, e := range slice.Endpoints {
			if e.Ready && e.Weight > 0 {
				all = append(all, target{e, slice.Ports[i].Port})
			}
		}
	}
	return all
}

// carrier is what a server speaks at a port: the data plane does not look into it.
func carrier(p engine.Protocol) *wire.Protocol {
	if p == engine.UDP {
		return wire.UDP
	}
	return wire.Stream
}

// addPort watches a port of a service from all clients.
func (p *rolloutPlan) addPort(s *engine.Service, port engine.ServicePort, all []target, pods map[string]netsim.PodInfo,
	clients map[string]string) {
	protocol := carrier(port.Protocol)
	what := fmt.Sprintf("%s %d/%s", s.Name, port.Port, protocol.Network)
	for _, t := range all {
		if _, is := pods[t.Workload]; !is {
			p.notes = append(p.notes, fmt.Sprintf("%s is not watched: its endpoint %v is no pod of the topology", what, t.Address))
			return
		}
	}
	for _, t := range all {
		if at := (flow.Port{Protocol: protocol, Number: t.port}); !slices.Contains(p.servers[t.Workload], at) {
			p.servers[t.Workload] = append(p.servers[t.Workload], at)
		}
	}
	for _, node := range slices.Sorted(maps.Keys(clients)) {
		client := clients[node]
		for _, address := range s.Addresses {
			here := slices.DeleteFunc(slices.Clone(all), func(t target) bool {
				return t.Address.Is4() != address.Is4() || s.LocalOnly && t.Node != node
			})
			to := netip.AddrPortFrom(address, port.Port)
			if len(here) == 0 {
				p.clients[client] = append(p.clients[client], refusal(client+" to "+what+", which has no endpoint for it", to, protocol))
				continue
			}
			p.clients[client] = append(p.clients[client], everyKindOf(protocol, client+" to "+what, to)...)
			direct := netip.AddrPortFrom(here[0].Address, here[0].port)
			p.clients[client] = append(p.clients[client], flow.Spec{Name: fmt.Sprintf("%s to %s, %v behind %v", client,
				here[0].Workload, direct, to), Kind: map[string]string{"tcp": "trickle", "udp": "udp"}[protocol.Network], To: direct})
		}
	}
}

// everyKindOf is a flow of each kind that a protocol carries, but for bulk: fifty megabits a second for each port are more
// than a small machine has.
func everyKindOf(protocol *wire.Protocol, what string, to netip.AddrPort) (flows []flow.Spec) {
	for _, k := range flow.Kinds() {
		if k.Protocol != protocol || k.Name == "bulk" {
			continue
		}
		s := flow.Spec{Name: fmt.Sprintf("%s, %s %v", what, k.Name, to), Kind: k.Name, To: to, Period: flow.Duration(k.Period)}
		if k.Name == "probe" {
			s.Must = record.MustPass
		}
		flows = append(flows, s)
	}
	return flows
}

func refusal(why string, to netip.AddrPort, protocol *wire.Protocol) flow.Spec {
	return flow.Spec{Name: fmt.Sprintf("%s, %s %v", why, protocol.Network, to), Kind: "probe", Must: record.MustFail,
		Protocol: protocol.Name, To: to}
}

// addUnknownPorts has each client try a port that no service has.
func (p *rolloutPlan) addUnknownPorts(services []*engine.Service, clients map[string]string) {
	for _, client := range slices.Sorted(maps.Values(clients)) {
		p.clients[client] = append(p.clients[client],
			refusal(client+" to no port of a service", netip.AddrPortFrom(services[0].Addresses[0], unknownPort(services)), wire.Stream))
	}
}

// unknownPort is the last port that no service has.
func unknownPort(services []*engine.Service) uint16 {
	port := uint16(65535)
	for slices.ContainsFunc(services, func(s *engine.Service) bool {
		return slices.ContainsFunc(s.Ports, func(p engine.ServicePort) bool { return p.Port == port })
	}) {
		port--
	}
	return port
}

// catch has each client's node answer whatever passes by the data plane. Where a pod in the node's own network listens
// already, that one does.
func (p *rolloutPlan) catch(lab netsim.Info, services []*engine.Service, clients map[string]string) {
	all := []flow.Port{{Protocol: wire.Stream, Number: unknownPort(services)}}
	for _, s := range services {
		for _, port := range s.Ports {
			all = append(all, flow.Port{Protocol: carrier(port.Protocol), Number: port.Port})
		}
	}
	for node := range clients {
		taken := map[flow.Port]bool{}
		for _, pod := range lab.Pods {
			if pod.HostNetwork && pod.Node == node {
				for _, port := range p.servers[pod.Namespace+"/"+pod.Name] {
					taken[port] = true
				}
			}
		}
		for _, port := range all {
			if !taken[port] {
				taken[port] = true
				p.catchers[node] = append(p.catchers[node], port)
			}
		}
	}
}

// pace gives the flows periods that the machine can bear.
func (p *rolloutPlan) pace() {
	n := 0
	for _, flows := range p.clients {
		n += len(flows)
	}
	slower := max(1, (n+flowsAtTen-1)/flowsAtTen)
	for _, flows := range p.clients {
		for i := range flows {
			flows[i].Period = flow.Duration(slower) * cmp.Or(flows[i].Period, flow.Duration(10*time.Millisecond))
		}
	}
	if slower > 1 {
		p.notes = append(p.notes, fmt.Sprintf("%d flows are watched at %d times their usual periods", n, slower))
	}
}
