// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/upgrade/migrate"
)

// Schemas is how many there are, numbered from 1. flows.c says what each is.
const Schemas = 6

// baseName is the map's name without the number of its schema.
const baseName = "flows"

// Name is the map's name in a schema.
func Name(schema int) string { return migrate.Name(baseName, schema) }

// Spec reads the release with a schema, with room for so many entries.
func Spec(schema int, keys uint32) (*ebpf.CollectionSpec, error) {
	load := [...]func() (*ebpf.CollectionSpec, error){
		nil, loadFlows1, loadFlows2, loadFlows3, loadFlows4, loadFlows5, loadFlows6,
	}
	s, err := load[schema]()
	if err != nil {
		return nil, fmt.Errorf("read release %d: %w", schema, err)
	}
	for name, m := range s.Maps {
		if name == Name(schema) || name == "books" || migrate.IsSide(name) {
			m.MaxEntries = keys + keys/8
		}
	}
	if schema >= 5 { // a list of free elements for each CPU
		s.Maps[Name(schema)].MaxEntries = 2 * keys
	}
	return s, nil
}

// Options say what a bed is made of.
type Options struct {
	Schema int    // that it begins with
	Keys   uint32 // a power of two from 1,024 on; each has an entry in the beginning
	// Dawdle is for how many rounds one of 16 hot events of the first worker stops half-way, so that old code runs
	// across a switch; 0 for none.
	Dawdle uint32
}

// removing is how many of 256 events remove an entry, or make one that was removed.
const removing = 16

// Bed is a data plane of one state map, with room for traffic on it.
type Bed struct {
	Options
	State *ebpf.Map            // what serves
	Sides map[string]*ebpf.Map // what older schemas have no place for

	shared map[string]*ebpf.Map // see common
	enter  *ebpf.Program
	slots  uint32
	loaded []*ebpf.Collection
}

// common are the maps that all releases share.
var common = []string{"books", "workers", "serve", "calls"}

// New loads a release and fills its map. The caller closes it.
func New(o Options) (_ *Bed, err error) {
	b := &Bed{Options: o, shared: make(map[string]*ebpf.Map), Sides: make(map[string]*ebpf.Map)}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	s, err := Spec(o.Schema, o.Keys)
	if err != nil {
		return nil, err
	}
	all, err := b.load(s, nil, "event", "fill", "enter")
	if err != nil {
		return nil, err
	}
	for _, name := range common {
		b.shared[name] = all.Maps[name]
	}
	b.State, b.enter = all.Maps[Name(o.Schema)], all.Programs["enter"]
	if _, err := b.put(all.Programs["event"]); err != nil {
		return nil, err
	}
	for from := uint32(0); from < o.Keys; from += 1024 {
		n, err := all.Programs["fill"].Run(&ebpf.RunOptions{Data: make([]byte, 64), Context: skb{Mark: from}})
		if err != nil || n != 1024 {
			return nil, fmt.Errorf("fill from entry %d: %d were made: %w", from, n, err)
		}
	}
	return b, nil
}

// Close frees everything.
func (b *Bed) Close() {
	for _, c := range b.loaded {
		c.Close()
	}
	b.loaded = nil
}

// skb is the beginning of struct __sk_buff.
type skb struct{ Len, Type, Mark uint32 }

// load loads programs, and the maps that they use and that are not given. They live as long as the bed.
func (b *Bed) load(s *ebpf.CollectionSpec, use map[string]*ebpf.Map, programs ...string) (*ebpf.Collection, error) {
	maps.DeleteFunc(s.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return !slices.Contains(programs, name) })
	for name, value := range map[string]uint32{"keys": b.Keys, "dawdle": b.Dawdle, "removing": removing} {
		if err := s.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("load: %w", err)
		}
	}
	replace := make(map[string]*ebpf.Map)
	for _, of := range []map[string]*ebpf.Map{b.shared, use} {
		for name, m := range of {
			if s.Maps[name] != nil {
				replace[name] = m
			}
		}
	}
	all, err := ebpf.NewCollectionWithOptions(s, ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	b.loaded = append(b.loaded, all)
	return all, nil
}

// put gives a program the next slot and returns its number.
func (b *Bed) put(p *ebpf.Program) (uint32, error) {
	slot := b.slots
	b.slots++
	if err := b.shared["calls"].Put(slot, p); err != nil {
		return 0, fmt.Errorf("fill slot %d: %w", slot, err)
	}
	return slot, nil
}

// serve has every event from now on run the program in a slot.
func (b *Bed) serve(slot uint32) error {
	if err := b.shared["serve"].Put(uint32(0), slot); err != nil {
		return fmt.Errorf("serve slot %d: %w", slot, err)
	}
	return nil
}

// Totals are sums over all workers, of what they met at their events.
type Totals struct {
	Events                        uint64
	Lost, Resurrected, Duplicated uint64 // events; see struct flows_worker
	Refused                       uint64 // the map was full, or busy
	Inserts, Removals, Adds       uint64
}

// Totals reads them.
func (b *Bed) Totals() (sum Totals, err error) {
	for i := range uint32(flows1FlowsLimitWORKERS) {
		var w flows1FlowsWorker
		if err := b.shared["workers"].Lookup(i, &w); err != nil {
			return sum, fmt.Errorf("read totals: %w", err)
		}
		sum.Events += w.Events
		sum.Lost += w.Lost
		sum.Resurrected += w.Resurrected
		sum.Duplicated += w.Duplicated
		sum.Refused += w.Refused
		sum.Inserts += w.Inserts
		sum.Removals += w.Removals
		sum.Adds += w.Adds
	}
	return sum, nil
}

// Account is what differs between the map and the books. Lost and Duplicated are updates, those of hot keys included.
type Account struct {
	Entries                       uint64
	Lost, Resurrected, Duplicated uint64
	Missing                       uint64 // entries; their updates are among those lost
}

// Wrong is everything in which the state differs from the books: at the end, and at any event before.
func (b *Bed) Wrong() (Account, error) {
	a, err := b.audit()
	if err != nil {
		return a, err
	}
	sum, err := b.Totals()
	a.Lost += sum.Lost
	a.Resurrected += sum.Resurrected
	a.Duplicated += sum.Duplicated
	return a, err
}

// audit compares every entry with the books, once the traffic has ended.
func (b *Bed) audit() (a Account, err error) {
	books := make([]flows1FlowsBook, b.shared["books"].MaxEntries())
	numbers := make([]uint32, len(books))
	var cursor ebpf.MapBatchCursor
	if _, err := b.shared["books"].BatchLookup(&cursor, numbers, books, nil); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return a, fmt.Errorf("read books: %w", err)
	}
	found := make([]bool, len(books))
	err = each(b.State, func(key, value []byte) error {
		id, count, dead := read(b.Schema, key, value)
		if dead {
			return nil
		}
		a.Entries++
		found[id] = true
		switch want := books[id].Count; {
		case books[id].Lives == 0 && id >= uint32(flows1FlowsLimitHOT):
			a.Resurrected++
		case count < want:
			a.Lost += want - count
		case count > want:
			a.Duplicated += count - want
		}
		return nil
	})
	for id := range books {
		if books[id].Lives != 0 && !found[id] {
			a.Missing++
			a.Lost += books[id].Count
		}
	}
	return a, err
}
