// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// openAny opens a tree with a release, whatever release serves.
func (b bed) openAny(t *testing.T, plane DataPlane) *Store {
	t.Helper()
	o := b.options()
	o.Accept = AcceptAny
	s, err := Open(t.Context(), plane, o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustUpgrade(t *testing.T, s *Store) *Plan {
	t.Helper()
	p, err := s.Upgrade(t.Context(), Attempt{})
	if err != nil {
		t.Fatalf("upgrade: %v", err)
	}
	return p
}

// Another release with the same maps takes over while connections run, goes back, and comes again.
func TestUpgradeAndRollback(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	load := start(t, job{Do: "connect", Busy: 1}, b.cgroup)
	load.done(t)
	for round := range 6 {
		s := b.openAny(t, tinyPlane(_TinyOtherBytes))
		old := s.Word().Serve()
		if !s.Differs() {
			t.Fatal("the release does not differ")
		}
		p := mustUpgrade(t, s)
		if p.Rollback != "word" || !p.Canary {
			t.Errorf("plan: %+v", p)
		}
		if s.Differs() || s.Word().Serve() == old {
			t.Errorf("it does not serve: %v", s.Word())
		}
		b.sound(t)
		if again, err := s.Upgrade(t.Context(), Attempt{}); err != nil || !again.Same {
			t.Errorf("a second upgrade: %+v, %v", again, err)
		}
		s.Close()
		s = b.openAny(t, tinyPlane(_TinyOtherBytes))
		if err := s.Rollback(t.Context(), Attempt{}, fmt.Sprint("round ", round)); err != nil {
			t.Fatal(err)
		}
		if !s.Differs() || s.Word().Serve() != old {
			t.Errorf("round %d: after going back: %v, differs %v", round, s.Word(), s.Differs())
		}
		if err := s.Rollback(t.Context(), Attempt{}, "again"); !errors.Is(err, ErrNoPrevious) {
			t.Errorf("going back twice: %v", err)
		}
		b.sound(t)
		s.Close()
	}
	load.end(t)
	if mixed, missed := total(t, b.dir, tinyTinyTotalTINY_MIXED), total(t, b.dir, tinyTinyTotalTINY_MISSED); missed > 0 {
		t.Errorf("%d missed, %d mixed", missed, mixed)
	}
	state := b.inspect(t)
	if n := len(state.Generations); n > 2 {
		t.Errorf("%d generations are left", n)
	}
}

// A map that only the owner writes gets another size: its entries are there afterwards, and nothing else changed.
func TestUpgradeResizes(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	for i := range uint32(50) {
		if err := s.Serving().Maps["tiny_routes"].Put(i, [16]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	plane := tinyPlane(_TinyBytes)
	plane.Sizes = map[string]uint32{"tiny_routes": 40}
	s = b.openAny(t, plane)
	before := snapshot(t, b.dir)
	var refused *RefusedError
	if _, err := s.Upgrade(t.Context(), Attempt{}); !errors.As(err, &refused) {
		t.Errorf("50 entries into 40: %v", err)
	}
	if diff := cmp.Diff(before, snapshot(t, b.dir)); diff != "" {
		t.Errorf("refusing changed (-before +after):\n%s", diff)
	}
	s.Close()
	plane.Sizes["tiny_routes"] = 1000
	s = b.openAny(t, plane)
	p := mustUpgrade(t, s)
	if p.Rollback != "none" || p.Move != "floor" {
		t.Errorf("plan: %+v", p)
	}
	var value [16]byte
	for i := range uint32(50) {
		if err := s.Serving().Maps["tiny_routes"].Lookup(i, &value); err != nil || value[0] != byte(i) {
			t.Fatalf("entry %d: %v, %v", i, value, err)
		}
	}
	if n := s.Serving().Maps["tiny_routes"].MaxEntries(); n != 1000 {
		t.Errorf("room for %d", n)
	}
	b.sound(t)
	s.Close()
	if n := len(b.inspect(t).Generations); n != 1 {
		t.Errorf("%d generations are left", n)
	}
}

// A release may add a hook and another may drop one.
func TestUpgradeChangesHooks(t *testing.T) {
	b := newBed(t)
	few := tinyPlane(_TinyBytes)
	few.Hooks = few.Hooks[:1] // connect4
	s, err := Open(t.Context(), few, b.options())
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	want := withoutNumbers(inventory(t, b.dir))
	s = b.openAny(t, tinyPlane(_TinyBytes))
	p := mustUpgrade(t, s)
	if len(p.Hooks) != 4 || p.Hooks[0].Action != ActionCreate {
		t.Errorf("plan: %+v", p.Hooks)
	}
	b.sound(t)
	s.Close()
	s = b.openAny(t, tinyPlane(_TinyBytes))
	if state := b.inspect(t); len(state.Hooks) != 5 {
		t.Errorf("%d hooks", len(state.Hooks))
	}
	s.Close()
	connectIn(t, b.cgroup)
	s = b.openAny(t, few)
	if p = mustUpgrade(t, s); len(p.Hooks) != 4 || p.Hooks[0].Action != ActionRemove {
		t.Errorf("plan: %+v", p.Hooks)
	}
	b.sound(t)
	if _, err := s.makeRoom(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if diff := cmp.Diff(want, withoutNumbers(inventory(t, b.dir))); diff != "" {
		t.Errorf("inventory (-before +after):\n%s", diff)
	}
	if missed := total(t, b.dir, tinyTinyTotalTINY_MISSED); missed > 0 {
		t.Errorf("%d events met an empty slot", missed)
	}
}

// What changed its layout without a new schema number is refused by name.
func TestReorderIsRefused(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	s := b.openAny(t, tinyPlane(_TinyReorderedBytes))
	before := snapshot(t, b.dir)
	var refused *RefusedError
	if _, err := s.Upgrade(t.Context(), Attempt{}); !errors.As(err, &refused) || refused.Changes[0].Name != "gen/1/maps/tiny_routes" {
		t.Errorf("not refused: %v", err)
	}
	if diff := cmp.Diff(before, snapshot(t, b.dir)); diff != "" {
		t.Errorf("refusing changed (-before +after):\n%s", diff)
	}
}
