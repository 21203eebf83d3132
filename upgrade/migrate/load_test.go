// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

// spec reads release n of testdata/flows.c, with room for so many entries.
func spec(t testing.TB, n int, keys uint32) *ebpf.CollectionSpec {
	t.Helper()
	load := [...]func() (*ebpf.CollectionSpec, error){nil, loadFlows1, loadFlows2, loadFlows3, loadFlows4, loadFlows5, loadFlows6}
	s, err := load[n]()
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range s.Maps {
		if name == Name("flows", n) || name == "books" || IsSide(name) {
			m.MaxEntries = keys + keys/8
		}
	}
	if n >= 5 { // a list of free elements for each CPU
		s.Maps[Name("flows", n)].MaxEntries = 2 * keys
	}
	return s
}

func needKernel(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("this test needs root")
	}
	t.Skip("needs root")
}

// Every release can be bridged to every other, over up to five steps, and the kernel takes the programs.
func TestEveryBridgeLoads(t *testing.T) {
	needKernel(t)
	for from := 1; from <= 6; from++ {
		for to := 1; to <= 6; to++ {
			t.Run(fmt.Sprintf("%d to %d", from, to), func(t *testing.T) {
				source, target := spec(t, from, 1024), spec(t, to, 1024)
				linked, err := Link(target, source, []Pair{{Name("flows", to), Name("flows", from)}})
				if err != nil {
					t.Fatal(err)
				}
				prune(linked, append(Programs(linked, Name("flows", to)), "event", "fill", "enter")...)
				all, err := ebpf.NewCollection(linked)
				if err != nil {
					t.Fatalf("%+v", err)
				}
				all.Close()
			})
		}
	}
}

// prune leaves the programs that are named.
func prune(s *ebpf.CollectionSpec, names ...string) {
	maps.DeleteFunc(s.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return !slices.Contains(names, name) })
}
