// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"regexp"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// compareMap says how a pinned map differs from what a release wants, as two texts, both empty if it does not. Sizes
// are not enough: a struct whose fields change places keeps its size, so the types that the kernel holds are compared.
func compareMap(want *ebpf.MapSpec, m *ebpf.Map) (expected, found string, err error) {
	if want.Compatible(m) != nil {
		found := &ebpf.MapSpec{
			Type: m.Type(), KeySize: m.KeySize(), ValueSize: m.ValueSize(), MaxEntries: m.MaxEntries(), Flags: m.Flags(),
		}
		return describeMap(want), describeMap(found), nil
	}
	key, value, err := mapTypes(m)
	if err != nil {
		return "", "", err
	}
	for _, side := range []struct {
		name        string
		want, found btf.Type
	}{{"key", want.Key, key}, {"value", want.Value, value}} {
		if side.want == nil || side.found == nil {
			continue // some kinds of maps keep no types
		}
		if e, f := compareTypes(side.name, side.want, side.found); e != f {
			return e, f, nil
		}
	}
	return "", "", nil
}

func describeMap(s *ebpf.MapSpec) string {
	return fmt.Sprintf("a %v with keys of %d bytes, values of %d bytes, %d entries, flags %#x",
		s.Type, s.KeySize, s.ValueSize, s.MaxEntries, s.Flags)
}

// compareTypes compares the layout of two types and describes the first difference; equal texts mean that there is
// none. Names of types do not matter, names of fields do: a field that means something else is another field. What is
// called pad or reserved in the pinned map may have become a field since, for it was written as zero.
func compareTypes(path string, want, found btf.Type) (string, string) {
	want, found = btf.UnderlyingType(want), btf.UnderlyingType(found)
	w, isStruct := members(want)
	f, alsoStruct := members(found)
	if isStruct != alsoStruct {
		return path + " " + describeType(want), path + " " + describeType(found)
	}
	if isStruct {
		return compareMembers(path, w, f)
	}
	wantArray, isArray := want.(*btf.Array)
	foundArray, alsoArray := found.(*btf.Array)
	if isArray && alsoArray && wantArray.Nelems == foundArray.Nelems {
		return compareTypes(path+"[]", wantArray.Type, foundArray.Type)
	}
	return path + " " + describeType(want), path + " " + describeType(found)
}

func compareMembers(path string, want, found []btf.Member) (string, string) {
	for len(want) > 0 && len(found) > 0 {
		w, f := want[0], found[0]
		if w.Name == f.Name && w.Offset == f.Offset && w.BitfieldSize == f.BitfieldSize {
			if !spare(f) {
				if e, g := compareTypes(path+"."+w.Name, w.Type, f.Type); e != g {
					return e, g
				}
			} else if end(w) != end(f) {
				break
			}
			want, found = want[1:], found[1:]
			continue
		}
		if !spare(f) || w.Offset < f.Offset {
			break
		}
		for len(want) > 0 && want[0].Offset >= f.Offset && end(want[0]) <= end(f) {
			want = want[1:]
		}
		found = found[1:]
	}
	if len(want) == 0 && len(found) == 0 {
		return "", ""
	}
	return describeMember(path, want), describeMember(path, found)
}

func members(t btf.Type) ([]btf.Member, bool) {
	switch t := t.(type) {
	case *btf.Struct:
		return t.Members, true
	case *btf.Union:
		return t.Members, true
	}
	return nil, false
}

var spareName = regexp.MustCompile(`^(pad|reserved)\d*$`)

// spare reports whether nothing was ever kept in a field.
func spare(m btf.Member) bool { return spareName.MatchString(m.Name) }

// end is the first bit behind a field.
func end(m btf.Member) btf.Bits {
	if m.BitfieldSize != 0 {
		return m.Offset + m.BitfieldSize
	}
	size, err := btf.Sizeof(m.Type)
	if err != nil {
		return m.Offset
	}
	return m.Offset + btf.Bits(size)*8
}

func describeMember(path string, rest []btf.Member) string {
	if len(rest) == 0 {
		return path + " without a further field"
	}
	m := rest[0]
	return fmt.Sprintf("%s.%s, %s, at byte %d", path, m.Name, describeType(btf.UnderlyingType(m.Type)), m.Offset.Bytes())
}

func describeType(t btf.Type) string {
	size, err := btf.Sizeof(t)
	if err != nil {
		return "a type without a size"
	}
	switch t := t.(type) {
	case *btf.Int:
		if t.Encoding == btf.Signed {
			return fmt.Sprintf("a signed integer of %d bytes", size)
		}
		return fmt.Sprintf("an integer of %d bytes", size)
	case *btf.Enum:
		return fmt.Sprintf("an integer of %d bytes", size)
	case *btf.Array:
		return fmt.Sprintf("an array of %d, %d bytes", t.Nelems, size)
	case *btf.Struct, *btf.Union:
		return fmt.Sprintf("a struct of %d bytes", size)
	}
	return fmt.Sprintf("a %T of %d bytes", t, size)
}
