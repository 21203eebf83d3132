// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// loadLost loads programs anew that are held by nothing any more. A generation's can only be loaded from the release
// that it was made of; entry programs are the same in all releases that know the pinned layout.
func (a *adoption) loadLost() error {
	if len(a.damages)+len(a.changes) > 0 {
		return nil // it is off anyway, and maps may be missing
	}
	for _, h := range a.hooks {
		path := join(pathEntries, h.Name)
		if a.entries[h.Name] != nil || a.isStray(path) {
			continue
		}
		p, err := a.origins[h.Name].loadOne(0, h.Entry, a.common())
		if err != nil {
			return err
		}
		a.entries[h.Name] = p
		a.pinAgain(StepPinEntry, path, p)
	}
	for _, n := range a.word().Live() {
		if err := a.loadLostOf(a.generations[n]); err != nil {
			return err
		}
	}
	return nil
}

func (a *adoption) loadLostOf(g *Generation) error {
	o, err := a.originOf(g)
	if err != nil {
		return err
	}
	for _, h := range a.hooks {
		name := passName(h.Name)
		if !g.lacks(h) || g.Programs[name] != nil || a.entries[h.Name] == nil {
			continue
		}
		p, err := passProgram(h, a.entries[h.Name].Type())
		if err != nil {
			return err
		}
		g.Programs[name] = p
		a.pinAgain(StepPinProgram, join(generationPath(g.Number), "progs", name), p)
	}
	names := a.object.Programs // the hooks of a release that is not known have what it gave them
	if o != nil {
		names = o.programs()
	}
	for _, name := range names {
		path := join(generationPath(g.Number), "progs", name)
		switch {
		case g.Programs[name] != nil || a.isStray(path):
			continue
		case o == nil:
			a.missing(path, "a program", false)
			continue
		}
		use := a.common()
		for m, fd := range g.Maps {
			use[m] = fd
		}
		p, err := o.loadOne(g.Number, name, use)
		if err != nil {
			return err
		}
		g.Programs[name] = p
		a.pinAgain(StepPinProgram, path, p)
	}
	return nil
}

// originOf is the release that a generation was loaded from, nil if it is not known, or a bridge.
func (a *adoption) originOf(g *Generation) (*object, error) {
	if a.mine(g) {
		return a.object, nil
	}
	if g.record == nil || g.Role() != RolePlain {
		return nil, nil
	}
	o, err := readObject(g.record.plane())
	if err != nil {
		return nil, fmt.Errorf("release of generation %d: %w", g.Number, err)
	}
	return o, nil
}

// common lists the maps that all generations share, by their names in the object.
func (v *view) common() map[string]*ebpf.Map {
	all := map[string]*ebpf.Map{superMapSuper: v.super.m}
	for name, m := range v.maps {
		all[name] = m
	}
	for hook, m := range v.calls {
		all[callsName(hook)] = m
	}
	return all
}

// loadOne loads a single program, which the caller owns.
func (o *object) loadOne(generation uint16, name string, use map[string]*ebpf.Map) (*ebpf.Program, error) {
	all, err := o.load(generation, []string{name}, nil, use)
	if err != nil {
		return nil, err
	}
	p := all.Programs[name]
	delete(all.Programs, name)
	all.Close()
	return p, nil
}

// lookAtPlaces compares the prog arrays with the generations: slots that are empty are filled, those of places that no
// generation has are cleared.
func (a *adoption) lookAtPlaces() error {
	if len(a.damages)+len(a.changes) > 0 {
		return nil
	}
	for _, h := range a.hooks {
		occupied := make(map[uint16]bool)
		for _, n := range sortedKeys(a.generations) {
			occupied[n%places] = true
			if err := a.lookAtSlot(h, a.generations[n]); err != nil {
				return err
			}
		}
		for place := range places {
			if occupied[place] {
				continue
			}
			if err := a.clearPlace(h, place); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *adoption) lookAtSlot(h Hook, g *Generation) error {
	calls, program := a.calls[h.Name], g.main(h)
	id, err := slot(calls, Base(g.Number))
	if err != nil {
		return err
	}
	path := fmt.Sprintf("%s/%d", join(pathCalls, h.Name), Base(g.Number))
	switch {
	case program != nil && id == programID(program), !a.mine(g) && g.has(id):
	case id != 0: // which of the two is the right one cannot be known, and the one in the slot serves
		what := fmt.Sprintf("it holds program %d, which is not pinned in %s/progs", id, generationPath(g.Number))
		a.damage(path, what, evict)
	case program == nil:
		a.damage(path, fmt.Sprintf("it is empty, and this release does not know what generation %d had there", g.Number),
			"start the agent of the release that made the generation")
	default:
		a.repair(StepFillSlot, path, func() error { return calls.Put(Base(g.Number), program) })
	}
	return nil
}

func (a *adoption) clearPlace(h Hook, place uint16) error {
	calls := a.calls[h.Name]
	for index := Base(place); index < Base(place)+uint32(slotsEach); index++ {
		id, err := slot(calls, index)
		if err != nil {
			return err
		}
		if id != 0 {
			path := fmt.Sprintf("%s/%d", join(pathCalls, h.Name), index)
			a.repair(StepClearSlot, path, func() error { return calls.Delete(index) })
		}
	}
	return nil
}
