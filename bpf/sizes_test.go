// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"maps"
	"reflect"
	"testing"
)

// TestSizesBackAndForth: what a flag was is told by the size of any map that it sizes, and every map with a size has one.
func TestSizesBackAndForth(t *testing.T) {
	sizes := Sizes{Services: 3, Endpoints: 50, Workloads: 700, Affinities: 9_000, Peers: 110_000}
	byFlag := map[string]uint32{
		"--max-services": 3, "--max-endpoints": 50, "--max-workloads": 700, "--max-affinities": 9_000, "--max-peers": 110_000,
	}
	seen := map[string]uint32{}
	for name, entries := range sizes.MaxEntries() {
		got := FlagValue(name, entries)
		if got != byFlag[Flag(name)] {
			t.Errorf("%s of %d entries: %s was %d, want %d", name, entries, Flag(name), got, byFlag[Flag(name)])
		}
		seen[Flag(name)] = got
	}
	if !maps.Equal(seen, byFlag) || len(seen) != reflect.TypeFor[Sizes]().NumField() {
		t.Errorf("flags that size a map: %v", seen)
	}
	if Flag("super") != "" || FlagValue("super", 1) != 0 || FlagValue("services", 0) != 0 {
		t.Error("a map without a flag, or without room, has a value of it")
	}
	spec, err := Spec()
	if err != nil {
		t.Fatal(err)
	}
	for name, entries := range DefaultSizes().MaxEntries() { // what bpf/maps.h says is what flags say
		if m := spec.Maps[name]; m == nil || m.MaxEntries != entries {
			t.Errorf("%s: %d entries by default, and in C %+v", name, entries, m)
		}
	}
}
