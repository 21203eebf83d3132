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
	end      uint32 // of what was ever in use: an agent that starts reads the map up to there
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

// take returns a free segment; false if no run of that size is left. Of the holes it is in the smallest that fits, else
// the first behind all that was ever in use: a map whose size is no power of two has small blocks at its very end.
func (s *segments) take(order uint8) (segment, bool) {
	var best segment
	found := false
	for o := int(order); o < len(s.free) && (!found || best.first >= s.end); o++ {
		if block, ok := s.free[o].lowest(); ok && (!found || block<<o < best.first) {
			best, found = segment{block << o, order}, true
		}
	}
	return best, found && s.reserve(best)
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
	s.used, s.end = s.used+want.size(), max(s.end, want.first+want.size())
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
