// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	ebpfpin "github.com/cilium/ebpf/pin"
	"golang.org/x/sys/unix"
)

// removal takes a tree apart. Every call is good for what an earlier one left.
type removal struct {
	tree    tree
	journal *journal
	foreign []string
}

// foreigners is the error about what was left, nil if nothing was.
func (r *removal) foreigners() error {
	if len(r.foreign) == 0 {
		return nil
	}
	return &ForeignError{r.foreign}
}

// contents removes every pin but super. Links go first: what nothing reaches can be taken apart in any order.
func (r *removal) contents(s *super) error {
	if err := r.links(pathLinks, s); err != nil {
		return err
	}
	pods, err := r.tree.list(pathPods)
	if err != nil {
		return err
	}
	for _, p := range pods {
		path := join(pathPods, p.Name())
		if !p.IsDir() {
			r.foreign = append(r.foreign, path)
			continue
		}
		if err := r.links(path, s); err != nil {
			return err
		}
		if err := r.rmdir(path); err != nil {
			return err
		}
	}
	if err := removePins[*ebpf.Program](r, pathEntries); err != nil {
		return err
	}
	found, err := r.tree.list(pathGen)
	if err != nil {
		return err
	}
	for _, e := range found {
		path := join(pathGen, e.Name())
		if _, ok := generationOf(e.Name()); !ok || !e.IsDir() {
			r.foreign = append(r.foreign, path)
			continue
		}
		if err := r.generation(path); err != nil {
			return err
		}
	}
	if err := removePins[*ebpf.Map](r, pathMaps); err != nil {
		return err
	}
	if err := removePins[*ebpf.Map](r, pathCalls); err != nil {
		return err
	}
	return r.symlinks()
}

// links removes links of this data plane: those whose program reads its super.
func (r *removal) links(dir string, s *super) error {
	entries, err := r.tree.list(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := join(dir, e.Name())
		if path == pathPods {
			continue
		}
		if err := r.link(path, s); err != nil {
			return err
		}
	}
	return nil
}

// link detaches and unpins one of them.
func (r *removal) link(path string, s *super) error {
	l, err := openLink(r.tree, path)
	var other *strayError
	switch {
	case errors.As(err, &other):
		r.foreign = append(r.foreign, path)
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at %s: %w", path, err)
	}
	defer l.Close()
	mine := false
	if s != nil {
		if mine, err = attachesOurs(l, mapID(s.m)); err != nil {
			return fmt.Errorf("look at %s: %w", path, err)
		}
	}
	if !mine {
		r.foreign = append(r.foreign, path)
		return nil
	}
	if err := l.takeOff(); err != nil {
		return fmt.Errorf("detach %s: %w", path, err)
	}
	return r.unpin(path)
}

// takeOff detaches a link and returns when that is done. The kernel does it for one whose last name has gone, too, but in
// a worker of its own, which may wait for others (network devices have one lock): until then packets would run into
// programs that are taken apart. It cannot do it for maps of sockets, whose link goes with its last name.
func (l *attachment) takeOff() error {
	if err := l.Detach(); err != nil && !errors.Is(err, link.ErrNotSupported) {
		return err
	}
	return nil
}

// attachesOurs reports whether the program of a link reads this super.
func attachesOurs(l *attachment, super ebpf.MapID) (bool, error) {
	p, err := programByID(l.info.Program)
	if err != nil || p == nil {
		return false, err
	}
	defer p.Close()
	return holds(p, super)
}

// removePins removes what is of a type in a directory.
func removePins[T ebpfpin.Pinner](r *removal, dir string) error {
	entries, err := r.tree.list(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := join(dir, e.Name())
		object, err := openPin[T](r.tree, path)
		var other *strayError
		switch {
		case errors.As(err, &other):
			r.foreign = append(r.foreign, path)
			continue
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return fmt.Errorf("look at %s: %w", path, err)
		}
		err = r.unpin(path)
		object.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// generation removes one generation, whatever state it is in.
func (r *removal) generation(path string) error {
	if err := removePins[*ebpf.Program](r, path+"/progs"); err != nil {
		return err
	}
	if err := removePins[*ebpf.Map](r, path+"/maps"); err != nil {
		return err
	}
	release := join(path, pathRelease)
	if m, err := openPin[*ebpf.Map](r.tree, release); err == nil {
		m.Close()
		if err := r.unpin(release); err != nil {
			return err
		}
	}
	for _, dir := range []string{path + "/progs", path + "/maps"} {
		if err := r.rmdir(dir); err != nil {
			return err
		}
	}
	if err := r.strangers(path); err != nil {
		return err
	}
	return r.rmdir(path)
}

// strangers files whatever is left in a directory that should be empty by now.
func (r *removal) strangers(dir string) error {
	entries, err := r.tree.list(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		inside := func(f string) bool { return f == path || strings.HasPrefix(f, path+"/") }
		if !slices.ContainsFunc(r.foreign, inside) {
			r.foreign = append(r.foreign, path)
		}
	}
	return nil
}

func (r *removal) symlinks() error {
	for _, name := range []string{pathCurrent, pathCurrent + suffixNew} {
		stat, err := os.Lstat(r.tree.at(name))
		if err != nil || stat.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		if err := r.unpin(name); err != nil {
			return err
		}
	}
	return nil
}

func (r *removal) unpin(path string) error {
	return r.journal.do(StepUnpin, path, func() error {
		if err := unix.Unlink(r.tree.at(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// rmdir removes a directory, unless something foreign is in it, or in its place.
func (r *removal) rmdir(path string) error {
	stat, err := os.Lstat(r.tree.at(path))
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR): // what is above it is none either
		return nil
	case err != nil:
		return err
	case !stat.IsDir():
		if !slices.Contains(r.foreign, path) {
			r.foreign = append(r.foreign, path)
		}
		return nil
	}
	if left, err := r.tree.list(path); err != nil || len(left) > 0 && len(r.foreign) > 0 {
		return err
	}
	return r.journal.do(StepRemoveDirectory, path, func() error {
		if err := unix.Rmdir(r.tree.at(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// discard removes what is left of something that was being built or removed.
func (s *Store) discard(path string) error {
	r := &removal{tree: s.view.tree, journal: s.journal}
	stat, err := os.Lstat(s.at(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !stat.IsDir() {
		return r.unpin(path)
	}
	if err := r.generation(path); err != nil {
		return err
	}
	return r.foreigners()
}
