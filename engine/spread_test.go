// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/bpf"
)

// Promise: counts are exact where they fit, and off by no more than is stated where they do not.
func TestSlotCounts(t *testing.T) {
	if diff := cmp.Diff([]uint32{1, 2, 7}, slotCounts([]uint32{100, 200, 700}, maxSlots)); diff != "" {
		t.Error(diff)
	}
	rapid.Check(t, func(rt *rapid.T) {
		bound := rapid.IntRange(1, 5000).Draw(rt, "bound")
		weights := rapid.SliceOfN(rapid.OneOf(rapid.Uint32Range(1, 9), rapid.Uint32Min(1)), 1, 300).Draw(rt, "weights")
		counts := slotCounts(weights, bound)
		total, sum, divisor := uint64(0), uint64(0), uint32(0)
		for i, n := range counts {
			if n == 0 {
				rt.Fatalf("endpoint %d of weight %d has no slot", i, weights[i])
			}
			total += uint64(n)
			sum += uint64(weights[i])
			divisor = gcd(divisor, weights[i])
		}
		switch {
		case sum/uint64(divisor) <= uint64(bound):
			for i, n := range counts {
				if n != weights[i]/divisor {
					rt.Fatalf("endpoint %d of weight %d has %d slots, want %d", i, weights[i], n, weights[i]/divisor)
				}
			}
			return
		case total != uint64(max(bound, len(weights))):
			rt.Fatalf("%d slots, want %d", total, max(bound, len(weights)))
		case len(weights) >= bound:
			return
		}
		light := 0
		for _, w := range weights {
			if float64(w)/float64(sum) < 1/float64(bound) {
				light++
			}
		}
		for i, n := range counts {
			share, want := float64(n)/float64(total), float64(weights[i])/float64(sum)
			if off := max(share-want, want-share); off > float64(1+light)/float64(bound)+1e-12 {
				rt.Fatalf("endpoint %d has share %v, want %v within %d/%d", i, share, want, 1+light, bound)
			}
		}
	})
}

func hashed(n int) (addresses []bpf.MeshAddress, ports []uint16, weights []uint32) {
	for i := range n {
		addresses = append(addresses, bpf.AddressOf(netip.AddrFrom4([4]byte{10, 7, byte(i >> 8), byte(i)})))
		ports, weights = append(ports, 8080), append(weights, 1)
	}
	return addresses, ports, weights
}

func shares(table []uint32, n int) []int {
	counts := make([]int, n)
	for _, i := range table {
		counts[i]++
	}
	return counts
}

// Promise: of 100 endpoints none is off its share by more than 1 % of it, and one of a hundred that goes takes no more
// than 2 % of the others' clients with it.
func TestMaglevEvenAndStable(t *testing.T) {
	addresses, ports, weights := hashed(100)
	before := maglev(addresses, ports, weights)
	for i, n := range shares(before, 100) {
		if float64(n) < 0.99*maglevSize/100 || float64(n) > 1.01*maglevSize/100 {
			t.Errorf("endpoint %d has %d slots of %d", i, n, maglevSize)
		}
	}
	worst := 0
	for gone := range 100 {
		after := maglev(slices.Delete(slices.Clone(addresses), gone, gone+1), ports[1:], weights[1:])
		moved := 0
		for slot, i := range before {
			j := int(after[slot])
			if j >= gone {
				j++
			}
			if int(i) != gone && int(i) != j {
				moved++
			}
		}
		worst = max(worst, moved)
	}
	t.Logf("at worst %.2f %% of the others' slots moved", 100*float64(worst)/maglevSize)
	if worst > maglevSize*2/100 {
		t.Errorf("%d of %d slots moved that did not have to", worst, maglevSize)
	}
}

// Promise: slots follow weights, each within 1 % of all.
func TestMaglevFollowsWeights(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		drawn := rapid.SliceOfN(rapid.Uint32Range(1, 1000), 1, 50).Draw(rt, "weights")
		addresses, ports, _ := hashed(len(drawn))
		sum := 0.0
		for _, w := range drawn {
			sum += float64(w)
		}
		for i, n := range shares(maglev(addresses, ports, drawn), len(drawn)) {
			share, want := float64(n)/maglevSize, float64(drawn[i])/sum
			if share < want-0.01 || share > want+0.01 {
				rt.Fatalf("endpoint %d of weight %d has share %v, want %v", i, drawn[i], share, want)
			}
		}
	})
}

