// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestRefuseOtherLayout(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	before := snapshot(t, b.dir)
	elsewhere := newCgroup(t, b.cgroup+"-other")
	for _, c := range []struct {
		name   string
		change func(*DataPlane, *Options)
		want   Change
	}{
		{"fields in another order", func(p *DataPlane, _ *Options) { p.Object = _TinyReorderedBytes }, Change{
			"gen/1/maps/tiny_routes",
			"value.weight, an integer of 4 bytes, at byte 0", "value.target, an integer of 4 bytes, at byte 0", [2]uint32{},
		}},
		{"one map more", func(p *DataPlane, _ *Options) { p.Object = _TinyExtraBytes }, Change{
			"gen/1/maps/tiny_extra", "a Array with keys of 4 bytes, values of 8 bytes, 1 entries, flags 0x0", "not there", [2]uint32{},
		}},
		{"another size", func(p *DataPlane, _ *Options) { p.Sizes = map[string]uint32{"tiny_routes": 65} }, Change{
			"gen/1/maps/tiny_routes", "a Hash with keys of 4 bytes, values of 16 bytes, 65 entries, flags 0x0",
			"a Hash with keys of 4 bytes, values of 16 bytes, 64 entries, flags 0x0", [2]uint32{65, 64},
		}},
		{"a frozen map's size", func(p *DataPlane, _ *Options) { p.Sizes = map[string]uint32{"tiny_notes": 5} }, Change{
			"maps/tiny_notes", "a Hash with keys of 4 bytes, values of 4 bytes, 5 entries, flags 0x0",
			"a Hash with keys of 4 bytes, values of 4 bytes, 4 entries, flags 0x0", [2]uint32{5, 4},
		}},
		{"another cgroup", func(_ *DataPlane, o *Options) { o.Cgroup = elsewhere }, Change{
			"links/connect4", "attached to the cgroup " + elsewhere, "attached to the cgroup " + b.cgroup, [2]uint32{},
		}},
		{"one hook less", func(p *DataPlane, _ *Options) { p.Hooks = p.Hooks[:4] }, Change{
			"entries/tcx", "not there", "there", [2]uint32{},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			plane, options := tinyPlane(_TinyBytes), b.options()
			c.change(&plane, &options)
			s, err := Open(t.Context(), plane, options)
			var refused *RefusedError
			if !errors.As(err, &refused) {
				if err == nil {
					s.Close()
				}
				t.Fatalf("not refused: %v", err)
			}
			if diff := cmp.Diff(c.want, refused.Changes[0]); diff != "" {
				t.Errorf("change (-want +got):\n%s", diff)
			}
			if !strings.Contains(err.Error(), "start with the release") || strings.Contains(err.Error(), "upgrade it") || !strings.Contains(err.Error(), c.want.Name) {
				t.Errorf("the message tells neither what nor what to do: %v", err)
			}
			if n := strings.Count(err.Error(), c.want.Expected); n != 1 {
				t.Errorf("the message says %d times %q: %v", n, c.want.Expected, err)
			}
			if diff := cmp.Diff(before, snapshot(t, b.dir)); diff != "" {
				t.Errorf("refusing changed (-before +after):\n%s", diff)
			}
			if epoch := b.inspect(t).Epoch; epoch != 1 {
				t.Errorf("refusing raised the epoch to %d", epoch)
			}
		})
	}
}

// A take-over that must be refused leaves the holder alive.
func TestRefusedTakeOverCostsNothing(t *testing.T) {
	b := newBed(t)
	holder := start(t, job{Do: "open", Dir: b.dir, Cgroup: b.cgroup}, "")
	holder.done(t)
	before := snapshot(t, b.dir)
	for name, change := range map[string]func(*DataPlane, *Options){
		"another size":    func(p *DataPlane, _ *Options) { p.Sizes = map[string]uint32{"tiny_routes": 65} },
		"another layout":  func(p *DataPlane, _ *Options) { p.Object = _TinyReorderedBytes },
		"another cgroup":  func(_ *DataPlane, o *Options) { o.Cgroup = newCgroup(t, b.cgroup+"-other") },
		"one hook less":   func(p *DataPlane, _ *Options) { p.Hooks = p.Hooks[:4] },
		"no such cgroup":  func(_ *DataPlane, o *Options) { o.Cgroup += "-missing" },
		"object is wrong": func(p *DataPlane, _ *Options) { p.Object = nil },
	} {
		plane, options := tinyPlane(_TinyBytes), b.options()
		options.TakeOver = b.holder(t)
		change(&plane, &options)
		s, err := Open(t.Context(), plane, options)
		closeIf(s)
		if err == nil {
			t.Fatalf("%s: not refused", name)
		}
		if err := holder.Process.Signal(unix.Signal(0)); err != nil {
			t.Fatalf("%s: the holder is dead: %v", name, err)
		}
		if state := b.inspect(t); state.Holder == nil || state.Holder.PID != holder.Process.Pid {
			t.Fatalf("%s: the lease is held by %+v", name, state.Holder)
		}
	}
	if diff := cmp.Diff(before, snapshot(t, b.dir)); diff != "" {
		t.Errorf("refusing changed (-before +after):\n%s", diff)
	}
	holder.end(t) // well
}

