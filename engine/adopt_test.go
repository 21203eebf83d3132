// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/evenkeel/evenkeel/bpf"
)

// mustApply applies c as source.
func mustApply(t testing.TB, e *Engine, source string, c Change) {
	t.Helper()
	if err := e.Apply(t.Context(), source, c); err != nil {
		t.Fatal(err)
	}
}

// servedModel returns a model that serves dns() with the endpoints of these numbers.
func servedModel(t *testing.T, svc *Service, endpoints ...Endpoint) *model {
	t.Helper()
	m := newModel(capacity{ids: 200, services: 100, slots: 1 << 10, endpoints: 200})
	e := modelEngine(t, m)
	mustApply(t, e, "low", serviceChange(svc, endpoints))
	m.check(t, e)
	return m
}

var key4 = key{Address: bpf.AddressOf(dial4.Addr()), Port: bpf.BigEndian(53), Protocol: uint8(UDP)}

func (m *model) numbers(k key) map[int]int {
	counts := make(map[int]int)
	m.each(k, func(_ int, _ uint32, at netip.AddrPort) bool {
		counts[number(at.Addr())]++
		return true
	})
	return counts
}

// Promise: an adopted endpoint that no source has named goes on being served, at its share, until all are synced; what
// the sources that are there say is done meanwhile.
func TestAdoptedEndpointsAreHeld(t *testing.T) {
	m := servedModel(t, dns(), append(append(ready(1, 2), ready(2, 2)...), ready(3, 6)...)...)
	e := modelEngine(t, m)
	// The service is of the higher source, which has said all; the third endpoint is of one that has not.
	c := serviceChange(dns(), append(ready(1, 20), ready(4, 20)...))
	c.Synced = everyKind
	mustApply(t, e, "high", c)
	if got := fmt.Sprint(m.numbers(key4)); got != "map[1:1 2:1 3:3 4:1]" {
		t.Errorf("slots are %s, want endpoints 2 and 3 held at their shares", got)
	}
	select {
	case <-e.Ready():
		t.Error("ready, though one source is not synced")
	default:
	}
	mustApply(t, e, "low", Change{Synced: everyKind})
	<-e.Ready()
	if got := fmt.Sprint(m.numbers(key4)); got != "map[1:1 4:1]" {
		t.Errorf("slots are %s, want what no source has named removed", got)
	}
	m.check(t, e)
}

// Promise: a service that moves away before all sources are synced leaves what another may still claim.
func TestAdoptedServiceOutlivesTheFirstSource(t *testing.T) {
	m := servedModel(t, dns(), ready(1, 1)...)
	e := modelEngine(t, m)
	wrong := dns()
	wrong.Name = "kube-system/early"
	mustApply(t, e, "low", Change{Services: map[string]*Service{wrong.Name: wrong}})
	moved := *wrong
	moved.Addresses = []netip.Addr{netip.MustParseAddr("10.96.0.99")}
	before := m.writes
	m.keep(m)
	mustApply(t, e, "high", Change{Services: map[string]*Service{wrong.Name: &moved}})
	m.rest()
	mustApply(t, e, "low", serviceChange(dns(), ready(1, 1)))
	m.rest()
	for _, source := range sourceNames {
		mustApply(t, e, source, Change{Synced: everyKind})
		m.rest()
	}
	m.check(t, e)
	if before == m.writes {
		t.Error("the service that moved was not written")
	}
}

// Promise: what waits for its source to be synced is what the source said last, and its errors are not lost.
func TestDeferredUntilSynced(t *testing.T) {
	m := servedModel(t, dns(), ready(1, 1)...)
	e := modelEngine(t, m)
	mustApply(t, e, "low", serviceChange(dns(), ready(1, 1)))
	mustApply(t, e, "low", Change{Services: map[string]*Service{dns().Name: nil},
		Slices: map[string]*Slice{dns().Name + "-true": nil, dns().Name + "-false": nil}})
	var many []Endpoint
	for n := 2; n < 2+300; n++ {
		many = append(many, ready(n, 1)...)
	}
	mustApply(t, e, "low", serviceChange(dns(), many))
	if got := fmt.Sprint(m.numbers(key4)); got != "map[1:1]" {
		t.Errorf("slots are %s before the source has said all", got)
	}
	mustApply(t, e, "high", Change{Synced: everyKind})
	err := e.Apply(t.Context(), "low", Change{Synced: everyKind})
	var object *ObjectError
	if !errors.As(err, &object) || object.Map != "endpoints" || object.Name != dns().Name {
		t.Errorf("error is %v, want that of the service that did not fit", err)
	}
	if got := m.numbers(key4); got[1] != 0 || len(got) < 100 {
		t.Errorf("slots are %v", got)
	}
	m.check(t, e)
}

