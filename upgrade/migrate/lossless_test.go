// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
)

// crossing is one way to get from the schema of a bed to another.
type crossing struct {
	*bed
	to        int
	migration *Migration
	bridge    *ebpf.Map
	bridged   uint32 // slots
	final     uint32
}

func (b *bed) cross(to int) *crossing {
	b.t.Helper()
	c := &crossing{bed: b, to: to}
	source, target := spec(b.t, b.schema, b.keys), spec(b.t, to, b.keys)
	from, name := Name("flows", b.schema), Name("flows", to)
	linked, err := Link(target, source, []Pair{{name, from}})
	if err != nil {
		b.t.Fatal(err)
	}
	stand, notes := Placeholder(name)
	use := maps.Clone(b.sides)
	use[stand] = b.state
	all := b.load(linked, use, append(Programs(linked, name), "event")...)
	c.bridged = b.put(all.Programs["event"])
	c.bridge = all.Maps[bridgeMap]
	c.migration = &Migration{
		Name: name, Source: b.state, Target: all.Maps[name], Notes: all.Maps[notes], Programs: all.Programs,
	}
	for n, m := range all.Maps {
		if IsSide(n) {
			b.sides[n] = m
		}
	}
	plain := b.load(target, map[string]*ebpf.Map{name: all.Maps[name]}, "event")
	c.final = b.put(plain.Programs["event"])
	return c
}

// events runs for as long as it takes for the traffic to make n more events.
func (b *bed) await(n uint64) {
	b.t.Helper()
	until := b.events() + n
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for b.events() < until {
		select {
		case <-tick.C:
		case <-b.t.Context().Done():
			b.t.Fatal("no traffic")
		}
	}
}

type bridgeState struct {
	Phase, Pad uint32
	Failed     uint64
}

// outcome is what a crossing took.
type outcome struct {
	settled, copied, reaped Count
	copy, check             time.Duration
}

