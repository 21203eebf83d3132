// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"encoding/binary"
	"math"
	"net/netip"
)

// Addresses are numbered within a node: ordinal 0 is the network itself, 1 the node, 2 and up are pods. One number
// gives a pod its address in both families, its link's name on the node and its MAC address.
const (
	nodeOrdinal     = 1
	firstPodOrdinal = 2
)

// room returns how many pods have an address in p.
func room(p netip.Prefix) int {
	bits := p.Addr().BitLen() - p.Bits()
	if bits > 24 {
		return 1<<24 - firstPodOrdinal
	}
	size := 1<<bits - firstPodOrdinal
	if p.Addr().Is4() {
		size-- // the last one is the broadcast address
	}
	return size
}

// room returns how many pods a node has addresses for.
func (n *NodeSpec) room() int {
	least := math.MaxInt
	for _, p := range n.PodCIDRs {
		least = min(least, room(p))
	}
	return least
}

// addresses returns the address of an ordinal in each family of the node.
func (n *NodeSpec) addresses(ordinal int) []netip.Addr {
	var addresses []netip.Addr
	for _, p := range n.PodCIDRs {
		addresses = append(addresses, nth(p, ordinal))
	}
	return addresses
}

// nth returns the address of p with that number. The number fits, or room would not have promised it.
func nth(p netip.Prefix, number int) netip.Addr {
	bytes := p.Addr().As16()
	low := binary.BigEndian.Uint32(bytes[12:]) // room gives at most 24 bits
	binary.BigEndian.PutUint32(bytes[12:], low+uint32(number))
	if p.Addr().Is4() {
		return netip.AddrFrom16(bytes).Unmap()
	}
	return netip.AddrFrom16(bytes)
}

// nextOrdinal returns the lowest number for a pod, from one on, that is not taken, and takes it.
func nextOrdinal(taken map[int]bool, from int) int {
	n := max(from, firstPodOrdinal)
	for taken[n] {
		n++
	}
	taken[n] = true
	return n
}
