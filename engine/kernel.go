// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/bpf/rcu"
)

// tables is all that the engine does to the kernel. It is an interface so that a test can look at what readers could
// see after every single write.
type tables interface {
	capacity() capacity
	load() (*contents, error)
	// The fill functions write elements that no reader can reach.
	fillEndpoints(at []uint32, values []bpf.MeshEndpoint) error
	fillServices(at []uint32, values []bpf.MeshService) error
	fillSlots(at, values []uint32) error
	// list makes keys of service_ids lead to records, unlist removes keys that are there.
	list(keys []key, at []uint32) error
	unlist(keys []key) error
	// publish makes one store after the other where readers look.
	publish(changes []bpf.MeshPublication) error
	// countKeys counts the keys of service_ids.
	countKeys() (int, error)
	// grace returns once every reader that was running when it was called has ended.
	grace() error
}

// capacity is the number of elements that each map has room for.
type capacity struct {
	ids, services, slots, endpoints uint32
}

// contents is all that the maps hold.
type contents struct {
	keys      []key
	at        []uint32 // by keys
	services  []bpf.MeshService
	slots     []uint32
	endpoints []bpf.MeshEndpoint
}

// blank is what maps hold that were just made. Reading it would take 30 ms for 100,000 endpoints.
func blank(c capacity) *contents {
	return &contents{services: make([]bpf.MeshService, c.services), slots: make([]uint32, c.slots),
		endpoints: make([]bpf.MeshEndpoint, c.endpoints)}
}

// kernel is the tables that the data plane reads.
type kernel struct {
	maps      bpf.MeshMaps
	publisher *bpf.Publisher
}

func (k *kernel) capacity() capacity {
	return capacity{
		ids:       k.maps.ServiceIds.MaxEntries(),
		services:  k.maps.Services.MaxEntries(),
		slots:     k.maps.Slots.MaxEntries(),
		endpoints: k.maps.Endpoints.MaxEntries(),
	}
}

func (k *kernel) load() (*contents, error) {
	c := &contents{slots: make([]uint32, k.maps.Slots.MaxEntries())}
	var err error
	if c.keys, c.at, err = lookupAll[key, uint32](k.maps.ServiceIds); err != nil {
		return nil, fmt.Errorf("read map service_ids: %w", err)
	}
	if _, c.services, err = lookupAll[uint32, bpf.MeshService](k.maps.Services); err != nil {
		return nil, fmt.Errorf("read map services: %w", err)
	}
	if _, c.endpoints, err = lookupAll[uint32, bpf.MeshEndpoint](k.maps.Endpoints); err != nil {
		return nil, fmt.Errorf("read map endpoints: %w", err)
	}
	// Most slots are in no range, and reading one costs 0.3 us: those beyond the last range stay unread.
	if _, slots, err := lookup[uint32, uint32](k.maps.Slots, c.slotsUsed()); err != nil {
		return nil, fmt.Errorf("read map slots: %w", err)
	} else {
		copy(c.slots, slots)
	}
	return c, nil
}

// slotsUsed returns the end of the last range.
func (c *contents) slotsUsed() (end int) {
	for i := range c.services {
		for _, packed := range c.services[i].Ranges {
			if first, count := int(uint32(packed)), int(packed>>32); count != 0 && first < len(c.slots) {
				end = max(end, min(first+count, len(c.slots)))
			}
		}
	}
	return end
}

// lookupAll reads a map by batches. Of one that others write it returns what it came by.
func lookupAll[K, V any](m *ebpf.Map) ([]K, []V, error) {
	// A batch ends before a bucket of a hash that does not fit, so there is room for one more of those.
	return lookup[K, V](m, int(m.MaxEntries())+64)
}

// lookup reads the first n elements of a map, or as many as there are.
func lookup[K, V any](m *ebpf.Map, n int) ([]K, []V, error) {
	keys, values := make([]K, n), make([]V, n)
	var cursor ebpf.MapBatchCursor
	read := 0
	for read < n {
		got, err := m.BatchLookup(&cursor, keys[read:], values[read:], nil)
		read += got
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return keys[:read], values[:read], nil
}

func (k *kernel) countKeys() (n int, err error) {
	const batch = 2048
	keys, values := make([]key, batch), make([]uint32, batch)
	var cursor ebpf.MapBatchCursor
	for {
		got, err := k.maps.ServiceIds.BatchLookup(&cursor, keys, values, nil)
		n += got
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

func (k *kernel) fillEndpoints(at []uint32, values []bpf.MeshEndpoint) error {
	_, err := k.maps.Endpoints.BatchUpdate(at, values, nil)
	return err
}

func (k *kernel) fillServices(at []uint32, values []bpf.MeshService) error {
	_, err := k.maps.Services.BatchUpdate(at, values, nil)
	return err
}

func (k *kernel) fillSlots(at, values []uint32) error {
	_, err := k.maps.Slots.BatchUpdate(at, values, nil)
	return err
}

func (k *kernel) list(keys []key, at []uint32) error {
	_, err := k.maps.ServiceIds.BatchUpdate(keys, at, nil)
	return err
}

func (k *kernel) unlist(keys []key) error {
	_, err := k.maps.ServiceIds.BatchDelete(keys, nil)
	return err
}

// publish stays below the 8,388,608 rounds of bpf_loop (Linux 5.17), far below the time that a run may take.
func (k *kernel) publish(changes []bpf.MeshPublication) error {
	for len(changes) > 0 {
		n := min(len(changes), 1<<16)
		if err := k.publisher.Publish(changes[:n]); err != nil {
			return err
		}
		changes = changes[n:]
	}
	return nil
}

func (k *kernel) grace() error { return rcu.Synchronize() }
