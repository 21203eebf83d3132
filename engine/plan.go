// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"

	"github.com/evenkeel/evenkeel/bpf"
)

// plan is a batch of writes that together take the kernel from one state that is true to another. The order in which
// write makes them is what keeps every state between them true as well: nothing is reachable before it is whole, and
// nothing that is reachable is changed but by one store.
type plan struct {
	endpointAt []uint32 // records that nothing refers to yet
	endpoints  []bpf.MeshEndpoint
	slotAt     []uint32 // slots in no range yet
	slots      []uint32
	serviceAt  []uint32 // records that no key leads to yet
	services   []bpf.MeshService
	guards     []key
	first      []bpf.MeshPublication // stores that leave something in every level that had something
	listed     []key
	listedAt   []uint32
	unlisted   []key
	unguarded  []key
	wait       bool                  // a reader between two levels must have left before last
	last       []bpf.MeshPublication // ranges that become empty
	gone       []bpf.MeshPublication // states of endpoints that nothing refers to any more
	freed      []freed
}

// writes counts elements written, by map.
type writes struct {
	ServiceIDs uint64 `json:"service_ids"`
	Services   uint64 `json:"services"`
	Slots      uint64 `json:"slots"`
	Endpoints  uint64 `json:"endpoints"`
}

func (w writes) total() uint64 { return w.ServiceIDs + w.Services + w.Slots + w.Endpoints }

// size is the number of writes.
func (p *plan) size() int {
	return len(p.endpointAt) + len(p.slotAt) + len(p.serviceAt) + len(p.guards) + len(p.first) + len(p.listed) +
		len(p.unlisted) + len(p.unguarded) + len(p.last) + len(p.gone)
}

func (p *plan) endpoint(index uint32, value bpf.MeshEndpoint) {
	p.endpointAt, p.endpoints = append(p.endpointAt, index), append(p.endpoints, value)
}

// slotsOf fills a segment that is in no range.
func (p *plan) slotsOf(s segment, content []uint32) {
	for i, index := range content {
		p.slotAt = append(p.slotAt, s.first+uint32(i))
		p.slots = append(p.slots, index)
	}
}

func (p *plan) service(index uint32, value bpf.MeshService) {
	p.serviceAt, p.services = append(p.serviceAt, index), append(p.services, value)
}

func (p *plan) list(k key, index uint32) {
	p.listed, p.listedAt = append(p.listed, k), append(p.listedAt, index)
}

// slot stores one slot of a segment that may be in a range.
func (p *plan) slot(at, index uint32) {
	p.first = append(p.first, publication(bpf.MeshPublishWhatPUBLISH_SLOT, at, uint64(index)))
}

// rangeOf stores the range of a level of a service. An empty one comes after everything that takes its place.
func (p *plan) rangeOf(service uint32, level int, value uint64) {
	c := publication(bpf.MeshPublishWhatPUBLISH_RANGE, service*uint32(levels)+uint32(level), value)
	if value>>32 == 0 {
		p.last = append(p.last, c)
	} else {
		p.first = append(p.first, c)
	}
}

// state says anew whether an endpoint drains.
func (p *plan) state(index, value uint32) {
	p.first = append(p.first, publication(bpf.MeshPublishWhatPUBLISH_STATE, index, uint64(value)))
}

// retire ends the use of an endpoint; affinity and sockets that remember it let go of it.
func (p *plan) retire(index uint32) {
	p.gone = append(p.gone, publication(bpf.MeshPublishWhatPUBLISH_STATE, index, 0))
	p.free(freedEndpoint, segment{first: index})
}

func (p *plan) free(what freedWhat, s segment) { p.freed = append(p.freed, freed{what, s}) }

func publication(what bpf.MeshPublishWhat, index uint32, value uint64) bpf.MeshPublication {
	return bpf.MeshPublication{What: uint32(what), Index: index, Value: value}
}

// write makes the writes. After an error what the kernel holds is one of the states between: true, but not known.
func (p *plan) write(t tables, grace func() error, w *writes) error {
	if p.size() == 0 {
		return nil
	}
	nothing := []bpf.MeshPublication{publication(bpf.MeshPublishWhatPUBLISH_SLOT, 0, 0)} // slot 0 is in no range
	zero := make([]uint32, len(p.guards))
	last := append(p.last, p.gone...)
	steps := []struct {
		what string
		n    int
		do   func() error
	}{
		// Only stores are refused to one that has been replaced, so one comes before all else.
		{"ask whether the maps are still ours", 1, func() error { return t.publish(nothing) }},
		{"fill endpoints", len(p.endpointAt), func() error { return t.fillEndpoints(p.endpointAt, p.endpoints) }},
		{"fill slots", len(p.slotAt), func() error { return t.fillSlots(p.slotAt, p.slots) }},
		{"fill services", len(p.serviceAt), func() error { return t.fillServices(p.serviceAt, p.services) }},
		{"list service addresses", len(p.guards), func() error { return t.list(p.guards, zero) }},
		{"publish what is new", len(p.first), func() error { return t.publish(p.first) }},
		{"list services", len(p.listed), func() error { return t.list(p.listed, p.listedAt) }},
		{"remove services", len(p.unlisted), func() error { return t.unlist(p.unlisted) }},
		{"remove service addresses", len(p.unguarded), func() error { return t.unlist(p.unguarded) }},
		{"wait for readers", b2i(p.wait && len(p.last) > 0), grace},
		{"publish what is gone", len(last), func() error { return t.publish(last) }},
	}
	for _, s := range steps {
		if s.n == 0 {
			continue
		}
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	w.ServiceIDs += uint64(len(p.guards) + len(p.listed) + len(p.unlisted) + len(p.unguarded))
	w.Services += uint64(len(p.serviceAt))
	w.Slots += uint64(len(p.slotAt))
	w.Endpoints += uint64(len(p.endpointAt))
	for _, c := range [2][]bpf.MeshPublication{p.first, last} {
		for i := range c {
			w.count(bpf.MeshPublishWhat(c[i].What))
		}
	}
	return nil
}

func (w *writes) count(what bpf.MeshPublishWhat) {
	switch what {
	case bpf.MeshPublishWhatPUBLISH_SLOT:
		w.Slots++
	case bpf.MeshPublishWhatPUBLISH_RANGE:
		w.Services++
	case bpf.MeshPublishWhatPUBLISH_STATE:
		w.Endpoints++
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// reset empties p and keeps its room, unless a full synchronization made it large.
func (p *plan) reset() {
	if cap(p.slotAt) > 8*planSize || cap(p.endpointAt) > 8*planSize {
		*p = plan{}
		return
	}
	*p = plan{
		endpointAt: p.endpointAt[:0], endpoints: p.endpoints[:0], slotAt: p.slotAt[:0], slots: p.slots[:0],
		serviceAt: p.serviceAt[:0], services: p.services[:0], guards: p.guards[:0], first: p.first[:0],
		listed: p.listed[:0], listedAt: p.listedAt[:0], unlisted: p.unlisted[:0], unguarded: p.unguarded[:0],
		last: p.last[:0], gone: p.gone[:0], freed: p.freed[:0],
	}
}
