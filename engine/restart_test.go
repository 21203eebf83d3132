// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/bpf"
)

// resend makes the sources of a new engine say everything again, object by object, in an order of its own, and cut into
// changes at random; each says that it is synced when it has said all.
func (w *world) resend(rt *rapid.T, t *testing.T, e *Engine) {
	var steps []step
	random := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "order"), 0))
	for i, said := range w.sources {
		objects := said.split()
		random.Shuffle(len(objects), func(a, b int) { objects[a], objects[b] = objects[b], objects[a] })
		if rapid.Bool().Draw(rt, "at once") {
			objects = []Change{said}
		}
		if len(objects) == 0 {
			objects = []Change{{}}
		}
		objects[len(objects)-1].Synced = everyKind
		for _, c := range objects {
			steps = append(steps, step{i, c})
		}
	}
	// The sources take turns at random, each in its own order.
	if rapid.Bool().Draw(rt, "interleave") {
		steps = interleave(random, steps)
	}
	for _, s := range steps {
		if err := e.Apply(t.Context(), sourceNames[s.source], s.change); err != nil && !onlyConflicts(err) {
			rt.Fatalf("%v", err)
		}
		if m, ok := e.tables.(*model); ok {
			m.rest()
		}
	}
	<-e.Ready()
}

func interleave(random *rand.Rand, steps []step) []step {
	var mixed []step
	for len(steps) > 0 {
		source := steps[0].source
		if random.IntN(2) == 0 {
			source = steps[len(steps)-1].source
		}
		i := slices.IndexFunc(steps, func(s step) bool { return s.source == source })
		mixed = append(mixed, steps[i])
		steps = slices.Delete(steps, i, i+1)
	}
	return mixed
}

// split cuts a change into one for each object.
func (c Change) split() []Change {
	var all []Change
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		all = append(all, Change{Services: map[string]*Service{name: c.Services[name]}})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Slices)) {
		all = append(all, Change{Slices: map[string]*Slice{name: c.Slices[name]}})
	}
	for name, node := range c.Nodes {
		all = append(all, Change{Nodes: map[string]*Node{name: node}})
	}
	return all
}

// mustRun applies random steps to a new engine over m.
func (w *world) mustRun(rt *rapid.T, t *testing.T, e *Engine) {
	for range rapid.IntRange(1, 8).Draw(rt, "steps") {
		s := w.drawStep(rt)
		if err := e.Apply(t.Context(), sourceNames[s.source], s.change); err != nil && !onlyConflicts(err) {
			rt.Fatalf("%v", err)
		}
	}
	for _, s := range w.settleConflicts() {
		if err := e.Apply(t.Context(), sourceNames[s.source], s.change); err != nil && !onlyConflicts(err) {
			rt.Fatalf("%v", err)
		}
	}
}

// Promise: an engine that is started again writes nothing if nothing has changed, in whatever order it is told so.
func TestRestartWritesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, m := newWorld(), newModel(roomy())
		w.apart = true
		e := modelEngine(rt, m)
		synchronize(rt, t, e)
		w.mustRun(rt, t, e)
		again := modelEngine(rt, m)
		before := m.writes
		w.resend(rt, t, again)
		if n := m.writes - before; n != 0 || again.Stats().Writes.total() != 0 || again.Stats().Repaired != (Repairs{}) {
			rt.Fatalf("%d writes, %+v", n, again.Stats())
		}
		m.check(rt, again)
	})
}

// Promise: a process killed between any two writes leaves what the next one can go on from. All that was served and is
// wanted is served at every moment, before the sources have spoken as well as while they do.
func TestKilledBetweenWrites(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, m := newWorld(), newModel(roomy())
		w.apart = true
		e := modelEngine(rt, m)
		synchronize(rt, t, e)
		w.mustRun(rt, t, e)
		m.failAt = m.writes + rapid.IntRange(1, 40).Draw(rt, "killed")
		for range 4 {
			s := w.drawStep(rt)
			err := e.Apply(t.Context(), sourceNames[s.source], s.change)
			if m.dead = m.writes >= m.failAt; m.dead {
				break
			}
			if err != nil && !onlyConflicts(err) {
				rt.Fatalf("%v", err)
			}
		}
		m.dead, m.failAt = false, 0
		w.settleConflicts()
		want := w.fromScratch(rt, m.size, t)
		m.keep(want)
		again := modelEngine(rt, m)
		w.resend(rt, t, again)
		m.check(rt, again)
		m.compare(rt, want)
	})
}

