// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/evenkeel/evenkeel/bpf"
)

// model is the tables in memory. After every single store it looks at everything that a reader could see, including
// one that began before the last grace period ended, and notes what no reader may ever see.
type model struct {
	size      capacity
	ids       map[key]uint32
	services  []bpf.MeshService
	slots     []uint32
	endpoints []bpf.MeshEndpoint

	// What a reader that has not ended may have come to: reachable now, or at any time since the last grace period.
	seenServices, seenEndpoints map[uint32]bool
	seenSlots                   map[uint32]bool
	passed                      map[uint32]*passage

	wild       bool // contents were garbage to begin with: only that nothing in use is filled can be asked for
	violations []string
	failAt     int  // the write that fails; 0: none
	dead       bool // every write fails: the process that makes them is no more
	writes     int
	graces     int
	kept       map[key][]kept // what was served and is still wanted
}

// kept is an endpoint that was served and is still wanted. It is served whenever nothing is being changed; while
// it goes from one level to another it may be on neither, but what remembers it, a socket or an affinity, must not see
// it end.
type kept struct {
	at          netip.AddrPort
	index       uint32
	incarnation uint32
}

// passage follows readers through the levels of one record.
type passage struct {
	empty     [levels]bool // there may be one that found this level and all better ones empty
	justified bool         // all were empty at once
}

var errModel = errors.New("write failed on purpose")

func newModel(c capacity) *model {
	return &model{
		size: c, ids: make(map[key]uint32), services: make([]bpf.MeshService, c.services),
		slots: make([]uint32, c.slots), endpoints: make([]bpf.MeshEndpoint, c.endpoints),
		seenServices: make(map[uint32]bool), seenEndpoints: make(map[uint32]bool), seenSlots: make(map[uint32]bool),
		passed: make(map[uint32]*passage),
	}
}

func (m *model) capacity() capacity { return m.size }

func (m *model) load() (*contents, error) {
	c := &contents{
		services: slices.Clone(m.services), slots: slices.Clone(m.slots), endpoints: slices.Clone(m.endpoints),
	}
	for k, at := range m.ids {
		c.keys, c.at = append(c.keys, k), append(c.at, at)
	}
	return c, nil
}

func (m *model) bad(format string, args ...any) {
	if len(m.violations) < 10 {
		m.violations = append(m.violations, fmt.Sprintf("write %d: ", m.writes)+fmt.Sprintf(format, args...))
	}
}

// write counts a write and says whether it fails.
func (m *model) write() error {
	m.writes++
	if m.dead || m.writes == m.failAt {
		return errModel
	}
	return nil
}

func (m *model) fillEndpoints(at []uint32, values []bpf.MeshEndpoint) error {
	for i, index := range at {
		if err := m.write(); err != nil {
			return err
		}
		if m.seenEndpoints[index] && !m.wild {
			m.bad("endpoint %d is filled while a reader may look at it", index)
		}
		if index == 0 || values[i].Incarnation == m.endpoints[index].Incarnation || values[i].Incarnation == 0 {
			m.bad("endpoint %d has incarnation %d again", index, values[i].Incarnation)
		}
		m.endpoints[index] = values[i]
	}
	return nil
}

func (m *model) fillServices(at []uint32, values []bpf.MeshService) error {
	for i, index := range at {
		if err := m.write(); err != nil {
			return err
		}
		if m.seenServices[index] {
			m.bad("service %d is filled while a reader may look at it", index)
		}
		if index == 0 || values[i].Incarnation == m.services[index].Incarnation || values[i].Incarnation == 0 {
			m.bad("service %d has incarnation %d again", index, values[i].Incarnation)
		}
		m.services[index] = values[i]
		delete(m.passed, index)
	}
	return nil
}

func (m *model) fillSlots(at, values []uint32) error {
	for i, index := range at {
		if err := m.write(); err != nil {
			return err
		}
		if m.seenSlots[index] {
			m.bad("slot %d is filled while a reader may look at it", index)
		}
		m.slots[index] = values[i]
	}
	return nil
}

