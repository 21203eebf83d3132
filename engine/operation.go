// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"math/bits"
	"slices"

	"github.com/evenkeel/evenkeel/bpf"
)

// operation is what happens to one level of a set that is being settled.
type operation struct {
	kind      operationKind
	count     int      // endpoints afterwards
	fresh     []uint32 // endpoints that enter with a record of their own that was never used
	moved     []uint32 // endpoints that enter from another level
	leave     []uint32
	reweighed bool // one that stays has another weight
	weight    uint32
	uneven    bool // weights differ
	spread    bool // content is not members
	// Of build and overwrite:
	members []uint32
	content []uint32 // the slots; shares memory with members where it is the same
	segment segment  // where they go
}

type operationKind uint8

const (
	keep      operationKind = iota // nothing changes
	edit                           // some slots change, each by one store
	build                          // all slots are written aside, then the range changes
	overwrite                      // all slots change one after the other, for there is no room to build
	empty                          // the range becomes empty
)

func (o *operation) reset() {
	*o = operation{fresh: o.fresh[:0], moved: o.moved[:0], leave: o.leave[:0], members: o.members[:0]}
}

func (o *operation) weigh(weight uint32) {
	o.uneven = o.uneven || o.count > 0 && weight != o.weight
	o.weight = weight
	o.count++
}

// decide chooses what to do about a level and finds the room for it.
func (s *settling) decide(l int8) {
	o, level := &s.operations[l], &s.set.levels[l]
	table := s.flags&uint32(bpf.MeshServiceFlagSERVICE_CONSISTENT) != 0 && o.count > 1
	spread := table || o.uneven
	same := len(o.fresh)+len(o.moved)+len(o.leave) == 0 && !s.set.damaged
	rehash := (s.flags^s.set.flags)&uint32(bpf.MeshServiceFlagSERVICE_CONSISTENT) != 0 && o.count > 1
	switch {
	case o.count == 0:
		if level.count > 0 || s.set.damaged {
			o.kind = empty
		}
		return
	case same && !rehash && spread == level.spread && !level.adopted && (!spread || !o.reweighed):
		return
	case !spread && !level.spread && level.count > 0 && !s.set.damaged && holds(level.segment, o.count):
		if !same {
			o.kind = edit
		}
		return
	}
	o.kind = build
	for _, index := range level.members {
		if s.mirror.records.at(index).next == l && s.mirror.records.at(index).level == l {
			o.members = append(o.members, index)
		}
	}
	o.members = append(append(o.members, o.moved...), o.fresh...)
	o.spread = spread
	o.content = s.content(o.members, table, o.uneven)
	if same && level.adopted && s.adoptedSame(level, o.content, table) {
		o.kind = keep
		return
	}
	s.locate(l)
}

// holds reports whether n slots fit a segment and do not leave most of it unused.
func holds(s segment, n int) bool {
	return n <= int(s.size()) && (s.order <= 3 || n > int(s.size())/4)
}

// content returns the slots for members: each once, or as often as its weight says, or a table.
func (s *settling) content(members []uint32, table, uneven bool) []uint32 {
	if !table && !uneven {
		return members
	}
	if table && len(members) <= maglevSize {
		return s.table(members)
	}
	if table {
		s.report(invalid(Services, s.set.owner.name, s.set.owner.spec.Origin,
			"%d endpoints of %s are more than the %d of a consistent-hash table: a change moves most clients",
			len(members), portText(s.set.key), maglevSize))
	}
	weights := make([]uint32, len(members))
	for i, index := range members {
		weights[i] = s.mirror.records.at(index).weight
	}
	// A single service may not take more than an eighth of the map.
	bound := min(maxSlots, 1<<(bits.Len32(s.mirror.slots.capacity)-1)/8)
	var content []uint32
	for i, n := range slotCounts(weights, max(bound, len(members))) {
		content = append(content, slices.Repeat(members[i:i+1], int(n))...)
	}
	return content
}

// table returns the consistent-hash table over members. It depends on their addresses, ports and weights only.
func (s *settling) table(members []uint32) []uint32 {
	at := s.mirror.records.at
	sorted := slices.Clone(members)
	slices.SortFunc(sorted, func(a, b uint32) int {
		x, y := at(a).address.Addr().As16(), at(b).address.Addr().As16()
		if c := bytes.Compare(x[:], y[:]); c != 0 {
			return c
		}
		return int(at(a).port) - int(at(b).port)
	})
	addresses, ports := make([]bpf.MeshAddress, len(sorted)), make([]uint16, len(sorted))
	weights := make([]uint32, len(sorted))
	for i, index := range sorted {
		r := at(index)
		addresses[i], ports[i], weights[i] = r.address, r.port, r.weight
	}
	table := maglev(addresses, ports, weights)
	for i, position := range table {
		table[i] = sorted[position]
	}
	return table
}

// adoptedSame reports whether the slots that an earlier process left are what they would be now. Where slots are
// chosen at random their order means nothing.
func (s *settling) adoptedSame(level *level, content []uint32, table bool) bool {
	if len(content) != int(level.count) || s.mirror.snapshot == nil {
		return false
	}
	there := s.mirror.snapshot[level.segment.first:][:level.count]
	if table {
		return slices.Equal(there, content)
	}
	there, content = slices.Clone(there), slices.Clone(content)
	slices.Sort(there)
	slices.Sort(content)
	return slices.Equal(there, content)
}

// locate finds a segment for the content of a level. Where there is none, the content is written over the old, which
// mixes old and new for as long as it takes; and if that has no room either, as many endpoints as fit are served.
func (s *settling) locate(l int8) {
	o, level := &s.operations[l], &s.set.levels[l]
	if s.takeSegment(o) {
		return
	}
	s.reportFull("slots")
	room := 0
	if level.count > 0 && !s.set.damaged {
		room = int(level.segment.size())
	}
	if len(o.content) > room {
		if order, ok := s.mirror.slots.largest(); ok && 1<<order > room {
			room = min(1<<order, len(o.members))
			s.truncate(l, room)
			s.takeSegment(o)
			return
		}
		if room == 0 {
			s.truncate(l, 0)
			o.kind = keep
			if level.count > 0 || s.set.damaged {
				o.kind = empty
			}
			return
		}
		s.truncate(l, min(room, len(o.members)))
	}
	o.kind, o.segment = overwrite, level.segment
}

func (s *settling) takeSegment(o *operation) (ok bool) {
	order := orderOf(len(o.content))
	o.segment, ok = s.mirror.slots.take(order)
	if !ok && s.makeRoom() {
		o.segment, ok = s.mirror.slots.take(order)
	}
	return ok
}

// truncate leaves a level its first n members, one slot each. Those that served before come first.
func (s *settling) truncate(l int8, n int) {
	o := &s.operations[l]
	for _, index := range o.members[n:] {
		r := s.mirror.records.at(index)
		r.next = nowhere
		switch {
		case r.level == nowhere:
			s.untake(index)
		case r.level == l: // it served here
			o.leave = append(o.leave, index)
			s.gone = append(s.gone, index)
		default: // it is on its way from another level, which it leaves already
			s.gone = append(s.gone, index)
		}
	}
	o.members, o.count = o.members[:n], n
	o.content, o.spread = o.members, false
	o.fresh = slices.DeleteFunc(o.fresh, func(i uint32) bool { return s.mirror.records.at(i).set == nil })
	o.moved = slices.DeleteFunc(o.moved, func(i uint32) bool { return s.mirror.records.at(i).next == nowhere })
}
