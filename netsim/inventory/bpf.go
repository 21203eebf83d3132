// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/pin"
	"golang.org/x/sys/unix"
)

// bpfObject is a program, map or link.
type bpfObject struct {
	kind Kind
	id   uint32
}

// pinsBelow lists the pins and directories below a directory, and what the pins lead to.
func pinsBelow(dir string) (pins Inventory, roots []bpfObject, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // an agent may be at work
		}
		if err != nil {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); errors.Is(err, unix.ENOENT) {
			return nil
		} else if err != nil {
			return fmt.Errorf("stat %s: %w", path, err)
		}
		if path == dir {
			return nil
		}
		pins = append(pins, Object{Kind: Pin, Name: path[len(dir):], Number: stat.Ino})
		if !entry.Type().IsRegular() {
			return nil
		}
		o, err := pinned(path)
		if err == nil {
			roots = append(roots, o)
		}
		return nil //nolint:nilerr // it has gone, or is an iterator's, which keeps nothing that has no other name
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list pins: %w", err)
	}
	return pins, roots, nil
}

// pinned returns what a pin leads to.
func pinned(path string) (bpfObject, error) {
	p, err := pin.Load(path, &ebpf.LoadPinOptions{ReadOnly: false})
	if err != nil {
		return bpfObject{}, err
	}
	defer p.Close()
	switch p := p.(type) {
	case *ebpf.Program:
		info, err := p.Info()
		if err != nil {
			return bpfObject{}, err
		}
		id, _ := info.ID() // there is one since Linux 4.13
		return bpfObject{Program, uint32(id)}, nil
	case *ebpf.Map:
		info, err := p.Info()
		if err != nil {
			return bpfObject{}, err
		}
		id, _ := info.ID()
		return bpfObject{Map, uint32(id)}, nil
	case link.Link:
		info, err := p.Info()
		if err != nil {
			return bpfObject{}, err
		}
		return bpfObject{Link, uint32(info.ID)}, nil
	}
	return bpfObject{}, fmt.Errorf("pin %s: unknown type %T", path, p)
}

// heldBy returns the BPF objects that file descriptors of a process refer to (proc(5), fdinfo), and how many descriptors
// of which kind there are. A process that has gone holds none.
func heldBy(pid uint64, name string) (held []bpfObject, counts Inventory) {
	dir := filepath.Join("/proc", strconv.FormatUint(pid, 10))
	entries, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return nil, nil
	}
	kinds := map[string]uint64{}
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, "fd", entry.Name()))
		if err != nil {
			continue
		}
		kinds[descriptorKind(target)]++
		if strings.HasPrefix(target, "anon_inode:bpf") {
			held = append(held, bpfOf(filepath.Join(dir, "fdinfo", entry.Name()))...)
		}
	}
	for kind, count := range kinds {
		counts = append(counts, Object{Kind: Descriptor, Name: name + ": " + kind, Number: count})
	}
	return held, counts
}

// descriptorKind tells what a descriptor refers to: without the numbers in it, and any file is a file.
func descriptorKind(target string) string {
	if strings.HasPrefix(target, "/") {
		return "file"
	}
	kind, _, _ := strings.Cut(target, ":[") // socket:[4711], net:[4026531840]
	return kind
}

func bpfOf(fdinfo string) (held []bpfObject) {
	file, err := os.Open(fdinfo)
	if err != nil {
		return nil
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
		kind, is := map[string]Kind{"prog_id": Program, "map_id": Map, "link_id": Link}[key]
		if is && err == nil {
			held = append(held, bpfObject{kind, uint32(id)})
		}
	}
	return held
}

// reachable lists the objects and what they keep alive: a program its maps, a prog array its programs, a map of maps
// its maps, a link its program. Those that go away meanwhile are left out, and those among seen, to which it adds.
//
// No prog array is opened that may be losing its last user, which the kernel does not take well (see the leak checks of
// e2e): what is opened here is held by a pin or a process.
func reachable(roots []bpfObject, seen map[bpfObject]bool) Inventory {
	var all Inventory
	for len(roots) > 0 {
		o := roots[len(roots)-1]
		roots = roots[:len(roots)-1]
		if seen[o] {
			continue
		}
		seen[o] = true
		name, next, err := o.examine()
		if err != nil {
			continue
		}
		all = append(all, Object{Kind: o.kind, Name: name, Number: uint64(o.id)})
		roots = append(roots, next...)
	}
	return all
}

// examine returns the name of an object, and those that it refers to.
func (o bpfObject) examine() (name string, next []bpfObject, err error) {
	switch o.kind {
	case Program:
		program, err := ebpf.NewProgramFromID(ebpf.ProgramID(o.id))
		if err != nil {
			return "", nil, err
		}
		defer program.Close()
		info, err := program.Info()
		if err != nil {
			return "", nil, err
		}
		ids, _ := info.MapIDs()
		for _, id := range ids {
			next = append(next, bpfObject{Map, uint32(id)})
		}
		return info.Name, next, nil
	case Map:
		return examineMap(o.id)
	}
	l, err := link.NewFromID(link.ID(o.id))
	if err != nil {
		return "", nil, err
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("of type %d", info.Type), []bpfObject{{Program, uint32(info.Program)}}, nil
}

func examineMap(id uint32) (name string, next []bpfObject, err error) {
	m, err := ebpf.NewMapFromID(ebpf.MapID(id))
	if err != nil {
		return "", nil, err
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return "", nil, err
	}
	kind := map[ebpf.MapType]Kind{ebpf.ProgramArray: Program, ebpf.ArrayOfMaps: Map, ebpf.HashOfMaps: Map}[info.Type]
	if kind != "" && info.KeySize == 4 {
		var key, value uint32
		for entries := m.Iterate(); entries.Next(&key, &value); {
			next = append(next, bpfObject{kind, value})
		}
	}
	return info.Name, next, nil
}

// allBPF returns every program, map and link of the kernel, whoever made it.
func allBPF() (map[bpfObject]bool, error) {
	all := map[bpfObject]bool{}
	for id, err := ebpf.ProgramGetNextID(0); !errors.Is(err, fs.ErrNotExist); id, err = ebpf.ProgramGetNextID(id) {
		if err != nil {
			return nil, fmt.Errorf("walk programs: %w", err)
		}
		all[bpfObject{Program, uint32(id)}] = true
	}
	for id, err := ebpf.MapGetNextID(0); !errors.Is(err, fs.ErrNotExist); id, err = ebpf.MapGetNextID(id) {
		if err != nil {
			return nil, fmt.Errorf("walk maps: %w", err)
		}
		all[bpfObject{Map, uint32(id)}] = true
	}
	links, deadline := new(link.Iterator), time.Now().Add(patienceWithLinks)
	for {
		for links.Next() {
			all[bpfObject{Link, uint32(links.ID)}] = true
		}
		if err := links.Err(); err == nil {
			return all, nil
		} else if !errors.Is(err, unix.EAGAIN) || time.Now().After(deadline) {
			return nil, fmt.Errorf("walk links: %w", err)
		}
		links = &link.Iterator{ID: links.ID}
	}
}

// patienceWithLinks is how long somebody may be attaching a link that has its number already (EAGAIN).
const patienceWithLinks = time.Second
