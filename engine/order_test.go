// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/bpf"
)

// world is what two sources say. Source "low" has half of the names, "high" some of them again.
type world struct {
	sources [2]Change
	// apart is set if each service and all that belongs to it is of one source, and "high" knows the node.
	apart bool
	// small is set if no service has a consistent hash, whose tables need large maps.
	small bool
}

var sourceNames = []string{"low", "high"}

func newWorld() *world {
	w := &world{}
	for i := range w.sources {
		w.sources[i] = emptyChange()
	}
	return w
}

func emptyChange() Change {
	return Change{
		Services: make(map[string]*Service), Slices: make(map[string]*Slice),
		Nodes: make(map[string]*Node), Workloads: make(map[string]*Workload),
	}
}

// step is one change of one source.
type step struct {
	source int
	change Change
}

func (w *world) drawService(t *rapid.T, name string) *Service {
	s := &Service{Name: name}
	// Few addresses for many services: they are taken, given up and taken over.
	n := rapid.IntRange(1, 4).Draw(t, "address")
	s.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, byte(n)})}
	if rapid.Bool().Draw(t, "dual") {
		s.Addresses = append(s.Addresses, netip.MustParseAddr(fmt.Sprintf("fd00:96::%d", n)))
	}
	if rapid.IntRange(0, 7).Draw(t, "ports") > 0 {
		s.Ports = []ServicePort{{Name: "http", Protocol: TCP, Port: 80}}
	}
	if len(s.Ports) > 0 && rapid.Bool().Draw(t, "second port") {
		s.Ports = append(s.Ports, ServicePort{Name: "dns", Protocol: UDP, Port: 53})
	}
	s.Affinity = rapid.SampledFrom([]time.Duration{0, 0, time.Minute}).Draw(t, "affinity")
	s.ConsistentHash = !w.small && rapid.IntRange(0, 15).Draw(t, "hash") == 0
	s.LocalOnly = rapid.IntRange(0, 4).Draw(t, "local") == 0
	s.Distribution = Distribution(rapid.IntRange(0, 2).Draw(t, "distribution"))
	return s
}

func drawSlice(t *rapid.T, name string, of int) *Slice {
	s := &Slice{Name: name, Service: serviceName(of)}
	s.Ports = []SlicePort{{Name: "http", Protocol: TCP, Port: rapid.SampledFrom([]uint16{8080, 8081}).Draw(t, "target")}}
	if rapid.Bool().Draw(t, "has dns") {
		s.Ports = append(s.Ports, SlicePort{Name: "dns", Protocol: UDP, Port: 5353})
	}
	v6 := rapid.IntRange(0, 3).Draw(t, "family") == 0
	hints := rapid.IntRange(0, 2).Draw(t, "hints")
	for range rapid.IntRange(0, 6).Draw(t, "endpoints") {
		s.Endpoints = append(s.Endpoints, drawEndpoint(t, v6, hints))
	}
	return s
}

func drawEndpoint(t *rapid.T, v6 bool, hints int) Endpoint {
	n := rapid.IntRange(1, 9).Draw(t, "endpoint")
	e := Endpoint{Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), Weight: 1, Ready: true, Serving: true}
	if v6 {
		e.Address = netip.MustParseAddr(fmt.Sprintf("fd00::%d", n))
	}
	e.Node = rapid.SampledFrom([]string{"here", "there"}).Draw(t, "node")
	switch rapid.IntRange(0, 5).Draw(t, "condition") {
	case 0:
		e.Ready, e.Terminating = false, true
	case 1:
		e.Ready, e.Serving = false, false
	}
	if rapid.IntRange(0, 3).Draw(t, "weighted") == 0 {
		e.Weight = rapid.Uint32Range(0, 5).Draw(t, "weight")
	}
	if hints > 0 {
		e.Hints = &Hints{Zones: []string{rapid.SampledFrom([]string{"a", "b"}).Draw(t, "zone hint")}}
		if hints > 1 {
			e.Hints.Nodes = []string{rapid.SampledFrom([]string{"here", "there"}).Draw(t, "node hint")}
		}
	}
	return e
}

func serviceName(i int) string { return fmt.Sprintf("ns/svc-%d", i) }
func sliceName(i int) string   { return fmt.Sprintf("ns/slice-%d", i) }

