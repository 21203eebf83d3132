// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"hash/maphash"

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
	seed  maphash.Seed
}

type cell struct {
	round uint32
	want  int32
}

func newWants() *wants { return &wants{seed: maphash.MakeSeed()} }

// gather fills w with the endpoints behind one port of s that are of the family of key, and with their levels.
// An address and port that several slices list counts once, as the last of them in order of name says.
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

// add puts x in, in place of one with its address and port if there is one.
func (w *wants) add(x want) {
	c := w.cell(x.address, x.port)
	if c.round == w.round {
		w.list[c.want] = x
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

// cell returns the cell that holds address and port, or the empty one where they belong.
func (w *wants) cell(address bpf.MeshAddress, port uint16) *cell {
	type key struct {
		address bpf.MeshAddress
		port    uint32
	}
	mask := len(w.cells) - 1
	for i := int(maphash.Comparable(w.seed, key{address, uint32(port)})) & mask; ; i = (i + 1) & mask {
		c := &w.cells[i]
		if c.round != w.round {
			return c
		}
		if x := &w.list[c.want]; x.address == address && x.port == port {
			return c
		}
	}
}
