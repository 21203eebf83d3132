// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"testing"

	"github.com/cilium/ebpf/btf"
)

func field(name string, at uint32, t btf.Type) btf.Member {
	return btf.Member{Name: name, Type: t, Offset: btf.Bits(at * 8)}
}

func structOf(size uint32, members ...btf.Member) *btf.Struct {
	return &btf.Struct{Name: "any", Size: size, Members: members}
}

func TestCompareTypes(t *testing.T) {
	u32 := &btf.Int{Name: "__u32", Size: 4}
	u16 := &btf.Int{Name: "__u16", Size: 2}
	alias := &btf.Typedef{Name: "__be32", Type: u32}
	signed := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	base := structOf(8, field("a", 0, u32), field("b", 4, u32))
	swapped := structOf(8, field("b", 0, u32), field("a", 4, u32))
	spared := structOf(8, field("a", 0, u32), field("reserved", 4, u32))
	for _, c := range []struct {
		name        string
		want, found btf.Type
		equal       bool
	}{
		{"itself", base, base, true},
		{"another name of the type", structOf(8, field("a", 0, alias), field("b", 4, &btf.Const{Type: u32})), base, true},
		{"fields in another order", swapped, base, false},
		{"another name of a field", structOf(8, field("a", 0, u32), field("c", 4, u32)), base, false},
		{"a field that became shorter", structOf(8, field("a", 0, u32), field("b", 4, u16)), base, false},
		{"a field that became signed", structOf(8, field("a", 0, signed), field("b", 4, u32)), base, false},
		{"a field more", structOf(12, field("a", 0, u32), field("b", 4, u32), field("c", 8, u32)), base, false},
		{"a field less", structOf(8, field("a", 0, u32)), base, false},
		{"a field in what was reserved",
			structOf(12, field("a", 0, u32), field("c", 4, u16), field("pad", 6, u16), field("b", 8, u32)),
			structOf(12, field("a", 0, u32), field("reserved", 4, u32), field("b", 8, u32)), true},
		{"a field in what was reserved at the end",
			structOf(8, field("a", 0, u32), field("c", 4, u32)), spared, true},
		{"a field that became reserved",
			spared, base, false},
		{"a field that only begins like one that is reserved",
			base, structOf(8, field("a", 0, u32), field("padlock", 4, u32)), false},
		{"a field that reaches beyond what was reserved",
			structOf(12, field("a", 0, u32), field("c", 4, structOf(8, field("x", 0, u32), field("y", 4, u32)))),
			structOf(12, field("a", 0, u32), field("reserved", 4, u32), field("b", 8, u32)), false},
		{"a shorter array", &btf.Array{Type: u32, Nelems: 3}, &btf.Array{Type: u32, Nelems: 4}, false},
		{"an array of something else", &btf.Array{Type: base, Nelems: 2}, &btf.Array{Type: swapped, Nelems: 2}, false},
		{"a struct and an integer", base, &btf.Int{Size: 8}, false},
		{"a nested struct", structOf(8, field("in", 0, base)), structOf(8, field("in", 0, swapped)), false},
		{"enum and integer of one size", &btf.Enum{Size: 4, Values: []btf.EnumValue{{Name: "X"}}}, u32, true},
		{"an enum with one value more", &btf.Enum{Size: 4}, &btf.Enum{Size: 4, Values: []btf.EnumValue{{Name: "X"}}}, true},
	} {
		expected, found := compareTypes("value", c.want, c.found)
		if equal := expected == found; equal != c.equal {
			t.Errorf("%s: expected %q, found %q", c.name, expected, found)
		}
	}
}

func FuzzCompareTypes(f *testing.F) {
	f.Add([]byte{0, 4, 4, 4}, []byte{4, 4, 0, 4})
	f.Add([]byte{0, 4, 36, 2}, []byte{0, 8})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		x, y := structFrom(a), structFrom(b)
		if expected, found := compareTypes("value", x, x); expected != found {
			t.Fatalf("a type differs from itself: %q, %q", expected, found)
		}
		expected, found := compareTypes("value", x, y)
		again, and := compareTypes("value", x, y)
		if expected != again || found != and {
			t.Fatal("two comparisons of the same types differ")
		}
	})
}

// structFrom makes a struct of pairs of bytes: an offset and name, and a size.
func structFrom(raw []byte) *btf.Struct {
	s := &btf.Struct{Size: 256}
	for i := 0; i+1 < len(raw) && i < 32; i += 2 {
		names := []string{"a", "b", "reserved", "pad"}
		s.Members = append(s.Members, field(names[raw[i]>>5&3], uint32(raw[i]&31), &btf.Int{Size: uint32(raw[i+1]&7 + 1)}))
	}
	return s
}