func TestRefuseContradiction(t *testing.T) {
	b := newBed(t)
	for _, c := range []struct {
		name   string
		change func(*DataPlane)
		want   string
	}{
		{"no object", func(p *DataPlane) { p.Object = []byte("ELF, honestly") }, "read object"},
		{"a hook twice", func(p *DataPlane) { p.Hooks = append(p.Hooks, p.Hooks[0]) }, "twice"},
		{"a hook without program", func(p *DataPlane) { p.Hooks[1].Program = "nothing" }, `"nothing"`},
		{"a hook without prog array", func(p *DataPlane) { p.Hooks[1].Name = "peername5" }, "calls_peername5"},
		{"a dot in a name", func(p *DataPlane) { p.Hooks[1].Name = "a.b" }, `"a.b"`},
		{"the attach type of another hook", func(p *DataPlane) { p.Hooks[0].Program = "tiny_peername4" }, "tiny_peername4"},
		{"a hook at the wrong place", func(p *DataPlane) { p.Hooks[3].At = Tcx }, "enter_lookup"},
		{"a map that nobody has", func(p *DataPlane) { p.Frozen = append(p.Frozen, "nothing") }, `"nothing"`},
		{"a map in two roles", func(p *DataPlane) { p.Private = append(p.Private, "tiny_notes") }, "tiny_notes"},
		{"a size for nothing", func(p *DataPlane) { p.Sizes = map[string]uint32{"nothing": 1} }, `"nothing"`},
		{"a program that nobody has", func(p *DataPlane) { p.Programs = []string{"nothing"} }, `"nothing"`},
		{"an entry that uses a generation's map", func(p *DataPlane) { p.Frozen = p.Frozen[:3] }, "tiny_totals"},
		{"sockets in a map that may go", func(p *DataPlane) { p.Hooks[2].Map = "tiny_routes" }, "tiny_routes"},
		{"a configuration that fails", func(p *DataPlane) {
			p.Configure = func(*ebpf.CollectionSpec) error { return errors.New("no such thing") }
		}, "no such thing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			plane := tinyPlane(_TinyBytes)
			c.change(&plane)
			s, err := Open(t.Context(), plane, b.options())
			if err == nil {
				s.Close()
				t.Fatal("it was accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the message does not tell %s: %v", c.want, err)
			}
			if _, err := os.Stat(b.dir); !errors.Is(err, os.ErrNotExist) {
				t.Error("something was made before it was refused")
			}
		})
	}
}

func TestRefuseWhatIsNoPlaceForATree(t *testing.T) {
	b := newBed(t)
	options := b.options()
	options.Dir = t.TempDir() + "/evenkeel"
	_, err := Open(t.Context(), tinyPlane(_TinyBytes), options)
	if err == nil || !strings.Contains(err.Error(), "BPF file system") {
		t.Errorf("a tree outside of bpffs: %v", err)
	}
	options = b.options()
	options.Cgroup = t.TempDir()
	_, err = Open(t.Context(), tinyPlane(_TinyBytes), options)
	if err == nil || !strings.Contains(err.Error(), "cgroup2") {
		t.Errorf("a cgroup outside of cgroup2: %v", err)
	}
}

// A generation that the verifier refuses costs nothing.
func TestRefuseByVerifier(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	s.object.spec.Programs["tiny_tcx"].Instructions = asm.Instructions{asm.Return()} // what nobody wrote
	before := snapshot(t, b.dir)
	var verifier *ebpf.VerifierError
	if err := s.Load(t.Context(), 2); !errors.As(err, &verifier) || !strings.Contains(err.Error(), "tiny_tcx") {
		t.Errorf("not refused by the verifier: %v", err)
	}
	if diff := cmp.Diff(before, snapshot(t, b.dir)); diff != "" {
		t.Errorf("refusing changed (-before +after):\n%s", diff)
	}
}

// A tree of a release to come is left alone, whatever is asked for.
func TestNewerABIAndPhase(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	phase := s.view.super.phase()
	if err := s.view.super.swapPhase(phase, phase.withState(3)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	var refused *RefusedError
	s, err := Open(t.Context(), tinyPlane(_TinyBytes), b.options())
	if closeIf(s); !errors.As(err, &refused) || !strings.Contains(err.Error(), "unknown phase 3") {
		t.Errorf("an unknown phase: %v", err)
	}
	uninstall(t, b)
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	spec, err := loadSuper()
	if err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(spec.Maps["super"])
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	newer := superSuperBlock{Magic: uint32(superSuperMagicSUPER_MAGIC), Abi: 2}
	if err := errors.Join(m.Put(uint32(0), &newer), m.Freeze(), pin(m, b.dir+"/super")); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, b.dir)
	_, openErr := Open(t.Context(), tinyPlane(_TinyBytes), b.options())
	_, writerErr := OpenWriter(t.Context(), b.dir)
	_, inspectErr := Inspect(b.dir)
	for what, err := range map[string]error{
		"open": openErr, "uninstall": Uninstall(t.Context(), b.options()), "inspect": inspectErr,
	} {
		if err == nil || !strings.Contains(err.Error(), "ABI 2") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if writerErr == nil {
		t.Error("a writer was let in")
	}
	if diff := cmp.Diff(before, snapshot(t, b.dir)); diff != "" {
		t.Errorf("it was changed (-before +after):\n%s", diff)
	}
}