// drawStep changes the world and returns the change.
func (w *world) drawStep(t *rapid.T) step {
	s := step{source: rapid.IntRange(0, 1).Draw(t, "source"), change: emptyChange()}
	number := func(label string, n int) int {
		i := rapid.IntRange(0, n-1).Draw(t, label)
		if w.apart {
			return i/2*2 + s.source
		}
		return i
	}
	for range rapid.IntRange(1, 4).Draw(t, "objects") {
		gone := rapid.IntRange(0, 3).Draw(t, "delete") == 0
		switch rapid.IntRange(0, 8).Draw(t, "kind") {
		case 0:
			if w.apart && s.source == 0 {
				continue
			}
			node := &Node{Name: "here", Zone: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "zone")}
			if gone {
				node = nil
			}
			s.change.Nodes["here"] = node
		case 1, 2, 3:
			name := serviceName(number("service", 4))
			s.change.Services[name] = nil
			if !gone {
				s.change.Services[name] = w.drawService(t, name)
			}
		default:
			name := sliceName(number("slice", 8))
			s.change.Slices[name] = nil
			if !gone {
				s.change.Slices[name] = drawSlice(t, name, number("of", 4))
			}
		}
	}
	w.apply(s)
	return s
}

func (w *world) apply(s step) {
	to := &w.sources[s.source]
	merge(to.Services, s.change.Services)
	merge(to.Slices, s.change.Slices)
	merge(to.Nodes, s.change.Nodes)
}

func merge[T any](to, from map[string]*T) {
	for name, v := range from {
		if v == nil {
			delete(to, name)
		} else {
			to[name] = v
		}
	}
}

// settleConflicts returns a step that deletes all but the first service of every address: what is left does not
// depend on who came first.
func (w *world) settleConflicts() []step {
	var steps []step
	taken := make(map[netip.Addr]string)
	for i := range 4 {
		name := serviceName(i)
		s := w.sources[1].Services[name]
		if s == nil {
			s = w.sources[0].Services[name]
		}
		if s == nil {
			continue
		}
		other, conflict := taken[s.Addresses[0]]
		if taken[s.Addresses[0]] = name; !conflict || other == name {
			continue
		}
		taken[s.Addresses[0]] = other
		for source := range w.sources {
			c := emptyChange()
			c.Services[name] = nil
			steps = append(steps, step{source, c})
			w.apply(steps[len(steps)-1])
		}
	}
	return steps
}

var everyKind = []Kind{Services, Slices, Nodes, Workloads, Namespaces}

func modelEngine(t failer, m *model) *Engine {
	o := Options{Node: "here", Sources: sourceNames, Log: slog.New(slog.DiscardHandler)}
	e, err := newEngine(o, m)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return e
}

type failer interface {
	Fatalf(format string, args ...any)
}

// fromScratch returns what the maps say if w is all that was ever said, source by source, in one change each.
func (w *world) fromScratch(t failer, size capacity, background testing.TB) *model {
	m := newModel(size)
	e := modelEngine(t, m)
	for i, c := range w.sources {
		c.Synced = everyKind
		if err := e.Apply(background.Context(), sourceNames[i], c); err != nil && !onlyConflicts(err) {
			t.Fatalf("%v", err)
		}
	}
	m.check(t, e)
	return m
}

// check fails if a reader could have seen what none may, or if something is neither in use nor free.
func (m *model) check(t failer, e *Engine) {
	for _, v := range m.violations {
		t.Fatalf("%s", v)
	}
	if e.fault != nil {
		t.Fatalf("fault: %v", e.fault)
	}
	e.makeRoom()
	endpoints, services, slots, held := 0, 0, uint32(1), 0
	for _, st := range e.mirror.sets {
		if st.index != 0 {
			services++
		}
		held += st.held
		for l := range st.levels {
			endpoints += len(st.levels[l].members)
			if st.levels[l].count > 0 {
				slots += st.levels[l].segment.size()
			}
		}
	}
	if held > 0 {
		t.Fatalf("%d endpoints are still held", held)
	}
	if free := e.mirror.endpoints.count; free+endpoints != int(m.size.endpoints)-1 {
		t.Fatalf("%d endpoints are in use and %d free of %d", endpoints, free, m.size.endpoints-1)
	}
	if free := e.mirror.services.count; free+services != int(m.size.services)-1 {
		t.Fatalf("%d services are in use and %d free of %d", services, free, m.size.services-1)
	}
	if e.mirror.slots.used != slots {
		t.Fatalf("%d slots are in use, %d taken", slots, e.mirror.slots.used)
	}
	if e.mirror.ids != len(m.ids) {
		t.Fatalf("%d keys are thought to be there, %d are", e.mirror.ids, len(m.ids))
	}
	for i := range m.endpoints[1:] {
		i++
		if r := e.mirror.records.at(uint32(i)); (r.set != nil) != (m.endpoints[i].State != 0) {
			t.Fatalf("endpoint %d: state %d, in use %v", i, m.endpoints[i].State, r.set != nil)
		} else if r.set != nil && m.endpoints[i].State != stateOn(r.level, r.incarnation) {
			t.Fatalf("endpoint %d on level %d: state %#x of incarnation %d", i, r.level, m.endpoints[i].State, r.incarnation)
		}
	}
}

