// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// checker refuses what an API server would have refused as far as the data plane relies on it, so that nothing behind
// it needs to ask again whether an address parses or a port is in range.
type checker struct {
	// subdomains remembers names that were found valid: node names come with every endpoint.
	subdomains map[string]bool
}

func newChecker() *checker { return &checker{subdomains: map[string]bool{}} }

func (c *checker) check(o Object) *Error {
	switch o := o.(type) {
	case *corev1.Namespace:
		return first(unscoped(o), c.label("metadata.name", o.Name))
	case *corev1.Node:
		return first(unscoped(o), c.subdomain("metadata.name", o.Name))
	case *corev1.Pod:
		return first(c.scope(&o.ObjectMeta), c.subdomain("metadata.name", o.Name), c.pod(o))
	case *corev1.Service:
		return first(c.scope(&o.ObjectMeta), c.label("metadata.name", o.Name), c.service(o))
	case *discoveryv1.EndpointSlice:
		return first(c.scope(&o.ObjectMeta), c.subdomain("metadata.name", o.Name), c.slice(o))
	}
	return nil
}

func first(errs ...*Error) *Error {
	for _, e := range errs {
		if e != nil {
			return e
		}
	}
	return nil
}

func invalid(field, format string, args ...any) *Error {
	return &Error{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// unscoped refuses a namespace where the kind has none: a reader of the file would think that it matters.
func unscoped(o Object) *Error {
	if ns := o.GetNamespace(); ns != "" {
		return invalid("metadata.namespace", "a %s is in no namespace: remove %q", kindOf(o), ns)
	}
	return nil
}

func (c *checker) scope(m *metav1.ObjectMeta) *Error {
	if m.Namespace == "" {
		m.Namespace = metav1.NamespaceDefault
	}
	return c.label("metadata.namespace", m.Namespace)
}

func (c *checker) label(field, name string) *Error {
	return rule(field, name, validation.IsDNS1123Label)
}

func (c *checker) subdomain(field, name string) *Error {
	if c.subdomains[name] {
		return nil
	}
	err := rule(field, name, validation.IsDNS1123Subdomain)
	if err == nil {
		c.subdomains[name] = true
	}
	return err
}

func rule(field, name string, is func(string) []string) *Error {
	if name == "" {
		return invalid(field, "is missing")
	}
	if reasons := is(name); len(reasons) > 0 {
		return invalid(field, "%q: %s", name, reasons[0])
	}
	return nil
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// address reads an address that other machines could use: canonical as netip reads it, of no zone, not mapped. What the
// API server refuses as an endpoint (ValidateEndpointIP) is none.
func address(field, text string) (netip.Addr, *Error) {
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return a, invalid(field, "%q is not an IP address", text)
	case a.Zone() != "":
		return a, invalid(field, "%q has a zone, which only this machine would understand", text)
	case a.Is4In6():
		return a, invalid(field, "%q is an IPv4 address in IPv6 form: write %s", text, a.Unmap())
	case a.IsUnspecified(), a.IsMulticast():
		return a, invalid(field, "%q is not the address of one host", text)
	case a.IsLoopback(), a.IsLinkLocalUnicast(), a == broadcast:
		return a, invalid(field, "%q cannot be reached from another machine", text)
	}
	return a, nil
}

func port(field string, number int32) *Error {
	if number < 1 || number > 65535 {
		return invalid(field, "port %d is not between 1 and 65535", number)
	}
	return nil
}

// protocol accepts the protocols of Kubernetes; empty is TCP.
func protocol(field string, p corev1.Protocol) *Error {
	switch p {
	case "", corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
		return nil
	}
	return invalid(field, "protocol %q is not TCP, UDP or SCTP", p)
}

func (c *checker) pod(p *corev1.Pod) *Error {
	if p.Spec.NodeName != "" {
		if err := c.subdomain("spec.nodeName", p.Spec.NodeName); err != nil {
			return err
		}
	}
	if p.Status.PodIP != "" {
		if _, err := address("status.podIP", p.Status.PodIP); err != nil {
			return err
		}
		if len(p.Status.PodIPs) > 0 && p.Status.PodIPs[0].IP != p.Status.PodIP {
			return invalid("status.podIP", "is %s, but the first of podIPs is %s",
				p.Status.PodIP, p.Status.PodIPs[0].IP)
		}
	}
	var ips []string
	for _, ip := range p.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	if err := families("status.podIPs", ".ip", ips); err != nil {
		return err
	}
	if err := containers("spec.containers", p.Spec.Containers); err != nil {
		return err
	}
	return containers("spec.initContainers", p.Spec.InitContainers)
}

// families refuses more than one address of a family. suffix is where the address is within an item of the list.
func families(field, suffix string, ips []string) *Error {
	var of4, of6 int
	for i, ip := range ips {
		at := fmt.Sprintf("%s[%d]%s", field, i, suffix)
		a, err := address(at, ip)
		if err != nil {
			return err
		}
		if a.Is4() {
			of4++
		} else {
			of6++
		}
		if of4 > 1 || of6 > 1 {
			return invalid(at, "%s is the second address of its family", ip)
		}
	}
	return nil
}

func containers(field string, list []corev1.Container) *Error {
	for i := range list {
		for j, p := range list[i].Ports {
			at := fmt.Sprintf("%s[%d].ports[%d]", field, i, j)
			err := first(port(at+".containerPort", p.ContainerPort), protocol(at+".protocol", p.Protocol))
			if err != nil {
				return err
			}
		}
	}
	return nil
}
