// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
)

// User space cannot change super, not even root by the map's own descriptor: only super_change can.
func TestSuperCannotBeWrittenByUserSpace(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	m, err := ebpf.LoadPinnedMap(b.dir+"/super", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	block := *s.view.super.block
	block.Word = 42
	if err := m.Put(uint32(0), &block); err == nil {
		t.Error("a store from user space was accepted")
	}
	if err := m.Delete(uint32(0)); err == nil {
		t.Error("a delete from user space was accepted")
	}
	if s.Word().Epoch() != 1 {
		t.Errorf("the word became {%v}", s.Word())
	}
	// The control: a map of the same kind that is not frozen takes it.
	spec, err := loadSuper()
	if err != nil {
		t.Fatal(err)
	}
	open, err := ebpf.NewMap(spec.Maps["super"])
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := open.Put(uint32(0), &block); err != nil {
		t.Errorf("the control was refused, too: %v", err)
	}
}

// upgradeStale has an owner that was replaced upgrade to another release.
func upgradeStale(t *testing.T, old *Store) error {
	t.Helper()
	other, err := readObject(tinyPlane(_TinyOtherBytes))
	if err != nil {
		t.Fatal(err)
	}
	old.release = other
	_, err = old.Upgrade(t.Context(), Attempt{})
	return err
}

func TestStaleEpochChangesNothing(t *testing.T) {
	b := newBed(t)
	old := b.open(t, _TinyBytes)
	// The owner before loses its lease without noticing, as after a stop of the whole process.
	if err := old.lease.Close(); err != nil {
		t.Fatal(err)
	}
	s := b.open(t, _TinyBytes)
	before, word := snapshot(t, b.dir), s.Word()
	var stale *StaleError
	seen := word.WithEpoch(old.Epoch())
	for what, err := range map[string]error{
		"swap what it believes":   old.Swap(seen, seen.WithCanary(0, 7)),
		"swap what it reads":      old.Swap(word, word.WithCanary(0, 7)),
		"swap without the fence":  old.view.super.swap(seen, seen.WithCanary(0, 7)),
		"load":                    old.Load(t.Context(), 2),
		"upgrade":                 upgradeStale(t, old),
		"retire the others":       old.RetireOthers(t.Context()),
		"take a number":           old.takeNumber(9),
		"record without fence":    old.view.super.record(old.Epoch(), 1, [32]byte{1}),
		"log without fence":       old.view.super.log(old.Epoch(), StepPublish, 1),
		"change the phase anyway": old.view.super.swapPhase(Phase(0).withEpoch(old.Epoch()).withLast(1), Phase(0)),
	} {
		if !errors.As(err, &stale) {
			t.Errorf("%s: %v, not a StaleError", what, err)
		}
	}
	if s.Word() != word || s.Last() != 1 || s.view.super.digest(1) != s.object.digest {
		t.Errorf("the word was {%v} and is {%v}", word, s.Word())
	}
	if diff := cmp.Diff(before, snapshot(t, b.dir)); diff != "" {
		t.Errorf("a stale owner changed (-before +after):\n%s", diff)
	}
}

func TestSwapRefuses(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	word := s.Word()
	if err := s.Swap(word, word.Upgrade(2)); err == nil || !strings.Contains(err.Error(), "generation 2 is not loaded") {
		t.Errorf("a generation that is not there was served: %v", err)
	}
	if err := s.Swap(word, word.WithFloor(0).WithServe(0)); err == nil {
		t.Error("nothing at all was served")
	}
	var stale *StaleError
	if err := s.Swap(word.WithCanary(1, 1), word); !errors.As(err, &stale) || stale.Found != word {
		t.Errorf("an outdated decision: %v", err)
	}
	if s.Word() != word {
		t.Errorf("the word is {%v}", s.Word())
	}
}
