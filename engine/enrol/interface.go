// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// network is what the data plane needs to know of a pod's network namespace.
type network struct {
	cookie    uint64
	name      string       // of the pod's interface, in the pod
	ip4, ip6  netip.Addr   // zero where it has none
	ignored   []netip.Addr // further addresses of global scope
	host      int          // index of the other end of the interface in the caller's namespace; 0: not found
	hostNote  string       // why it was not found
	inode     uint64       // of the namespace
	podIndex  int          // of the interface in the pod
	peerIndex int          // of its other end, wherever that is; 0: it has none
}

// look reads a namespace. Only sockets are made inside; they stay in the namespace when the thread leaves it.
func look(ns *os.File) (*network, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &stat); err != nil {
		return nil, fmt.Errorf("look at namespace %s: %w", ns.Name(), err)
	}
	n := &network{inode: stat.Ino}
	var handle *netlink.Handle
	err := inside(ns, func() (err error) {
		if n.cookie, err = threadCookie(); err != nil {
			return err
		}
		handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look into namespace %s: %w", ns.Name(), err)
	}
	defer handle.Close()
	if err := n.choose(handle); err != nil {
		return nil, fmt.Errorf("look into namespace %s: %w", ns.Name(), err)
	}
	if err := n.findHost(ns); err != nil {
		return nil, fmt.Errorf("find the node's end of interface %s of namespace %s: %w", n.name, ns.Name(), err)
	}
	return n, nil
}

// cookieOf returns the number that the kernel never gives to another namespace until the machine boots.
func cookieOf(ns *os.File) (cookie uint64, err error) {
	err = inside(ns, func() (err error) {
		cookie, err = threadCookie()
		return err
	})
	return cookie, err
}

// threadCookie is the cookie of the calling thread's namespace (SO_NETNS_COOKIE, Linux 5.14).
func threadCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read SO_NETNS_COOKIE: %w", err)
	}
	return cookie, nil
}

// candidate is an interface of the pod with the addresses that a packet of its may carry.
type candidate struct {
	link     netlink.Link
	ip4, ip6 []netip.Addr
}

// choose picks the interface and one address of each family: those of the interface with the default route, or else of
// the first one. A family that this interface lacks is taken from the first one that has it.
func (n *network) choose(h *netlink.Handle) error {
	all, err := candidates(h)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("it has no address of global scope yet: enrol the pod after its network was set up")
	}
	first := 0
	if len(all) > 1 {
		if first, err = byDefaultRoute(h, all); err != nil {
			return err
		}
	}
	chosen := all[first]
	all = append([]candidate{chosen}, slices.Delete(all, first, first+1)...)
	for _, c := range all {
		n.take(&n.ip4, c.ip4)
		n.take(&n.ip6, c.ip6)
	}
	attrs := chosen.link.Attrs()
	n.name, n.podIndex = attrs.Name, attrs.Index
	if chosen.link.Type() == "veth" {
		n.peerIndex = attrs.ParentIndex
	}
	return nil
}

func (n *network) take(chosen *netip.Addr, from []netip.Addr) {
	if !chosen.IsValid() && len(from) > 0 {
		*chosen, from = from[0], from[1:]
	}
	n.ignored = append(n.ignored, from...)
}

func candidates(h *netlink.Handle) ([]candidate, error) {
	links, err := whole(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	addresses, err := whole(func() ([]netlink.Addr, error) { return h.AddrList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var all []candidate
	for _, l := range links {
		if l.Attrs().Flags&net.FlagLoopback != 0 {
			continue
		}
		c := candidate{link: l}
		for _, a := range addresses {
			if a.LinkIndex == l.Attrs().Index {
				c.add(a)
			}
		}
		if len(c.ip4)+len(c.ip6) > 0 {
			all = append(all, c)
		}
	}
	return all, nil
}

// unusable are the flags of addresses that a pod is not known by: lost duplicate detection, or privacy (RFC 8981).
const unusable = unix.IFA_F_DADFAILED | unix.IFA_F_TEMPORARY

func (c *candidate) add(a netlink.Addr) {
	ip, ok := netip.AddrFromSlice(a.IP)
	ip = ip.Unmap()
	switch {
	case !ok || a.Scope != unix.RT_SCOPE_UNIVERSE:
	case ip.Is4():
		c.ip4 = append(c.ip4, ip) // IFA_F_SECONDARY has the value of IFA_F_TEMPORARY
	case a.Flags&unusable == 0:
		c.ip6 = append(c.ip6, ip)
	}
}

// byDefaultRoute returns which candidate has the default route of the lowest metric, IPv4 before IPv6; 0 if none has.
func byDefaultRoute(h *netlink.Handle, all []candidate) (int, error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := whole(func() ([]netlink.Route, error) {
			return h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return 0, fmt.Errorf("list routes: %w", err)
		}
		slices.SortStableFunc(routes, func(a, b netlink.Route) int { return a.Priority - b.Priority })
		for _, r := range routes {
			if r.Dst != nil {
				if ones, _ := r.Dst.Mask.Size(); ones > 0 {
					continue
				}
			}
			has := func(c candidate) bool { return c.link.Attrs().Index == r.LinkIndex }
			if i := slices.IndexFunc(all, has); i >= 0 {
				return i, nil
			}
		}
	}
	return 0, nil
}

// findHost finds the interface of the caller's namespace whose other end is the pod's. An index alone proves nothing:
// every namespace counts its own, so the one that is found has to point back.
func (n *network) findHost(ns *os.File) error {
	if n.peerIndex == 0 {
		n.hostNote = fmt.Sprintf("interface %s is not a veth", n.name)
		return nil
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	n.hostNote = fmt.Sprintf("the other end of %s is not in this network namespace", n.name)
	l, err := h.LinkByIndex(n.peerIndex)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil
	}
	if err != nil {
		return err
	}
	// The look-up has made the kernel give the pod's namespace a number in this one, if it is the peer's.
	id, err := h.GetNetNsIdByFd(int(ns.Fd()))
	if err != nil {
		return fmt.Errorf("read the number of the namespace: %w", err)
	}
	a := l.Attrs()
	if l.Type() == "veth" && a.ParentIndex == n.podIndex && id >= 0 && a.NetNsID == id {
		n.host, n.hostNote = a.Index, ""
	}
	return nil
}

// whole repeats a dump that the kernel says was changed while it was read.
func whole[T any](dump func() ([]T, error)) ([]T, error) {
	const attempts = 10
	for range attempts {
		all, err := dump()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return nil, fmt.Errorf("it changed during each of %d attempts: %w", attempts, netlink.ErrDumpInterrupted)
}
