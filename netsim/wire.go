// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wireName is a wire's link on both of its nodes.
func wireName(number int) string { return fmt.Sprintf("wire%d", number) }

// connect makes a wire.
func connect(rs routers, w *wireState) error {
	low, high := rs[w.Ends[0]], rs[w.Ends[1]]
	lowMAC, highMAC := hardwareAddress(sideLow, w.Number), hardwareAddress(sideHigh, w.Number)
	name := wireName(w.Number)
	err := low.pair(end{name: name, mac: lowMAC}, end{name: name, mac: highMAC}, int(high.netns.Fd()), w.MTU)
	if err != nil {
		return err
	}
	return setUpWire(rs, w)
}

// setUpWire gives both ends of a wire what they need, but for routes. What is there already stays.
func setUpWire(rs routers, w *wireState) error {
	low, high := rs[w.Ends[0]], rs[w.Ends[1]]
	lowMAC, highMAC := hardwareAddress(sideLow, w.Number), hardwareAddress(sideHigh, w.Number)
	name := wireName(w.Number)
	for _, side := range []struct {
		*router
		other []byte
	}{{low, highMAC}, {high, lowMAC}} {
		link, err := side.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find link %s: %w", name, err)
		}
		index := link.Attrs().Index
		if err := side.up(name, index); err != nil {
			return err
		}
		for _, gateway := range []netip.Addr{gateway4, gateway6} {
			if err := side.neighbour(index, gateway, side.other); err != nil {
				return err
			}
		}
	}
	return nil
}

// disconnect removes a wire; both ends and their routes go with it.
func disconnect(rs routers, w *wireState) error {
	r := rs[w.Ends[0]]
	if r == nil {
		return nil // the node is gone and took the wire along
	}
	link, err := r.LinkByName(wireName(w.Number))
	if err != nil {
		return nil //nolint:nilerr // gone already, which is all that is wanted
	}
	if err := r.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove wire between %s and %s: %w", w.Ends[0], w.Ends[1], err)
	}
	return nil
}

// route gives every node its routes to the pods of all others, over the fewest wires, and removes those that lead over
// another wire or nowhere.
func route(rs routers, s *state) error {
	hops := firstHops(s)
	for _, from := range s.Nodes {
		r := rs[from.Spec.Name]
		for _, to := range s.Nodes {
			if to == from {
				continue
			}
			wire, reachable := hops[from.Spec.Name][to.Spec.Name]
			for _, prefix := range to.Spec.PodCIDRs {
				if err := r.routeNode(&from.Spec, prefix, wire, reachable); err != nil {
					return fmt.Errorf("route node %s to node %s: %w", from.Spec.Name, to.Spec.Name, err)
				}
			}
		}
	}
	return nil
}

func (r *router) routeNode(from *NodeSpec, prefix netip.Prefix, wire int, reachable bool) error {
	if !reachable {
		return r.unroute([]netip.Prefix{prefix})
	}
	link, err := r.LinkByName(wireName(wire))
	if err != nil {
		return fmt.Errorf("find link %s: %w", wireName(wire), err)
	}
	var source netip.Addr
	for _, a := range from.addresses(nodeOrdinal) {
		if a.Is4() == prefix.Addr().Is4() {
			source = a
		}
	}
	return r.via(link.Attrs().Index, prefix, source)
}

// unroute removes the routes to prefixes, if there are any.
func (r *router) unroute(prefixes []netip.Prefix) error {
	for _, prefix := range prefixes {
		err := r.RouteDel(&netlink.Route{Dst: ipNet(prefix)})
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route to %s: %w", prefix, err)
		}
	}
	return nil
}
