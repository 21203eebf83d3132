// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLoadServeRetire(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	if err := s.Load(t.Context(), 5); err == nil || !strings.Contains(err.Error(), "place") {
		t.Errorf("a generation was loaded over another: %v", err)
	}
	if err := s.Load(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	one, two := s.Generation(1), s.Generation(2)
	if mapID(one.Maps["tiny_routes"]) != mapID(two.Maps["tiny_routes"]) {
		t.Error("a map of the same layout is not shared")
	}
	if mapID(one.Maps["tiny_counts"]) == mapID(two.Maps["tiny_counts"]) {
		t.Error("a private map is shared")
	}
	word := s.Word()
	if err := s.Swap(word, word.Upgrade(2)); err != nil {
		t.Fatal(err)
	}
	if err := s.Retire(t.Context(), 1); err == nil {
		t.Error("a generation that connections run was retired")
	}
	raised, err := s.Word().Raise(2)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Swap(s.Word(), raised); err != nil {
		t.Fatal(err)
	}
	if err := s.Retire(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint16{0, 1, 2} {
		if err := s.Load(t.Context(), n); err == nil {
			t.Errorf("number %d was given twice", n)
		}
	}
	if s.Serving().Number != 2 || s.Generation(1) != nil || s.Last() != 2 {
		t.Errorf("%d serves, generation 1 is %v, last %d", s.Serving().Number, s.Generation(1), s.Last())
	}
	if state := b.inspect(t); len(state.Damages) > 0 || len(state.Building) > 0 || len(state.Generations) != 1 {
		t.Errorf("not clean: %v %v %v", state.Damages, state.Building, state.Generations)
	}
	s.Close()
	before := snapshot(t, b.dir)
	b.open(t, _TinyBytes).Close()
	if diff := cmp.Diff(before, snapshot(t, b.dir)); diff != "" {
		t.Errorf("adopting generation 2 changed (-before +after):\n%s", diff)
	}
}

// A generation that nothing runs is discarded: whoever wanted it builds it anew.
func TestUnusedGeneration(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	before := snapshot(t, b.dir)
	for _, object := range [][]byte{_TinyBytes, _TinyOtherBytes} { // by another release, too
		s := b.open(t, _TinyBytes)
		n, err := s.Word().Next(s.Last())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Load(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		s.Close()
		s = b.open(t, object)
		if s.Generation(n) != nil {
			t.Error("it was kept")
		}
		s.Close()
		b.sound(t)
		if diff := cmp.Diff(before, snapshot(t, b.dir)); diff != "" {
			t.Errorf("after it was discarded (-before +after):\n%s", diff)
		}
	}
}