func (m *model) list(keys []key, at []uint32) error {
	for i, k := range keys {
		if err := m.write(); err != nil {
			return err
		}
		if _, there := m.ids[k]; !there && len(m.ids) >= int(m.size.ids) {
			return errors.New("argument list too long") // E2BIG
		}
		m.ids[k] = at[i]
		m.look()
	}
	return nil
}

func (m *model) countKeys() (int, error) { return len(m.ids), nil }

func (m *model) unlist(keys []key) error {
	for _, k := range keys {
		if err := m.write(); err != nil {
			return err
		}
		if _, there := m.ids[k]; !there {
			return fmt.Errorf("remove %s: no such key", portText(k))
		}
		delete(m.ids, k)
		m.look()
	}
	return nil
}

func (m *model) publish(changes []bpf.MeshPublication) error {
	for _, c := range changes {
		if err := m.write(); err != nil {
			return err
		}
		switch bpf.MeshPublishWhat(c.What) {
		case bpf.MeshPublishWhatPUBLISH_SLOT:
			m.slots[c.Index] = uint32(c.Value)
		case bpf.MeshPublishWhatPUBLISH_STATE:
			m.endpoints[c.Index].State = uint32(c.Value)
		case bpf.MeshPublishWhatPUBLISH_RANGE:
			m.services[c.Index/uint32(levels)].Ranges[c.Index%uint32(levels)] = c.Value
		}
		m.look()
	}
	return nil
}

func (m *model) grace() error {
	if err := m.write(); err != nil {
		return err
	}
	m.graces++
	clear(m.seenServices)
	clear(m.seenEndpoints)
	clear(m.seenSlots)
	clear(m.passed)
	m.look()
	return nil
}

// look is every reader there could be.
func (m *model) look() {
	for k, wanted := range m.kept {
		if _, ok := m.ids[k]; !ok {
			m.bad("%s is no service any more", portText(k))
		}
		for _, e := range wanted {
			if r := m.endpoints[e.index]; (r.Incarnation != e.incarnation || r.State == 0) && !m.serves(k, e.at) {
				m.bad("%s has ended the use of %s, which it serves", portText(k), e.at)
			}
		}
	}
	slotOf, endpointOf := make(map[uint32]key), make(map[uint32]key)
	for k, at := range m.ids {
		if k.Port == 0 {
			continue
		}
		if g := (key{Address: k.Address, Network: k.Network}); !m.wild {
			if _, ok := m.ids[g]; !ok {
				m.bad("%s has no key for its other ports", portText(k))
			}
		}
		if at == 0 || int(at) >= len(m.services) || m.services[at].Key != k {
			if !m.wild {
				m.bad("%s leads to record %d of another", portText(k), at)
			}
			continue
		}
		m.seenServices[at] = true
		m.pass(at)
		for l, packed := range m.services[at].Ranges {
			m.lookAtRange(k, l, packed, slotOf, endpointOf)
		}
	}
	// A reader with an old range comes to whatever its slots hold by now.
	for slot := range m.seenSlots {
		index := m.slots[slot]
		if int(index) >= len(m.endpoints) {
			continue
		}
		m.seenEndpoints[index] = true
		if e := m.endpoints[index]; !m.wild && (index == 0 || e.Incarnation == 0) {
			m.bad("slot %d refers to endpoint %d, which is none", slot, index)
		}
	}
}

