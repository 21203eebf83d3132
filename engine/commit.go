// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"

	"github.com/evenkeel/evenkeel/bpf"
)

// commit puts what was decided about a set into the mirror and the plan. Nothing here can fail.
func (s *settling) commit() {
	before := s.set.ranges()
	for l := range s.operations {
		if o := &s.operations[l]; o.kind == edit {
			s.leave(int8(l)) // first on all levels: entering elsewhere overwrites a position that leaving needs
		}
	}
	for l := range s.operations {
		s.enter(int8(l))
	}
	for l := range s.operations {
		for _, index := range s.operations[l].fresh {
			s.fill(index)
		}
	}
	s.publishRecord(before)
	for _, index := range s.gone {
		s.retire(index)
	}
	s.clear(s.set)
}

// ranges returns the ranges of a set as its record has them.
func (st *set) ranges() (packed [levels]uint64) {
	for l := range packed {
		if level := &st.levels[l]; level.count > 0 {
			packed[l] = bpf.Range(level.segment.first, level.count)
		}
	}
	return packed
}

// leave takes endpoints out of a level in place: an endpoint that is new takes the slot over, or else the last one
// does.
func (s *settling) leave(l int8) {
	o, level := &s.operations[l], &s.set.levels[l]
	unplaced := o.fresh
	for _, index := range o.leave {
		position := s.mirror.records.at(index).position
		if len(unplaced) > 0 {
			s.put(level, position, unplaced[0])
			unplaced = unplaced[1:]
			continue
		}
		last := uint32(len(level.members) - 1)
		if position != last {
			s.put(level, position, level.members[last])
		}
		level.members = level.members[:last]
	}
	o.members = append(o.members[:0], unplaced...)
}

// put stores an endpoint in a slot that may be read.
func (s *settling) put(level *level, position, index uint32) {
	level.members[position] = index
	s.mirror.records.at(index).position = position
	s.plan.slot(level.segment.first+position, index)
}

// enter makes the members and slots of a level what they should be.
func (s *settling) enter(l int8) {
	o, level, plan := &s.operations[l], &s.set.levels[l], &s.plan
	switch o.kind {
	case keep:
	case edit:
		for _, list := range [][]uint32{o.members, o.moved} {
			for _, index := range list {
				level.members = append(level.members, index)
				s.put(level, uint32(len(level.members)-1), index)
			}
		}
		level.count = uint32(len(level.members))
	case build, overwrite:
		if o.kind == build {
			plan.slotsOf(o.segment, o.content)
			if level.count > 0 {
				plan.free(freedSlots, level.segment)
			}
		} else {
			for i, index := range o.content {
				plan.slot(o.segment.first+uint32(i), index)
			}
		}
		level.members = slices.Clone(o.members)
		for i, index := range level.members {
			s.mirror.records.at(index).position = uint32(i)
		}
		level.segment, level.count, level.spread = o.segment, uint32(len(o.content)), o.spread
	case empty:
		if level.count > 0 {
			plan.free(freedSlots, level.segment)
		}
		level.count, level.members, level.spread = 0, nil, false
	}
	level.adopted = false
	for _, index := range o.fresh {
		s.mirror.records.at(index).level = l
	}
	for _, index := range o.moved {
		r := s.mirror.records.at(index)
		if state := stateOn(l, r.incarnation); state != stateOn(r.level, r.incarnation) {
			plan.state(index, state)
		}
		r.level = l
	}
}

// fill writes the record of an endpoint that is new.
func (s *settling) fill(index uint32) {
	r := s.mirror.records.at(index)
	s.plan.endpoint(index, bpf.MeshEndpoint{
		Address: r.address, Port: bpf.BigEndian(r.port), Incarnation: r.incarnation,
		State: stateOn(r.level, r.incarnation),
	})
}

// publishRecord makes the ranges visible: in a new record, or one by one in the one that is there.
func (s *settling) publishRecord(before [levels]uint64) {
	st, after := s.set, s.set.ranges()
	for l := range after {
		if s.index != 0 {
			st.levels[l].filled = 0 // nobody has seen the record without it
		} else if before[l] == 0 && after[l] != 0 {
			st.levels[l].filled = s.periods.begun
		}
	}
	if s.index == 0 {
		for l := range after {
			if after[l] != before[l] || st.damaged {
				s.plan.rangeOf(st.index, l, after[l])
			}
		}
		s.plan.wait = s.plan.wait || s.leavesGap(before, after)
		return
	}
	m := s.mirror
	m.incarnations[s.index] = next(m.incarnations[s.index])
	s.plan.service(s.index, bpf.MeshService{
		Key: st.key, Incarnation: m.incarnations[s.index], Flags: s.flags, Affinity: s.affinity, Ranges: after,
	})
	if s.index != st.index {
		s.plan.list(st.key, s.index)
		if st.index != 0 {
			m.byIndex[st.index] = nil
			s.plan.free(freedService, segment{first: st.index})
		}
	}
	if !st.listed {
		st.listed = true
		m.ids++
		s.plan.guards = append(s.plan.guards, m.use(st.key)...)
	}
	m.byIndex[s.index] = st
	st.index, st.incarnation = s.index, m.incarnations[s.index]
	st.flags, st.affinity = s.flags, s.affinity
}

// leavesGap reports whether a reader that looks at one level after the other can find every one empty though at no time
// all were: it passes better levels before they are filled, and comes to a worse one after that was emptied.
func (s *settling) leavesGap(before, after [levels]uint64) bool {
	if isEmpty(after[:]) {
		return false
	}
	for l := range before {
		if before[l] == 0 {
			continue
		}
		if isEmpty(after[l:]) {
			return true
		}
		if !s.periods.running(s.set.levels[l].filled) {
			return false // no reader has passed it
		}
	}
	return false
}

func isEmpty(ranges []uint64) bool {
	return !slices.ContainsFunc(ranges, func(r uint64) bool { return r != 0 })
}
