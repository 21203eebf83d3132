// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	ebpfpin "github.com/cilium/ebpf/pin"
)

// inventory describes everything in a tree, a line each: what two trees of one release have in common. The lines of the
// object file come from the kernel, not from this package.
func inventory(t *testing.T, dir string) []string { return walk(t, dir, false) }

// snapshot is an inventory with the ids of objects and the contents of maps, super's apart: equal snapshots mean that
// nothing was written in between.
func snapshot(t *testing.T, dir string) []string { return walk(t, dir, true) }

func walk(t *testing.T, dir string, all bool) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		line := "directory"
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line = "-> " + target
		case !e.IsDir():
			object, err := ebpfpin.Load(path, nil)
			if err != nil {
				return err
			}
			defer object.Close()
			if line, err = describe(object, name, all); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		lines = append(lines, name+": "+line)
		return nil
	})
	if err != nil {
		t.Fatalf("walk %s: %v", dir, err)
	}
	return lines
}

func describe(object any, name string, all bool) (string, error) {
	switch o := object.(type) {
	case *ebpf.Program:
		about, err := o.Info()
		if err != nil {
			return "", err
		}
		id, _ := about.ID()
		return fmt.Sprintf("program %s, %v%s", about.Name, about.Type, idIf(all, id)), nil
	case link.Link:
		about, err := o.Info()
		if err != nil {
			return "", err
		}
		target := ""
		if c := about.Cgroup(); c != nil {
			target = fmt.Sprintf(", cgroup %d", c.CgroupId)
		}
		name := programName(about.Program)
		return fmt.Sprintf("link of type %v to %s%s%s", about.Type, name, target, idIf(all, about.ID)), nil
	}
	m := object.(*ebpf.Map)
	about, err := m.Info()
	if err != nil {
		return "", err
	}
	id, _ := about.ID()
	line := fmt.Sprintf("map %s, %v, %d entries%s", about.Name, about.Type, about.MaxEntries, idIf(all, id))
	if m.Type() == ebpf.ProgramArray {
		slots, err := describeSlots(m, all)
		return line + slots, err
	}
	switch m.Type() {
	case ebpf.Hash, ebpf.Array, ebpf.PerCPUArray:
	default:
		return line, nil
	}
	if all && name != pathSuper {
		contents, err := describeContents(m)
		return line + contents, err
	}
	return line, nil
}

func idIf[T any](all bool, id T) string {
	if !all {
		return ""
	}
	return fmt.Sprintf(", id %v", id)
}

func describeSlots(m *ebpf.Map, all bool) (string, error) {
	var b strings.Builder
	for i := range m.MaxEntries() {
		id, err := slot(m, i)
		if err != nil {
			return "", err
		}
		if id != 0 {
			fmt.Fprintf(&b, ", %d: %s%s", i, programName(id), idIf(all, id))
		}
	}
	return b.String(), nil
}

func describeContents(m *ebpf.Map) (string, error) {
	var lines []string
	var key []byte
	if m.Type().String() == ebpf.PerCPUArray.String() {
		var values [][]byte
		for i := range m.MaxEntries() {
			if err := m.Lookup(i, &values); err != nil {
				return "", err
			}
			lines = append(lines, fmt.Sprintf("%d=%x", i, values))
		}
		return ", " + strings.Join(lines, " "), nil
	}
	var value []byte
	it := m.Iterate()
	for it.Next(&key, &value) {
		lines = append(lines, fmt.Sprintf("%x=%x", key, value))
	}
	slices.Sort(lines)
	return ", " + strings.Join(lines, " "), it.Err()
}

// ids lists the kernel's objects in a tree, to see later that they are gone.
type ids struct {
	programs []ebpf.ProgramID
	maps     []ebpf.MapID
	links    []link.ID
}

func objects(t *testing.T, dir string) (all ids) {
	t.Helper()
	v, err := readView(tree(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer v.close()
	for _, m := range v.common() {
		all.maps = append(all.maps, mapID(m))
	}
	for _, p := range v.entries {
		all.programs = append(all.programs, programID(p))
	}
	for _, l := range v.links {
		all.links = append(all.links, l.info.ID)
	}
	for _, g := range v.generations {
		for _, m := range g.Maps {
			all.maps = append(all.maps, mapID(m))
		}
		for _, p := range g.Programs {
			all.programs = append(all.programs, programID(p))
		}
	}
	return all
}

// gone waits until the kernel has freed every object. It does not open any: the last descriptor of a prog array that is
// closed has it emptied by a worker, and if that is still to come from the time before, the kernel loses a reference.
func (all ids) gone(t *testing.T) {
	t.Helper()
	for _, id := range all.links {
		eventually(t, fmt.Sprintf("link %d is freed", id), func() bool {
			l, err := link.NewFromID(id)
			if err == nil {
				l.Close()
			}
			return err != nil
		})
	}
	for _, id := range all.programs {
		eventually(t, fmt.Sprintf("program %d is freed", id), func() bool {
			next, err := ebpf.ProgramGetNextID(id - 1)
			return err != nil || next != id
		})
	}
	for _, id := range all.maps {
		eventually(t, fmt.Sprintf("map %d is freed", id), func() bool {
			next, err := ebpf.MapGetNextID(id - 1)
			return err != nil || next != id
		})
	}
}
