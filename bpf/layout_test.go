// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write layouts of schemas that have none in testdata/schemas yet; none is overwritten")

// schemas has the layout of every schema of every map that ever was released, a file each, named as the map is.
const schemas = "testdata/schemas"

// A map whose layout changes is another schema of it, under another number: what is pinned under the name has the layout
// that is written down here. Nothing overwrites it. Where a layout was never released, its file may be deleted.
func TestLayout(t *testing.T) {
	spec := mustSpec(t)
	for name, m := range spec.Maps {
		if strings.HasPrefix(name, ".") {
			continue
		}
		if err := keep(schemas, m); err != nil {
			t.Error(err)
		}
	}
}

// schema is what a name says: peers is schema 1 of peers, peers_v2 schema 2 (package migrate has the same rule).
func schema(name string) (base string, number int) {
	base, version, is := strings.Cut(name, "_v")
	number, err := strconv.Atoi(version)
	if !is || err != nil || number < 2 {
		return name, 1
	}
	return base, number
}

// keep compares a map with the layout of its schema. It writes one that is new if it is asked to.
func keep(dir string, m *ebpf.MapSpec) error {
	got, path := layout(m), filepath.Join(dir, m.Name)
	want, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && *update:
		return os.WriteFile(path, []byte(got), 0o644)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("map %s has no layout in %s: go test ./bpf -run TestLayout -update writes it", m.Name, dir)
	case err != nil:
		return err
	}
	diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n"))
	switch {
	case diff == "":
	case compatible(string(want), got) && *update:
		return os.WriteFile(path, []byte(got), 0o644)
	case compatible(string(want), got):
		return fmt.Errorf("map %s has fields where there was room to spare, which every release wrote as zero: "+
			"go test ./bpf -run TestLayout -update keeps them:\n%s", m.Name, diff)
	default:
		base, number := schema(m.Name)
		return fmt.Errorf("map %s is not as it was released (-released +object): whoever runs the one has pinned it. "+
			"Name the new one %s and say how its entries come and go, as upgrade/migrate/state.h tells:\n%s",
			m.Name, fmt.Sprintf("%s_v%d", base, number+1), diff)
	}
	return nil
}

// compatible reports whether a layout is another one in which fields have taken room that was called pad or reserved, as
// package upgrade lets a running data plane be.
func compatible(released, object string) bool {
	type field struct {
		offset, size int
		name         string
	}
	parse := func(line string) (f field, is bool) {
		n, _ := fmt.Sscanf(line, "%d +%d %s", &f.offset, &f.size, &f.name)
		return f, n == 3
	}
	spare := regexp.MustCompile(`^(pad|reserved)\d*$`)
	want, got := strings.Split(released, "\n"), strings.Split(object, "\n")
	for len(want) > 0 {
		w, is := parse(want[0])
		if !is || !spare.MatchString(w.name) {
			if len(got) == 0 || want[0] != got[0] {
				return false
			}
			want, got = want[1:], got[1:]
			continue
		}
		for len(got) > 0 {
			g, is := parse(got[0])
			if !is || g.offset < w.offset || g.offset+g.size > w.offset+w.size {
				break
			}
			got = got[1:]
		}
		want = want[1:]
	}
	return len(got) == 0
}

// A number that no map has any more is one that somebody may still run; between the first and the last none is missing.
func TestSchemasAreNumbered(t *testing.T) {
	files, err := os.ReadDir(schemas)
	if err != nil {
		t.Fatal(err)
	}
	numbers := make(map[string][]int)
	for _, f := range files {
		base, number := schema(f.Name())
		numbers[base] = append(numbers[base], number)
	}
	spec := mustSpec(t)
	for base, all := range numbers {
		slices.Sort(all)
		for i, number := range all {
			if i > 0 && number != all[i-1]+1 {
				t.Errorf("map %s: schema %d comes after %d", base, number, all[i-1])
			}
		}
		newest := all[len(all)-1]
		for name := range spec.Maps {
			if b, number := schema(name); b == base && number != newest {
				t.Errorf("map %s is of another schema than the newest, %d", name, newest)
			}
		}
	}
}

