// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/bpf/rcu"
)

// addHooks makes entries for hooks that the release before did not have. The generation that has them is published
// already, so whoever finds half of this knows what it belongs to. They are attached once it serves.
func (s *Store) addHooks() error {
	for _, h := range s.release.Hooks {
		if slices.ContainsFunc(s.hooks, func(x Hook) bool { return x.Name == h.Name }) {
			continue
		}
		if s.view.calls[h.Name] == nil {
			m, err := ebpf.NewMap(s.release.spec.Maps[callsName(h.Name)])
			if err != nil {
				return fmt.Errorf("create prog array of hook %s: %w", h.Name, err)
			}
			s.view.calls[h.Name] = m
			path := join(pathCalls, h.Name)
			if err := s.journal.do(StepPinCalls, path, func() error { return pin(m, s.at(path)) }); err != nil {
				return err
			}
		}
		kind := s.release.spec.Programs[h.Entry].Type
		for _, n := range sortedKeys(s.view.generations) {
			if err := s.letPass(s.view.generations[n], h, kind); err != nil {
				return err
			}
		}
		s.hooks = append(slices.Clone(s.hooks), h)
		for _, n := range sortedKeys(s.view.generations) {
			if err := s.fill(s.view.generations[n]); err != nil {
				return err
			}
		}
		if s.view.entries[h.Name] == nil {
			p, err := s.release.loadOne(0, h.Entry, s.view.common())
			if err != nil {
				return err
			}
			if err := s.keepEntry(h, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// letPass gives a generation a program at a hook that its release does not have.
func (s *Store) letPass(g *Generation, h Hook, kind ebpf.ProgramType) error {
	if !g.lacks(h) && g.record != nil || g.main(h) != nil {
		return nil
	}
	p, err := passProgram(h, kind)
	if err != nil {
		return err
	}
	name := passName(h.Name)
	g.Programs[name] = p
	path := join(generationPath(g.Number), "progs", name)
	return s.journal.do(StepPinProgram, path, func() error { return pin(p, s.at(path)) })
}

// attachNew attaches hooks of the whole node that are not attached yet, if the generation that serves has them.
func (s *Store) attachNew(ctx context.Context) error {
	serving := s.view.generations[s.Word().Serve()]
	off, _, err := s.detached()
	if err != nil {
		return err
	}
	for _, h := range off {
		if serving.lacks(h) {
			continue
		}
		if err := s.attach(ctx, h, s.inside); err != nil {
			return err
		}
	}
	return nil
}

// orphans are the hooks that no generation but n has.
func (s *Store) orphans(n uint16) (orphans []Hook) {
	for _, h := range s.hooks {
		needed := false
		for other, g := range s.view.generations {
			needed = needed || other != n && !g.lacks(h)
		}
		if !needed {
			orphans = append(orphans, h)
		}
	}
	return orphans
}

// dropHooks takes hooks off for good: links first, then entries, and prog arrays once no entry program runs that would
// find them empty. The generation that has the hooks goes after them: only its release tells whose they are, so nobody
// could make sense of what is left of them without it.
func (s *Store) dropHooks(ctx context.Context, hooks []Hook) error {
	if len(hooks) == 0 {
		return nil
	}
	if err := s.dropEntries(ctx, hooks); err != nil {
		return err
	}
	if err := rcu.Synchronize(); err != nil {
		return fmt.Errorf("take hooks off: %w", err)
	}
	if err := s.dropCalls(hooks); err != nil {
		return err
	}
	s.hooks = slices.DeleteFunc(slices.Clone(s.hooks), func(h Hook) bool {
		return slices.ContainsFunc(hooks, func(x Hook) bool { return x.Name == h.Name })
	})
	return nil
}

func (s *Store) dropEntries(ctx context.Context, hooks []Hook) error {
	r := &removal{tree: s.view.tree, journal: s.journal}
	for _, h := range hooks {
		if l := s.view.links[h.Name]; l != nil {
			err := l.takeOff()
			l.Close()
			delete(s.view.links, h.Name)
			if err != nil {
				return fmt.Errorf("detach %s: %w", join(pathLinks, h.Name), err)
			}
		}
		if h.At.node() {
			if err := r.unpinIf(join(pathLinks, h.Name)); err != nil {
				return err
			}
		} else if err := s.detachPods(ctx, h.Name); err != nil {
			return err
		}
		if p := s.view.entries[h.Name]; p != nil {
			p.Close()
			delete(s.view.entries, h.Name)
		}
		if err := r.unpinIf(join(pathEntries, h.Name)); err != nil {
			return err
		}
	}
	return nil
}

// unpinIf unpins what may be there.
func (r *removal) unpinIf(path string) error {
	if _, err := os.Lstat(r.tree.at(path)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return r.unpin(path)
}

func (s *Store) detachPods(ctx context.Context, hook string) error {
	p := s.pods()
	pods, err := p.List()
	if err != nil {
		return err
	}
	for _, pod := range pods {
		if err := p.takeOff(join(pathPods, pod, hook)); err != nil {
			return err
		}
		if err := p.Detach(ctx, pod, hook); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) dropCalls(orphans []Hook) error {
	r := &removal{tree: s.view.tree, journal: s.journal}
	for _, h := range orphans {
		if m := s.view.calls[h.Name]; m != nil {
			m.Close()
			delete(s.view.calls, h.Name)
		}
		if err := r.unpinIf(join(pathCalls, h.Name)); err != nil {
			return err
		}
		for _, n := range sortedKeys(s.view.generations) {
			g, name := s.view.generations[n], passName(h.Name)
			if g.Programs[name] == nil {
				continue
			}
			if err := r.unpin(join(generationPath(n), "progs", name)); err != nil {
				return err
			}
			g.Programs[name].Close()
			delete(g.Programs, name)
		}
	}
	return nil
}
