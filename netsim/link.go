// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Every link is a veth pair whose other end is the next hop. The next hop's addresses are the same everywhere and its
// MAC address is known, so nobody asks for it: no ARP, no neighbour discovery, nothing to wait for.
var (
	gateway4 = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::1")
)

// hardwareAddress is a locally administered unicast address; side tells the ends of a pair apart.
func hardwareAddress(side byte, number int) net.HardwareAddr {
	return net.HardwareAddr{0x02, side, byte(number >> 24), byte(number >> 16), byte(number >> 8), byte(number)}
}

// The sides of a pair, in MAC addresses.
const (
	sideNode = 1
	sidePod  = 2
	sideLow  = 3 // the first node of a wire
	sideHigh = 4
)

// stack is a network namespace seen through a netlink socket that was opened in it.
type stack struct{ *netlink.Handle }

// newStack opens the calling thread's namespace.
func newStack() (stack, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return stack{}, fmt.Errorf("open netlink: %w", err)
	}
	return stack{h}, nil
}

// loopback is the index of lo in every namespace (net/core/dev.c, LOOPBACK_IFINDEX).
const loopback = 1

// genModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const genModeNone = 1

// quiet keeps a link from giving itself a link-local address: all addresses are set by hand. The sysctl that would do
// it for a whole namespace makes its writer spin while another holds the lock of all links.
func (s stack) quiet(name string, index int) error {
	device := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: name, Index: index}}
	if err := s.LinkSetIP6AddrGenMode(device, genModeNone); err != nil {
		return fmt.Errorf("keep link %s from choosing addresses: %w", name, err)
	}
	return nil
}

func (s stack) up(name string, index int) error {
	if err := s.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: name, Index: index}}); err != nil {
		return fmt.Errorf("set link %s up: %w", name, err)
	}
	return nil
}

// end is one side of a pair.
type end struct {
	name  string
	index int // chosen by the maker; 0 lets the kernel choose
	mac   net.HardwareAddr
}

// pair makes a veth: near is here, far in the namespace of file descriptor netns.
func (s stack) pair(near, far end, netns, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU, attrs.Index = near.name, near.mac, mtu, near.index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: far.name, PeerHardwareAddr: far.mac, PeerMTU: uint32(mtu),
		PeerNamespace: netlink.NsFd(netns)}
	if err := s.LinkAdd(veth); err != nil {
		return fmt.Errorf("create link %s to %s: %w", near.name, far.name, err)
	}
	return nil
}

// address gives a link an address of its own, without duplicate address detection. One that it has already is no error.
func (s stack) address(link int, address netip.Addr) error {
	a := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(address, address.BitLen())), LinkIndex: link}
	if address.Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	device := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: link}}
	if err := s.AddrAdd(device, a); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s: %w", address, err)
	}
	return nil
}

// awaitLocal returns once packets to addresses of the namespace are taken in. The kernel adds the local route of an
// IPv6 address in a work item of its own (addrconf_dad_work in net/ipv6/addrconf.c, also for IFA_F_NODAD), which
// waits for the lock of all links: on a busy machine long enough for a first packet to be lost.
func (s stack) awaitLocal(addresses []netip.Addr) error {
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	deadline := time.Now().Add(localTimeout)
	for _, a := range addresses {
		for a.Is6() {
			routes, err := s.RouteGet(a.AsSlice())
			if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("address %s: the kernel added no local route in %v", a, localTimeout)
			}
			<-tick.C
		}
	}
	return nil
}

// localTimeout is far beyond what a machine takes that makes 1,000 namespaces meanwhile.
const localTimeout = 30 * time.Second

// neighbour says that address is at mac behind link, for ever.
func (s stack) neighbour(link int, address netip.Addr, mac net.HardwareAddr) error {
	n := &netlink.Neigh{LinkIndex: link, State: netlink.NUD_PERMANENT, IP: address.AsSlice(), HardwareAddr: mac}
	if err := s.NeighSet(n); err != nil {
		return fmt.Errorf("set neighbour %s: %w", address, err)
	}
	return nil
}

// direct routes an address to whoever is at the other end of link.
func (s stack) direct(link int, address, source netip.Addr) error {
	r := &netlink.Route{LinkIndex: link, Dst: ipNet(netip.PrefixFrom(address, address.BitLen())),
		Scope: netlink.SCOPE_LINK, Src: source.AsSlice()}
	if err := s.RouteReplace(r); err != nil {
		return fmt.Errorf("route %s: %w", address, err)
	}
	return nil
}

// via routes a prefix through the next hop at the other end of link. source may be the zero address.
func (s stack) via(link int, prefix netip.Prefix, source netip.Addr) error {
	r := nextHop(link, prefix)
	if source.IsValid() {
		r.Src = source.AsSlice()
	}
	if err := s.RouteReplace(r); err != nil {
		return fmt.Errorf("route %s: %w", prefix, err)
	}
	return nil
}

func nextHop(link int, prefix netip.Prefix) *netlink.Route {
	gateway := gateway4
	if prefix.Addr().Is6() {
		gateway = gateway6
	}
	return &netlink.Route{LinkIndex: link, Dst: ipNet(prefix), Gw: gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
