// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/upgrade/migrate"
)

// planMaps decides about the maps of a generation.
func (p *Plan) planMaps(serving *Generation, from, to *object) error {
	states := migrate.States(to.spec)
	taken := make(map[string]bool) // sources of migrations
	for _, name := range to.own() {
		want, m := to.spec.Maps[name], serving.Maps[name]
		one := MapPlan{Name: name, Action: ActionCreate, Room: want.MaxEntries, Memory: footprint(want)}
		expected, found, sized := "", "", false
		if m != nil {
			var err error
			if expected, found, sized, err = differ(want, m); err != nil {
				return err
			}
			one.Had = m.MaxEntries()
		}
		source := sourceOf(name, serving)
		switch {
		case slices.Contains(to.Private, name):
		case m != nil && expected == found:
			one.Action, one.Memory = ActionKeep, 0
		case slices.Contains(states, name) && source != "" && (source != name || sized): // a layout has a number of its own
			one.Action, taken[source] = ActionMigrate, true
			if source != name {
				one.From = source
			}
			if err := one.measure(serving.Maps[source], 1.6e-6); err != nil {
				return err
			}
		case m == nil:
		case sized:
			one.Action = ActionCopy
			if err := one.measure(m, 1.2e-6); err != nil {
				return err
			}
			if writes(from, name) {
				one.Note = "programs write it, and its release cannot bridge: what they write while it is copied is lost"
				p.Risks = append(p.Risks, fmt.Sprintf("map %s: %s", name, one.Note))
			}
		default:
			p.Refusals = append(p.Refusals, Change{Name: join(generationPath(serving.Number), "maps", name),
				Expected: expected, Found: found})
			one.Action, one.Note = ActionMigrate, "its layout changed, its schema number did not"
		}
		p.addMap(one, want)
	}
	for _, name := range sortedKeys(serving.Maps) {
		if to.spec.Maps[name] == nil && !taken[name] {
			p.Maps = append(p.Maps, MapPlan{Name: name, Action: ActionRemove, Had: serving.Maps[name].MaxEntries()})
		}
	}
	return nil
}

// planCommon decides about the maps that all generations share.
func (p *Plan) planCommon(v *view, serving *Generation, to *object) error {
	for _, name := range to.Frozen {
		want, m := to.spec.Maps[name], v.maps[name]
		one := MapPlan{Name: name, Action: ActionKeep, Room: want.MaxEntries}
		if m == nil {
			one.Action, one.Memory = ActionCreate, footprint(to.roomy(want))
			p.addMap(one, want)
			continue
		}
		one.Had = min(m.MaxEntries(), cmp.Or(serving.limit(name), m.MaxEntries()))
		if want.MaxEntries < one.Had {
			var err error
			if one.Entries, err = countEntries(m); err != nil {
				return fmt.Errorf("count entries of %s: %w", name, err)
			}
		}
		expected, found, sized, err := differ(within(want, m), m)
		switch {
		case err != nil:
			return err
		case expected == found:
		default:
			change := Change{Name: join(pathMaps, name), Expected: expected, Found: found}
			if sized {
				change.Entries = [2]uint32{want.MaxEntries, m.MaxEntries()}
			}
			p.Refusals = append(p.Refusals, change)
		}
		p.addMap(one, want)
	}
	for _, name := range sortedKeys(v.maps) {
		if !slices.Contains(to.Frozen, name) {
			p.Refusals = append(p.Refusals, Change{Name: join(pathMaps, name), Expected: "not there", Found: "there"})
		}
	}
	return nil
}

// addMap files what becomes of a map, and refuses what cannot fit.
func (p *Plan) addMap(one MapPlan, want *ebpf.MapSpec) {
	evicts := want.Type == ebpf.LRUHash || want.Type == ebpf.LRUCPUHash
	if one.Entries > uint64(want.MaxEntries) {
		if evicts {
			one.Note = fmt.Sprintf("it has room for %d of %d entries: the least used go", want.MaxEntries, one.Entries)
			p.Risks = append(p.Risks, fmt.Sprintf("map %s: %s", one.Name, one.Note))
		} else {
			p.Refusals = append(p.Refusals, Change{Name: one.Name, Expected: fmt.Sprintf("room for %d entries", one.Entries),
				Found: fmt.Sprintf("room for %d", want.MaxEntries), Entries: [2]uint32{want.MaxEntries, one.Had}})
		}
	}
	p.Seconds += one.Seconds
	p.Memory += one.Memory
	p.Maps = append(p.Maps, one)
}

// differ compares a map with what a release wants; sized says that nothing but the number of entries differs.
func differ(want *ebpf.MapSpec, m *ebpf.Map) (expected, found string, sized bool, err error) {
	expected, found, err = compareMap(want, m)
	if err != nil || expected == found || m.MaxEntries() == want.MaxEntries {
		return expected, found, false, err
	}
	resized := want.Copy()
	resized.MaxEntries = m.MaxEntries()
	e, f, err := compareMap(resized, m)
	return expected, found, e == f, err
}

// sourceOf finds the map whose entries another takes over: that of the same name, or else of another schema of it.
func sourceOf(name string, g *Generation) string {
	if g.Maps[name] != nil {
		return name
	}
	base, _ := migrate.Schema(name)
	for _, other := range sortedKeys(g.Maps) {
		if b, _ := migrate.Schema(other); b == base && !migrate.IsSide(other) {
			return other
		}
	}
	return ""
}

// writes reports whether programs of a release may write a map: any map that is no array. What the owner alone writes
// by a program of its own (publish) are arrays.
func writes(o *object, name string) bool {
	s := o.spec.Maps[name]
	return s != nil && (s.Type == ebpf.LRUHash || s.Type == ebpf.LRUCPUHash)
}

// measure counts entries and estimates the time that they take.
func (m *MapPlan) measure(of *ebpf.Map, each float64) error {
	n, err := countEntries(of)
	if err != nil {
		return fmt.Errorf("count entries of %s: %w", m.Name, err)
	}
	m.Entries = n
	m.Seconds = 0.05 + float64(n)*each // grace periods, then a pass that copies and one that compares
	return nil
}

// countEntries counts those of a hash, and the last one of an array that is not zero.
func countEntries(m *ebpf.Map) (n uint64, err error) {
	if m.Type() == ebpf.Array {
		return lastUsed(m)
	}
	err = eachBatch(m, func(_, _ []byte, count int) error {
		n += uint64(count)
		return nil
	})
	return n, err
}

// footprint estimates the memory of a map, in bytes.
func footprint(s *ebpf.MapSpec) uint64 {
	each := uint64((s.KeySize+7)&^7) + uint64((s.ValueSize+7)&^7)
	switch s.Type {
	case ebpf.Array:
		each = uint64((s.ValueSize + 7) &^ 7)
	case ebpf.Hash, ebpf.LRUHash:
		each += 64
	}
	if s.Flags&1 != 0 { // BPF_F_NO_PREALLOC: buckets only
		each = 16
	}
	return each * uint64(s.MaxEntries)
}