// Promise: what a damaged record refers to is not handed out while readers can come to it.
func TestDamageIsFencedOff(t *testing.T) {
	m := servedModel(t, dns(), append(ready(1, 1), ready(2, 1)...)...)
	index := m.ids[key4]
	// Not aligned to its size, so nothing that the engine ever wrote; readers use it all the same.
	m.services[index].Ranges[levelZone] = bpf.Range(5, 6)
	m.wild = true
	e := modelEngine(t, m)
	m.look()
	if got := e.Stats().Repaired; got.Services != 1 {
		t.Errorf("repaired %+v, want one service", got)
	}
	other := dns()
	other.Name, other.Addresses = "kube-system/other", []netip.Addr{netip.MustParseAddr("10.96.0.9")}
	mustApply(t, e, "low", serviceChange(other, flat([][]Endpoint{ready(3, 1), ready(4, 1), ready(5, 1), ready(6, 1)})))
	for _, v := range m.violations {
		t.Error(v)
	}
	mustApply(t, e, "low", serviceChange(dns(), append(ready(1, 1), ready(2, 1)...)))
	for _, source := range sourceNames {
		mustApply(t, e, source, Change{Synced: everyKind})
	}
	m.wild = false
	if err := m.grace(); err != nil {
		t.Fatal(err)
	}
	m.check(t, e)
	if got := fmt.Sprint(m.numbers(key4)); got != "map[1:1 2:1]" {
		t.Errorf("slots are %s", got)
	}
}

// FuzzAdopt makes the maps hold any words at all. Nothing may panic, and once the sources are synced what was there
// must have left no trace.
func FuzzAdopt(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 1, 0, 0, 0, 9, 0, 0, 1, 2, 0, 0, 0, 1, 0, 0, 2, 1, 0, 0, 0, 255, 255, 255, 3, 1, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{4, 1, 0, 0, 0, 1, 0, 0, 4, 2, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		m := servedModel(t, dns(), append(ready(1, 1), ready(2, 3)...)...)
		want := m.normal()
		m.wild = true
		for ; len(data) >= 8; data = data[8:] {
			m.overwrite(data[0], int(binary.LittleEndian.Uint16(data[1:])), binary.LittleEndian.Uint32(data[4:]))
		}
		e := modelEngine(t, m)
		c := serviceChange(dns(), append(ready(1, 1), ready(2, 3)...))
		c.Synced = everyKind
		for _, source := range sourceNames {
			// Damage may take up so much that not everything fits until it is repaired.
			_ = e.Apply(t.Context(), source, c)
			c = Change{Synced: everyKind}
		}
		<-e.Ready()
		m.wild = false
		if err := m.grace(); err != nil {
			t.Fatal(err)
		}
		m.check(t, e)
		if got := m.normal(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// overwrite sets one word of a map.
func (m *model) overwrite(what byte, at int, value uint32) {
	record := &m.services[at%64%len(m.services)]
	endpoint := &m.endpoints[at%64%len(m.endpoints)]
	half := at / 64 % levels
	switch what % 8 {
	case 0:
		m.slots[at%256] = value
	case 1:
		record.Ranges[half] = record.Ranges[half]&^0xffffffff | uint64(value)
	case 2:
		record.Ranges[half] = record.Ranges[half]&0xffffffff | uint64(value)<<32
	case 3:
		record.Key.Address.Word[half] = value
	case 4:
		endpoint.State, endpoint.Port = value, uint16(value>>16)
	case 5:
		endpoint.Incarnation = value
	case 6:
		record.Incarnation, record.Flags, record.Affinity = value, value, value
		record.WaypointPort = uint16(value)
	case 7:
		k := key{Network: value % 3, Port: uint16(value), Protocol: uint8(value >> 16)}
		if len(m.ids) < 100 {
			m.ids[k] = value >> 8
		}
	}
}

// Promise: fresh maps are taken to be as the kernel makes them, once; after a fault they are read.
func TestFreshMapsAreNotRead(t *testing.T) {
	m := servedModel(t, dns(), ready(1, 1)...)
	e := &Engine{opts: Options{FreshMaps: true}, tables: m}
	first, err := e.contents()
	if err != nil {
		t.Fatal(err)
	}
	second, err := e.contents()
	if err != nil {
		t.Fatal(err)
	}
	if len(first.keys) != 0 || len(first.at) != 0 || len(second.keys) == 0 {
		t.Errorf("%d keys in fresh maps, %d when they were read, want none and some", len(first.keys), len(second.keys))
	}
	shape := func(c *contents) [3]int { return [3]int{len(c.services), len(c.endpoints), len(c.slots)} }
	if shape(first) != shape(second) {
		t.Errorf("services, endpoints and slots of fresh maps: %v, of others: %v", shape(first), shape(second))
	}
	for _, e := range first.endpoints {
		if e != (bpf.MeshEndpoint{}) {
			t.Fatalf("an endpoint in fresh maps: %+v", e)
		}
	}
}
