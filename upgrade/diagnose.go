// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/upgrade/migrate"
)

// restart is what to do about damage that the next owner repairs.
const restart = "restart the agent: it repairs this"

// reattach is what to do about a hook that is not attached.
const reattach = "the agent attaches it again, start it if none runs"

// diagnose lists what is wrong with a tree as far as the tree itself tells, without knowing the release.
func (v *view) diagnose() ([]Damage, error) {
	var all []Damage
	add := func(path, what, fix string) { all = append(all, Damage{path, what, fix}) }
	for _, s := range v.stray {
		all = append(all, s.damage())
	}
	if v.super == nil {
		if !v.isStray(pathSuper) {
			add(pathSuper, "it is gone", restart)
		}
		return all, nil
	}
	if v.word().Serve() == 0 {
		add(pathSuper, "no generation serves", "start the agent: it creates one")
		return all, nil
	}
	for _, hook := range v.hooks() {
		damages, err := v.diagnoseHook(hook)
		if err != nil {
			return nil, err
		}
		all = append(all, damages...)
	}
	for _, n := range v.word().Live() {
		switch g := v.generations[n]; {
		case v.isStray(generationPath(n)) || v.isStray(pathGen):
		case g == nil:
			add(generationPath(n), "it is gone, though connections may run it", restart)
		case g.record == nil && !v.isStray(releasePath(n)):
			add(releasePath(n), "it is gone: no other release could go on from it",
				"start the agent of the release that made the generation: it writes it down again")
		}
	}
	lost, err := v.diagnoseMaps()
	return append(append(all, lost...), v.diagnoseExtras()...), err
}

// diagnoseExtras lists what no release that was written down knows: the next agent will not start beside it. While a
// generation is made or given up nobody can tell, nor where the release of one was not kept. What belongs to hooks comes
// after the generation that has them and goes before it, so what is there still belongs to one that was seen.
func (v *view) diagnoseExtras() (all []Damage) {
	serve := v.word().Serve()
	if v.generations[serve] == nil || v.super.phase().state() != phaseIdle || len(v.building) > 0 {
		return nil
	}
	hooks, frozen := make(map[string]bool), make(map[string]bool)
	for _, g := range v.generations {
		if g.record == nil {
			return nil
		}
		for _, h := range g.record.Hooks {
			hooks[h.Name] = true
		}
		for _, name := range g.record.Frozen {
			frozen[name] = true
		}
	}
	add := func(dir string, names []string, known func(name string) bool) {
		for _, name := range names {
			path := join(dir, name)
			if _, err := os.Lstat(v.tree.at(path)); !known(name) && err == nil {
				all = append(all, Damage{path, "no release put it there", evict})
			}
		}
	}
	isHook := func(name string) bool { return hooks[name] }
	add(pathMaps, sortedKeys(v.maps), func(name string) bool { return frozen[name] })
	add(pathCalls, sortedKeys(v.calls), isHook)
	add(pathEntries, sortedKeys(v.entries), isHook)
	g := v.generations[serve]
	own, path := g.record.Sizes, generationPath(serve)
	add(join(path, "maps"), sortedKeys(g.Maps), func(name string) bool {
		_, has := own[name]
		return has && !frozen[name] || migrate.IsSide(name)
	})
	add(join(path, "progs"), sortedKeys(g.Programs), func(name string) bool {
		isMain := func(h Hook) bool { return h.Program == name }
		return slices.Contains(g.record.Programs, name) || slices.ContainsFunc(g.record.Hooks, isMain) ||
			strings.HasPrefix(name, passName(""))
	})
	return all
}

func (v *view) diagnoseHook(hook string) ([]Damage, error) {
	var all []Damage
	add := func(path, what string) { all = append(all, Damage{path, what, restart}) }
	calls, entry, l := v.calls[hook], v.entries[hook], v.links[hook]
	if entry == nil && !v.isStray(join(pathEntries, hook)) {
		add(join(pathEntries, hook), "it is gone")
	}
	if entry != nil {
		reads, err := holds(entry, mapID(v.super.m))
		if err != nil {
			return nil, err
		}
		if !reads {
			all = append(all, Damage{join(pathEntries, hook), "it does not read super", evict})
		}
	}
	switch path := join(pathLinks, hook); {
	case v.isStray(path):
	case l == nil && entryAt(entry).node():
		all = append(all, Damage{path, "it is gone: traffic does not pass the hook", reattach})
	case l != nil && l.dying:
		what := "its cgroup was removed, only sockets that were made in it pass the hook still"
		all = append(all, Damage{path, what, reattach})
	case l != nil && l.defunct:
		what := fmt.Sprintf("it is detached, or its %s is gone: traffic does not pass the hook", l.at)
		all = append(all, Damage{path, what, reattach})
	case l != nil && entry != nil && l.info.Program != programID(entry):
		all = append(all, Damage{path, "it attaches something else than the entry program",
			evict})
	}
	if calls == nil {
		if !v.isStray(join(pathCalls, hook)) {
			add(join(pathCalls, hook), "it is gone, and its slots with it: enrolled traffic is refused")
		}
		return all, nil
	}
	for _, n := range v.word().Live() {
		id, err := slot(calls, Base(n))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", join(pathCalls, hook), err)
		}
		path := fmt.Sprintf("%s/%d", join(pathCalls, hook), Base(n))
		switch {
		case id == 0:
			add(path, fmt.Sprintf("the slot of generation %d is empty: its traffic is refused", n))
		case v.generations[n] != nil && !v.generations[n].has(id):
			add(path, fmt.Sprintf("program %d in it is not pinned in %s/progs", id, generationPath(n)))
		}
	}
	return all, nil
}

func (g *Generation) has(id ebpf.ProgramID) bool {
	for _, p := range g.Programs {
		if programID(p) == id {
			return true
		}
	}
	return false
}

// diagnoseMaps lists maps that programs use and that are not where they should be.
func (v *view) diagnoseMaps() ([]Damage, error) {
	held := make(map[string]bool) // by entry programs, so by all generations
	for _, p := range v.entries {
		names, err := v.uses(p)
		if err != nil {
			return nil, err
		}
		for name := range names {
			held[name] = true
		}
	}
	w, all, err := v.wire(func(name string) bool {
		return held[name] || v.maps[name] != nil || name == superMapSuper || strings.HasPrefix(name, callsName(""))
	})
	if err != nil {
		return nil, err
	}
	for _, path := range sortedKeys(w) {
		m := v.mapAt(path)
		switch {
		case v.isStray(path) || strings.HasPrefix(path, pathCalls) && m == nil: // said already
		case m == nil:
			all = append(all, Damage{path, fmt.Sprintf("map %d, which programs use, is not pinned there", w[path]), restart})
		case mapID(m) != w[path]:
			all = append(all, Damage{path, fmt.Sprintf("it is map %d, the programs use %d", mapID(m), w[path]),
				evict})
		}
	}
	return all, nil
}

// mapAt is the map that was found at a path of the tree.
func (v *view) mapAt(path string) *ebpf.Map {
	parts := strings.Split(path, "/")
	switch {
	case path == pathSuper && v.super != nil:
		return v.super.m
	case parts[0] == pathMaps && len(parts) == 2:
		return v.maps[parts[1]]
	case parts[0] == pathCalls && len(parts) == 2:
		return v.calls[parts[1]]
	case parts[0] == pathGen && len(parts) == 4:
		n, _ := generationOf(parts[1])
		if g := v.generations[n]; g != nil {
			return g.Maps[parts[3]]
		}
	}
	return nil
}
