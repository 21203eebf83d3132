// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	ebpfpin "github.com/cilium/ebpf/pin"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// intruder is something that lies where a pin of ours should.
type intruder struct {
	name string
	put  func(t *testing.T, path string, original ebpfpin.Pinner)
}

func intruders(b bed) []intruder {
	return []intruder{
		{"a map of another type", func(t *testing.T, path string, _ ebpfpin.Pinner) {
			putMap(t, path, &ebpf.MapSpec{Name: "intruder", Type: ebpf.Queue, ValueSize: 8, MaxEntries: 1})
		}},
		{"a program", func(t *testing.T, path string, _ ebpfpin.Pinner) {
			p := intruderProgram(t, ebpf.SocketFilter, 0)
			defer p.Close()
			if err := pin(p, path); err != nil {
				t.Fatal(err)
			}
		}},
		{"a directory", func(t *testing.T, path string, _ ebpfpin.Pinner) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}},
		{"a symbolic link", func(t *testing.T, path string, _ ebpfpin.Pinner) {
			if err := os.Symlink("gen", path); err != nil {
				t.Fatal(err)
			}
		}},
		{"a link", func(t *testing.T, path string, _ ebpfpin.Pinner) {
			p := intruderProgram(t, ebpf.CGroupSock, ebpf.AttachCGroupInetSockCreate)
			defer p.Close()
			putLink(t, b, path, link.CgroupOptions{Attach: ebpf.AttachCGroupInetSockCreate, Program: p})
		}},
		{"one that looks the same", func(t *testing.T, path string, original ebpfpin.Pinner) {
			putLookalike(t, b, path, original)
		}},
	}
}

