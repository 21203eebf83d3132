// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/upgrade/migrate"
)

// lookAtGenerations settles maps and programs of every generation that some connection may run. One that nothing runs
// is kept if it is whole and there is something to do with it: to go back to it, or to end a move.
func (a *adoption) lookAtGenerations() error {
	live := a.word().Live()
	taken := make(map[uint16]bool)
	for _, n := range live {
		taken[n%places] = true
	}
	for _, n := range sortedKeys(a.generations) {
		g := a.generations[n]
		if !slices.Contains(live, n) {
			whole, err := a.whole(g)
			if err != nil {
				return err
			}
			if !whole || taken[n%places] {
				a.building = append(a.building, generationPath(n))
				g.close()
				delete(a.generations, n)
			}
			taken[n%places] = true
			continue
		}
		if g.Role() != RolePlain {
			continue // it is there for as long as entries move; whoever made it left it whole
		}
		if err := a.lookAtMaps(g); err != nil {
			return err
		}
		if err := a.lookAtRelease(g); err != nil {
			return err
		}
		for name, p := range g.Programs {
			path := join(generationPath(n), "progs", name)
			if hook, ok := strings.CutPrefix(name, passName("")); ok && a.origins[hook] == nil && !a.orphaned(hook) {
				a.building = append(a.building, path) // its hook is gone
				continue
			}
			if a.mine(g) && !slices.Contains(a.object.programs(), name) && !strings.HasPrefix(name, passName("")) {
				a.extra(path, true)
			} else if err := a.checkProgram(path, a.object.spec.Programs[name], p); err != nil {
				return err
			}
		}
	}
	return nil
}

// lookAtRelease writes down again what a generation of this release was loaded from. That of another cannot be known.
func (a *adoption) lookAtRelease(g *Generation) error {
	path := releasePath(g.Number)
	if g.record != nil || !a.mine(g) || a.isStray(path) {
		return nil
	}
	m, err := makeRecord(&a.object.record)
	if err != nil {
		return err
	}
	r := a.object.record
	g.record, g.text = &r, m
	a.pinAgain(StepPinRelease, path, m)
	return nil
}

// checkProgram makes sure that a program is of the kind and has the name that it should.
func (a *adoption) checkProgram(path string, want *ebpf.ProgramSpec, p *ebpf.Program) error {
	if want == nil {
		return nil // of another release
	}
	about, err := p.Info()
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	name := want.Name[:min(len(want.Name), maxName)]
	if about.Type != want.Type || about.Name != name {
		what := fmt.Sprintf("it is the %v program %q, not the %v program %q", about.Type, about.Name, want.Type, name)
		a.damage(path, what, evict)
	}
	return nil
}

// mine reports whether a generation was made of this release.
func (a *adoption) mine(g *Generation) bool { return a.super.digest(g.Number) == a.object.digest }

// whole reports whether a generation that nothing runs has all it needs to be run: the programs and maps of this
// release and nothing else in its slots, or, made of another, a main program of its own in every slot.
func (a *adoption) whole(g *Generation) (bool, error) {
	mine := a.mine(g)
	if mine {
		lacksMap := func(name string) bool { return g.Maps[name] == nil }
		lacksProgram := func(name string) bool { return g.Programs[name] == nil }
		if slices.ContainsFunc(a.object.own(), lacksMap) || slices.ContainsFunc(a.object.programs(), lacksProgram) {
			return false, nil
		}
	}
	for _, calls := range a.calls {
		id, err := slot(calls, Base(g.Number))
		if err != nil {
			return false, err
		}
		if !g.has(id) && (id != 0 || !mine) {
			return false, nil
		}
	}
	return true, nil
}

// lookAtMaps settles the maps of a live generation: those of this release if it serves or was made of it, else those
// that its own programs use.
func (a *adoption) lookAtMaps(g *Generation) error {
	dir := join(generationPath(g.Number), "maps")
	mine := a.mine(g)
	strict := mine || g.Number == a.word().Serve()
	var names []string
	if strict {
		names = a.object.own()
	}
	for path := range a.wiring {
		if name, ok := strings.CutPrefix(path, dir+"/"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		p := place{step: StepPinMap, path: join(dir, name), mine: mine}
		if strict {
			p.want = a.object.spec.Maps[name]
		}
		m, err := a.settle(p, g.Maps[name])
		if m != nil {
			g.Maps[name] = m
		}
		if err != nil {
			return err
		}
	}
	for name := range g.Maps {
		if strict && !slices.Contains(a.object.own(), name) && !migrate.IsSide(name) {
			a.extra(join(dir, name), mine)
		}
	}
	return nil
}
