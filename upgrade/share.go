// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/upgrade/migrate"
)

// shared are the maps that the next generation has in common with the one that serves.
func (p *Plan) shared(from *Generation) map[string]*ebpf.Map {
	use := make(map[string]*ebpf.Map)
	for _, m := range p.Maps {
		if m.Action == ActionKeep && from.Maps[m.Name] != nil {
			use[m.Name] = from.Maps[m.Name]
		}
	}
	for name, m := range from.Maps { // what an older layout had no place for, for whoever comes after
		if migrate.IsSide(name) && use[name] == nil {
			use[name] = m
		}
	}
	return use
}

// before are the maps that the release before goes on with: what is shared, and what only it has.
func (p *Plan) before(from *Generation, o *object) map[string]*ebpf.Map {
	use := p.shared(from)
	for _, m := range p.Maps {
		if m.Action == ActionRemove && !slices.Contains(o.Private, m.Name) {
			use[m.Name] = from.Maps[m.Name]
		}
	}
	return use
}

// filler copies what only the owner writes.
func (p *Plan) filler(from *Generation) func(*Generation) error {
	return func(g *Generation) error {
		for _, m := range p.Maps {
			if m.Action != ActionCopy || g.Maps[m.Name] == nil || from.Maps[m.Name] == nil {
				continue
			}
			if err := copyMap(from.Maps[m.Name], g.Maps[m.Name]); err != nil {
				return fmt.Errorf("rebuild map %s: %w", m.Name, err)
			}
		}
		return nil
	}
}

// createFrozen makes maps that all generations are to share and that the release before did not have.
func (s *Store) createFrozen(p *Plan) error {
	for _, name := range s.release.Frozen {
		if s.view.maps[name] != nil {
			continue
		}
		m, err := ebpf.NewMap(s.release.roomy(s.release.spec.Maps[name]))
		if err != nil {
			return fmt.Errorf("create map %s: %w", name, err)
		}
		path := join(pathMaps, name)
		if err := s.journal.do(StepPinMap, path, func() error { return pin(m, s.at(path)) }); err != nil {
			m.Close()
			return err
		}
		more := maps.Clone(s.view.maps)
		more[name] = m
		s.naming.Lock()
		s.view.maps = more
		s.naming.Unlock()
	}
	return nil
}
