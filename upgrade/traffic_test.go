// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"testing"

	"github.com/cilium/ebpf"
)

// Serve goes to and fro ten thousand times between two live generations while connections are made, each of which
// meets several hooks: none meets two generations. The control's entry programs do not look at the stamp, and some do.
func TestFlipsUnderLoad(t *testing.T) {
	for _, c := range []struct {
		name        string
		ignoreStamp bool
	}{{"stamped", false}, {"control", true}} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t)
			plane := tinyPlane(_TinyBytes)
			plane.Configure = configureTiny(c.ignoreStamp)
			s, err := Open(t.Context(), plane, b.options())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := s.Load(t.Context(), 2); err != nil {
				t.Fatal(err)
			}
			load := start(t, job{Do: "connect", Busy: 2}, b.cgroup)
			load.done(t)
			one := s.Word()
			for range 5000 {
				tried, err := s.Word().Try(2, 0) // live, but no new connection gets it
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Swap(s.Word(), tried); err != nil {
					t.Fatal(err)
				}
				served := tried.Upgrade(2)
				if err := s.Swap(tried, served); err != nil {
					t.Fatal(err)
				}
				if err := s.Swap(served, one.WithCanary(2, 0)); err != nil {
					t.Fatal(err)
				}
			}
			load.end(t)
			mixed, missed := total(t, b.dir, tinyTinyTotalTINY_MIXED), total(t, b.dir, tinyTinyTotalTINY_MISSED)
			events := total(t, b.dir, tinyTinyTotalTINY_EVENTS)
			first, second := ran(t, s.Generation(1)), ran(t, s.Generation(2))
			t.Logf("%d events, %d by generation 1, %d by 2, %d mixed", events, first, second, mixed)
			if missed > 0 {
				t.Errorf("%d events met an empty slot", missed)
			}
			if first == 0 || second == 0 || events != first+second {
				t.Errorf("%d events, %d by generation 1, %d by 2: that says nothing", events, first, second)
			}
			if c.ignoreStamp != (mixed > 0) {
				t.Errorf("%d of %d events met another generation than the connection's", mixed, events)
			}
		})
	}
}

// ran is how many events the programs of a generation counted.
func ran(t *testing.T, g *Generation) (sum uint64) {
	t.Helper()
	var each []uint64
	if err := g.Maps["tiny_counts"].Lookup(uint32(0), &each); err != nil {
		t.Fatal(err)
	}
	for _, n := range each {
		sum += n
	}
	return sum
}

// Why prog arrays are pinned before anything is attached: the kernel empties one when its last descriptor or pin goes,
// though programs go on jumping through it.
func TestProgArrayLivesByItsName(t *testing.T) {
	b := newBed(t)
	spec, err := loadTiny()
	if err != nil {
		t.Fatal(err)
	}
	load := func(pinned bool) ebpf.MapID {
		o, err := readObject(tinyPlane(_TinyBytes))
		if err != nil {
			t.Fatal(err)
		}
		super, err := createSuper()
		if err != nil {
			t.Fatal(err)
		}
		defer super.Close()
		use := map[string]*ebpf.Map{"super": super}
		for _, name := range []string{"tiny_totals", "calls_lookup"} {
			m, err := ebpf.NewMap(spec.Maps[name])
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			use[name] = m
		}
		entry, err := o.loadOne(0, "enter_lookup", use)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { entry.Close() }) // which uses the array all the time
		program := intruderProgram(t, ebpf.SkLookup, ebpf.AttachSkLookup)
		defer program.Close()
		if err := use["calls_lookup"].Put(uint32(16), program); err != nil {
			t.Fatal(err)
		}
		if pinned {
			if err := pin(use["calls_lookup"], b.dir); err != nil {
				t.Fatal(err)
			}
		}
		return mapID(use["calls_lookup"])
	}
	named, nameless := openMap(t, load(true)), openMap(t, load(false))
	eventually(t, "the array without a name is empty", func() bool { return !filled(t, nameless) })
	if !filled(t, named) {
		t.Error("the array with a name is empty, too")
	}
}

// openMap opens a map that only a program holds. A prog array that was about to be emptied will be, all the same.
func openMap(t *testing.T, id ebpf.MapID) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func filled(t *testing.T, calls *ebpf.Map) bool {
	t.Helper()
	id, err := slot(calls, 16)
	if err != nil {
		t.Fatal(err)
	}
	return id != 0
}
