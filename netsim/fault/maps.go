// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// FillMap adds entries to a pinned map until it takes no more. The keys are of a pattern that no address, port or cookie
// has, so they are told from the others by anybody.
type FillMap struct {
	Pin string `json:"pin"`
	// Most is the capacity of the map.
	Most uint32 `json:"most"`
	LRU  bool   `json:"lru"` // it never refuses an entry, but drops an old one
}

func (f *FillMap) String() string { return "map-full " + f.Pin }

// Prepare finds the map.
func (f *FillMap) Prepare(context.Context) error {
	m, err := ebpf.LoadPinnedMap(f.Pin, nil)
	if err != nil {
		return fmt.Errorf("open map: %w", err)
	}
	defer m.Close()
	f.Most = m.MaxEntries()
	switch m.Type() {
	case ebpf.Hash:
	case ebpf.LRUHash:
		f.LRU = true
	default:
		return fmt.Errorf("%s is a %v, which has all of its entries from the start", f.Pin, m.Type())
	}
	if m.KeySize() < 8 {
		return fmt.Errorf("%s has keys of %d bytes: too short to tell filling from others", f.Pin, m.KeySize())
	}
	return nil
}

// filling is the n-th key that fills a map.
func filling(size uint32, n uint32) []byte {
	key := bytes.Repeat([]byte{0xee}, int(size))
	binary.NativeEndian.PutUint32(key[size-4:], n)
	return key
}

// Inject fills the map. It returns when the kernel refuses an entry, or an LRU map has had as many as it holds.
func (f *FillMap) Inject(context.Context) error {
	m, err := ebpf.LoadPinnedMap(f.Pin, nil)
	if err != nil {
		return fmt.Errorf("open map: %w", err)
	}
	defer m.Close()
	value := make([]byte, m.ValueSize())
	for n := range f.Most {
		err := m.Update(filling(m.KeySize(), n), value, ebpf.UpdateNoExist)
		if errors.Is(err, unix.E2BIG) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("fill map: %w", err)
		}
	}
	return nil
}

// Heal removes what was added.
func (f *FillMap) Heal(context.Context) error {
	m, err := ebpf.LoadPinnedMap(f.Pin, nil)
	if errors.Is(err, unix.ENOENT) {
		return nil // it is gone, and the filling with it
	}
	if err != nil {
		return fmt.Errorf("open map: %w", err)
	}
	defer m.Close()
	for n := range f.Most {
		if err := m.Delete(filling(m.KeySize(), n)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("empty map: %w", err)
		}
	}
	return nil
}

// Active counts the entries that fill the map, 0 if it would take another one.
func (f *FillMap) Active(context.Context) (uint64, error) {
	m, err := ebpf.LoadPinnedMap(f.Pin, nil)
	if err != nil {
		return 0, fmt.Errorf("open map: %w", err)
	}
	defer m.Close()
	value := make([]byte, m.ValueSize())
	if !f.LRU {
		one := filling(m.KeySize(), f.Most) // no other has this number
		err := m.Update(one, value, ebpf.UpdateNoExist)
		if err == nil {
			return 0, m.Delete(one)
		}
		if !errors.Is(err, unix.E2BIG) {
			return 0, fmt.Errorf("add one more entry: %w", err)
		}
	}
	var count uint64
	for n := range f.Most {
		if m.Lookup(filling(m.KeySize(), n), &value) == nil {
			count++
		}
	}
	return count, nil
}

// CorruptMap writes random bytes over values of a pinned map. Healing puts those back that nobody has put right, and
// restarts the agent.
type CorruptMap struct {
	Agent   *Agent      `json:"agent"`
	Pin     string      `json:"pin"`
	Entries int         `json:"entries"` // how many at most
	Seed    uint64      `json:"seed"`
	Damage  []corrupted `json:"damage"` // chosen by Prepare

	written uint64
}

// corrupted is an entry: what it had and what it gets.
type corrupted struct {
	Key    []byte `json:"key"`
	Before []byte `json:"before"`
	After  []byte `json:"after"`
}

func (c *CorruptMap) String() string {
	return fmt.Sprintf("map-corrupted %s, %d entries, seed=%d", c.Pin, c.Entries, c.Seed)
}

// Prepare chooses the entries, those with something in them first.
func (c *CorruptMap) Prepare(context.Context) error {
	m, err := ebpf.LoadPinnedMap(c.Pin, nil)
	if err != nil {
		return fmt.Errorf("open map: %w", err)
	}
	defer m.Close()
	if !slices.Contains([]ebpf.MapType{ebpf.Hash, ebpf.Array, ebpf.LRUHash}, m.Type()) {
		return fmt.Errorf("%s is a %v: its values are no bytes that can be written", c.Pin, m.Type())
	}
	var used, empty []corrupted
	entries := m.Iterate()
	var key, value []byte
	for entries.Next(&key, &value) {
		e := corrupted{Key: bytes.Clone(key), Before: bytes.Clone(value)}
		if bytes.Equal(value, make([]byte, len(value))) {
			empty = append(empty, e)
		} else {
			used = append(used, e)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read map: %w", err)
	}
	random := rand.New(rand.NewPCG(c.Seed, 2))
	for _, some := range [][]corrupted{used, empty} {
		slices.SortFunc(some, func(a, b corrupted) int { return bytes.Compare(a.Key, b.Key) })
		random.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	}
	c.Damage = append(used, empty...)
	c.Damage = c.Damage[:min(c.Entries, len(c.Damage))]
	if len(c.Damage) == 0 {
		return fmt.Errorf("%s has no entry", c.Pin)
	}
	for i := range c.Damage {
		d := &c.Damage[i]
		d.After = make([]byte, len(d.Before))
		for n := range d.After {
			d.After[n] = byte(random.Uint32())
		}
		if bytes.Equal(d.After, d.Before) {
			d.After[0]++
		}
	}
	return nil
}

// Inject writes them, as far as the kernel lets it: an entry may be gone by now, a map may be frozen.
func (c *CorruptMap) Inject(context.Context) error {
	m, err := ebpf.LoadPinnedMap(c.Pin, nil)
	if err != nil {
		return fmt.Errorf("open map: %w", err)
	}
	defer m.Close()
	for _, d := range c.Damage {
		err := m.Update(d.Key, d.After, ebpf.UpdateExist)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("corrupt map: %w", err)
		}
		c.written++
	}
	return nil
}

// Heal puts back what has still the random bytes, and restarts the agent.
func (c *CorruptMap) Heal(ctx context.Context) error {
	m, err := ebpf.LoadPinnedMap(c.Pin, nil)
	if errors.Is(err, unix.ENOENT) {
		return c.Agent.start(ctx)
	}
	if err != nil {
		return fmt.Errorf("open map: %w", err)
	}
	defer m.Close()
	left := 0
	for _, d := range c.Damage {
		var value []byte
		err := m.Lookup(d.Key, &value)
		if errors.Is(err, ebpf.ErrKeyNotExist) || err == nil && !bytes.Equal(value, d.After) {
			continue
		}
		left++
		if err == nil {
			err = m.Update(d.Key, d.Before, ebpf.UpdateExist)
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("restore map: %w", err)
		}
	}
	if left == 0 {
		return c.Agent.start(ctx)
	}
	return c.Agent.restart(ctx)
}

// Active counts the values that the kernel has taken.
func (c *CorruptMap) Active(context.Context) (uint64, error) { return c.written, nil }
