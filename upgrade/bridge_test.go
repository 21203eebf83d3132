// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// hits is what the entries of the state map hold together; it has to be what traffic has counted.
func (b bed) hits(t *testing.T) (held, counted uint64) {
	t.Helper()
	v, err := readView(tree(b.dir))
	if err != nil {
		t.Fatal(err)
	}
	defer v.close()
	g := v.generations[v.word().Serve()]
	m, at := g.Maps["tiny_flows"], 0
	if m == nil {
		m, at = g.Maps["tiny_flows_v2"], 8
	}
	err = eachBatch(m, func(_, values []byte, n int) error {
		size := int(m.ValueSize())
		for i := range n {
			held += binary.NativeEndian.Uint64(values[i*size+at:])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return held, total(t, b.dir, tinyTinyTotalTINY_HITS)
}

func (b bed) exact(t *testing.T, when string) {
	t.Helper()
	held, counted := b.hits(t)
	if held != counted || held == 0 {
		t.Errorf("%s: the entries hold %d, %d were counted", when, held, counted)
	}
}

// A map changes its layout, up and down, by upgrade and by rollback, under traffic that writes it: what the entries hold
// together is what was counted.
func TestUpgradeByBridge(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyState1Bytes).Close()
	round := func(what string, do func(s *Store), object []byte) {
		t.Helper()
		load := start(t, job{Do: "connect", Busy: 2}, b.cgroup)
		load.done(t)
		s := b.openAny(t, tinyPlane(object))
		do(s)
		load.end(t)
		b.sound(t)
		b.exact(t, what)
		s.Close()
	}
	up := func(s *Store) {
		if p := mustUpgrade(t, s); p.Rollback != "bridge" || p.Move != "floor" || p.Canary {
			t.Errorf("plan: %+v", p)
		}
	}
	round("up", up, _TinyState2Bytes)
	round("back", func(s *Store) {
		begin := time.Now()
		if err := s.Rollback(t.Context(), Attempt{}, "test"); err != nil {
			t.Fatal(err)
		}
		t.Logf("rolled back in %v", time.Since(begin))
	}, _TinyState2Bytes)
	if s := b.openAny(t, tinyPlane(_TinyState1Bytes)); s.Differs() {
		t.Error("the release before does not serve")
	} else {
		s.Close()
	}
	round("up again", up, _TinyState2Bytes)
	round("down", up, _TinyState1Bytes)
	round("grown", func(s *Store) {
		s.Close()
		plane := tinyPlane(_TinyState1Bytes)
		plane.Sizes = map[string]uint32{"tiny_flows": 4096}
		s = b.openAny(t, plane)
		if p := mustUpgrade(t, s); p.Rollback != "none" {
			t.Errorf("plan: %+v", p)
		}
		if err := s.Rollback(t.Context(), Attempt{}, "test"); !errors.Is(err, ErrNoPrevious) {
			t.Errorf("going back from other sizes: %v", err)
		}
		s.Close()
	}, _TinyState1Bytes)
	if missed := total(t, b.dir, tinyTinyTotalTINY_MISSED); missed > 0 {
		t.Errorf("%d events met an empty slot", missed)
	}
	for _, e := range b.inspect(t).Events {
		t.Logf("%v %d to %d: %s", e.Kind, e.From, e.To, e.Text)
	}
}

// lanes is how many nodes share the steps to be killed at: much of the time of each goes by in grace periods.
const lanes = 4

// Killed after any step of an upgrade over a bridge, and once more in the recovery, under traffic: the next owner, of the
// old release or of the new one, brings it to an end or begins it again, and nothing is lost.
func TestBridgeSurvivesKillAtEveryStep(t *testing.T) {
	for _, do := range []string{"up", "back"} {
		t.Run(do, func(t *testing.T) {
			for lane := range lanes {
				t.Run(fmt.Sprint("lane", lane), func(t *testing.T) {
					t.Parallel()
					killCrossings(t, do, lane)
				})
			}
		})
	}
}

// killCrossings kills at every step of a lane, on a node of its own.
func killCrossings(t *testing.T, do string, lane int) {
	b := newBed(t)
	b.open(t, _TinyState1Bytes).Close()
	load := start(t, job{Do: "connect", Busy: 1, Rest: 4 * time.Millisecond}, b.cgroup)
	load.done(t)
	b.reach(t, do == "back")
	all := b.count(t, do)
	b.reach(t, do == "up")
	want := withoutNumbers(inventory(t, b.dir))
	kills := 0
	for k := 2 + lane*stride(); k <= all; k += lanes * stride() {
		b.reach(t, do == "back")
		if !b.kill(t, do, k) {
			t.Fatalf("it was over before step %d", k)
		}
		b.kill(t, []string{"adopt1", "adopt2"}[k%2], 1+k%9)
		b.reach(t, do == "up")
		if diff := cmp.Diff(want, withoutNumbers(inventory(t, b.dir))); diff != "" {
			t.Errorf("inventory after a kill at step %d (-undisturbed +recovered):\n%s", k, diff)
		}
		b.sound(t)
		kills++
	}
	load.end(t)
	b.exact(t, fmt.Sprintf("after %d kills", kills))
	if missed := total(t, b.dir, tinyTinyTotalTINY_MISSED); missed > 0 {
		t.Errorf("%d events met an empty slot", missed)
	}
	t.Logf("%d kills at %d steps, %d events", kills, all, total(t, b.dir, tinyTinyTotalTINY_EVENTS))
}

// reach has schema 2 serve, or schema 1, with nothing beside it.
func (b bed) reach(t *testing.T, second bool) {
	t.Helper()
	object := _TinyState1Bytes
	if second {
		object = _TinyState2Bytes
	}
	s := b.openAny(t, tinyPlane(object))
	if s.Differs() {
		mustUpgrade(t, s)
	}
	if second { // with the way back, however it was reached
		s.Close()
		return
	}
	if err := s.retireAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Close()
}
