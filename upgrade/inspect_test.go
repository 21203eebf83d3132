// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
)

// Inspect may be called at any moment of any change.
func TestInspectWhileEverythingChanges(t *testing.T) {
	b := newBed(t)
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		seen := 0
		defer func() { done <- seen }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			state, err := Inspect(b.dir)
			switch {
			case errors.Is(err, ErrNotInstalled):
			case err != nil:
				t.Errorf("inspect: %v", err)
			case state.Serve != 0:
				seen++
			}
		}
	}()
	for range 10 {
		s := b.open(t, _TinyBytes)
		if err := upgradeOnce(t.Context(), s); err != nil {
			t.Error(err)
		}
		s.Close()
		uninstall(t, b)
	}
	close(stop)
	if seen := <-done; seen == 0 {
		t.Error("nothing was ever seen to serve")
	}
}

// Programs of others on the same cgroup, there or above, are listed with their links.
func TestOthersAreListed(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	if others := b.inspect(t).Others; len(others) > 0 {
		t.Fatalf("there are others before there are any: %v", others)
	}
	spec, err := loadTiny()
	if err != nil {
		t.Fatal(err)
	}
	theirs := spec.Programs["tiny_connect4"].Copy()
	theirs.Name = "somebody_else"
	loaded, err := ebpf.NewCollection(&ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{
			"tiny_stamps": spec.Maps["tiny_stamps"], "tiny_counts": spec.Maps["tiny_counts"], ".rodata": spec.Maps[".rodata"],
			"tiny_routes": spec.Maps["tiny_routes"], "tiny_totals": spec.Maps["tiny_totals"],
		},
		Programs: map[string]*ebpf.ProgramSpec{"theirs": theirs}, Types: spec.Types, ByteOrder: spec.ByteOrder,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	l, err := link.AttachCgroup(link.CgroupOptions{
		Path: b.cgroup, Attach: ebpf.AttachCGroupInet4Connect, Program: loaded.Programs["theirs"],
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	about, err := l.Info()
	if err != nil {
		t.Fatal(err)
	}
	want := []Other{{"connect4", b.cgroup, about.Program, "somebody_else", uint32(about.ID), false}}
	if diff := cmp.Diff(want, b.inspect(t).Others); diff != "" {
		t.Errorf("others (-want +got):\n%s", diff)
	}
}