// byBridge is how it is done; the control leaves out what makes up for old code that was still running.
func (c *crossing) byBridge(settle bool) (o outcome) {
	t := c.t
	t.Helper()
	c.serve(c.bridged)
	c.grace()
	c.grace()
	var err error
	if settle {
		if o.settled, err = c.migration.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.bridge.Put(uint32(0), bridgeState{Phase: 1}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if o.copied, err = c.migration.Copy(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	o.copy = time.Since(start)
	checked, err := c.migration.Check(t.Context())
	if err != nil || checked.Missing > 0 || checked.Seen != o.copied.Seen() {
		t.Fatalf("check: %+v of %+v, %v", checked, o.copied, err)
	}
	o.check = time.Since(start) - o.copy
	c.serve(c.final)
	c.grace()
	if o.reaped, err = c.migration.Reap(t.Context()); err != nil {
		t.Fatal(err)
	}
	var state bridgeState
	if err := c.bridge.Lookup(uint32(0), &state); err != nil || state.Failed > 0 {
		t.Errorf("bridge: %+v, %v", state, err)
	}
	c.state, c.schema = c.migration.Target, c.to
	return o
}

// byCopy is a control: copy, then switch.
func (c *crossing) byCopy() outcome {
	c.t.Helper()
	copied, err := c.migration.Copy(c.t.Context(), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.serve(c.final)
	c.grace()
	c.state, c.schema = c.migration.Target, c.to
	return outcome{copied: copied}
}

// byOverwriting is a control: copy, switch, copy once more over what is there. It knows schemas 1 and 2 only.
func (c *crossing) byOverwriting() outcome {
	t, source := c.t, c.state
	t.Helper()
	c.byCopy()
	each(t, source, func(key, value []byte) {
		if dead := binary.LittleEndian.Uint32(value[16:]); dead != 0 {
			return
		}
		wide := make([]byte, 32)
		copy(wide, value[:16])
		wide[28] = 1 // zone
		if err := c.state.Put(key, wide); err != nil {
			t.Fatal(err)
		}
	})
	return outcome{}
}

// wrong is everything in which the state differs from the books, at the end and at any event.
func (b *bed) wrong() (lost, resurrected, duplicated uint64) {
	b.t.Helper()
	a, sum := b.audit(b.state, b.schema), b.totals()
	if sum.Refused > 0 {
		b.t.Errorf("%d events found the map full or busy", sum.Refused)
	}
	b.t.Logf("%d events, %d inserts, %d removals; in the end %+v; at events %d lost, %d resurrected, %d duplicated",
		sum.Events, sum.Inserts, sum.Removals, a, sum.Lost, sum.Resurrected, sum.Duplicated)
	return a.Lost + sum.Lost, a.Resurrected + sum.Resurrected, a.Duplicated + sum.Duplicated
}

// A million entries change their layout while two CPUs make a million updates a second, of hot keys and of keys of
// their own, with inserts and removals: every entry holds what the books say, in the end and at every event. The two
// usual ways to do it lose and resurrect.
func TestNothingIsLost(t *testing.T) {
	for _, test := range []struct {
		name  string
		keys  uint32
		do    func(*crossing) outcome
		loses bool
	}{
		{"bridge", 1 << 20, func(c *crossing) outcome { return c.byBridge(true) }, false},
		{"control: copy, switch", 1 << 18, (*crossing).byCopy, true},
		{"control: copy, switch, overwrite", 1 << 18, (*crossing).byOverwriting, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBed(t, 1, test.keys, 0)
			c := b.cross(2)
			r := b.run(2, 1e6)
			b.await(1e5)
			before, start := b.totals(), time.Now()
			o := test.do(c)
			during, lasted := b.totals(), time.Since(start)
			b.await(1e6)
			r.end()
			t.Logf("%d entries: settled %d of %d notes; copy %v (%d inserted, %d there before, longest read %v), check %v; "+
				"%d tombstones reaped; %.0f updates/s meanwhile", o.copied.Seen(), o.settled.Inserted, o.settled.Seen(),
				o.copy, o.copied.Inserted, o.copied.There, o.copied.Longest, o.check, o.reaped.Inserted,
				float64(during.Events-before.Events)/lasted.Seconds())
			lost, resurrected, duplicated := b.wrong()
			if any := lost+resurrected+duplicated > 0; any != test.loses {
				t.Errorf("%d lost, %d resurrected, %d duplicated", lost, resurrected, duplicated)
			}
			if o.copied.Longest > 10*time.Millisecond {
				t.Errorf("a CPU was held for %v", o.copied.Longest)
			}
		})
	}
}

// Old code that runs across the switch writes entries that the bridge has taken over already. Through all schemas and
// back nothing of it is lost; without settling some is.
func TestStragglersCount(t *testing.T) {
	walk := func(t *testing.T, settle bool) uint64 {
		t.Helper()
		b := newBed(t, 1, 1<<14, 3_000_000)
		r := b.run(2, 2e5)
		for _, to := range []int{2, 3, 4, 5, 6, 5, 4, 3, 2, 1} {
			b.await(2000)
			b.cross(to).byBridge(settle)
		}
		b.await(2000)
		r.end()
		lost, resurrected, duplicated := b.wrong()
		if resurrected+duplicated > 0 {
			t.Errorf("%d resurrected, %d duplicated", resurrected, duplicated)
		}
		return lost
	}
	t.Run("settled", func(t *testing.T) {
		if lost := walk(t, true); lost > 0 {
			t.Errorf("%d lost", lost)
		}
	})
	t.Run("control", func(t *testing.T) {
		for range 20 {
			if walk(t, false) > 0 {
				return
			}
		}
		t.Error("nothing was lost: the test says nothing")
	})
}

// From every schema to every other, under traffic: the state is what the books say.
func TestEveryJump(t *testing.T) {
	for from := 1; from <= 6; from++ {
		for to := 1; to <= 6; to++ {
			t.Run(fmt.Sprintf("%d to %d", from, to), func(t *testing.T) {
				b := newBed(t, from, 1<<13, 0)
				r := b.run(2, 1e5)
				b.await(1000)
				b.cross(to).byBridge(true)
				b.await(1000)
				r.end()
				if lost, resurrected, duplicated := b.wrong(); lost+resurrected+duplicated > 0 {
					t.Errorf("%d lost, %d resurrected, %d duplicated", lost, resurrected, duplicated)
				}
			})
		}
	}
}

// Whatever is in a map comes back from a neighbouring schema, byte by byte, in both directions. The control's way back
// does not have what was put aside.
func TestThereAndBack(t *testing.T) {
	for _, c := range []struct {
		from, to int
		control  bool
	}{
		{1, 2, false}, {2, 1, false}, {2, 3, false}, {3, 2, false}, {3, 4, false}, {4, 3, false}, {4, 5, false}, {5, 4, false},
		{5, 6, false}, {6, 5, false}, {6, 1, false}, {1, 6, false}, {2, 1, true}, {5, 6, true},
	} {
		t.Run(fmt.Sprintf("%d to %d, control %v", c.from, c.to, c.control), func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			b := newBed(t, c.from, 1024, 0)
			before := randomize(t, b, rand.New(rand.NewPCG(seed, 0)))
			b.cross(c.to).byBridge(true)
			if c.control {
				clear(b.sides)
			}
			b.cross(c.from).byBridge(true)
			after := contents(t, b.state)
			if diff := cmp.Diff(before, after); (diff != "") != c.control {
				t.Errorf("(-before +after) %.2000s", diff)
			}
		})
	}
}

// randomize gives every entry random fields and returns them by key.
func randomize(t *testing.T, b *bed, r *rand.Rand) map[string]string {
	t.Helper()
	each(t, b.state, func(key, value []byte) {
		for i := range value {
			value[i] = byte(r.Uint32())
		}
		dead := [...]int{1: 16, 2: 24, 3: 24, 4: 24, 5: 24, 6: 20}[b.schema]
		clear(value[dead : dead+4])
		if b.schema == 1 {
			clear(value[20:]) // padding
		}
		if err := b.state.Put(key, value); err != nil {
			t.Fatal(err)
		}
	})
	return contents(t, b.state)
}

func contents(t *testing.T, m *ebpf.Map) map[string]string {
	t.Helper()
	all := make(map[string]string)
	each(t, m, func(key, value []byte) { all[fmt.Sprintf("%x", key)] = fmt.Sprintf("%x", value) })
	return all
}
