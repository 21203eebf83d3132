// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// adoption is what taking over a tree takes. It is worked out by reading only; whatever speaks against it is found
// before anything is written.
type adoption struct {
	*view
	object   *object
	hooks    []Hook             // of every release that a generation was made of
	orphans  []Hook             // of generations that are about to be discarded, and of no other
	origins  map[string]*object // by hook: a release that has it
	cgroup   uint64             // id of the cgroup to be attached to
	same     bool               // the generation that serves is of this very release
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
	if err := a.gatherHooks(); err != nil {
		return nil, fmt.Errorf("examine %s: %w", v.tree, err)
	}
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
		} else if err != nil && !errors.Is(err, unix.ENOTDIR) { // of what lies above it is said already
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

// gatherHooks collects the hooks of all releases that are there: one that serves may lack some that a live generation
// has, and the other way round.
func (a *adoption) gatherHooks() error {
	a.origins = make(map[string]*object)
	doomed := a.doom()
	add := func(o *object) {
		for _, h := range o.Hooks {
			if a.origins[h.Name] == nil {
				a.hooks, a.origins[h.Name] = append(a.hooks, h), o
			}
		}
	}
	add(a.object)
	serving := a.generations[a.word().Serve()]
	for _, h := range recordedHooks(serving) {
		if a.origins[h.Name] == nil {
			a.changes = append(a.changes, Change{Name: join(pathEntries, h.Name), Expected: "not there", Found: "there"})
		}
	}
	for _, n := range sortedKeys(a.generations) {
		r := a.generations[n].record
		if r == nil || !slices.ContainsFunc(r.Hooks, func(h Hook) bool { return a.origins[h.Name] == nil }) {
			continue
		}
		o, err := readObject(r.plane())
		if err != nil {
			return fmt.Errorf("release of generation %d: %w", n, err)
		}
		add(o)
	}
	for _, h := range doomed {
		if a.origins[h.Name] == nil && !slices.ContainsFunc(a.orphans, func(x Hook) bool { return x.Name == h.Name }) {
			a.orphans = append(a.orphans, h)
		}
	}
	return nil
}

// doom takes out the generations that nothing runs and that nobody needs, and returns their hooks.
func (a *adoption) doom() (hooks []Hook) {
	phase := a.super.phase()
	for _, n := range sortedKeys(a.generations) {
		g := a.generations[n]
		if slices.Contains(a.word().Live(), n) || n == phase.Previous() || phase.state() == phaseMoving {
			continue
		}
		hooks = append(hooks, recordedHooks(g)...)
		a.building = append(a.building, generationPath(n))
		g.close()
		delete(a.generations, n)
	}
	return hooks
}

func (a *adoption) orphaned(hook string) bool {
	return slices.ContainsFunc(a.orphans, func(h Hook) bool { return h.Name == hook })
}

// native reports whether a live generation has a program of its own at a hook.
func (a *adoption) native(h Hook) bool {
	for _, n := range a.word().Live() {
		if g := a.generations[n]; g != nil && !g.lacks(h) {
			return true
		}
	}
	return false
}

func recordedHooks(g *Generation) []Hook {
	if g == nil || g.record == nil {
		return nil
	}
	return g.record.Hooks
}

// lacks reports whether a hook belongs to another release than that of a generation.
func (g *Generation) lacks(h Hook) bool {
	return g.record != nil && !slices.ContainsFunc(g.record.Hooks, func(o Hook) bool { return o.Name == h.Name })
}

// lookAtEntries finds the entry programs; those that are attached nowhere any more are loaded later.
func (a *adoption) lookAtEntries() error {
	for _, h := range a.hooks {
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
		if err := a.checkProgram(path, a.origins[h.Name].spec.Programs[h.Entry], a.entries[h.Name]); err != nil {
			return err
		}
	}
	for name := range a.entries {
		if !slices.ContainsFunc(a.hooks, func(h Hook) bool { return h.Name == name }) && !a.orphaned(name) {
			a.extra(join(pathEntries, name), a.same)
		}
	}
	return nil
}

// lookAtSlots finds lost main programs of live generations through the prog arrays, before anything asks for them. The
// arrays are those that the entry programs jump through, whatever is pinned.
func (a *adoption) lookAtSlots() error {
	for _, h := range a.hooks {
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
	name := h.Program
	if g.lacks(h) {
		name = passName(h.Name)
	}
	path := join(generationPath(g.Number), "progs", name)
	if a.calls[h.Name] == nil || g.Programs[name] != nil || a.isStray(path) {
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
	g.Programs[name] = p
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
	isCalls := func(name string) bool {
		hook, ok := strings.CutPrefix(name, callsName(""))
		return ok && (a.origins[hook] != nil || a.orphaned(hook))
	}
	w, damages, err := a.wire(func(name string) bool { return a.object.common(name) || isCalls(name) })
	a.wiring, a.damages = w, append(a.damages, damages...)
	return err
}
