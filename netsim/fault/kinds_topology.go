// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/netsim"
)

// topologyKinds are the faults of namespaces, links and addresses.
func topologyKinds() []Kind {
	kind := func(name, target, summary string, zero func() Fault, build func(subject, values) (Fault, error),
		params ...Param) Kind {
		return Kind{Name: name, Group: "topology", Target: target, Summary: summary, Params: params, zero: zero, build: build}
	}
	end := Param{"end", "node", "which end of the link: node or pod"}
	var orders []string
	for _, o := range netsim.BootOrders() {
		orders = append(orders, orderText(o))
	}
	return []Kind{
		kind("netns-deleted", "pod", "delete its network namespace while it is in use", func() Fault { return new(DeleteNetns) },
			func(s subject, _ values) (Fault, error) {
				l, err := s.podLink("pod")
				return &DeleteNetns{Link: l, Cgroup: s.pod.Cgroup}, err
			}),
		kind("link-down", "pod", "set its link down", func() Fault { return new(LinkDown) },
			func(s subject, v values) (Fault, error) {
				l, err := s.podLink(v.text("end"))
				return &LinkDown{l}, err
			}, end),
		kind("wire-down", "wire", "set the first node's end of a wire down", func() Fault { return new(LinkDown) },
			func(s subject, _ values) (Fault, error) { return &LinkDown{s.wireLink()}, nil }),
		kind("link-recreated", "pod", "delete its link and make another one of the same name",
			func() Fault { return new(LinkAnew) }, func(s subject, _ values) (Fault, error) {
				l, err := s.podLink("node")
				return &LinkAnew{Link: l}, err
			}),
		kind("link-mtu", "pod", "lower the MTU of its link", func() Fault { return new(LinkMTU) },
			func(s subject, v values) (Fault, error) {
				l, err := s.podLink(v.text("end"))
				mtu, mtuErr := v.number("mtu")
				return &LinkMTU{Link: l, MTU: mtu}, errors.Join(err, mtuErr)
			}, end, Param{"mtu", "1280", "bytes; IPv6 needs 1280"}),
		kind("wire-mtu", "wire", "lower the MTU of the first node's end of a wire", func() Fault { return new(LinkMTU) },
			func(s subject, v values) (Fault, error) {
				mtu, err := v.number("mtu")
				return &LinkMTU{Link: s.wireLink(), MTU: mtu}, err
			}, Param{"mtu", "1280", "bytes; IPv6 needs 1280"}),
		kind("address-changed", "pod", "give it another address", func() Fault { return new(Renumber) },
			func(s subject, v values) (Fault, error) {
				l, err := s.podLink("pod")
				family, familyErr := v.choice("family", "4", "6")
				r := &Renumber{Link: l}
				for _, a := range s.pod.Addresses {
					if a.Is4() == (family == "4") {
						r.From, r.To = a, elsewhere(a)
					}
				}
				if !r.From.IsValid() {
					err = errors.Join(err, fmt.Errorf("pod %s has no address of family %s", l.Pod, family))
				}
				return r, errors.Join(err, familyErr)
			}, Param{"family", "4", "4 or 6"}),
		kind("reboot", "node", "reboot it", func() Fault { return new(Reboot) },
			func(s subject, v values) (Fault, error) {
				text := v.text("order")
				if text == "random" {
					text = orders[v.random.IntN(len(orders))]
				}
				at := slices.Index(orders, text)
				if at < 0 {
					return nil, fmt.Errorf("order=%s: want random or one of %s", text, strings.Join(orders, " "))
				}
				return &Reboot{Agent: s.agent(), Order: netsim.BootOrders()[at], Netns: s.node.Netns}, nil
			}, Param{"order", "random", "in which it comes up: " + strings.Join(orders, ", ") + ", random"}),
	}
}

func orderText(order []netsim.BootStep) string {
	var words []string
	for _, step := range order {
		words = append(words, string(step))
	}
	return strings.Join(words, ",")
}

// elsewhere is an address of the same family that no pod or node of a lab has.
func elsewhere(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{10, 252, a.As4()[2], a.As4()[3]})
	}
	b := a.As16()
	b[2] ^= 0xfc
	return netip.AddrFrom16(b)
}

// podLink is an end of a pod's link.
func (s subject) podLink(end string) (Link, error) {
	if s.pod.HostNetwork {
		return Link{}, fmt.Errorf("pod %s/%s is on the network of its node", s.pod.Namespace, s.pod.Name)
	}
	l := Link{Agent: s.agent(), Pod: s.pod.Namespace + "/" + s.pod.Name}
	switch end {
	case "node":
		l.Netns, l.Name = s.node.Netns, s.pod.Link
	case "pod":
		l.Netns, l.Name = s.pod.Netns, "eth0"
	default:
		return l, fmt.Errorf("end=%s: want node or pod", end)
	}
	return l, nil
}

// wireLink is the first node's end of a wire.
func (s subject) wireLink() Link {
	return Link{Agent: s.agent(), Wire: [2]string{s.node.Name, s.other().Name}, Netns: s.node.Netns, Name: s.wire.Link}
}
