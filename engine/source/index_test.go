// SPDX-License-Identifier: Apache-2.0

package source

import (
	"slices"
	"strconv"
	"testing"

	"github.com/evenkeel/evenkeel/engine/manifest"
	"pgregory.net/rapid"
)

// TestIndexEqualsMap compares an index with the plain map that it stands for.
func TestIndexEqualsMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, want := newIndex[int](), map[manifest.Key][]int{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			key := manifest.Key{Name: strconv.Itoa(rapid.IntRange(0, 7).Draw(t, "object"))}
			want[key] = rapid.SliceOfNDistinct(rapid.IntRange(0, 3), 0, 4, rapid.ID).Draw(t, "terms")
			x.put(key, want[key])
			for term := range 4 {
				var expected []string
				for k, terms := range want {
					if slices.Contains(terms, term) {
						expected = append(expected, k.Name)
					}
				}
				var got []string
				for k := range x.with(term) {
					got = append(got, k.Name)
				}
				slices.Sort(expected)
				slices.Sort(got)
				if !slices.Equal(expected, got) || x.count(term) != len(got) {
					t.Fatalf("term %d: %v, want %v", term, got, expected)
				}
			}
		}
	})
}
