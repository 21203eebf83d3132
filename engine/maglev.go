// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"encoding/binary"

	"github.com/evenkeel/evenkeel/bpf"
)

// maglevSize is the number of slots of a consistent-hash table. It never changes: where a workload's connections go
// is a promise across nodes, restarts and releases. 16,381 is prime and fits a segment of 16,384. Measured with 100
// endpoints: none is off its share by more than 0.5 % of it, and one that goes takes at most 1.5 % of the others' slots
// with it; 4,093 slots make that 2.5 and 3.4 %, 65,521 slots 0.12 and 0.6 %, at four times the memory.
const maglevSize = 16381

// turn is one endpoint while a table is filled.
type turn struct {
	offset, skip uint32
	weight       uint64
	target       uint64 // the round from which it may take its next slot, times weight
}

// maglev fills a table of maglevSize with the positions of the endpoints in addresses, each as often as its weight
// says (Eisenbud et al., Maglev, NSDI 2016, 3.4). Endpoints are in order of address and port, so that every node builds
// the same table; weights are above 0. There are at most maglevSize of them.
func maglev(addresses []bpf.MeshAddress, ports []uint16, weights []uint32) []uint32 {
	turns := make([]turn, len(addresses))
	heaviest := uint64(0)
	for i := range turns {
		h := hashEndpoint(addresses[i], ports[i])
		turns[i] = turn{
			offset: uint32(h % maglevSize),
			skip:   uint32(mix(h+1)%(maglevSize-1)) + 1,
			weight: uint64(weights[i]),
		}
		heaviest = max(heaviest, turns[i].weight)
	}
	const empty = ^uint32(0)
	table := make([]uint32, maglevSize)
	for i := range table {
		table[i] = empty
	}
	for filled, round := 0, uint64(1); filled < maglevSize; round++ {
		for i := range turns {
			t := &turns[i]
			// The heaviest has a turn in every round, one of a third of its weight in every third.
			if round*t.weight < t.target {
				continue
			}
			t.target += heaviest
			for table[t.offset] != empty {
				t.offset = (t.offset + t.skip) % maglevSize
			}
			table[t.offset] = uint32(i)
			if filled++; filled == maglevSize {
				break
			}
		}
	}
	return table
}

// hashEndpoint places an endpoint in the table; like bpf.MeshAddress.Hash it may never change.
func hashEndpoint(address bpf.MeshAddress, port uint16) uint64 {
	h := mix(uint64(port))
	b := address.Addr().As16()
	h = mix(h ^ binary.BigEndian.Uint64(b[:8]))
	return mix(h ^ binary.BigEndian.Uint64(b[8:]))
}

// mix is the finalizer of SplitMix64 (Steele et al., 2014): every input bit changes half of the output bits.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
