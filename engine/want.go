// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"math/bits"
	"math/rand/v2"

	"github.com/evenkeel/evenkeel/bpf"
)

// nowhere is the level of an endpoint that no client is to be given.
const nowhere = int8(-1)

// want is one endpoint that a set should have.
type want struct {
	address bpf.MeshAddress
	port    uint16 // host order
	level   int8
	weight  uint32
	index   uint32    // its record; 0: none yet
	of      *Endpoint // nil for one that an earlier process left and no source has named yet
}

// wants gathers the endpoints of one set and finds them by address and port. One is reused from set to set: cells of
// an earlier round count as empty, so nothing is cleared.
type wants struct {
	list  []want
	cells []cell
	round uint32
	seed  [2]uint64
}

type cell struct {
	round uint32
	want  int32
}

func newWants() *wants { return &wants{seed: [2]uint64{rand.Uint64(), rand.Uint64()}} }

// gather fills w with the endpoints behind one port of s that are of the family of key, and with their levels.
// An address and port that is there several times counts once, as the most usable says, of those that are alike the last
// in order of slices.
func (w *wants) gather(s *service, port *ServicePort, mappedV4 bool, d *desired) {
	n := 0
	for _, sl := range s.slices {
		n += len(sl.Endpoints)
	}
	w.reset(n)
	for _, sl := range s.slices {
		target := sl.target(port)
		if target == 0 {
			continue
		}
		for i := range sl.Endpoints {
			e := &sl.Endpoints[i]
			if e.Address.Unmap().Is4() == mappedV4 {
				w.add(want{address: bpf.AddressOf(e.Address), port: target, weight: weightOf(e), of: e})
			}
		}
	}
	rank(w.list, s.spec, d.node, d.zone)
}

func weightOf(e *Endpoint) uint32 {
	if ignoreWeights && e.Weight > 0 {
		return 1
	}
	return e.Weight
}

func (w *wants) reset(n int) {
	w.list = w.list[:0]
	size := 16
	for size < 2*n {
		size *= 2
	}
	if w.round++; size > len(w.cells) || w.round == 0 {
		w.cells, w.round = make([]cell, size), 1
	}
}

// add puts x in, in place of one with its address and port if that is no more usable.
func (w *wants) add(x want) {
	c := w.cell(x.address, x.port)
	if c.round == w.round {
		if have := &w.list[c.want]; x.of.usable() >= have.of.usable() {
			*have = x
		}
		return
	}
	*c = cell{w.round, int32(len(w.list))}
	w.list = append(w.list, x)
}

// find returns nil if there is none with that address and port.
func (w *wants) find(address bpf.MeshAddress, port uint16) *want {
	if c := w.cell(address, port); c.round == w.round {
		return &w.list[c.want]
	}
	return nil
}

// of finds what is wanted of a record: mostly where it was last time, for sources keep their order.
func (w *wants) of(r *record) *want {
	if i := int(r.place); i < len(w.list) {
		if x := &w.list[i]; x.address == r.address && x.port == r.port {
			return x
		}
	}
	c := w.cell(r.address, r.port)
	if c.round != w.round {
		return nil
	}
	r.place = uint32(c.want)
	return &w.list[c.want]
}

// cell returns the cell that holds address and port, or the empty one where they belong.
func (w *wants) cell(address bpf.MeshAddress, port uint16) *cell {
	mask := uint64(len(w.cells) - 1)
	for i := w.hash(&address, port) & mask; ; i = (i + 1) & mask {
		c := &w.cells[i]
		if c.round != w.round {
			return c
		}
		if x := &w.list[c.want]; x.address == address && x.port == port {
			return c
		}
	}
}

// hash folds products of an address's halves and a port, each mixed with a random number that whoever chooses addresses does
// not know (as wyhash does).
func (w *wants) hash(address *bpf.MeshAddress, port uint16) uint64 {
	a := &address.Word
	high, low := bits.Mul64((uint64(a[0])|uint64(a[1])<<32)^w.seed[0], (uint64(a[2])|uint64(a[3])<<32)^w.seed[1])
	high, low = bits.Mul64(high^low^w.seed[0], uint64(port)^w.seed[1])
	return high ^ low
}
