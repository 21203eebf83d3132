// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

// place is where a map belongs.
type place struct {
	step Step
	path string
	want *ebpf.MapSpec // nil where only its own release knows
	mine bool          // it was made by this very release

	frozen bool // so it may have more room than is wanted
}

// settle makes sure that the map in a place is there, is the one that the programs use, and has the wanted layout. It
// returns the map, or nil if there is none to be had.
func (a *adoption) settle(p place, m *ebpf.Map) (*ebpf.Map, error) {
	id := a.wiring[p.path]
	var err error
	switch {
	case m == nil && a.isStray(p.path):
		return nil, nil
	case m == nil && id != 0:
		if m, err = ebpf.NewMapFromID(id); err != nil {
			return nil, fmt.Errorf("open map %d: %w", id, err)
		}
		a.pinAgain(p.step, p.path, m)
	case m == nil && p.mine && !a.object.referenced(p.want.Name):
		// What no program uses nothing that serves can miss. Its contents went with its last name.
		if m, err = ebpf.NewMap(a.object.roomy(p.want)); err != nil {
			return nil, fmt.Errorf("create map %s: %w", p.want.Name, err)
		}
		a.pinAgain(p.step, p.path, m)
	case m == nil:
		a.missing(p.path, describeMap(p.want), p.mine)
		return nil, nil
	case id != 0 && id != mapID(m):
		a.damage(p.path, fmt.Sprintf("it is map %d, the programs use %d", mapID(m), id), evict)
		return m, nil
	}
	if p.want == nil {
		return m, nil
	}
	if p.frozen {
		p.want = within(p.want, m)
	}
	expected, found, err := compareMap(p.want, m)
	if err != nil {
		return m, fmt.Errorf("compare %s: %w", p.path, err)
	}
	switch {
	case expected == found:
	case p.mine: // this release made it otherwise
		a.damage(p.path, fmt.Sprintf("it is %s, not %s", found, expected), evict)
	default:
		change := Change{Name: p.path, Expected: expected, Found: found}
		if resized := p.want.Copy(); m.MaxEntries() != resized.MaxEntries {
			resized.MaxEntries = m.MaxEntries()
			if expected, found, err := compareMap(resized, m); err == nil && expected == found {
				change.Entries = [2]uint32{p.want.MaxEntries, m.MaxEntries()}
			}
		}
		a.changes = append(a.changes, change)
	}
	return m, nil
}

func (a *adoption) lookAtCommon() error {
	serving := a.generations[a.word().Serve()]
	for _, name := range a.object.Frozen {
		want := a.object.spec.Maps[name]
		p := place{StepPinMap, join(pathMaps, name), want, a.same, true}
		m, err := a.settle(p, a.maps[name])
		if m != nil {
			a.maps[name] = m
		}
		if err != nil {
			return err
		}
		if had := serving.limit(name); m != nil && had != 0 && had != want.MaxEntries && m.MaxEntries() >= want.MaxEntries {
			a.changes = append(a.changes, Change{Name: p.path, Expected: fmt.Sprintf("a limit of %d entries", want.MaxEntries),
				Found: fmt.Sprintf("one of %d", had), Entries: [2]uint32{want.MaxEntries, had}})
		}
	}
	for name := range a.maps {
		if !slices.Contains(a.object.Frozen, name) {
			a.extra(join(pathMaps, name), a.same)
		}
	}
	for _, h := range a.hooks {
		want := a.origins[h.Name].spec.Maps[callsName(h.Name)]
		m, err := a.settle(place{StepPinCalls, join(pathCalls, h.Name), want, a.same, false}, a.calls[h.Name])
		if m != nil {
			a.calls[h.Name] = m
		}
		if err != nil {
			return err
		}
	}
	for name := range a.calls {
		if !slices.ContainsFunc(a.hooks, func(h Hook) bool { return h.Name == name }) && !a.orphaned(name) {
			a.extra(join(pathCalls, name), a.same)
		}
	}
	if id := a.wiring[pathSuper]; id != 0 && id != mapID(a.super.m) {
		a.damage(pathSuper, fmt.Sprintf("it is map %d, the programs use %d", mapID(a.super.m), id), evict)
	}
	return nil
}

// extra files something that the tree has and the release does not know, in a part that it made or did not.
func (a *adoption) extra(path string, mine bool) {
	if mine {
		a.damage(path, "this release did not put it there", evict)
		return
	}
	a.changes = append(a.changes, Change{Name: path, Expected: "not there", Found: "there"})
}
