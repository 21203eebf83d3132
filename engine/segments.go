// SPDX-License-Identifier: Apache-2.0

package engine

import "math/bits"

// segments hands out runs of the map slots: powers of two, aligned to their size (the buddy system of Knowlton, 1965),
// so that a run that is given back joins its neighbours and the map does not fall to pieces. Slot 0 is never given
// out.
type segments struct {
	free     []indexes // by order: block b of order o is the slots b<<o to (b+1)<<o - 1
	capacity uint32
	used     uint32
}

// segment is a run of 1<<order slots.
type segment struct {
	first uint32
	order uint8
}

func (s segment) size() uint32 { return 1 << s.order }

// orderOf returns the order of the smallest segment that holds n slots, n being at least 1.
func orderOf(n int) uint8 { return uint8(bits.Len32(uint32(n - 1))) }

func newSegments(capacity uint32) *segments {
	s := &segments{free: make([]indexes, bits.Len32(capacity)), capacity: capacity}
	for order := range s.free {
		s.free[order] = newIndexes(capacity >> order)
	}
	// The whole map as aligned blocks, the largest that fit first.
	for first := uint32(0); first < capacity; {
		order := len(s.free) - 1
		for first&(1<<order-1) != 0 || capacity-first < 1<<order {
			order--
		}
		s.free[order].add(first >> order)
		first += 1 << order
	}
	s.reserve(segment{0, 0})
	return s
}

// take returns a free segment; false if no run of that size is left.
func (s *segments) take(order uint8) (segment, bool) {
	for o := int(order); o < len(s.free); o++ {
		if block, ok := s.free[o].take(); ok {
			s.split(block<<o, o, segment{block << o, order})
			return segment{block << o, order}, true
		}
	}
	return segment{}, false
}

// reserve takes one particular segment; false if a part of it is in use or it is not one.
func (s *segments) reserve(want segment) bool {
	if int(want.order) >= len(s.free) || want.first&(want.size()-1) != 0 {
		return false
	}
	for o := int(want.order); o < len(s.free); o++ {
		if s.free[o].remove(want.first >> o) {
			s.split(want.first>>o<<o, o, want)
			return true
		}
	}
	return false
}

// split cuts the block at first, which is no longer free, down to want and frees the rest of it.
func (s *segments) split(first uint32, order int, want segment) {
	s.used += want.size()
	for order > int(want.order) {
		order--
		if half := first + 1<<order; want.first >= half {
			s.free[order].add(first >> order)
			first = half
		} else {
			s.free[order].add(half >> order)
		}
	}
}

// give returns a segment; nothing may read it any more.
func (s *segments) give(back segment) {
	s.used -= back.size()
	first, order := back.first, int(back.order)
	for order+1 < len(s.free) && s.free[order].remove(first>>order^1) {
		first &^= 1 << order
		order++
	}
	s.free[order].add(first >> order)
}

// largest returns the order of the largest free segment; false if there is none at all.
func (s *segments) largest() (int, bool) {
	for order := len(s.free) - 1; order >= 0; order-- {
		if s.free[order].count > 0 {
			return order, true
		}
	}
	return 0, false
}
