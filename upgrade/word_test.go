// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestWordFields(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.Uint16Range(0, generations-1)
		w := Word(rapid.Uint64().Draw(t, "word"))
		want := [5]uint16{
			rapid.Uint16().Draw(t, "epoch"), number.Draw(t, "floor"), number.Draw(t, "serve"),
			number.Draw(t, "canary"), number.Draw(t, "share"),
		}
		w = w.WithEpoch(want[0]).WithFloor(want[1]).WithServe(want[2]).WithCanary(want[3], want[4])
		got := [5]uint16{w.Epoch(), w.Floor(), w.Serve(), w.Canary(), w.Share()}
		if got != want {
			t.Fatalf("fields of %#x are %v, stored were %v", uint64(w), got, want)
		}
	})
}

func TestPhaseFields(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		epoch, state := rapid.Uint16().Draw(t, "epoch"), rapid.Uint16().Draw(t, "state")
		last := rapid.Uint16Range(0, 4095).Draw(t, "last")
		p := Phase(rapid.Uint64().Draw(t, "phase")).withEpoch(epoch).withLast(last).withState(state)
		if p.Epoch() != epoch || p.Last() != last || p.state() != state {
			t.Fatalf("%#x has epoch %d, last %d, state %d", uint64(p), p.Epoch(), p.Last(), p.state())
		}
	})
}

func TestNextSkipsLivePlacesAndZero(t *testing.T) {
	for _, c := range []struct {
		floor, serve, canary, last, want uint16
	}{
		{0, 0, 0, 0, 1},
		{1, 1, 0, 1, 2},
		{1, 3, 0, 3, 4},
		{1, 1, 0, 4, 6},             // 5 has the place of 1, which a rollback left live
		{4093, 4095, 0, 4095, 4},    // 1, 2 and 3 have the places of what is live
		{4095, 4095, 0, 4095, 1},    // no skip but of 0
		{4094, 4094, 4095, 4095, 1}, // a canary is live, too
		{1, 3, 4, 4, 0},             // crowded
		{4094, 4095, 1, 1, 4},       // 2 and 3 have the places of 4094 and 4095
		{4092, 4095, 0, 4095, 0},    // crowded over the turn
		{2, 2, 0, 2047, 2048},       // nothing special about the half
		{4095, 1, 0, 1, 2},          // floor to serve goes round
		{1, 2, 0, 4, 7},             // two skips
	} {
		w := Word(0).WithFloor(c.floor).WithServe(c.serve).WithCanary(c.canary, 1)
		got, err := w.Next(c.last)
		if c.want == 0 {
			if !errors.Is(err, ErrCrowded) {
				t.Errorf("{%v}.Next(%d) = %d, %v, not crowded", w, c.last, got, err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("{%v}.Next(%d) = %d, %v, want %d", w, c.last, got, err, c.want)
		}
	}
}

func TestLive(t *testing.T) {
	for _, c := range []struct {
		w    Word
		want []uint16
	}{
		{Word(0), nil},
		{Word(0).WithFloor(1).WithServe(1), []uint16{1}},
		{Word(0).WithFloor(4094).WithServe(1).WithCanary(2, 0), []uint16{4094, 4095, 1, 2}},
	} {
		if diff := cmp.Diff(c.want, c.w.Live()); diff != "" {
			t.Errorf("{%v}.Live (-want +got):\n%s", c.w, diff)
		}
	}
}

// What is live runs itself, all else the floor, for every stamp and any word a sequence of moves can make.
func TestRunIsLiveOrFloor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWord(t)
		live := w.Live()
		for stamp := range generations {
			want := w.Floor()
			if slices.Contains(live, stamp) {
				want = stamp
			}
			if got := w.Run(stamp); got != want {
				t.Fatalf("{%v}.Run(%d) = %d, want %d", w, stamp, got, want)
			}
		}
	})
}

// drawWord makes a word of one to four live generations with or without a canary.
func drawWord(t *rapid.T) Word {
	floor := rapid.Uint16Range(1, generations-1).Draw(t, "floor")
	serve := floor
	for range rapid.IntRange(0, 2).Draw(t, "more") {
		serve = after(serve)
	}
	w := Word(0).WithEpoch(rapid.Uint16().Draw(t, "epoch")).WithFloor(floor).WithServe(serve)
	if rapid.Bool().Draw(t, "canary") {
		w = w.WithCanary(after(serve), rapid.Uint16Range(0, 4095).Draw(t, "share"))
	}
	return w
}

func TestMovesRefuse(t *testing.T) {
	w := Word(0).WithFloor(2).WithServe(3)
	if _, err := w.Raise(4); err == nil {
		t.Error("the floor was raised above what serves")
	}
	if _, err := w.Raise(1); err == nil {
		t.Error("the floor was raised below itself")
	}
	if _, err := w.Try(3, 1); err == nil {
		t.Error("what serves became a canary")
	}
	w, err := w.Try(4, 41)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Try(5, 41); err == nil {
		t.Error("a second canary was let in")
	}
	if again, err := w.Try(4, 4095); err != nil || again.Share() != 4095 {
		t.Errorf("the share of a canary could not be changed: %v, %v", again, err)
	}
}

// The rules in Go are those in C, on words that moves can make and on any other.
func TestRulesAreThoseOfC(t *testing.T) {
	rule := loadRule(t)
	rapid.Check(t, func(t *rapid.T) {
		w := Word(rapid.Uint64().Draw(t, "any"))
		if rapid.Bool().Draw(t, "sound") {
			w = drawWord(t)
		}
		stamp := rapid.OneOf(rapid.Uint16Range(0, generations-1),
			rapid.SampledFrom([]uint16{0, w.Floor(), w.Serve(), w.Canary(), after(w.Serve())})).Draw(t, "stamp")
		random, chosen := rapid.Uint32().Draw(t, "random"), rapid.Uint16Range(0, 1).Draw(t, "chosen")
		r := tinyTinyRules{Word: uint64(w), Random: random, Stamp: stamp, Chosen: chosen}
		if code, err := rule.Run(&ebpf.RunOptions{Context: &r, ContextOut: &r}); err != nil || code != 0 {
			t.Fatalf("run: %d, %v", code, err)
		}
		got := [3]uint32{uint32(w.Run(stamp)), uint32(w.Stamp(uint16(random), chosen == 1)), Base(stamp)}
		if want := [3]uint32{r.Run, r.Stamped, r.Base}; got != want {
			t.Fatalf("{%v}, stamp %d, random %d, chosen %d: run, stamp, base are %v in Go, %v in C",
				w, stamp, random, chosen, got, want)
		}
	})
}

func loadRule(t *testing.T) *ebpf.Program {
	t.Helper()
	spec, err := loadTiny()
	if err != nil {
		t.Fatal(err)
	}
	all := &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{}, Programs: map[string]*ebpf.ProgramSpec{"tiny_rule": spec.Programs["tiny_rule"]},
		Types: spec.Types, ByteOrder: spec.ByteOrder,
	}
	for _, name := range references(spec.Programs["tiny_rule"]) {
		all.Maps[name] = spec.Maps[name]
	}
	loaded, err := ebpf.NewCollection(all)
	if err != nil {
		privilege(t, err)
	}
	t.Cleanup(loaded.Close)
	return loaded.Programs["tiny_rule"]
}
