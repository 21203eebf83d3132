// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/layout.golden from the object")

// What two releases must agree on, in one file that a review sees change: maps, and every byte of keys and values.
func TestLayout(t *testing.T) {
	got := layout(t)
	const golden = "testdata/layout.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Fatalf("layout of pinned maps changed (-golden +object): a running data plane has the old one. "+
			"If that is meant, go test ./bpf -run TestLayout -update:\n%s", diff)
	}
}

func layout(t *testing.T) string {
	t.Helper()
	spec := mustSpec(t)
	var names []string
	for name := range spec.Maps {
		if !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		m := spec.Maps[name]
		fmt.Fprintf(&b, "map %s %v key %d value %d flags %#x\n", name, m.Type, m.KeySize, m.ValueSize, m.Flags)
		for _, typ := range []btf.Type{m.Key, m.Value} {
			describe(&b, typ, 0, 1)
		}
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
