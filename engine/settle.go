// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"math"
	"time"

	"github.com/evenkeel/evenkeel/bpf"
)

// settling is the work on one set: what it has is matched with what it should have, room is found for the difference,
// and only then is the plan made, for finding room may write the plan out: what is in it must be whole.
type settling struct {
	*Engine
	set        *set
	port       *ServicePort
	index      uint32 // of a new record; 0: the set keeps its own
	flags      uint32
	affinity   uint32
	gone       []uint32 // endpoints that leave the set
	operations [levels]operation
}

// settle brings one set to what one port of its service says.
func (e *Engine) settle(st *set, port *ServicePort) {
	if st.adopted && !e.ready && !e.desired.heard(st.owner) {
		e.deferred[st.owner.name] = struct{}{}
		return
	}
	s := &e.settling
	*s = settling{Engine: e, set: st, port: port, gone: s.gone[:0], operations: s.operations}
	if !s.takeRecord() {
		return
	}
	e.wants.gather(st.owner, port, isMappedAddress(st.key.Address), e.desired)
	s.match()
	s.assign()
	for l := range s.operations {
		s.decide(int8(l))
	}
	s.commit()
	st.adopted, st.damaged = false, false
}

// takeRecord finds room for a new record if the set has none or its own says something else: a record that can be read
// is never changed. It reports false if there is no record, old or new.
func (s *settling) takeRecord() bool {
	spec := s.set.owner.spec
	s.flags, s.affinity = 0, uint32((spec.Affinity+time.Second-1)/time.Second)
	if spec.Affinity > 0 {
		s.flags |= uint32(bpf.MeshServiceFlagSERVICE_AFFINITY)
	}
	if spec.ConsistentHash {
		s.flags |= uint32(bpf.MeshServiceFlagSERVICE_CONSISTENT)
	}
	if s.set.index != 0 && s.flags == s.set.flags && s.affinity == s.set.affinity {
		return true
	}
	if inPlace && s.set.index != 0 {
		s.index = s.set.index
		return true
	}
	mapName := "service_ids"
	if s.roomForKeys() {
		mapName = "services"
		index, ok := s.mirror.services.take()
		if !ok && s.makeRoom() {
			index, ok = s.mirror.services.take()
		}
		if ok {
			s.index = index
			return true
		}
	}
	s.report(full(Services, s.set.owner.name, spec.Origin, mapName, portText(s.set.key)))
	s.flags, s.affinity = s.set.flags, s.set.affinity
	return s.set.index != 0
}

// roomForKeys reports whether service_ids takes the keys of the set that it does not have.
func (s *settling) roomForKeys() bool {
	needed := 0
	if !s.set.listed {
		needed++
	}
	if _, g := s.mirror.guardOf(s.set.key); !g.listed {
		needed++
	}
	fits := func() bool { return s.mirror.ids+needed <= s.mirror.idsMax }
	return fits() || s.makeRoom() && fits()
}

// match finds the record of every wanted endpoint that has one. What an earlier process left and no source has named
// is kept until all sources are synced; its weight is what its share of the slots says.
func (s *settling) match() {
	m, named, slots := s.mirror, uint64(0), uint64(0)
	var held []uint32
	for l := range s.set.levels {
		for _, index := range s.set.levels[l].members {
			r := m.records.at(index)
			r.next = nowhere
			switch w := s.wants.of(r); {
			case w != nil && w.level != nowhere && w.index == 0:
				w.index, r.next = index, w.level
				if r.held {
					named, slots = named+uint64(w.weight), slots+uint64(r.weight)
					r.held = false
					s.set.held--
				}
			case r.held && w == nil && !s.ready:
				held = append(held, index)
			default:
				s.gone = append(s.gone, index)
				if r.held {
					r.held = false
					s.set.held--
				}
			}
		}
	}
	for _, index := range held {
		r := m.records.at(index)
		r.next = r.level
		if slots > 0 {
			r.weight = uint32(min(max(uint64(r.weight)*named/slots, 1), math.MaxUint32))
		}
		s.wants.list = append(s.wants.list, want{level: r.level, weight: r.weight, index: index})
	}
}

// assign sorts the wanted endpoints by what happens to them on their level, and takes records for those that have none.
func (s *settling) assign() {
	for l := range s.operations {
		s.operations[l].reset()
	}
	dry := false
	for i := range s.wants.list {
		w := &s.wants.list[i]
		if w.level == nowhere {
			continue
		}
		op := &s.operations[w.level]
		if w.index == 0 {
			if dry || inPlace && s.rewrite(w) {
				continue
			}
			if dry = !s.takeEndpoint(w); dry {
				s.reportFull("endpoints")
				continue
			}
			op.fresh = append(op.fresh, w.index)
		} else if r := s.mirror.records.at(w.index); r.level != w.level {
			s.operations[r.level].leave = append(s.operations[r.level].leave, w.index)
			op.moved = append(op.moved, w.index)
			r.weight = w.weight
		} else {
			op.reweighed = op.reweighed || r.weight != w.weight
			r.weight = w.weight
		}
		op.weigh(w.weight)
	}
	for _, index := range s.gone {
		l := s.mirror.records.at(index).level
		s.operations[l].leave = append(s.operations[l].leave, index)
	}
}

// rewrite is what a control build does: the record of an endpoint that leaves becomes that of a new one under the eyes
// of its readers.
func (s *settling) rewrite(w *want) bool {
	last := len(s.gone) - 1
	if last < 0 || s.mirror.records.at(s.gone[last]).level != w.level {
		return false
	}
	w.index, s.gone = s.gone[last], s.gone[:last]
	r := s.mirror.records.at(w.index)
	r.address, r.port, r.weight, r.next, r.incarnation = w.address, w.port, w.weight, w.level, next(r.incarnation)
	s.operations[w.level].weigh(w.weight)
	s.fill(w.index)
	return true
}

// takeEndpoint gives w a record that nothing refers to yet.
func (s *settling) takeEndpoint(w *want) bool {
	index, ok := s.mirror.endpoints.take()
	if !ok && s.makeRoom() {
		index, ok = s.mirror.endpoints.take()
	}
	if !ok {
		return false
	}
	w.index = index
	r := s.mirror.records.at(index)
	*r = record{
		set: s.set, address: w.address, port: w.port, level: nowhere, next: w.level, weight: w.weight,
		incarnation: next(r.incarnation),
	}
	return true
}

// untake gives a record back that was never written.
func (s *settling) untake(index uint32) {
	r := s.mirror.records.at(index)
	*r = record{incarnation: r.incarnation}
	s.mirror.endpoints.add(index)
}

func (s *settling) report(err error) { s.set.owner.problems = append(s.set.owner.problems, err) }

func (s *settling) reportFull(mapName string) {
	spec := s.set.owner.spec
	s.report(full(Services, s.set.owner.name, spec.Origin, mapName, "all endpoints of "+portText(s.set.key)))
}
