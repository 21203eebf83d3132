// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
)

// given is the endpoint that the next connection of a workload to a set gets, where that is decided before: by its
// affinity, else by the hash of its address. It reads what the program would (select.h); what cannot be read is not
// decided.
func (e *Engine) given(st *set, w *WorkloadView) netip.AddrPort {
	if st.flags&uint32(bpf.MeshServiceFlagSERVICE_AFFINITY) != 0 {
		if r := e.kept(st, w.Cookie); r != nil {
			return netip.AddrPortFrom(r.address.Addr(), r.port)
		}
	}
	if st.flags&uint32(bpf.MeshServiceFlagSERVICE_CONSISTENT) != 0 {
		if r := e.hashed(st, w.Cookie); r != nil {
			return netip.AddrPortFrom(r.address.Addr(), r.port)
		}
	}
	return netip.AddrPort{}
}

// kept is the endpoint that a workload has affinity for; nil if none, or if it would not be given again.
func (e *Engine) kept(st *set, cookie uint64) *record {
	key := bpf.MeshAffinityKey{Workload: cookie, Service: st.index, Incarnation: st.incarnation}
	var value bpf.MeshAffinity
	var now unix.Timespec
	err := errors.Join(e.opts.Maps.Affinities.Lookup(key, &value),
		unix.ClockGettime(unix.CLOCK_BOOTTIME, &now))
	if err != nil || now.Nano()-int64(value.Seen) >= int64(st.affinity)*int64(time.Second) {
		return nil
	}
	index, incarnation := uint32(value.Endpoint), uint32(value.Endpoint>>32)
	if index >= e.tables.capacity().endpoints {
		return nil
	}
	r := e.mirror.records.at(index)
	if r.set != st || r.incarnation != incarnation {
		return nil
	}
	if r.level == levelServing {
		for _, better := range st.levels[:levelServing] {
			if better.count > 0 {
				return nil
			}
		}
	}
	return r
}

// hashed is the endpoint where the hash of a workload's address leads.
func (e *Engine) hashed(st *set, cookie uint64) *record {
	var w bpf.MeshWorkload
	by := bpf.MeshWorkloadKey{Id: cookie, By: uint32(bpf.MeshWorkloadByWORKLOAD_BY_NETNS)}
	if e.opts.Maps.Workloads.Lookup(by, &w) != nil {
		return nil
	}
	address := w.Ip6
	if isMappedAddress(st.key.Address) {
		address = w.Ip4
	}
	for l := range st.levels {
		level := &st.levels[l]
		if level.count == 0 {
			continue
		}
		var index uint32
		err := e.opts.Maps.Slots.Lookup(level.segment.first+address.Hash()%level.count, &index)
		if err != nil || index == 0 || index >= e.tables.capacity().endpoints {
			return nil
		}
		if r := e.mirror.records.at(index); r.set == st {
			return r
		}
		return nil
	}
	return nil
}