func roomy() capacity { return capacity{ids: 200, services: 100, slots: 1 << 18, endpoints: 500} }

// Promise: the order in which sources speak, and how they cut what they say into changes, means nothing; and at no
// store on the way could a reader have seen anything but whole records of what it dialled.
func TestOrderMeansNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, m := newWorld(), newModel(roomy())
		e := modelEngine(rt, m)
		var steps []step
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			steps = append(steps, w.drawStep(rt))
		}
		steps = append(steps, w.settleConflicts()...)
		synced := rapid.IntRange(0, len(steps)).Draw(rt, "synced at")
		for i, s := range steps {
			if i == synced {
				synchronize(rt, t, e)
			}
			if err := e.Apply(t.Context(), sourceNames[s.source], s.change); err != nil && !onlyConflicts(err) {
				rt.Fatalf("step %d: %v", i, err)
			}
			if rapid.IntRange(0, 3).Draw(rt, "maintain") == 0 {
				if _, err := e.maintain(); err != nil {
					rt.Fatalf("%v", err)
				}
			}
		}
		if synced == len(steps) {
			synchronize(rt, t, e)
		}
		m.check(rt, e)
		m.compare(rt, w.fromScratch(rt, m.size, t))
	})
}

func synchronize(rt *rapid.T, t *testing.T, e *Engine) {
	for _, source := range sourceNames {
		if err := e.Apply(t.Context(), source, Change{Synced: everyKind}); err != nil && !onlyConflicts(err) {
			rt.Fatalf("%v", err)
		}
	}
	<-e.Ready()
}

func (m *model) compare(t failer, want *model) {
	addresses := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	if diff := cmp.Diff(want.normal(), m.normal(), cmp.AllowUnexported(served{}), addresses); diff != "" {
		t.Fatalf("from scratch (-), here (+):\n%s", diff)
	}
}

// The same on real maps, which hold what the case before has left; and an engine that starts again does not make a
// single store.
func TestOrderMeansNothingInTheKernel(t *testing.T) {
	size := roomy()
	size.slots = 1 << 12
	maps := mustSizedMaps(t, map[string]uint32{
		"service_ids": size.ids, "services": size.services, "slots": size.slots, "endpoints": size.endpoints,
	})
	o := testOptions(t, maps)
	o.Sources, o.Log = sourceNames, slog.New(slog.DiscardHandler)
	rapid.Check(t, func(rt *rapid.T) {
		e, err := New(t.Context(), o)
		if err != nil {
			rt.Fatalf("%v", err)
		}
		w := newWorld()
		w.apart, w.small = true, true
		w.mustRun(rt, t, e)
		synchronize(rt, t, e)
		real := mustRead(rt, maps, size)
		real.check(rt, e)
		real.compare(rt, w.fromScratch(rt, size, t))

		again, err := New(t.Context(), o)
		if err != nil {
			rt.Fatalf("%v", err)
		}
		w.resend(rt, t, again)
		if !reflect.DeepEqual(real, mustRead(rt, maps, size)) {
			rt.Fatalf("a restart changed the maps")
		}
	})
}

// mustRead returns a model that holds what maps do.
func mustRead(t failer, maps bpf.MeshMaps, size capacity) *model {
	c, err := (&kernel{maps: maps}).load()
	if err != nil {
		t.Fatalf("%v", err)
	}
	m := newModel(size)
	for i, k := range c.keys {
		m.ids[k] = c.at[i]
	}
	m.services, m.slots, m.endpoints = c.services, c.slots, c.endpoints
	m.look()
	return m
}
