// SPDX-License-Identifier: Apache-2.0

package engine

import "math/bits"

// indexes is a set of small integers that gives back its lowest member in two steps, however full it is: a word of
// summary for 64 words of members. Lowest first keeps what is in use dense, so tables stay as short as they can.
type indexes struct {
	words   []uint64
	summary []uint64
	count   int
}

// newIndexes returns an empty set that has room for 0 to capacity-1.
func newIndexes(capacity uint32) indexes {
	n := (int(capacity) + 63) / 64
	return indexes{words: make([]uint64, n), summary: make([]uint64, (n+63)/64)}
}

func (x *indexes) has(i uint32) bool {
	return int(i/64) < len(x.words) && x.words[i/64]&(1<<(i%64)) != 0
}

func (x *indexes) add(i uint32) {
	if !x.has(i) {
		x.words[i/64] |= 1 << (i % 64)
		x.summary[i/4096] |= 1 << (i / 64 % 64)
		x.count++
	}
}

// remove reports whether i was a member.
func (x *indexes) remove(i uint32) bool {
	if !x.has(i) {
		return false
	}
	x.words[i/64] &^= 1 << (i % 64)
	if x.words[i/64] == 0 {
		x.summary[i/4096] &^= 1 << (i / 64 % 64)
	}
	x.count--
	return true
}

// lowest returns the lowest member; false if there is none.
func (x *indexes) lowest() (uint32, bool) {
	for s, summary := range x.summary {
		if summary != 0 {
			w := s*64 + bits.TrailingZeros64(summary)
			return uint32(w*64 + bits.TrailingZeros64(x.words[w])), true
		}
	}
	return 0, false
}

// take removes and returns the lowest member; false if there is none.
func (x *indexes) take() (uint32, bool) {
	i, ok := x.lowest()
	return i, ok && x.remove(i)
}