func (m *model) lookAtRange(k key, l int, packed uint64, slotOf, endpointOf map[uint32]key) {
	first, count := uint32(packed), uint32(packed>>32)
	if count == 0 {
		return
	}
	if uint64(first)+uint64(count) > uint64(len(m.slots)) || first == 0 {
		if !m.wild {
			m.bad("%s has range %d+%d", portText(k), first, count)
		}
		return
	}
	for slot := first; slot < first+count; slot++ {
		m.seenSlots[slot] = true
		if m.wild {
			continue
		}
		index := m.slots[slot]
		if other, ok := slotOf[slot]; ok {
			m.bad("slot %d is in ranges of %s and %s", slot, portText(other), portText(k))
		}
		if other, ok := endpointOf[index]; ok && other != k {
			m.bad("endpoint %d is behind %s and %s", index, portText(other), portText(k))
		}
		slotOf[slot], endpointOf[index] = k, k
		if e := m.endpoints[index]; index == 0 || e.State != e.Incarnation && e.State != ^e.Incarnation {
			m.bad("%s level %d slot %d refers to endpoint %d, which is not in use", portText(k), l, slot, index)
		}
	}
}

// pass lets readers of a record go on by one level, or more.
func (m *model) pass(at uint32) {
	p := m.passed[at]
	if p == nil {
		p = &passage{}
		m.passed[at] = p
	}
	all, reached := true, true
	for l, packed := range m.services[at].Ranges {
		empty := packed>>32 == 0
		all = all && empty
		p.empty[l] = p.empty[l] || reached && empty
		reached = p.empty[l]
	}
	p.justified = p.justified || all
	if reached && !p.justified && !m.wild {
		m.bad("a reader of service %d finds every level empty, though never all are", at)
		p.justified = true // said once
	}
}

// served is what the kernel says about one key, without the numbers that mean nothing.
type served struct {
	flags, affinity uint32
	levels          [levels][]netip.AddrPort
}

// each calls f for the endpoint of every slot that k leads to, until it returns false.
func (m *model) each(k key, f func(level int, index uint32, at netip.AddrPort) bool) {
	index := m.ids[k]
	if index == 0 || int(index) >= len(m.services) || m.services[index].Key != k {
		return
	}
	for l, packed := range m.services[index].Ranges {
		for i := range uint32(packed >> 32) {
			at := m.slots[uint32(packed)+i]
			e := m.endpoints[at]
			if !f(l, at, netip.AddrPortFrom(e.Address.Addr(), bpf.BigEndian(e.Port))) {
				return
			}
		}
	}
}

func (m *model) serves(k key, address netip.AddrPort) (found bool) {
	m.each(k, func(_ int, _ uint32, at netip.AddrPort) bool {
		found = at == address
		return !found
	})
	return found
}

// keep makes it a violation to stop serving what is served now and in wanted as well.
func (m *model) keep(wanted *model) {
	m.kept = make(map[key][]kept)
	for k := range m.ids {
		m.each(k, func(_ int, index uint32, at netip.AddrPort) bool {
			e := kept{at, index, m.endpoints[index].Incarnation}
			if !slices.Contains(m.kept[k], e) && wanted.serves(k, at) {
				m.kept[k] = append(m.kept[k], e)
			}
			return true
		})
	}
}

// rest looks for what is kept and not served while nothing is being changed.
func (m *model) rest() {
	for k, wanted := range m.kept {
		for _, e := range wanted {
			if !m.serves(k, e.at) {
				m.bad("%s does not serve %s any more", portText(k), e.at)
			}
		}
	}
}

// normal returns what is served, by key. The order of slots that are chosen at random means nothing.
func (m *model) normal() map[string]served {
	all := make(map[string]served)
	for k, at := range m.ids {
		if k.Port == 0 {
			all[portText(k)] = served{}
			continue
		}
		s := served{flags: m.services[at].Flags, affinity: m.services[at].Affinity}
		m.each(k, func(level int, _ uint32, at netip.AddrPort) bool {
			s.levels[level] = append(s.levels[level], at)
			return true
		})
		if s.flags&uint32(bpf.MeshServiceFlagSERVICE_CONSISTENT) == 0 {
			for _, content := range s.levels {
				slices.SortFunc(content, netip.AddrPort.Compare)
			}
		}
		all[portText(k)] = s
	}
	return all
}
