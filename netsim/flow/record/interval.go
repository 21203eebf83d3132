// SPDX-License-Identifier: Apache-2.0

package record

import (
	"cmp"
	"slices"
)

// interval is from its begin to before its end, by CLOCK_MONOTONIC.
type interval struct{ from, to int64 }

// union is intervals that do not touch each other, sorted.
type union []interval

// unite makes a union; it sorts what it is given.
func unite(all []interval) union {
	slices.SortFunc(all, func(a, b interval) int { return cmp.Compare(a.from, b.from) })
	var u union
	for _, i := range all {
		if last := len(u) - 1; last >= 0 && i.from <= u[last].to {
			u[last].to = max(u[last].to, i.to)
			continue
		}
		u = append(u, i)
	}
	return u
}

// within returns how much of a stretch the union covers.
func (u union) within(from, to int64) (sum int64) {
	first, _ := slices.BinarySearchFunc(u, from, func(i interval, from int64) int { return cmp.Compare(i.to, from) })
	for _, i := range u[first:] {
		if i.from >= to {
			break
		}
		sum += min(i.to, to) - max(i.from, from)
	}
	return sum
}