// The table is a promise across releases: this one is as the first release built it.
func TestMaglevNeverChanges(t *testing.T) {
	addresses, ports, weights := hashed(7)
	weights[3] = 5
	addresses[6] = bpf.AddressOf(netip.MustParseAddr("fd00::7"))
	h := fnv.New64a()
	for _, i := range maglev(addresses, ports, weights) {
		h.Write(binary.BigEndian.AppendUint32(nil, i))
	}
	if got, want := fmt.Sprintf("%x", h.Sum(nil)), "177701863086e850"; got != want {
		t.Errorf("the table hashes to %s, want %s: clients of every consistent-hash service would move", got, want)
	}
}

// A size that divides evenly costs slots; this is how 16,381 was chosen.
func BenchmarkMaglev(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			addresses, ports, weights := hashed(n)
			off := 0.0
			for b.Loop() {
				for _, got := range shares(maglev(addresses, ports, weights), n) {
					share := float64(got) * float64(n) / maglevSize
					off = max(off, share-1, 1-share)
				}
			}
			b.ReportMetric(100*off, "%off")
		})
	}
}

// Promise: segments that are handed out never overlap, and all that is given back can be had again in one piece.
func TestSegmentsNeverOverlap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.Uint32Range(2, 700).Draw(rt, "capacity")
		s := newSegments(size)
		taken := make([]bool, size)
		var held []segment
		mark := func(x segment, to bool) {
			for i := x.first; i < x.first+x.size(); i++ {
				if i == 0 || i >= size || taken[i] == to {
					rt.Fatalf("segment %+v of %d slots overlaps another or the end", x, size)
				}
				taken[i] = to
			}
		}
		for range rapid.IntRange(1, 100).Draw(rt, "steps") {
			switch n := rapid.IntRange(0, 2).Draw(rt, "do"); {
			case n == 0 && len(held) > 0:
				i := rapid.IntRange(0, len(held)-1).Draw(rt, "give")
				mark(held[i], false)
				s.give(held[i])
				held = slices.Delete(held, i, i+1)
			case n == 1:
				x := segment{rapid.Uint32Range(0, size+3).Draw(rt, "first"), rapid.Uint8Range(0, 9).Draw(rt, "order")}
				if s.reserve(x) {
					mark(x, true)
					held = append(held, x)
				}
			default:
				if x, ok := s.take(rapid.Uint8Range(0, 9).Draw(rt, "order")); ok {
					mark(x, true)
					held = append(held, x)
				}
			}
		}
		for _, x := range held {
			s.give(x)
		}
		s.end = 1 // of slot 0
		if fresh := newSegments(size); !cmp.Equal(fresh, s, cmp.AllowUnexported(segments{}, indexes{})) {
			rt.Fatalf("not in one piece: %+v, want %+v", s, fresh)
		}
	})
}

// Promise: what is in use is dense at the beginning of the map, whatever its size, and holes are filled first: an agent that
// starts reads it up to the last that is in use.
func TestSegmentsAreDense(t *testing.T) {
	for _, size := range []uint32{1 << 16, 1<<16 + 1, 100_001, 400_001} {
		s := newSegments(size)
		var all []segment
		for i := range 100 {
			x, ok := s.take(uint8(i % 3))
			if !ok || x.first+x.size() > 1024 {
				t.Fatalf("segment %d of a map of %d slots is %+v", i, size, x)
			}
			all = append(all, x)
		}
		for _, hole := range []segment{all[30], all[10], all[20]} {
			s.give(hole)
			if x, ok := s.take(hole.order); !ok || x.first > hole.first {
				t.Errorf("a hole at %+v, of a map of %d slots, and %+v is taken", hole, size, x)
			}
		}
	}
}

// Promise: a set of indexes is what a map would be, and gives its lowest first.
func TestIndexesAreASet(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	const size = 70_000
	x, reference := newIndexes(size), make(map[uint32]bool)
	for range 200_000 {
		i := random.Uint32N(size)
		if random.IntN(2) == 0 {
			x.add(i)
			reference[i] = true
		} else if x.remove(i) != reference[i] {
			t.Fatalf("remove %d: want %v", i, reference[i])
		} else {
			delete(reference, i)
		}
	}
	if x.count != len(reference) {
		t.Fatalf("count is %d, want %d", x.count, len(reference))
	}
	last := uint32(0)
	for len(reference) > 0 {
		i, ok := x.take()
		if !ok || !reference[i] || i < last {
			t.Fatalf("took %d, %v after %d", i, ok, last)
		}
		delete(reference, i)
		last = i
	}
	if _, ok := x.take(); ok {
		t.Error("took something from nothing")
	}
}