// Promise: a write that fails is made good from what the kernel then holds.
func TestWriteFails(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, m := newWorld(), newModel(roomy())
		e := modelEngine(rt, m)
		if rapid.Bool().Draw(rt, "synced") {
			synchronize(rt, t, e)
		}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			m.failAt = m.writes + rapid.IntRange(1, 30).Draw(rt, "fails")
			s := w.drawStep(rt)
			if err := e.Apply(t.Context(), sourceNames[s.source], s.change); err != nil && !onlyConflicts(err) {
				rt.Fatalf("%v", err)
			}
		}
		m.failAt = 0
		for _, s := range w.settleConflicts() {
			if err := e.Apply(t.Context(), sourceNames[s.source], s.change); err != nil && !onlyConflicts(err) {
				rt.Fatalf("%v", err)
			}
		}
		synchronize(rt, t, e)
		m.check(rt, e)
		m.compare(rt, w.fromScratch(rt, m.size, t))
	})
}

// Promise: whatever the maps hold, nothing panics, and once the sources are synced it is as if they had been empty.
func TestGarbageIsRepaired(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, m := newWorld(), newModel(capacity{ids: 40, services: 20, slots: 1 << 18, endpoints: 60})
		e := modelEngine(rt, m)
		synchronize(rt, t, e)
		w.mustRun(rt, t, e)
		m.wild = true
		m.spoil(rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "damage"), 0)), rapid.IntRange(0, 60).Draw(rt, "words"))
		again := modelEngine(rt, m)
		if err := again.tables.grace(); err != nil {
			rt.Fatalf("%v", err)
		}
		w.resendRoughly(rt, t, again)
		m.wild = false
		if err := m.grace(); err != nil {
			rt.Fatalf("%v", err)
		}
		m.check(rt, again)
		m.compare(rt, w.fromScratch(rt, roomy(), t))
	})
}

// resendRoughly is resend, for maps of which damage takes up so much that not everything fits before it is repaired.
func (w *world) resendRoughly(rt *rapid.T, t *testing.T, e *Engine) {
	for i, c := range w.sources {
		c.Synced = everyKind
		err := e.Apply(t.Context(), sourceNames[i], c)
		for _, err := range flatten(err) {
			if err != nil && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrFull) {
				rt.Fatalf("%v", err)
			}
		}
	}
	<-e.Ready()
}

// spoil overwrites so many words of the maps.
func (m *model) spoil(random *rand.Rand, words int) {
	value := func(limit uint32) uint32 { // often small, so that it might be meant
		if random.IntN(3) == 0 {
			return random.Uint32()
		}
		return random.Uint32N(limit + 2)
	}
	keys := slices.SortedFunc(maps.Keys(m.ids), func(a, b key) int { return compareKeys(&a, &b) })
	for range words {
		service := &m.services[random.Uint32N(m.size.services)]
		endpoint := &m.endpoints[random.Uint32N(m.size.endpoints)]
		switch random.IntN(8) {
		case 0:
			m.slots[random.Uint32N(200)] = value(m.size.endpoints)
		case 1:
			service.Ranges[random.IntN(levels)] = bpf.Range(value(m.size.slots), value(40))
		case 2:
			endpoint.State = value(5)
		case 3:
			endpoint.Incarnation = value(5)
		case 4:
			endpoint.Address.Word[random.IntN(4)] = value(5)
		case 5:
			if len(keys) > 0 {
				m.ids[keys[random.IntN(len(keys))]] = value(m.size.services)
			}
		case 6:
			service.Key.Network, service.Flags = value(1), value(4)
		case 7:
			if len(m.ids) < 20 {
				k := key{Network: value(1), Port: uint16(value(2)), Protocol: uint8(value(20))}
				m.ids[k] = value(m.size.services)
			}
		}
	}
}

// Promise: a full map costs what does not fit and nothing else, and is made good when there is room again.
func TestFullMaps(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, m := newWorld(), newModel(capacity{
			ids: rapid.Uint32Range(2, 14).Draw(rt, "ids"), services: rapid.Uint32Range(2, 9).Draw(rt, "services"),
			slots: rapid.Uint32Range(2, 60).Draw(rt, "slots"), endpoints: rapid.Uint32Range(2, 30).Draw(rt, "endpoints"),
		})
		e := modelEngine(rt, m)
		synchronize(rt, t, e)
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			s := w.drawStep(rt)
			err := e.Apply(t.Context(), sourceNames[s.source], s.change)
			for _, err := range flatten(err) {
				if err != nil && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrFull) && !errors.Is(err, ErrInvalid) {
					rt.Fatalf("%v", err)
				}
			}
			m.check(rt, e)
		}
		for i, said := range w.sources {
			c := emptyChange()
			for name := range said.Services {
				c.Services[name] = nil
			}
			if err := e.Apply(t.Context(), sourceNames[i], c); err != nil && i > 0 {
				rt.Fatalf("%v", err)
			}
		}
		m.check(rt, e)
		if len(m.ids) != 0 {
			rt.Fatalf("%d keys are left", len(m.ids))
		}
	})
}