func putMap(t *testing.T, path string, spec *ebpf.MapSpec) {
	t.Helper()
	m, err := ebpf.NewMap(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := pin(m, path); err != nil {
		t.Fatal(err)
	}
}

func intruderProgram(t *testing.T, kind ebpf.ProgramType, attach ebpf.AttachType) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "intruder", Type: kind, AttachType: attach, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// putLookalike pins something of the same kind: a map of the same layout, a program of the same type, a link at the
// same place.
func putLookalike(t *testing.T, b bed, path string, original ebpfpin.Pinner) {
	t.Helper()
	switch o := original.(type) {
	case *ebpf.Map:
		spec := &ebpf.MapSpec{
			Name: "intruder", Type: o.Type(), KeySize: o.KeySize(), ValueSize: o.ValueSize(),
			MaxEntries: o.MaxEntries(), Flags: o.Flags(),
		}
		tiny, err := loadTiny()
		if err != nil {
			t.Fatal(err)
		}
		if m := tiny.Maps[filepath.Base(path)]; m != nil { // some kinds need their types
			spec = m
		}
		putMap(t, path, spec)
	case *ebpf.Program:
		attach := map[ebpf.ProgramType]ebpf.AttachType{
			ebpf.CGroupSockAddr: ebpf.AttachCGroupInet4Connect, ebpf.SkLookup: ebpf.AttachSkLookup,
			ebpf.SchedCLS: ebpf.AttachTCXIngress, ebpf.SkMsg: ebpf.AttachSkMsgVerdict,
		}
		kind := o.Type()
		if kind == ebpf.Syscall { // needs to be sleepable, which this is not about
			kind = ebpf.SkLookup
		}
		p := intruderProgram(t, kind, attach[kind])
		defer p.Close()
		if err := pin(p, path); err != nil {
			t.Fatal(err)
		}
	case link.Link:
		p := intruderProgram(t, ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect)
		defer p.Close()
		putLink(t, b, path, link.CgroupOptions{Attach: ebpf.AttachCGroupInet4Connect, Program: p})
	}
}

func putLink(t *testing.T, b bed, path string, o link.CgroupOptions) {
	t.Helper()
	o.Path = b.cgroup
	l, err := link.AttachCgroup(o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Pin(path); err != nil {
		t.Fatal(err)
	}
}

// Every pin in turn is replaced by each kind of intruder. It is refused with its path, nothing is written, and once it
// is gone everything is as before. Uninstall, too, leaves it alone.
func TestEveryIntruderIsRefused(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	whole := snapshot(t, b.dir)
	aside := filepath.Join(filepath.Dir(b.dir), "aside")
	for _, path := range pins(t, b.dir) {
		full := filepath.Join(b.dir, path)
		for _, in := range intruders(b) {
			if in.name == "one that looks the same" && path == "maps/tiny_notes" {
				continue // no program uses it, so nothing tells one from another
			}
			t.Run(path+"/"+in.name, func(t *testing.T) {
				original, err := ebpfpin.Load(full, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer original.Close()
				if err := unix.Rename(full, aside); err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := os.Remove(full); err != nil {
						t.Fatal(err)
					}
					if err := unix.Rename(aside, full); err != nil {
						t.Fatal(err)
					}
					b.open(t, _TinyBytes).Close()
					if diff := cmp.Diff(whole, snapshot(t, b.dir)); diff != "" {
						t.Errorf("not as it was (-before +after):\n%s", diff)
					}
				}()
				in.put(t, full, original)
				before := snapshot(t, b.dir)
				s, err := Open(t.Context(), tinyPlane(_TinyBytes), b.options())
				var damage *DamageError
				if err == nil {
					s.Close()
					t.Error("it was accepted")
				} else if !errors.As(err, &damage) || !strings.Contains(err.Error(), path) {
					t.Errorf("the message does not name it: %v", err)
				}
				if diff := cmp.Diff(before, snapshot(t, b.dir)); diff != "" {
					t.Errorf("refusing changed (-before +after):\n%s", diff)
				}
				// What a release has there only the release knows: inspect does not, where no other pin tells it.
				hidden := path == "gen/1/progs/tiny_rule" || path == "maps/tiny_notes"
				if damages := b.inspect(t).Damages; len(damages) == 0 && !hidden {
					t.Error("inspect finds nothing wrong")
				}
			})
		}
	}
}

// What is of a kind that its place could have, and has a name of its own there, is refused by the next owner; so whoever
// looks before is told.
func TestEveryExtraIsSeen(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	aMap := func(t *testing.T, path string) {
		putMap(t, path, &ebpf.MapSpec{Name: "extra", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	}
	slots := func(t *testing.T, path string) {
		putMap(t, path, &ebpf.MapSpec{Name: "extra", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	}
	program := func(t *testing.T, path string) {
		p := intruderProgram(t, ebpf.SkLookup, ebpf.AttachSkLookup)
		defer p.Close()
		if err := pin(p, path); err != nil {
			t.Fatal(err)
		}
	}
	for path, put := range map[string]func(*testing.T, string){
		"maps/extra": aMap, "calls/extra": slots, "entries/extra": program, "gen/1/maps/extra": aMap, "gen/1/progs/extra": program,
	} {
		t.Run(path, func(t *testing.T) {
			full := filepath.Join(b.dir, path)
			put(t, full)
			defer os.Remove(full)
			if said := fmt.Sprint(b.inspect(t).Damages); !strings.Contains(said, path) {
				t.Errorf("inspect says %s", said)
			}
			s, err := Open(t.Context(), tinyPlane(_TinyBytes), b.options())
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("the next owner says %v", err)
			}
		})
	}
	b.open(t, _TinyBytes).Close()
	b.sound(t)
}

func TestUninstallLeavesWhatIsForeign(t *testing.T) {
	b := newBed(t)
	for _, path := range []string{
		"stranger", "maps/stranger", "calls/stranger", "entries/stranger", "links/stranger", "links/pods/stranger",
		"gen/stranger", "gen/1/stranger", "gen/1/maps/stranger", "gen/1/progs/stranger", "writers/stranger",
	} {
		t.Run(path, func(t *testing.T) {
			b.open(t, _TinyBytes).Close()
			full := filepath.Join(b.dir, path)
			if strings.HasPrefix(path, "maps") || strings.HasPrefix(path, "calls") || strings.Contains(path, "1/maps") {
				p := intruderProgram(t, ebpf.SocketFilter, 0)
				defer p.Close()
				if err := pin(p, full); err != nil {
					t.Fatal(err)
				}
			} else {
				putMap(t, full, &ebpf.MapSpec{Type: ebpf.Queue, ValueSize: 8, MaxEntries: 1})
			}
			for range 2 {
				err := Uninstall(t.Context(), b.options())
				var foreign *ForeignError
				var damage *DamageError
				switch {
				case errors.As(err, &foreign):
					if diff := cmp.Diff([]string{path}, foreign.Paths); diff != "" {
						t.Errorf("foreign paths (-want +got):\n%s", diff)
					}
				case errors.As(err, &damage): // the second time nothing tells any more whose tree it was
				default:
					t.Fatalf("uninstall: %v", err)
				}
			}
			if diff := cmp.Diff([]string{path}, pins(t, b.dir)); diff != "" {
				t.Errorf("pins that are left (-want +got):\n%s", diff)
			}
			if err := os.Remove(full); err != nil {
				t.Fatal(err)
			}
			uninstall(t, b)
		})
	}
}
