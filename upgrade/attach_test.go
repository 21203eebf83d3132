// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
)

// detachLink takes a pinned link off its target and leaves it, as bpftool link detach does.
func detachLink(t *testing.T, path string) {
	t.Helper()
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, ok := l.(interface{ Detach() error })
	if !ok {
		t.Fatalf("a link of type %T cannot be detached", l)
	}
	if err := d.Detach(); err != nil {
		t.Fatal(err)
	}
}

// What somebody takes off the node while an owner runs, that one attaches again, and until then it says what is so.
func TestReattach(t *testing.T) {
	for _, hook := range []string{"connect4", "peername4", "msg"} {
		for how, takeOff := range map[string]func(t *testing.T, path string){
			"detached": detachLink,
			"unpinned": func(t *testing.T, path string) {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			},
		} {
			t.Run(hook+" "+how, func(t *testing.T) {
				b := newBed(t)
				s := b.open(t, _TinyBytes)
				before := inventory(t, b.dir)
				if names, err := s.Reattach(t.Context()); err != nil || len(names) != 0 {
					t.Errorf("nothing is off, but %v, %v", names, err)
				}
				takeOff(t, filepath.Join(b.dir, "links", hook))
				damages := b.inspect(t).Damages
				if len(damages) != 1 || damages[0].Path != "links/"+hook || damages[0].Fix != reattach {
					t.Errorf("damages %v", damages)
				}
				if how == "detached" && !strings.Contains(damages[0].What, "detached, or") {
					t.Errorf("damage %v", damages[0])
				}
				if names, err := s.Reattach(t.Context()); err != nil || !slices.Equal(names, []string{hook}) {
					t.Errorf("attached %v, %v", names, err)
				}
				if damages := b.inspect(t).Damages; len(damages) != 0 {
					t.Errorf("left %v", damages)
				}
				if diff := cmp.Diff(before, inventory(t, b.dir)); diff != "" {
					t.Errorf("pinned (-before +after):\n%s", diff)
				}
				steps := b.inspect(t).Steps
				if !slices.ContainsFunc(steps[len(steps)-3:], func(s StepState) bool { return s.Step == StepAttach.String() }) {
					t.Errorf("the log ends in %+v", steps[len(steps)-3:])
				}
			})
		}
	}
}

// Maps that no program uses have nothing but the owner and their names: the owner sees what became of those, and gives
// them back.
func TestRepin(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	path := filepath.Join(b.dir, "maps/tiny_notes")
	before := snapshot(t, b.dir)
	said := func() string {
		t.Helper()
		state, err := s.Inspect()
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(state.Damages)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if found := said(); !strings.Contains(found, "maps/tiny_notes: it is gone") {
		t.Errorf("its name is gone, and that is said: %s", found)
	}
	putLookalike(t, b, path, s.Frozen()["tiny_notes"])
	if found := said(); !strings.Contains(found, "maps/tiny_notes: it is map") {
		t.Errorf("another map has its name, and that is said: %s", found)
	}
	if again, err := s.Repin(); err != nil || len(again) != 0 {
		t.Errorf("in place of a foreign map %v were pinned, %v", again, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Repin(); err != nil || !slices.Equal(again, []string{"maps/tiny_notes"}) {
		t.Errorf("pinned again: %v, %v", again, err)
	}
	if found := said(); found != "[]" {
		t.Errorf("left %s", found)
	}
	if diff := cmp.Diff(before, snapshot(t, b.dir)); diff != "" {
		t.Errorf("pinned (-before +after):\n%s", diff)
	}
}

// A part of the hooks is not attached to another cgroup than the rest, nor is what is foreign replaced; a cgroup that was
// made again gets all of them.
func TestReattachRefuses(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	detachLink(t, filepath.Join(b.dir, "links/connect4"))
	right := s.cgroup
	s.cgroup = newCgroup(t, right+"-other")
	var refused *RefusedError
	if _, err := s.Reattach(t.Context()); !errors.As(err, &refused) {
		t.Errorf("to another cgroup: %v", err)
	}
	s.cgroup = right
	theirs := intruderProgram(t, ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect)
	defer theirs.Close()
	l, err := link.AttachCgroup(link.CgroupOptions{Path: right, Program: theirs, Attach: ebpf.AttachCGroupInet4Connect})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	path := filepath.Join(b.dir, "links/connect4")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Pin(path); err != nil {
		t.Fatal(err)
	}
	if names, err := s.Reattach(t.Context()); err != nil || len(names) != 0 {
		t.Errorf("in place of a foreign link %v were attached, %v", names, err)
	}
	if err := errors.Join(os.Remove(path), l.Close()); err != nil {
		t.Fatal(err)
	}

	if err := os.Remove(right); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the links are defunct", func() bool { return len(b.inspect(t).Damages) == 2 })
	newCgroup(t, right)
	if names, err := s.Reattach(t.Context()); err != nil || !slices.Equal(names, []string{"connect4", "peername4"}) {
		t.Errorf("to a cgroup that was made again: %v, %v", names, err)
	}
	connectIn(t, right)
	b.sound(t)
}
