// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// maxAffinity is the longest session affinity that the API accepts: one day in seconds.
const maxAffinity = 86400

func (c *checker) service(s *corev1.Service) *Error {
	return first(serviceType(s), clusterIPs(&s.Spec), affinity(&s.Spec), choices(&s.Spec), c.servicePorts(s))
}

func serviceType(s *corev1.Service) *Error {
	switch s.Spec.Type {
	case "", corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		return nil
	case corev1.ServiceTypeExternalName:
		if s.Spec.ExternalName == "" {
			return invalid("spec.externalName", "is missing")
		}
		return nil
	}
	return invalid("spec.type", "type %q is not ClusterIP, NodePort, LoadBalancer or ExternalName", s.Spec.Type)
}

func clusterIPs(s *corev1.ServiceSpec) *Error {
	if s.ClusterIP != "" && s.ClusterIP != corev1.ClusterIPNone {
		if _, err := address("spec.clusterIP", s.ClusterIP); err != nil {
			return err
		}
	}
	if len(s.ClusterIPs) == 0 {
		return nil
	}
	if s.ClusterIP != "" && s.ClusterIPs[0] != s.ClusterIP {
		return invalid("spec.clusterIP", "is %s, but the first of clusterIPs is %s", s.ClusterIP, s.ClusterIPs[0])
	}
	if len(s.ClusterIPs) == 1 && s.ClusterIPs[0] == corev1.ClusterIPNone {
		return nil
	}
	return families("spec.clusterIPs", "", s.ClusterIPs)
}

func affinity(s *corev1.ServiceSpec) *Error {
	switch s.SessionAffinity {
	case "", corev1.ServiceAffinityNone, corev1.ServiceAffinityClientIP:
	default:
		return invalid("spec.sessionAffinity", "%q is not None or ClientIP", s.SessionAffinity)
	}
	if c := s.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		if t := *c.ClientIP.TimeoutSeconds; t < 1 || t > maxAffinity {
			return invalid("spec.sessionAffinityConfig.clientIP.timeoutSeconds",
				"%d is not between 1 and %d", t, maxAffinity)
		}
	}
	return nil
}

// choices checks the fields that are one word of a few. A word that is not known would silently mean the default.
func choices(s *corev1.ServiceSpec) *Error {
	for i, f := range s.IPFamilies {
		if f != corev1.IPv4Protocol && f != corev1.IPv6Protocol {
			return invalid(fmt.Sprintf("spec.ipFamilies[%d]", i), "%q is not IPv4 or IPv6", f)
		}
	}
	if p := s.InternalTrafficPolicy; p != nil {
		switch *p {
		case corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal:
		default:
			return invalid("spec.internalTrafficPolicy", "%q is not Cluster or Local", *p)
		}
	}
	if d := s.TrafficDistribution; d != nil {
		switch *d {
		case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone,
			corev1.ServiceTrafficDistributionPreferSameNode:
		default:
			return invalid("spec.trafficDistribution", "%q is not PreferClose, PreferSameZone or PreferSameNode", *d)
		}
	}
	return nil
}

func (c *checker) servicePorts(s *corev1.Service) *Error {
	type listener struct {
		port     int32
		protocol corev1.Protocol
	}
	headless := s.Spec.ClusterIP == corev1.ClusterIPNone || slices.Contains(s.Spec.ClusterIPs, corev1.ClusterIPNone)
	if len(s.Spec.Ports) == 0 && !headless && s.Spec.Type != corev1.ServiceTypeExternalName {
		return invalid("spec.ports", "is missing: a service that is not headless has one port at least")
	}
	names, listeners := map[string]bool{}, map[listener]bool{}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		at := "spec.ports[" + strconv.Itoa(i) + "]"
		err := first(port(at+".port", p.Port), protocol(at+".protocol", p.Protocol),
			targetPort(at+".targetPort", p.TargetPort))
		if err != nil {
			return err
		}
		if p.Name != "" || len(s.Spec.Ports) > 1 {
			if err := c.label(at+".name", p.Name); err != nil {
				return err
			}
		}
		l := listener{p.Port, p.Protocol}
		if l.protocol == "" {
			l.protocol = corev1.ProtocolTCP
		}
		if names[p.Name] {
			return invalid(at+".name", "%q is the name of an earlier port", p.Name)
		}
		if listeners[l] {
			return invalid(at+".port", "%d/%s is an earlier port", l.port, l.protocol)
		}
		names[p.Name], listeners[l] = true, true
	}
	return nil
}

// targetPort accepts 0, which stands for the service's own port.
func targetPort(field string, p intstr.IntOrString) *Error {
	switch {
	case p.Type == intstr.String:
		return rule(field, p.StrVal, validation.IsValidPortName)
	case p.IntVal != 0:
		return port(field, p.IntVal)
	}
	return nil
}

func (c *checker) slice(s *discoveryv1.EndpointSlice) *Error {
	switch s.AddressType {
	case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN:
	case "":
		return invalid("addressType", "is missing")
	default:
		return invalid("addressType", "%q is not IPv4, IPv6 or FQDN", s.AddressType)
	}
	names := map[string]bool{}
	for i, p := range s.Ports {
		at := "ports[" + strconv.Itoa(i) + "]"
		name := ""
		if p.Name != nil {
			name = *p.Name
		}
		if names[name] {
			return invalid(at+".name", "%q is the name of an earlier port", name)
		}
		names[name] = true
		if p.Port != nil {
			if err := port(at+".port", *p.Port); err != nil {
				return err
			}
		}
		if p.Protocol != nil {
			if err := protocol(at+".protocol", *p.Protocol); err != nil {
				return err
			}
		}
	}
	for i := range s.Endpoints {
		if err := c.endpoint(&s.Endpoints[i], s.AddressType); err != nil {
			return err.within("endpoints[" + strconv.Itoa(i) + "]")
		}
	}
	return nil
}

// maxAddresses is how many interchangeable addresses the API accepts for one endpoint.
const maxAddresses = 100

func (c *checker) endpoint(e *discoveryv1.Endpoint, of discoveryv1.AddressType) *Error {
	if n := len(e.Addresses); n == 0 || n > maxAddresses {
		return invalid("addresses", "%d addresses: an endpoint has 1 to %d", n, maxAddresses)
	}
	for i, text := range e.Addresses {
		if of == discoveryv1.AddressTypeFQDN {
			if err := c.subdomain("addresses["+strconv.Itoa(i)+"]", text); err != nil {
				return err
			}
			continue
		}
		a, err := address("addresses", text)
		if err == nil && a.Is4() != (of == discoveryv1.AddressTypeIPv4) {
			err = invalid("addresses", "%s is not of addressType %s", text, of)
		}
		if err != nil {
			err.Field = "addresses[" + strconv.Itoa(i) + "]"
			return err
		}
	}
	if e.NodeName != nil {
		return c.subdomain("nodeName", *e.NodeName)
	}
	return nil
}
