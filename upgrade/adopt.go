// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/cilium/ebpf"
)

// adoption is what taking over a tree takes. It is worked out by reading only; whatever speaks against it is found
// before anything is written.
type adoption struct {
	*view
	object   *object
	cgroup   uint64 // id of the cgroup to be attached to
	same     bool   // the generation that serves is of this very release
	wiring   wiring
	damages  []Damage
	changes  []Change
	repairs  []repair
	attaches []Hook // hooks of the whole node that are to be attached, in order
	emptied  bool   // a prog array had lost its last name
}

// repair is a step that makes the tree whole again.
type repair struct {
	step Step
	path string
	do   func() error
}

// examine compares a tree that serves with a release. It returns a [DamageError] or [RefusedError] if the release
// cannot work with it.
func examine(v *view, o *object, cgroup uint64) (*adoption, error) {
	a := &adoption{view: v, object: o, cgroup: cgroup}
	a.same = v.super.digest(v.word().Serve()) == o.digest
	for _, s := range v.stray {
		a.damages = append(a.damages, s.damage())
	}
	for _, look := range []func() error{
		a.lookAtDirectories, a.lookAtEntries, a.lookAtSlots, a.wireUp,
		a.lookAtCommon, a.lookAtGenerations, a.loadLost, a.lookAtLinks, a.lookAtPlaces, a.lookAtCurrent,
	} {
		if err := look(); err != nil {
			return nil, fmt.Errorf("examine %s: %w", v.tree, err)
		}
	}
	if len(a.damages) > 0 {
		return nil, &DamageError{string(v.tree), a.damages}
	}
	if len(a.changes) > 0 {
		return nil, &RefusedError{a.changes}
	}
	return a, nil
}

func (a *adoption) damage(path, what, fix string) {
	a.damages = append(a.damages, Damage{path, what, fix})
}

// missing files something that the release needs and the tree has not: damage if this release had made it, else a
// change.
func (a *adoption) missing(path, kind string, mine bool) {
	if mine {
		a.damage(path, "it is gone and nothing refers to it any more", "uninstall, then start the agent")
		return
	}
	a.changes = append(a.changes, Change{Name: path, Expected: kind, Found: "not there"})
}

func (a *adoption) repair(step Step, path string, do func() error) {
	a.repairs = append(a.repairs, repair{step, path, do})
}

func (a *adoption) pinAgain(step Step, path string, object pinned) {
	a.repair(step, path, func() error { return pin(object, a.tree.at(path)) })
}

func (a *adoption) lookAtDirectories() error {
	paths := slices.Clone(directories[:])
	for _, n := range a.word().Live() {
		if a.generations[n] == nil {
			a.generations[n] = newGeneration(n)
		}
		paths = append(paths, generationPath(n), generationPath(n)+"/maps", generationPath(n)+"/progs")
	}
	for _, path := range paths {
		_, err := os.Lstat(a.tree.at(path))
		if errors.Is(err, fs.ErrNotExist) {
			a.repair(StepMakeDirectory, path, func() error { return os.Mkdir(a.tree.at(path), 0o700) })
		} else if err != nil {
			return err
		}
	}
	_, err := os.Lstat(a.tree.at(pathSuper))
	if errors.Is(err, fs.ErrNotExist) {
		a.pinAgain(StepPinSuper, pathSuper, a.super.m)
		return nil
	}
	return err
}

// lookAtEntries finds the entry programs; those that are attached nowhere any more are loaded later.
func (a *adoption) lookAtEntries() error {
	for _, h := range a.object.Hooks {
		path := join(pathEntries, h.Name)
		if a.isStray(path) {
			continue
		}
		if a.entries[h.Name] == nil {
			p, err := a.rescueEntry(h.Name)
			if err != nil {
				return err
			}
			if p == nil {
				continue
			}
			a.entries[h.Name] = p
			a.pinAgain(StepPinEntry, path, p)
		}
		if err := a.checkProgram(path, a.object.spec.Programs[h.Entry], a.entries[h.Name]); err != nil {
			return err
		}
	}
	for name := range a.entries {
		if !slices.ContainsFunc(a.object.Hooks, func(h Hook) bool { return h.Name == name }) {
			a.extra(join(pathEntries, name), a.same)
		}
	}
	return nil
}

// lookAtSlots finds lost main programs of live generations through the prog arrays, before anything asks for them. The
// arrays are those that the entry programs jump through, whatever is pinned.
func (a *adoption) lookAtSlots() error {
	for _, h := range a.object.Hooks {
		entry := a.entries[h.Name]
		if entry == nil {
			continue
		}
		if err := a.rescueCalls(h, entry); err != nil {
			return err
		}
		for _, n := range a.word().Live() {
			if err := a.rescueMain(a.generations[n], h); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *adoption) rescueMain(g *Generation, h Hook) error {
	path := join(generationPath(g.Number), "progs", h.Program)
	if a.calls[h.Name] == nil || g.Programs[h.Program] != nil || a.isStray(path) {
		return nil
	}
	id, err := slot(a.calls[h.Name], Base(g.Number))
	if err != nil || id == 0 || g.has(id) { // another release may have given it another name
		return err
	}
	p, err := programByID(id)
	if err != nil || p == nil {
		return err
	}
	g.Programs[h.Program] = p
	a.pinAgain(StepPinProgram, path, p)
	return nil
}

func (a *adoption) rescueCalls(h Hook, entry *ebpf.Program) error {
	path := join(pathCalls, h.Name)
	if a.calls[h.Name] != nil || a.isStray(path) {
		return nil
	}
	held, err := a.uses(entry)
	if err != nil {
		return err
	}
	if id := held[callsName(h.Name)]; id != 0 {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return fmt.Errorf("open map %d: %w", id, err)
		}
		a.calls[h.Name] = m
		a.emptied = true
		a.pinAgain(StepPinCalls, path, m)
	}
	return nil
}

func (a *adoption) wireUp() error {
	w, damages, err := a.wire(a.object.common)
	a.wiring, a.damages = w, append(a.damages, damages...)
	return err
}

// place is where a map belongs.
type place struct {
	step Step
	path string
	want *ebpf.MapSpec // nil where only its own release knows
	mine bool          // it was made by this very release
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
		if m, err = ebpf.NewMap(p.want); err != nil {
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
	for _, name := range a.object.Frozen {
		m, err := a.settle(place{StepPinMap, join(pathMaps, name), a.object.spec.Maps[name], a.same}, a.maps[name])
		if m != nil {
			a.maps[name] = m
		}
		if err != nil {
			return err
		}
	}
	for name := range a.maps {
		if !slices.Contains(a.object.Frozen, name) {
			a.extra(join(pathMaps, name), a.same)
		}
	}
	for _, h := range a.object.Hooks {
		want := a.object.spec.Maps[callsName(h.Name)]
		m, err := a.settle(place{StepPinCalls, join(pathCalls, h.Name), want, a.same}, a.calls[h.Name])
		if m != nil {
			a.calls[h.Name] = m
		}
		if err != nil {
			return err
		}
	}
	for name := range a.calls {
		if !slices.ContainsFunc(a.object.Hooks, func(h Hook) bool { return h.Name == name }) {
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
