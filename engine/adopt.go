// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"slices"
	"unsafe"

	"github.com/evenkeel/evenkeel/bpf"
)

// adopt makes the mirror of what the kernel holds. It believes nothing that it cannot check: a set of which anything is
// not as the engine leaves it is damaged, and all that it refers to stays out of use until it was repaired.
func (e *Engine) adopt() error {
	c, err := e.contents()
	if err != nil {
		return err
	}
	a := &adoption{contents: c, mirror: newMirror(e.tables.capacity())}
	a.incarnations()
	a.keys()
	for _, st := range a.damaged {
		a.takeDebris(st)
	}
	a.takeStrays()
	a.mirror.snapshot = c.slots
	e.mirror, e.plan, e.fault = a.mirror, a.restated, nil
	e.stats.Repaired = a.repairs
	if e.stats.Repaired != (Repairs{}) {
		e.opts.Log.Warn("maps hold what makes no sense; it is repaired as its services are applied",
			"keys", a.repairs.Keys, "services", a.repairs.Services, "endpoints", a.repairs.Endpoints)
	}
	return nil
}

// contents reads the maps, unless they are fresh; they are no longer when this is asked again, after a fault.
func (e *Engine) contents() (*contents, error) {
	if e.opts.FreshMaps {
		e.opts.FreshMaps = false
		return blank(e.tables.capacity()), nil
	}
	c, err := e.tables.load()
	if err != nil {
		return nil, err
	}
	// What an earlier process made unreachable in its last moment may still be read: it is free only after this.
	return c, e.grace()
}

// adoption is the reading of the kernel's contents.
type adoption struct {
	*contents
	*mirror
	damaged  []*set
	restated plan // states of endpoints that changed their level last
	repairs  Repairs
}

// incarnations keeps the last number of every index, used or not, so that none ever means two things.
func (a *adoption) incarnations() {
	for i := range a.contents.services {
		a.mirror.incarnations[i] = a.contents.services[i].Incarnation
	}
	for i := range a.contents.endpoints {
		if n := a.contents.endpoints[i].Incarnation; n != 0 {
			a.records.at(uint32(i)).incarnation = n
		}
	}
}

// keys adopts what service_ids leads to, in the order of the keys: what is found does not depend on how it is hashed.
func (a *adoption) keys() {
	order := make([]int, len(a.contents.keys))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(x, y int) int { return compareKeys(&a.contents.keys[x], &a.contents.keys[y]) })
	a.ids = len(order)
	for _, i := range order {
		k := a.contents.keys[i]
		if k.Port == 0 && k.Protocol == 0 {
			_, g := a.guardOf(k)
			g.listed = true
			continue
		}
		st := &set{key: k, listed: true, adopted: true}
		a.sets[k] = st
		_, g := a.guardOf(k)
		g.users++
		a.set(st, a.at[i])
	}
}

func compareKeys(x, y *key) int {
	b := func(k *key) []byte { return (*[unsafe.Sizeof(*k)]byte)(unsafe.Pointer(k))[:] }
	return bytes.Compare(b(x), b(y))
}

// set adopts the record at index.
func (a *adoption) set(st *set, index uint32) {
	if index == 0 || int(index) >= len(a.contents.services) || a.contents.services[index].Key != st.key {
		a.repairs.Keys++
		return // it refuses connections, as it did before
	}
	v := &a.contents.services[index]
	a.mirror.services.remove(index)
	a.byIndex[index] = st
	st.index, st.incarnation, st.flags, st.affinity = index, v.Incarnation, v.Flags, v.Affinity
	if v.Waypoint != (bpf.MeshAddress{}) || v.WaypointPort != 0 {
		st.flags = ^uint32(0) // nothing asks for one yet: the record is replaced
	}
	for l := range st.levels {
		if !a.level(st, int8(l), v.Ranges[l]) {
			st.damaged = true
		}
	}
	if st.damaged {
		a.repairs.Services++
		a.damaged = append(a.damaged, st)
	}
}

// level adopts one range; false if anything about it is not as it should be.
func (a *adoption) level(st *set, l int8, packed uint64) bool {
	first, count := uint32(packed), uint32(packed>>32)
	if count == 0 {
		return true
	}
	if first == 0 || uint64(first)+uint64(count) > uint64(len(a.slots())) {
		return false
	}
	level := &st.levels[l]
	ok := false
	if s := (segment{first, orderOf(int(count))}); a.mirror.slots.reserve(s) {
		level.segment, level.count, ok = s, count, true
	}
	for _, index := range a.slots()[first:][:count] {
		if !a.member(st, l, index) {
			ok = false
		}
	}
	consistent := st.flags&uint32(bpf.MeshServiceFlagSERVICE_CONSISTENT) != 0
	level.spread = int(count) != len(level.members) || consistent && count > 1
	level.adopted = true
	return ok
}

func (a *adoption) slots() []uint32 { return a.contents.slots }

// member adopts the endpoint that a slot refers to.
func (a *adoption) member(st *set, l int8, index uint32) bool {
	if index == 0 || int(index) >= len(a.contents.endpoints) {
		return false
	}
	v, r := &a.contents.endpoints[index], a.records.at(index)
	if r.set == st && r.level == l {
		r.weight++
		return true
	}
	if r.set != nil || v.Incarnation == 0 || v.State != v.Incarnation && v.State != ^v.Incarnation ||
		v.Port == 0 || isMappedAddress(v.Address) != isMappedAddress(st.key.Address) {
		return false
	}
	level := &st.levels[l]
	*r = record{
		set: st, address: v.Address, port: bpf.BigEndian(v.Port), level: l, held: true, weight: 1,
		position: uint32(len(level.members)), incarnation: v.Incarnation,
	}
	level.members = append(level.members, index)
	a.mirror.endpoints.remove(index)
	if state := stateOn(l, v.Incarnation); v.State != state {
		a.restated.state(index, state) // the earlier process was killed between the two stores
	}
	st.held++
	return true
}

// takeDebris takes out of use whatever a damaged set refers to and no sound one does: readers can still come to it.
func (a *adoption) takeDebris(st *set) {
	for _, packed := range a.contents.services[st.index].Ranges {
		first, count := uint64(uint32(packed)), packed>>32
		for i := max(first, 1); i < min(first+count, uint64(len(a.slots()))); i++ {
			if s := (segment{first: uint32(i)}); a.mirror.slots.reserve(s) {
				st.debris = append(st.debris, freed{freedSlots, s})
			}
			if index := a.slots()[i]; index != 0 && a.mirror.endpoints.remove(index) {
				st.debris = append(st.debris, freed{freedEndpoint, segment{first: index}})
			}
		}
	}
}

// takeStrays finds endpoints that affinity and sockets could still use though nothing refers to them. They are what
// a process that was killed between two writes leaves.
func (a *adoption) takeStrays() {
	for i := range a.contents.endpoints {
		index := uint32(i)
		v := &a.contents.endpoints[i]
		if index != 0 && v.State != 0 && a.mirror.endpoints.remove(index) {
			a.strays = append(a.strays, index)
		}
	}
	a.repairs.Endpoints = len(a.strays)
}
