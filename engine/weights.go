// SPDX-License-Identifier: Apache-2.0

package engine

import "slices"

// maxSlots bounds how many slots one level of one service takes: 65,536, or an eighth of map slots if that is less
// (32,768 with the default flags). With n of them the share of an endpoint is off by at most (1 + k) / n, k being the
// number of endpoints that weigh less than an nth of the whole.
const maxSlots = 1 << 16

// slotCounts returns how many slots each endpoint gets, so that choosing a slot at random chooses endpoints by weight.
// Weights are above 0 and so is every count. Counts are exact, weight by greatest common divisor, where their sum is
// within bound; otherwise they are apportioned by largest remainder (Hamilton's method) and their sum is bound or, if
// there are more endpoints than that, one each.
func slotCounts(weights []uint32, bound int) []uint32 {
	divisor, sum := uint32(0), uint64(0)
	for _, w := range weights {
		divisor = gcd(divisor, w)
		sum += uint64(w)
	}
	counts := make([]uint32, len(weights))
	if len(weights) == 0 {
		return counts
	}
	if sum/uint64(divisor) > uint64(bound) {
		apportion(weights, sum, counts, bound)
		return counts
	}
	for i, w := range weights {
		counts[i] = w / divisor
	}
	return counts
}

// apportion deals out seats: one to each endpoint that deserves less, so that it is not forgotten, the rest by largest
// remainder among the others.
func apportion(weights []uint32, sum uint64, counts []uint32, seats int) {
	left, heavy := uint64(seats), sum
	if len(weights) >= seats {
		for i := range counts {
			counts[i] = 1
		}
		return
	}
	for again := true; again; {
		again = false
		// Compared with what the round began with: the outcome must not depend on the order of the endpoints.
		seats, whole := left, heavy
		for i, w := range weights {
			if counts[i] == 0 && uint64(w)*seats < whole {
				counts[i], again = 1, true
				left--
				heavy -= uint64(w)
			}
		}
	}
	type remainder struct {
		endpoint int
		value    uint64
	}
	var remainders []remainder
	given := uint64(0)
	for i, w := range weights {
		if counts[i] == 0 {
			share := uint64(w) * left
			counts[i] = uint32(share / heavy)
			given += uint64(counts[i])
			remainders = append(remainders, remainder{i, share % heavy})
		}
	}
	slices.SortStableFunc(remainders, func(a, b remainder) int {
		switch {
		case a.value > b.value:
			return -1
		case a.value < b.value:
			return 1
		}
		return 0
	})
	for i := 0; given < left; i++ {
		counts[remainders[i].endpoint]++
		given++
	}
}

func gcd(a, b uint32) uint32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
