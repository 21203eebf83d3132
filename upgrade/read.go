// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cilium/ebpf"
	ebpfpin "github.com/cilium/ebpf/pin"
	"golang.org/x/sys/unix"
)

// readView opens everything. What is in the wrong place is filed as stray, what goes meanwhile is left out.
func readView(t tree) (_ *view, err error) {
	v := &view{
		tree: t,
		maps: make(map[string]*ebpf.Map), calls: make(map[string]*ebpf.Map),
		entries: make(map[string]*ebpf.Program), links: make(map[string]*attachment),
		pods: make(map[string][]string), generations: make(map[uint16]*Generation),
	}
	defer func() {
		if err != nil {
			v.close()
		}
	}()
	for _, read := range []func() error{
		v.readTop, v.readSuper,
		func() error { return readPins(v, pathMaps, v.maps) },
		v.readCalls,
		func() error { return readPins(v, pathEntries, v.entries) },
		v.readLinks, v.readPods, v.readGenerations,
	} {
		if err := read(); err != nil {
			return nil, fmt.Errorf("read %s: %w", t, err)
		}
	}
	v.readNames(v.maps)
	v.readNames(v.calls)
	for _, g := range v.generations {
		v.readNames(g.Maps)
	}
	return v, nil
}

func (v *view) readNames(pinned map[string]*ebpf.Map) {
	for _, m := range pinned {
		if about, err := readMap(m); err == nil {
			v.remember(about.id, unix.ByteSliceToString(about.name[:]))
		}
	}
}

// readTop looks for what does not belong into the tree.
func (v *view) readTop() error {
	entries, err := v.tree.list(".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case slices.Contains(directories[:], name):
			if !e.IsDir() {
				v.notDirectory(name, e)
			}
		case name == pathSuper:
			v.pins++
		case name == pathCurrent || name == pathCurrent+suffixNew:
			if e.Type()&fs.ModeSymlink == 0 {
				v.add(name, "a symbolic link", "something else")
			}
		default:
			v.pins++
			v.add(name, "known", "unknown")
		}
	}
	return nil
}

func (v *view) add(path, want, found string) { v.stray = append(v.stray, stray{path, want, found}) }

// notDirectory files what lies where a directory should.
func (v *view) notDirectory(path string, e fs.DirEntry) {
	v.pins++
	found := "a pin"
	if e.Type()&fs.ModeSymlink != 0 {
		found = "a symbolic link"
	}
	v.add(path, "a directory", found)
}

// tolerate files a stray and passes on every other error.
func (v *view) tolerate(path string, err error) error {
	var s *strayError
	if errors.As(err, &s) {
		v.add(path, s.want, s.found)
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed since it was listed: a view of a tree in use is a little blurred
	}
	return err
}

func (v *view) readSuper() error {
	m, err := openPin[*ebpf.Map](v.tree, pathSuper)
	if err != nil {
		return v.tolerate(pathSuper, err)
	}
	s, err := openSuper(m)
	var other *abiError
	if errors.As(err, &other) {
		return err // it is intact, but not for this release to touch
	}
	if err != nil {
		v.add(pathSuper, "super", fmt.Sprintf("a map that cannot be it: %v", err))
		return nil
	}
	v.super = s
	return nil
}

// readPins opens everything in one directory.
func readPins[T ebpfpin.Pinner](v *view, dir string, into map[string]T) error {
	entries, err := v.tree.list(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		v.pins++
		path := dir + "/" + e.Name()
		object, err := openPin[T](v.tree, path)
		if err != nil {
			if err := v.tolerate(path, err); err != nil {
				return fmt.Errorf("open %s: %w", path, err)
			}
			continue
		}
		into[e.Name()] = object
	}
	return nil
}

func (v *view) readCalls() error {
	if err := readPins(v, pathCalls, v.calls); err != nil {
		return err
	}
	for hook, m := range v.calls {
		if m.Type() != ebpf.ProgramArray {
			v.add(join(pathCalls, hook), "a prog array", "a map of type "+m.Type().String())
			m.Close()
			delete(v.calls, hook)
		}
	}
	return nil
}

func (v *view) readLinks() error {
	entries, err := v.tree.list(pathLinks)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := pathLinks + "/" + e.Name()
		if path == pathPods {
			if !e.IsDir() {
				v.notDirectory(path, e)
			}
			continue
		}
		v.pins++
		l, err := openLink(v.tree, path)
		if err != nil {
			if err := v.tolerate(path, err); err != nil {
				return err
			}
			continue
		}
		if building(e.Name()) {
			v.building = append(v.building, path)
			l.Close()
			continue
		}
		v.links[e.Name()] = l
	}
	return nil
}

func (v *view) readPods() error {
	pods, err := v.tree.list(pathPods)
	if err != nil {
		return err
	}
	for _, p := range pods {
		path := pathPods + "/" + p.Name()
		if !p.IsDir() {
			v.notDirectory(path, p)
			continue
		}
		links, err := v.tree.list(path)
		if err != nil {
			return err
		}
		v.pins += len(links)
		hooks := []string{}
		for _, l := range links {
			hooks = append(hooks, l.Name())
		}
		v.pods[p.Name()] = hooks
	}
	return nil
}

func (v *view) readGenerations() error {
	entries, err := v.tree.list(pathGen)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := pathGen + "/" + e.Name()
		n, ok := generationOf(e.Name())
		switch {
		case !ok:
			v.pins++
			v.add(path, "a generation", "something else")
			continue
		case !e.IsDir():
			v.notDirectory(path, e)
			continue
		case building(e.Name()):
			v.pins++
			v.building = append(v.building, path)
			continue
		}
		g := newGeneration(n)
		v.generations[n] = g
		if err := readPins(v, path+"/maps", g.Maps); err != nil {
			return err
		}
		if err := readPins(v, path+"/progs", g.Programs); err != nil {
			return err
		}
		parts, err := v.tree.list(path)
		if err != nil {
			return err
		}
		for _, p := range parts {
			switch name := p.Name(); {
			case name == pathRelease:
				if err := v.readRelease(g); err != nil {
					return err
				}
			case name != "maps" && name != "progs":
				v.add(path+"/"+name, "known", "unknown")
			case !p.IsDir():
				v.notDirectory(path+"/"+name, p)
			}
		}
	}
	return nil
}

// readRelease reads what a generation was loaded from, and believes it only if the digest in super says the same.
func (v *view) readRelease(g *Generation) error {
	path := releasePath(g.Number)
	m, err := openPin[*ebpf.Map](v.tree, path)
	if err != nil {
		return v.tolerate(path, err)
	}
	defer m.Close()
	r, err := readRecord(m)
	if err != nil {
		v.add(path, "a release", err.Error())
		return nil
	}
	digest, err := r.identity()
	if err != nil {
		return err
	}
	if v.super != nil && v.super.digest(g.Number) != digest {
		v.add(path, "what the generation was loaded from", "another release")
		return nil
	}
	g.record = r
	return nil
}
