// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/cilium/ebpf"
)

// A pin that somebody removed is a name that is gone; the object lives on as long as a program or a link holds it, and
// can be given its name again. Maps are found by the programs that hold them, programs by the links and prog arrays.

// rescueSuper finds super through any entry program, pinned or attached, for each reads it. It returns false if there
// is none.
func (v *view) rescueSuper() (bool, error) {
	for _, hook := range v.hooks() {
		p := v.entries[hook]
		if p == nil {
			attached, err := v.rescueEntry(hook)
			if err != nil || attached == nil {
				continue // another may do
			}
			defer attached.Close()
			p = attached
		}
		held, err := v.uses(p)
		if err != nil {
			return false, err
		}
		if held[superMapSuper] == 0 {
			continue
		}
		m, err := ebpf.NewMapFromID(held[superMapSuper])
		if err != nil {
			return false, fmt.Errorf("open map %d: %w", held[superMapSuper], err)
		}
		if v.super, err = openSuper(m); err == nil {
			return true, nil
		}
	}
	return false, nil
}

// rescueEntry finds the entry program of a hook through what it is attached by. It returns nil if nothing attaches it.
func (v *view) rescueEntry(hook string) (*ebpf.Program, error) {
	if l := v.links[hook]; l != nil {
		return programByID(l.info.Program)
	}
	for _, pod := range sortedKeys(v.pods) {
		l, err := openLink(v.tree, join(pathPods, pod, hook))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		program := l.info.Program
		l.Close()
		return programByID(program)
	}
	return nil, nil
}

func programByID(id ebpf.ProgramID) (*ebpf.Program, error) {
	p, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", id, err)
	}
	return p, nil
}

// wiring is which map every path of the tree should hold, as the programs see it.
type wiring map[string]ebpf.MapID

// wire follows the programs of the tree to the maps that they hold. common tells the maps that all generations share
// from those of one. Two programs that hold different maps for one path do not belong together: that is damage.
func (v *view) wire(common func(name string) bool) (wiring, []Damage, error) {
	w := make(wiring)
	var damages []Damage
	follow := func(p *ebpf.Program, from, own string) error {
		held, err := v.uses(p)
		if err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		for name, id := range held {
			path := own + "/" + name
			switch {
			case internal(name):
				continue
			case common(name):
				path = commonPath(name)
			}
			if other, ok := w[path]; ok && other != id {
				what := fmt.Sprintf("it uses another map %s (%d) than the rest (%d)", path, id, other)
				damages = append(damages, Damage{from, what, evict})
				continue
			}
			w[path] = id
		}
		return nil
	}
	for _, l := range v.links {
		if l.at != Sockhash || l.defunct {
			continue
		}
		name, err := v.nameOf(ebpf.MapID(l.target))
		if err != nil {
			return nil, nil, err
		}
		w[commonPath(name)] = ebpf.MapID(l.target)
	}
	for _, hook := range sortedKeys(v.entries) {
		if err := follow(v.entries[hook], join(pathEntries, hook), pathMaps); err != nil {
			return nil, nil, err
		}
	}
	for _, n := range sortedKeys(v.generations) {
		g := v.generations[n]
		if g.Role() != RolePlain {
			continue // its programs hold maps of two layouts, which may have one name
		}
		for _, name := range sortedKeys(g.Programs) {
			path := generationPath(n)
			if err := follow(g.Programs[name], join(path, "progs", name), join(path, "maps")); err != nil {
				return nil, nil, err
			}
		}
	}
	return w, damages, nil
}

func commonPath(name string) string {
	if name == superMapSuper {
		return pathSuper
	}
	if hook, ok := strings.CutPrefix(name, callsName("")); ok {
		return join(pathCalls, hook)
	}
	return join(pathMaps, name)
}
