// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What is read of programs and maps by their structs' beginnings is what the library reads of the whole.
func TestIDsAreTheLibrarys(t *testing.T) {
	s := newBed(t).open(t, _TinyBytes)
	programs, used := s.Serving().Programs, 0
	for name, p := range programs {
		about, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		if id, ok := about.ID(); !ok || programID(p) != id {
			t.Errorf("program %s: id %d, not %d", name, programID(p), id)
		}
		want, _ := about.MapIDs()
		if ids, err := mapsOf(p); err != nil || !slices.Equal(ids, want) {
			t.Errorf("program %s uses maps %v, not %v: %v", name, ids, want, err)
		}
		used += len(want)
	}
	if used == 0 {
		t.Error("no program uses a map: that says nothing")
	}
	for _, maps := range []map[string]*ebpf.Map{s.Frozen(), s.Serving().Maps} {
		for name, m := range maps {
			about, err := m.Info()
			if err != nil {
				t.Fatal(err)
			}
			id, _ := about.ID()
			if got, err := readMap(m); err != nil || got.id != id || mapID(m) != id ||
				unix.ByteSliceToString(got.name[:]) != about.Name {
				t.Errorf("map %s: %+v, not %d, %s: %v", name, got, id, about.Name, err)
			}
		}
	}
}
