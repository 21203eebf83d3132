// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// create makes a data plane in a tree that holds nothing, or only super. Everything is pinned before anything can
// reach it, and the links come after the word: a kill at any point leaves either what nothing runs, which the next
// owner discards, or a data plane that serves and lacks some links, which it attaches.
func (s *Store) create(ctx context.Context, cgroup *os.File) error {
	if err := s.createSuper(); err != nil {
		return err
	}
	for _, path := range directories {
		err := s.journal.do(StepMakeDirectory, path, func() error { return os.Mkdir(s.at(path), 0o700) })
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := s.createCommon(); err != nil {
		return err
	}
	const first = 1
	s.hooks = s.object.Hooks
	g, err := s.build(blueprint{object: s.object, number: first})
	if err != nil {
		return err
	}
	if err := s.createEntries(); err != nil {
		return err
	}
	word := s.Word()
	next := word.Upgrade(first)
	err = s.journal.do(StepSwapWord, next.String(), func() error { return s.view.super.swap(word, next) })
	if err != nil {
		return err
	}
	for _, h := range s.object.Hooks {
		if h.At.node() {
			if err := s.attach(ctx, h, cgroup); err != nil {
				return err
			}
		}
	}
	s.same, s.created = true, true
	err = s.journal.do(StepLinkCurrent, pathCurrent, func() error { return s.view.tree.linkCurrent(first) })
	if err != nil {
		return err
	}
	return s.tell(KindInstall, 0, first, s.object.digest, "%s", g.record.name())
}

func (s *Store) at(path string) string { return s.view.tree.at(path) }

func (s *Store) createSuper() error {
	if s.view.super != nil {
		return nil
	}
	m, err := createSuper()
	if err != nil {
		return err
	}
	err = s.journal.do(StepPinSuper, pathSuper, func() error { return pin(m, s.at(pathSuper)) })
	if err != nil {
		m.Close()
		return err
	}
	if s.view.super, err = openSuper(m); err != nil {
		return fmt.Errorf("open super: %w", err)
	}
	if err := s.view.super.arm(); err != nil {
		return err
	}
	return s.own()
}

func (s *Store) createCommon() error {
	one := func(name, path string, step Step) (*ebpf.Map, error) {
		m, err := ebpf.NewMap(s.object.roomy(s.object.spec.Maps[name]))
		if err != nil {
			return nil, fmt.Errorf("create map %s: %w", name, err)
		}
		return m, s.journal.do(step, path, func() error { return pin(m, s.at(path)) })
	}
	for _, name := range s.object.Frozen {
		m, err := one(name, join(pathMaps, name), StepPinMap)
		if m != nil {
			s.view.maps[name] = m
		}
		if err != nil {
			return err
		}
	}
	for _, h := range s.object.Hooks {
		m, err := one(callsName(h.Name), join(pathCalls, h.Name), StepPinCalls)
		if m != nil {
			s.view.calls[h.Name] = m
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// createEntries loads the entry programs together, which reads the types of the object and of the kernel once.
func (s *Store) createEntries() error {
	var names []string
	for _, h := range s.object.Hooks {
		names = append(names, h.Entry)
	}
	loaded, err := s.object.load(0, names, nil, s.view.common())
	if err != nil {
		return err
	}
	defer loaded.Close()
	for _, h := range s.object.Hooks {
		p := loaded.Programs[h.Entry]
		delete(loaded.Programs, h.Entry)
		if err := s.keepEntry(h, p); err != nil {
			return err
		}
	}
	return nil
}

// keepEntry owns and pins the entry program of a hook.
func (s *Store) keepEntry(h Hook, p *ebpf.Program) error {
	s.view.entries[h.Name] = p
	path := join(pathEntries, h.Name)
	return s.journal.do(StepPinEntry, path, func() error { return pin(p, s.at(path)) })
}

// linkCurrent points the symbolic link for people to a generation.
func (t tree) linkCurrent(n uint16) error {
	beside := t.at(pathCurrent + suffixNew)
	if err := os.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(generationPath(n), beside); err != nil {
		return err
	}
	return unix.Rename(beside, t.at(pathCurrent))
}
