// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/evenkeel/evenkeel/bpf"
)

// planSize is how many elements a plan may hold before it is written out: 8,192, so that a full synchronization does
// not need the memory of all of it at once.
const planSize = 8192

// converge makes the kernel agree with what is desired of the services in dirty; all are done when prune is set.
func (e *Engine) converge(dirty map[string]*service, prune bool) {
	names := slices.Sorted(maps.Keys(dirty))
	// What one service gives up another may take over, endpoints and all, so nothing is removed before all have taken.
	var orphans []*set
	var guards []key
	for _, name := range names {
		orphans, guards = e.disown(dirty[name], orphans, guards)
	}
	for _, name := range names {
		e.settleService(dirty[name])
	}
	e.retry()
	if prune {
		left := 0
		for _, st := range e.mirror.sets {
			orphans = append(orphans, st)
			if st.owner == nil && st.adopted {
				left++
			}
		}
		if left > 0 {
			e.opts.Log.Warn("what an earlier agent served is in no source and is removed: were they all there?",
				"ports", left)
		}
	}
	for _, st := range orphans {
		// What an earlier process left is not removed on the word of the first source that speaks.
		if st.owner == nil && (e.ready || !st.adopted) {
			e.drop(st)
		}
	}
	for _, k := range guards {
		e.release(k)
	}
	if prune {
		e.prune()
	}
	e.flush()
	e.retry()
	e.flush()
	for _, name := range names {
		e.desired.forget(dirty[name])
	}
}

// disown takes from s the sets and guards that it does not want any more.
func (e *Engine) disown(s *service, orphans []*set, guards []key) ([]*set, []key) {
	s.sets = slices.DeleteFunc(s.sets, func(st *set) bool {
		if s.spec.wants(st.key) {
			return false
		}
		st.owner = nil
		orphans = append(orphans, st)
		e.roomMade++
		return true
	})
	s.guards = slices.DeleteFunc(s.guards, func(k key) bool {
		if s.spec.keeps(k) {
			return false
		}
		guards = append(guards, k)
		return true
	})
	return orphans, guards
}

// keeps reports whether s refuses whatever is sent to the address of k, of which it has no port.
func (s *Service) keeps(k key) bool {
	return s != nil && len(s.Ports) == 0 && s.Network == k.Network &&
		slices.ContainsFunc(s.Addresses, func(a netip.Addr) bool { return bpf.AddressOf(a) == k.Address })
}

// wants reports whether k is an address and port of s.
func (s *Service) wants(k key) bool {
	if s == nil || s.Network != k.Network {
		return false
	}
	return slices.ContainsFunc(s.Addresses, func(a netip.Addr) bool { return bpf.AddressOf(a) == k.Address }) &&
		slices.ContainsFunc(s.Ports, func(p ServicePort) bool {
			return bpf.BigEndian(p.Port) == k.Port && uint8(p.Protocol) == k.Protocol
		})
}

// settleService settles every set of s, and claims those that are new.
func (e *Engine) settleService(s *service) {
	s.problems = nil
	delete(e.pending, s.name)
	if s.spec == nil {
		return
	}
	for _, a := range s.spec.Addresses {
		if len(s.spec.Ports) == 0 {
			e.guard(s, key{Address: bpf.AddressOf(a), Network: s.spec.Network})
		}
		for i := range s.spec.Ports {
			port := &s.spec.Ports[i]
			k := key{
				Address: bpf.AddressOf(a), Network: s.spec.Network,
				Port: bpf.BigEndian(port.Port), Protocol: uint8(port.Protocol),
			}
			if st, err := e.claim(s, k); err != nil {
				s.problems = append(s.problems, err)
			} else {
				e.settle(st, port)
			}
		}
	}
	if len(s.problems) > 0 {
		e.pending[s.name] = s
	}
	if e.plan.size() > planSize {
		e.flush()
	}
}

// guard makes the address of a service that has no port refuse all: it is no less the service's for that.
func (e *Engine) guard(s *service, k key) {
	if slices.Contains(s.guards, k) {
		return
	}
	_, g := e.mirror.guardOf(k)
	fits := func() bool { return g.listed || e.mirror.ids < e.mirror.idsMax }
	if !fits() && !(e.makeRoom() && fits()) {
		s.problems = append(s.problems, full(Services, s.name, s.spec.Origin, "service_ids", k.Address.Addr().String()))
		return
	}
	s.guards = append(s.guards, k)
	e.plan.guards = append(e.plan.guards, e.mirror.use(k)...)
}

