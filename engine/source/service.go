// SPDX-License-Identifier: Apache-2.0

package source

import (
	"net/netip"
	"time"

	"github.com/evenkeel/evenkeel/engine"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ConsistentHashAnnotation on a Service chooses its endpoints by a hash instead of at random. The one value is
// "source": the hash of the client's address.
const ConsistentHashAnnotation = "evenkeel.io/consistent-hash"

// defaultAffinity is what sessionAffinity ClientIP means without a time (core/v1, ClientIPConfig).
const defaultAffinity = time.Duration(corev1.DefaultClientIPServiceAffinitySeconds) * time.Second

// service is what is kept of a Service.
type service struct {
	*engine.Service
	// ports are the service's ports with what they stand for in a pod.
	ports []targetPort
	// selector is nil if the service has none: its slices are all written by somebody else.
	selector        map[string]string
	publishNotReady bool
	families        []corev1.IPFamily
	notes           notes
}

// targetPort is the port of a pod behind a port of the service: a number, or a name that each pod resolves.
type targetPort struct {
	name     string
	protocol engine.Protocol
	number   uint16
	named    string
}

func newService(s *corev1.Service, origin string) *service {
	out := &service{Service: &engine.Service{
		Name:      s.Namespace + "/" + s.Name,
		LocalOnly: is(s.Spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyLocal),
		Origin:    origin,
	}}
	external := s.Spec.Type == corev1.ServiceTypeExternalName
	if external {
		out.ExternalName = s.Spec.ExternalName
	} else {
		out.selector = s.Spec.Selector
		out.Addresses = out.clusterAddresses(&s.Spec)
	}
	out.publishNotReady = s.Spec.PublishNotReadyAddresses
	out.families = familiesOf(&s.Spec, out.Addresses)
	out.addPorts(s.Spec.Ports)
	if s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		out.Affinity = defaultAffinity
		if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			out.Affinity = time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
		}
	}
	if d := s.Spec.TrafficDistribution; d != nil {
		switch *d {
		case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone:
			out.Distribution = engine.SameZone
		case corev1.ServiceTrafficDistributionPreferSameNode:
			out.Distribution = engine.SameNode
		default:
			out.notes.add("trafficDistribution %q is not known here: endpoints are chosen anywhere", *d)
		}
	}
	switch hash, set := s.Annotations[ConsistentHashAnnotation]; {
	case hash == "source":
		out.ConsistentHash = true
	case set:
		out.notes.add(`annotation %s: %q is not "source": endpoints are chosen at random`,
			ConsistentHashAnnotation, hash)
	}
	return out
}

// clusterAddresses returns none for a headless service.
func (s *service) clusterAddresses(spec *corev1.ServiceSpec) []netip.Addr {
	ips := spec.ClusterIPs
	if len(ips) == 0 && spec.ClusterIP != "" {
		ips = []string{spec.ClusterIP}
	}
	if len(ips) == 0 {
		s.notes.add("has no clusterIP, and nobody here gives it one: it cannot be dialled")
	}
	var addresses []netip.Addr
	for _, ip := range ips {
		if ip == corev1.ClusterIPNone {
			return nil
		}
		if a, ok := s.notes.address("clusterIP", ip); ok {
			addresses = append(addresses, a)
		}
	}
	return addresses
}

// familiesOf is the order in which the EndpointSlice controller finds out: what is declared, what the addresses are,
// both.
func familiesOf(spec *corev1.ServiceSpec, addresses []netip.Addr) []corev1.IPFamily {
	if len(spec.IPFamilies) > 0 {
		return spec.IPFamilies
	}
	if len(addresses) == 0 {
		return []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	}
	var families []corev1.IPFamily
	for _, a := range addresses {
		families = append(families, familyOf(a))
	}
	return families
}

func familyOf(a netip.Addr) corev1.IPFamily {
	if a.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

func (s *service) addPorts(ports []corev1.ServicePort) {
	for i := range ports {
		p := &ports[i]
		protocol, ok := protocolOf(p.Protocol)
		if !ok {
			s.notes.add("port %d/%s is left to the cluster: only TCP and UDP are governed", p.Port, p.Protocol)
			continue
		}
		s.Ports = append(s.Ports, engine.ServicePort{Name: p.Name, Protocol: protocol, Port: uint16(p.Port)})
		target := targetPort{name: p.Name, protocol: protocol, number: uint16(p.Port)}
		switch {
		case p.TargetPort.Type == intstr.String:
			target.named = p.TargetPort.StrVal
		case p.TargetPort.IntVal != 0:
			target.number = uint16(p.TargetPort.IntVal)
		}
		s.ports = append(s.ports, target)
	}
}

// protocolOf returns false for a protocol that the engine does not know.
func protocolOf(p corev1.Protocol) (engine.Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return engine.TCP, true
	case corev1.ProtocolUDP:
		return engine.UDP, true
	}
	return 0, false
}

// address reads an address. Manifests were checked and API servers check, so what does not parse is an oddity, which
// must not take the rest of its object along.
func (n *notes) address(what, text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		n.add("%s %q is not an IP address and is left out", what, text)
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// is tells whether an optional value is there and equal.
func is[T comparable](p *T, v T) bool { return p != nil && *p == v }

// or returns an optional value or, where it is not there, what its absence means.
func or[T any](p *T, absent T) T {
	if p == nil {
		return absent
	}
	return *p
}
