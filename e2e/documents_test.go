// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
)

// service writes a Service. Ports and more are lines of YAML in flow style.
type service struct {
	name      string
	addresses []string // of cluster; none: headless
	ports     []string // "{name: http, port: 80, targetPort: 8080}"
	meta      string   // further fields of metadata: "annotations: {…}"
	more      []string // further fields of spec: "selector: {app: web}"
}

// String returns the document.
func (s service) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Service\nmetadata:\n  name: %s\n", s.name)
	if s.meta != "" {
		fmt.Fprintf(&b, "  %s\n", s.meta)
	}
	b.WriteString("spec:\n")
	if len(s.addresses) == 0 {
		b.WriteString("  clusterIP: None\n")
	} else {
		fmt.Fprintf(&b, "  clusterIP: %q\n  clusterIPs: [%s]\n  ipFamilies: [%s]\n",
			s.addresses[0], quoted(s.addresses), strings.Join(families(s.addresses), ", "))
		if len(s.addresses) > 1 {
			b.WriteString("  ipFamilyPolicy: RequireDualStack\n")
		}
	}
	for _, line := range s.more {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	b.WriteString("  ports:\n")
	for _, port := range s.ports {
		fmt.Fprintf(&b, "  - %s\n", port)
	}
	return b.String()
}

// slice writes an EndpointSlice of one address family. Ports and endpoints are lines of YAML in flow style.
type slice struct {
	name, service string
	ports         []string // "{name: http, port: 8080}"
	endpoints     []string // "{addresses: [10.10.1.2]}"
	ipv6          bool
}

// String returns the document.
func (s slice) String() string {
	family := "IPv4"
	if s.ipv6 {
		family = "IPv6"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: %s\n"+
		"  labels: {kubernetes.io/service-name: %s}\naddressType: %s\nports:\n", s.name, s.service, family)
	for _, port := range s.ports {
		fmt.Fprintf(&b, "- %s\n", port)
	}
	if len(s.endpoints) == 0 {
		b.WriteString("endpoints: []\n")
		return b.String()
	}
	b.WriteString("endpoints:\n")
	for _, endpoint := range s.endpoints {
		fmt.Fprintf(&b, "- %s\n", endpoint)
	}
	return b.String()
}

// ready returns an endpoint of a slice, with further fields in flow style ("zone: east, hints: {…}").
func ready(address string, more ...string) string {
	return fmt.Sprintf("{addresses: [%q]%s}", address, strings.Join(append([]string{""}, more...), ", "))
}

// backend writes a running Pod that no process stands behind: enough for a service to choose it.
type backend struct {
	name, app string
	address   string
	node      string
	meta      string // further fields of metadata: "annotations: {…}"
	unready   bool
}

// String returns the document.
func (p backend) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\n  labels: {app: %s}\n", p.name, p.app)
	if p.meta != "" {
		fmt.Fprintf(&b, "  %s\n", p.meta)
	}
	fmt.Fprintf(&b, "spec:\n  nodeName: %s\n  containers: [{name: main, image: none}]\n", p.node)
	fmt.Fprintf(&b, "status:\n  phase: Running\n  podIP: %q\n  podIPs: [{ip: %q}]\n"+
		"  conditions: [{type: Ready, status: %q}]\n",
		p.address, p.address, map[bool]string{true: "False", false: "True"}[p.unready])
	return b.String()
}

// documents joins documents into one file.
func documents[T fmt.Stringer](list ...T) string {
	var b strings.Builder
	for _, document := range list {
		b.WriteString("---\n")
		b.WriteString(document.String())
	}
	return b.String()
}

// all joins files into one.

func quoted(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, fmt.Sprintf("%q", s))
	}
	return strings.Join(out, ", ")
}

func families(addresses []string) []string {
	var out []string
	for _, address := range addresses {
		if netip.MustParseAddr(address).Is4() {
			out = append(out, "IPv4")
		} else {
			out = append(out, "IPv6")
		}
	}
	return out
}

// at joins an address of either family and a port.
func at(address string, port int) string {
	return netip.AddrPortFrom(netip.MustParseAddr(address), uint16(port)).String()
}

// mapped returns how an AF_INET6 socket shows an IPv4 address and port.
func mapped(address string, port int) string {
	return netip.AddrPortFrom(netip.AddrFrom16(netip.MustParseAddr(address).As16()), uint16(port)).String()
}
