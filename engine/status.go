// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/bpf"
)

// MapFill says how full a map is.
type MapFill struct {
	Map      string `json:"map"`
	Used     uint32 `json:"used"`
	Capacity uint32 `json:"capacity"`
	// Flag is the flag of the agent that sizes the map.
	Flag string `json:"flag"`
	// Bytes is the kernel memory that the map is accounted for; 0 if the kernel does not say.
	Bytes uint64 `json:"bytes"`
}

// Fill returns how full the maps are that have a size, in order of name.
func (e *Engine) Fill() ([]MapFill, error) {
	maps := e.opts.Maps
	e.mu.Lock()
	c, m := e.tables.capacity(), e.mirror
	fill := []MapFill{
		{Map: "endpoints", Capacity: c.endpoints - 1, Used: c.endpoints - 1 - uint32(m.endpoints.count)},
		{Map: "service_ids", Capacity: c.ids, Used: uint32(m.ids)},
		{Map: "services", Capacity: c.services - 1, Used: c.services - 1 - uint32(m.services.count)},
		{Map: "slots", Capacity: c.slots - 1, Used: m.slots.used - 1},
	}
	e.mu.Unlock()
	counted, err := e.countOthers()
	if err != nil {
		return nil, err
	}
	fill = append(fill, counted...)
	bytes := map[string]*ebpf.Map{
		"affinities": maps.Affinities, "peers": maps.Peers, "workloads": maps.Workloads,
		"workload_names": maps.WorkloadNames, "endpoints": maps.Endpoints, "service_ids": maps.ServiceIds,
		"services": maps.Services, "slots": maps.Slots,
	}
	for i := range fill {
		fill[i].Flag = bpf.Flag(fill[i].Map)
		if info, err := bytes[fill[i].Map].Info(); err == nil { // an old kernel does not say
			fill[i].Bytes, _ = info.Memlock()
		}
	}
	slices.SortFunc(fill, func(a, b MapFill) int { return cmp.Compare(a.Map, b.Map) })
	return fill, nil
}

// countOthers counts the entries of the maps that others write, as they are while it reads.
func (e *Engine) countOthers() ([]MapFill, error) {
	maps := e.opts.Maps
	var fill []MapFill
	var errs []error
	add := func(name string, m *ebpf.Map, used int, err error) {
		capacity := m.MaxEntries()
		if limit := e.opts.Sizes[name]; limit != 0 {
			capacity = min(capacity, limit)
		}
		fill = append(fill, MapFill{Map: name, Used: uint32(used), Capacity: capacity})
		if err != nil {
			errs = append(errs, fmt.Errorf("count entries of map %s: %w", name, err))
		}
	}
	affinities, _, err := lookupAll[bpf.MeshAffinityKey, bpf.MeshAffinity](maps.Affinities)
	add("affinities", maps.Affinities, len(affinities), err)
	peers, _, err := lookupAll[bpf.MeshPeerKey, bpf.MeshPeer](maps.Peers)
	add("peers", maps.Peers, len(peers), err)
	workloads, _, err := lookupAll[bpf.MeshWorkloadKey, bpf.MeshWorkload](maps.Workloads)
	add("workloads", maps.Workloads, len(workloads), err)
	names, _, err := lookupAll[uint64, bpf.MeshWorkloadName](maps.WorkloadNames)
	add("workload_names", maps.WorkloadNames, len(names), err)
	return fill, errors.Join(errs...)
}

// Stats returns counts since New.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	s.Pending, s.Quarantined = len(e.pending), len(e.mirror.quarantine)
	return s
}

// Warnings are sentences on what is in effect, but hardly meant. Before every source has said all that it knows there are
// none.
func (e *Engine) Warnings() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.desired.isSynced() || !e.desired.stranger() {
		return nil
	}
	return []string{fmt.Sprintf("this agent is for node %s, but no Node and no Pod of any source names it: what depends on the "+
		"node or its zone takes no endpoint for near; is --node right?", e.desired.node)}
}
