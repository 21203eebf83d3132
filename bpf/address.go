// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"unsafe"
)

// AddressOf returns the kernel's form of a: 16 bytes in network order, IPv4 as ::ffff:a.b.c.d. The zero Addr gives
// zeroes.
func AddressOf(a netip.Addr) MeshAddress {
	if !a.IsValid() {
		return MeshAddress{}
	}
	b := a.As16()
	return *(*MeshAddress)(unsafe.Pointer(&b)) // both are 16 bytes; the words are network order as they lie in memory
}

// Addr returns the address, IPv4 unmapped; the zero Addr for zeroes.
func (a MeshAddress) Addr() netip.Addr {
	if a == (MeshAddress{}) {
		return netip.Addr{}
	}
	return netip.AddrFrom16(*(*[16]byte)(unsafe.Pointer(&a))).Unmap()
}

// BigEndian converts a port between host and network order, either way.
func BigEndian(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

// Hash is address_hash of the kernel side: which position of a Maglev table a workload's address falls on.
func (a MeshAddress) Hash() uint32 {
	var hash uint32
	for _, word := range a.Word {
		hash ^= bits.ReverseBytes32(word)
		hash ^= hash >> 16
		hash *= 0x85ebca6b
		hash ^= hash >> 13
		hash *= 0xc2b2ae35
		hash ^= hash >> 16
	}
	return hash
}

// Range packs a run of slots as the kernel reads it: one word.
func Range(first, count uint32) uint64 { return uint64(count)<<32 | uint64(first) }

// EndpointRef packs an index and its incarnation as the kernel stores it: one word.
func EndpointRef(index, incarnation uint32) uint64 { return uint64(incarnation)<<32 | uint64(index) }
