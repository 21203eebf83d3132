// SPDX-License-Identifier: Apache-2.0

package engine

import "github.com/evenkeel/evenkeel/bpf"

type key = bpf.MeshServiceKey

// mirror is what the kernel holds, as far as the engine put it there or adopted it. It runs ahead of the kernel by
// what the plan has not written yet.
type mirror struct {
	sets   map[key]*set
	guards map[key]*guard // by the key with port 0 and protocol 0
	ids    int            // elements of service_ids
	idsMax int

	services     indexes // free ones
	incarnations []uint32
	byIndex      []*set

	endpoints indexes // free ones
	records   records

	slots    *segments
	snapshot []uint32 // all slots as they were adopted; nil once every adopted set was settled
	strays   []uint32 // endpoints that were adopted and that no set refers to

	quarantine []freed // unreachable, but a program may still be looking at it
}

// set is one service record: an address, port and protocol and the endpoints behind it.
type set struct {
	key         key
	index       uint32 // of its record; 0: none
	incarnation uint32
	flags       uint32
	affinity    uint32
	listed      bool     // service_ids has its key
	adopted     bool     // as an earlier process left it
	damaged     bool     // what it refers to made no sense: all of it is built anew
	held        int      // adopted endpoints that no source has named
	owner       *service // nil: an earlier process's, and claimed by nobody yet
	levels      [levels]level
	debris      []freed // what damage refers to; free once it is repaired
}

// level is one range of a set.
type level struct {
	segment segment // meaningless while count is 0
	count   uint32  // slots in the range
	members []uint32
	spread  bool   // slots are not the members one by one, but by weight or as a table
	adopted bool   // as an earlier process left it
	filled  uint32 // grace period (see periods) before which the level was empty
}

// record is one endpoint record.
type record struct {
	set         *set // nil: unreachable
	address     bpf.MeshAddress
	port        uint16 // host order
	level, next int8   // where it is and, while its set is being settled, will be
	held        bool   // adopted, and no source has named it
	weight      uint32 // as wanted; of an adopted one its number of slots
	position    uint32 // in members
	place       uint32 // in the list of what is wanted, when that was last matched
	incarnation uint32
}

// guard is the key that makes ports which a service address lacks refused. It is there while any set of the address is,
// and while a service that has no port here is at the address.
type guard struct {
	users  int // listed sets, and services without ports
	listed bool
}

// freed is something that readers may still see until a grace period has passed.
type freed struct {
	what    freedWhat
	segment segment // an index is the first of a segment of order 0
}

type freedWhat uint8

const (
	freedService freedWhat = iota
	freedEndpoint
	freedSlots
)

// records is the table of endpoint records, in pages that are made when they are first used.
type records [][]record

const recordPage = 1024

func (r records) at(index uint32) *record {
	page := &r[index/recordPage]
	if *page == nil {
		*page = make([]record, recordPage)
	}
	return &(*page)[index%recordPage]
}

func newMirror(c capacity) *mirror {
	m := &mirror{
		sets: make(map[key]*set), guards: make(map[key]*guard), idsMax: int(c.ids),
		services: newIndexes(c.services), incarnations: make([]uint32, c.services), byIndex: make([]*set, c.services),
		endpoints: newIndexes(c.endpoints), records: make(records, (c.endpoints+recordPage-1)/recordPage),
		slots: newSegments(c.slots),
	}
	for i := uint32(1); i < c.services; i++ {
		m.services.add(i)
	}
	for i := uint32(1); i < c.endpoints; i++ {
		m.endpoints.add(i)
	}
	return m
}

// guardOf returns the guard of a set's address.
func (m *mirror) guardOf(k key) (key, *guard) {
	k.Port, k.Protocol = 0, 0
	g := m.guards[k]
	if g == nil {
		g = &guard{}
		m.guards[k] = g
	}
	return k, g
}

// use counts one more user of the guard of k and returns the key to list if that is the first.
func (m *mirror) use(k key) (toList []key) {
	k, g := m.guardOf(k)
	if g.users++; g.listed {
		return nil
	}
	g.listed = true
	m.ids++
	return []key{k}
}

// release makes the first n of what was freed available again. A grace period has passed since it was.
func (m *mirror) release(n int) {
	for _, f := range m.quarantine[:n] {
		switch f.what {
		case freedService:
			m.services.add(f.segment.first)
		case freedEndpoint:
			m.endpoints.add(f.segment.first)
		case freedSlots:
			m.slots.give(f.segment)
		}
	}
	m.quarantine = append(m.quarantine[:0], m.quarantine[n:]...)
}

// next returns the incarnation after i; 0 means none.
func next(i uint32) uint32 { return max(i+1, 1) }

func isMappedAddress(a bpf.MeshAddress) bool { return a.Addr().Is4() }
