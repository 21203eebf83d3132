// SPDX-License-Identifier: Apache-2.0

package ambient

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/evenkeel/evenkeel/engine/manifest"
)

// NewMesh makes a mesh of manifests: pods, the services that select them, EndpointSlices. captured tells which pods,
// by "namespace/name", have their connections held. Weights, zones and session affinity mean nothing to it, as to
// ztunnel.
func NewMesh(documents []manifest.Document, captured func(pod string) bool) Mesh {
	var b builder
	for _, d := range documents {
		switch o := d.Object.(type) {
		case *corev1.Pod:
			b.pods = append(b.pods, o)
		case *corev1.Service:
			b.services = append(b.services, o)
		case *discoveryv1.EndpointSlice:
			b.slices = append(b.slices, o)
		}
	}
	var m Mesh
	for _, p := range b.pods {
		if p.Spec.HostNetwork { // its addresses are its node's
			continue
		}
		m.Workloads = append(m.Workloads, Workload{Namespace: p.Namespace, Name: p.Name,
			ServiceAccount: cmp.Or(p.Spec.ServiceAccountName, "default"), Node: p.Spec.NodeName, Addresses: podAddresses(p),
			Captured: captured(p.Namespace + "/" + p.Name)})
	}
	for _, s := range b.services {
		if service := b.service(s); len(service.Addresses) > 0 {
			m.Services = append(m.Services, service)
		}
	}
	return m
}

type builder struct {
	pods     []*corev1.Pod
	services []*corev1.Service
	slices   []*discoveryv1.EndpointSlice
}

func (b *builder) service(s *corev1.Service) Service {
	policy := s.Spec.InternalTrafficPolicy
	out := Service{Namespace: s.Namespace, Name: s.Name,
		Local: policy != nil && *policy == corev1.ServiceInternalTrafficPolicyLocal}
	ips := s.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{s.Spec.ClusterIP}
	}
	for _, ip := range ips {
		if a, err := netip.ParseAddr(ip); err == nil { // else it is headless, or has none
			out.Addresses = append(out.Addresses, a)
		}
	}
	for _, p := range s.Spec.Ports {
		if cmp.Or(p.Protocol, corev1.ProtocolTCP) != corev1.ProtocolTCP {
			continue
		}
		port := Port{Port: uint16(p.Port), Endpoints: append(b.selected(s, &p), b.listed(s, &p)...)}
		slices.SortFunc(port.Endpoints, netip.AddrPort.Compare)
		port.Endpoints = slices.Compact(port.Endpoints)
		out.Ports = append(out.Ports, port)
	}
	return out
}

// selected are the endpoints of a port that a service has by its selector.
func (b *builder) selected(s *corev1.Service, p *corev1.ServicePort) (endpoints []netip.AddrPort) {
	if len(s.Spec.Selector) == 0 {
		return nil
	}
	selector := labels.SelectorFromSet(s.Spec.Selector)
	for _, pod := range b.pods {
		if pod.Namespace != s.Namespace || !selector.Matches(labels.Set(pod.Labels)) ||
			!(s.Spec.PublishNotReadyAddresses || podReady(pod)) {
			continue
		}
		number := targetPort(pod, p)
		if number == 0 {
			continue
		}
		for _, a := range podAddresses(pod) {
			endpoints = append(endpoints, netip.AddrPortFrom(a, number))
		}
	}
	return endpoints
}

// listed are the endpoints of a port that EndpointSlices give a service.
func (b *builder) listed(s *corev1.Service, p *corev1.ServicePort) (endpoints []netip.AddrPort) {
	for _, slice := range b.slices {
		if slice.Namespace != s.Namespace || slice.Labels[discoveryv1.LabelServiceName] != s.Name {
			continue
		}
		for _, port := range slice.Ports {
			if value(port.Name) != p.Name || port.Port == nil || cmp.Or(value(port.Protocol), corev1.ProtocolTCP) != corev1.ProtocolTCP {
				continue
			}
			for _, e := range slice.Endpoints {
				if e.Conditions.Ready != nil && !*e.Conditions.Ready && !s.Spec.PublishNotReadyAddresses {
					continue
				}
				for _, text := range e.Addresses {
					if a, err := netip.ParseAddr(text); err == nil { // else it is a name, which nobody resolves here
						endpoints = append(endpoints, netip.AddrPortFrom(a, uint16(*port.Port)))
					}
				}
			}
		}
	}
	return endpoints
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// targetPort returns the number of a service's port in a pod, 0 if the pod has none of that name.
func targetPort(pod *corev1.Pod, p *corev1.ServicePort) uint16 {
	if p.TargetPort.Type == intstr.Int {
		return uint16(cmp.Or(p.TargetPort.IntVal, p.Port))
	}
	for _, c := range pod.Spec.Containers {
		for _, port := range c.Ports {
			if port.Name == p.TargetPort.StrVal && cmp.Or(port.Protocol, corev1.ProtocolTCP) == corev1.ProtocolTCP {
				return uint16(port.ContainerPort)
			}
		}
	}
	return 0
}

func podReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func podAddresses(pod *corev1.Pod) (addresses []netip.Addr) {
	for _, ip := range pod.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			addresses = append(addresses, a)
		}
	}
	return addresses
}