// Room to spare may be taken, and nothing else.
func TestSpareRoom(t *testing.T) {
	const released = "map m Hash key 4 value 16 flags 0x0\n  struct v 16\n       0 +8 a\n       8 +8 reserved\n"
	for object, want := range map[string]bool{
		released: true,
		"map m Hash key 4 value 16 flags 0x0\n  struct v 16\n       0 +8 a\n       8 +4 b\n      12 +4 pad\n": true,
		"map m Hash key 4 value 16 flags 0x0\n  struct v 16\n       0 +8 b\n       8 +8 reserved\n":           false,
		"map m Hash key 4 value 24 flags 0x0\n  struct v 24\n       0 +8 a\n       8 +16 b\n":                 false,
		"map m Hash key 4 value 16 flags 0x0\n  struct v 16\n       0 +4 c\n       4 +4 a\n       8 +8 b\n":   false,
	} {
		if got := compatible(released, object); got != want {
			t.Errorf("compatible is %v:\n%s", got, object)
		}
	}
}

// What must be noticed: each field moved, swapped with one of its size, made larger or renamed; another kind of map.
func TestChangedLayoutIsNoticed(t *testing.T) {
	spec := mustSpec(t)
	for name, change := range map[string]func(m *ebpf.MapSpec){
		"equal-size reorder": func(m *ebpf.MapSpec) {
			s := btf.UnderlyingType(m.Value).(*btf.Struct)
			s.Members[0].Name, s.Members[1].Name = s.Members[1].Name, s.Members[0].Name
		},
		"larger value": func(m *ebpf.MapSpec) { m.ValueSize += 8 },
		"larger key":   func(m *ebpf.MapSpec) { m.KeySize += 8 },
		"other kind":   func(m *ebpf.MapSpec) { m.Type = ebpf.Hash },
		"renamed field": func(m *ebpf.MapSpec) {
			btf.UnderlyingType(m.Value).(*btf.Struct).Members[1].Name = "last"
		},
		"moved field": func(m *ebpf.MapSpec) { btf.UnderlyingType(m.Key).(*btf.Struct).Members[1].Offset += 32 },
	} {
		m := spec.Maps["affinities"].Copy()
		m.Key, m.Value = btf.Copy(m.Key), btf.Copy(m.Value)
		change(m)
		if err := keep(schemas, m); err == nil || !strings.Contains(err.Error(), "affinities_v2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The kernel keeps the types of every map that it can, for whoever comes next to compare.
func TestTypesAreRecorded(t *testing.T) {
	needRoot(t)
	coll := mustLoad(t, 1, nil)
	for name, m := range coll.Maps {
		if strings.HasPrefix(name, ".") || m.Type() == ebpf.ProgramArray || m.Type() == ebpf.SockHash {
			continue // for which the kernel keeps none
		}
		about, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		if id, is := about.BTFID(); !is || id == 0 {
			t.Errorf("the kernel knows no types of map %s (%v)", name, m.Type())
		}
	}
}

func layout(m *ebpf.MapSpec) string {
	var b strings.Builder
	fmt.Fprintf(&b, "map %s %v key %d value %d flags %#x\n", m.Name, m.Type, m.KeySize, m.ValueSize, m.Flags)
	for _, typ := range []btf.Type{m.Key, m.Value} {
		describe(&b, typ, 0, 1)
	}
	return b.String()
}

// describe writes the members of composite types with their offsets in bytes, those of types inside them, too.
func describe(b *strings.Builder, typ btf.Type, base uint32, depth int) {
	s, ok := btf.UnderlyingType(typ).(*btf.Struct)
	if !ok {
		return
	}
	indent := strings.Repeat("  ", depth)
	if depth == 1 {
		fmt.Fprintf(b, "%sstruct %s %d\n", indent, s.Name, s.Size)
	}
	for _, m := range s.Members {
		size, err := btf.Sizeof(m.Type)
		if err != nil {
			size = -1
		}
		offset := base + m.Offset.Bytes()
		fmt.Fprintf(b, "%s  %4d +%d %s\n", indent, offset, size, m.Name)
		describe(b, m.Type, offset, depth+1)
	}
}
