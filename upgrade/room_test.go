// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestLimitOfFrozenMap: what a release allows in a frozen map goes up and down with upgrades, and the map stays.
func TestLimitOfFrozenMap(t *testing.T) {
	b := newBed(t)
	const name = "tiny_notes"
	plane := func(limit uint32) DataPlane {
		p := tinyPlane(_TinyBytes)
		p.Sizes, p.Room = map[string]uint32{name: limit}, map[string]uint32{name: 64}
		return p
	}
	s, err := Open(t.Context(), plane(4), b.options())
	if err != nil {
		t.Fatal(err)
	}
	made := mapID(s.Frozen()[name])
	if got := s.Frozen()[name].MaxEntries(); got != 64 {
		t.Errorf("the map is made for %d entries", got)
	}
	for i := range uint32(3) {
		if err := s.Frozen()[name].Put(i, i); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	limit := func() uint32 {
		w, err := OpenWriter(t.Context(), b.dir)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if mapID(w.Frozen[name]) != made {
			t.Error("the map is another")
		}
		sizes, err := w.Sizes()
		if err != nil {
			t.Fatal(err)
		}
		return sizes[name]
	}
	if got := limit(); got != 4 {
		t.Errorf("a writer reads a limit of %d", got)
	}
	for _, c := range []struct {
		to      uint32
		refused bool
	}{{40, false}, {3, false}, {2, true}, {65, true}, {64, false}} {
		var refused *RefusedError
		was := limit()
		if s, err := Open(t.Context(), plane(c.to), b.options()); !errors.As(err, &refused) {
			t.Errorf("limit %d is adopted: %v", c.to, err)
			s.Close()
		} else if refused.Changes[0].Entries == [2]uint32{} {
			t.Errorf("it does not say which limits: %v", err)
		}
		o := b.options()
		o.Accept = AcceptAny
		s, err := Open(t.Context(), plane(c.to), o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Upgrade(t.Context(), Attempt{}); errors.As(err, &refused) != c.refused || err != nil && !c.refused {
			t.Errorf("upgrade to a limit of %d: %v", c.to, err)
		}
		s.Close()
		want := c.to
		if c.refused {
			want = was
		}
		if got := limit(); got != want {
			t.Errorf("limit %d, want %d", got, want)
		}
	}
}

// TestOlderReleasesReadSizes: a release that knows of no limits finds in a record the sizes that the maps have, in a tree
// that it made itself, too, and takes it for the one that super names.
func TestOlderReleasesReadSizes(t *testing.T) {
	const name = "tiny_notes"
	for made, room := range map[uint32]uint32{64: 64, 8: 0} { // by this release, and by one that makes no room
		t.Run(fmt.Sprint(made), func(t *testing.T) {
			b := newBed(t)
			plane := func(limit, room uint32) DataPlane {
				p := tinyPlane(_TinyBytes)
				p.Sizes, p.Room = map[string]uint32{name: limit}, map[string]uint32{name: room}
				return p
			}
			s, err := Open(t.Context(), plane(8, room), b.options())
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			for _, limit := range []uint32{8, 5} {
				o := b.options()
				o.Accept = AcceptUpgrade
				s, err := Open(t.Context(), plane(limit, 64), o)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Upgrade(t.Context(), Attempt{}); err != nil {
					t.Fatal(err)
				}
				if s.Differs() {
					t.Errorf("made for %d: limit %d does not serve", made, limit)
				}
				g := s.Serving()
				older := *g.record
				older.Limits = nil // it decodes no such field
				if got := older.Sizes[name]; got != made || got != s.Frozen()[name].MaxEntries() {
					t.Errorf("made for %d, limit %d: an older release reads a size of %d", made, limit, got)
				}
				if digest, err := older.identity(); err != nil || digest != s.view.super.digest(g.Number) {
					t.Errorf("made for %d, limit %d: an older release does not believe the record: %v", made, limit, err)
				}
				if got := g.Sizes()[name]; got != limit {
					t.Errorf("made for %d: the limit is %d, not %d", made, got, limit)
				}
				s.Close()
			}
		})
	}
}

func TestSizesOfNoRecord(t *testing.T) {
	for _, text := range []string{"", "not packed", "\x1f\x8b"} {
		if _, err := sizesOf(strings.NewReader(text)); err == nil {
			t.Errorf("%q has sizes", text)
		}
	}
}
