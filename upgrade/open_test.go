// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
)

func TestCreate(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	if want := Word(0).WithEpoch(1).WithFloor(1).WithServe(1); s.Word() != want || s.Last() != 1 {
		t.Errorf("the word is {%v}, last number %d; want {%v}, 1", s.Word(), s.Last(), want)
	}
	if !s.Created() {
		t.Error("it is not said to be made")
	}
	state := b.inspect(t)
	if len(state.Damages) > 0 {
		t.Errorf("a fresh tree is damaged: %v", state.Damages)
	}
	if state.Holder == nil || state.Holder.PID != os.Getpid() {
		t.Errorf("the holder is %v, not this process", state.Holder)
	}
	for _, h := range state.Hooks {
		if !h.OK || len(h.Slots) != 1 || h.Slots[0].Program == 0 {
			t.Errorf("hook %s is not in order: %+v", h.Name, h)
		}
	}
	g := s.Serving()
	want := []string{"tiny_connect4", "tiny_lookup", "tiny_msg", "tiny_peername4", "tiny_rule", "tiny_tcx"}
	if diff := cmp.Diff(want, sortedKeys(g.Programs)); diff != "" {
		t.Errorf("programs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"tiny_counts", "tiny_routes"}, sortedKeys(g.Maps)); diff != "" {
		t.Errorf("maps (-want +got):\n%s", diff)
	}
}

func TestAdoptWritesNothing(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	if err := s.Serving().Maps["tiny_routes"].Put(uint32(1), make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	if err := s.Frozen()["tiny_notes"].Put(uint32(1), uint32(2)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	before := snapshot(t, b.dir)
	for epoch := uint16(2); epoch < 5; epoch++ {
		s := b.open(t, _TinyBytes)
		if s.Epoch() != epoch || s.Word().Epoch() != epoch || s.Differs() || s.Created() {
			t.Errorf("epoch %d, word {%v}, differs: %v, made: %v", s.Epoch(), s.Word(), s.Differs(), s.Created())
		}
		s.Close()
	}
	if diff := cmp.Diff(before, snapshot(t, b.dir)); diff != "" {
		t.Errorf("adopting changed (-before +after):\n%s", diff)
	}
}

func TestUninstallLeavesNothing(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	all := objects(t, b.dir)
	if len(all.programs) < 10 || len(all.maps) < 10 || len(all.links) != 3 {
		t.Fatalf("too few objects to say much: %+v", all)
	}
	for range 2 { // the second finds nothing to do
		if err := Uninstall(t.Context(), b.options()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(b.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", b.dir, err)
	}
	all.gone(t)
	if _, err := Inspect(b.dir); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("inspect after uninstall: %v", err)
	}
}

// Another release with the same layout adopts, and leaves the programs that serve.
func TestAdoptAnotherRelease(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	before := snapshot(t, b.dir)
	s := b.open(t, _TinyOtherBytes)
	if !s.Differs() {
		t.Error("another release does not differ")
	}
	state, err := s.Inspect()
	if err != nil || !state.Differs {
		t.Errorf("its state says differs: %v, %v", state.Differs, err)
	}
	if err := s.Load(t.Context(), 2); err == nil {
		t.Error("a generation of another release was loaded beside the one that serves")
	}
	s.Close()
	if diff := cmp.Diff(before, snapshot(t, b.dir)); diff != "" {
		t.Errorf("adopting changed (-before +after):\n%s", diff)
	}
}

// A cgroup that is removed takes its links along; made again at the same path it gets new ones.
func TestCgroupMadeAgain(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	before := inventory(t, b.dir)
	if err := os.Remove(b.cgroup); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the links are defunct", func() bool {
		damages := b.inspect(t).Damages
		return len(damages) == 2 && strings.Contains(damages[0].What, "its cgroup is gone")
	})
	newCgroup(t, b.cgroup)
	s := b.open(t, _TinyBytes)
	if damages := b.inspect(t).Damages; len(damages) > 0 {
		t.Errorf("damaged after it was opened again: %v", damages)
	}
	s.Close()
	for i, line := range inventory(t, b.dir) { // but for the number of the cgroup
		if strings.Split(line, ", cgroup ")[0] != strings.Split(before[i], ", cgroup ")[0] {
			t.Errorf("%s became %s", before[i], line)
		}
	}
	connected := connectIn(t, b.cgroup)
	if got := total(t, b.dir, tinyTinyTotalTINY_EVENTS); got < uint64(connected) {
		t.Errorf("%d hooks ran for %d connections", got, connected)
	}
}

// A cgroup that is removed while sockets live that were made in it keeps its links: they are as good as defunct, to a
// start and to an owner, and say so.
func TestCgroupMadeAgainWithLiveSockets(t *testing.T) {
	for name, attach := range map[string]func(*testing.T, bed, *Store){
		"start": func(t *testing.T, b bed, s *Store) {
			s.Close()
			b.open(t, _TinyBytes)
		},
		"owner": func(t *testing.T, _ bed, s *Store) {
			names, err := s.Reattach(t.Context())
			if err != nil || !slices.Equal(names, []string{"connect4", "peername4"}) {
				t.Errorf("attached %v, %v", names, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			s := b.open(t, _TinyBytes)
			holder := start(t, job{Do: "hold", Busy: 1}, b.cgroup)
			holder.done(t)
			aside := newCgroup(t, b.cgroup+"-aside")
			move := func(to string) {
				t.Helper()
				err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(strconv.Itoa(holder.Process.Pid)), 0)
				if err != nil {
					t.Fatal(err)
				}
			}
			move(aside)
			if err := os.Remove(b.cgroup); err != nil {
				t.Fatal(err)
			}
			newCgroup(t, b.cgroup)
			move(b.cgroup)
			damages := b.inspect(t).Damages
			if len(damages) != 2 || !strings.Contains(damages[0].What, "its cgroup was removed") {
				t.Fatalf("damages: %v", damages)
			}
			attach(t, b, s)
			if damages := b.inspect(t).Damages; len(damages) > 0 {
				t.Errorf("damaged after it was attached again: %v", damages)
			}
			before := total(t, b.dir, tinyTinyTotalTINY_EVENTS)
			connected := connectIn(t, b.cgroup)
			if got := total(t, b.dir, tinyTinyTotalTINY_EVENTS) - before; got < uint64(connected) {
				t.Errorf("%d hooks ran for %d connections", got, connected)
			}
			holder.end(t)
		})
	}
}

// connectIn makes connections from a cgroup for a moment and returns how many there were at least.
func connectIn(t *testing.T, cgroup string) int {
	t.Helper()
	c := start(t, job{Do: "connect", Busy: 1}, cgroup)
	c.done(t)
	c.end(t)
	return 1
}

func total(t *testing.T, dir string, what tinyTinyTotal) uint64 {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(dir+"/maps/tiny_totals", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var n uint64
	if err := m.Lookup(uint32(what), &n); err != nil {
		t.Fatal(err)
	}
	return n
}