// claim returns the set of k, which is now that of s.
func (e *Engine) claim(s *service, k key) (*set, error) {
	st := e.mirror.sets[k]
	if st == nil {
		st = &set{key: k}
		e.mirror.sets[k] = st
	}
	switch st.owner {
	case s:
	case nil:
		st.owner = s
		s.sets = append(s.sets, st)
	default:
		return nil, &ObjectError{Kind: Services, Name: s.name, Origin: s.spec.Origin, Err: fmt.Errorf(
			"%s is %w: %s", portText(k), ErrConflict, named(st.owner))}
	}
	return st, nil
}

// named returns the name of a service and, if that is known, where it was read.
func named(s *service) string {
	if s.spec == nil || s.spec.Origin == "" {
		return s.name
	}
	return s.name + " (" + s.spec.Origin + ")"
}

// drop takes a set out of the kernel.
func (e *Engine) drop(st *set) {
	m, p := e.mirror, &e.plan
	if m.sets[st.key] != st {
		return // twice in a list
	}
	delete(m.sets, st.key)
	if st.listed {
		p.unlisted = append(p.unlisted, st.key)
		e.release(st.key)
	}
	for l := range st.levels {
		level := &st.levels[l]
		for _, index := range level.members {
			e.retire(index)
		}
		if level.count > 0 {
			p.free(freedSlots, level.segment)
		}
	}
	if st.index != 0 {
		m.byIndex[st.index] = nil
		p.free(freedService, segment{first: st.index})
	}
	e.clear(st)
	e.roomMade++
	if p.size() > planSize {
		e.flush()
	}
}

// release ends one use of the guard of k.
func (e *Engine) release(k key) {
	k, g := e.mirror.guardOf(k)
	if g.users--; g.users == 0 {
		e.unguard(k, g)
		e.roomMade++
	}
}

func (e *Engine) unguard(k key, g *guard) {
	if g.listed {
		e.plan.unguarded = append(e.plan.unguarded, k)
	}
	delete(e.mirror.guards, k)
}

// retire ends the use of an endpoint.
func (e *Engine) retire(index uint32) {
	r := e.mirror.records.at(index)
	if r.set == nil || Protocol(r.set.key.Protocol) == UDP {
		e.sweepDue = true
	}
	*r = record{incarnation: r.incarnation}
	e.plan.retire(index)
	e.roomMade++
}

// clear gives back what a damaged record referred to: nothing does any more.
func (e *Engine) clear(st *set) {
	for _, d := range st.debris {
		if d.what == freedEndpoint {
			e.retire(d.segment.first)
		} else {
			e.plan.free(d.what, d.segment)
		}
	}
	st.debris = nil
}

// prune removes what an earlier process left and no set accounts for, now that every source has said all it knows.
func (e *Engine) prune() {
	m := e.mirror
	for _, index := range m.strays {
		e.retire(index)
	}
	for k, g := range m.guards {
		if g.users == 0 {
			e.unguard(k, g)
		}
	}
	m.strays, m.snapshot = nil, nil
}

// retry settles what did not fit, or was taken, if something was given up since.
func (e *Engine) retry() {
	if len(e.pending) == 0 || e.roomMade == e.roomTried {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(e.pending)) {
		e.settleService(e.pending[name])
	}
	e.roomTried = e.roomMade
}

// flush writes the plan out. After an error nothing more is written: what the kernel holds has to be read again.
func (e *Engine) flush() {
	if e.fault != nil {
		return
	}
	if e.fault = e.plan.write(e.tables, e.grace, &e.stats.Writes); e.fault != nil {
		return
	}
	e.mirror.ids -= len(e.plan.unlisted) + len(e.plan.unguarded)
	e.mirror.quarantine = append(e.mirror.quarantine, e.plan.freed...)
	e.plan.reset()
}

// makeRoom makes what was freed available again, which takes a grace period. It reports whether there was anything.
func (e *Engine) makeRoom() bool {
	e.flush()
	n := len(e.mirror.quarantine)
	if e.fault != nil || n == 0 {
		return false
	}
	if e.fault = e.grace(); e.fault != nil {
		return false
	}
	e.mirror.release(n)
	return true
}

// grace waits for one grace period while everything else waits for it.
func (e *Engine) grace() error {
	n := e.periods.begin()
	if err := e.tables.grace(); err != nil {
		return err
	}
	e.periods.end(n)
	e.stats.Graces++
	return nil
}

// portText returns a key as people write it: "10.0.0.1:80/TCP".
func portText(k key) string {
	at := netip.AddrPortFrom(k.Address.Addr(), bpf.BigEndian(k.Port))
	return at.String() + "/" + Protocol(k.Protocol).String()
}
