// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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

const bpffs = "/sys/fs/bpf"

// object is a BPF program, map or link of this kernel. Ids are given in turn, so a number that is gone stays gone for
// much longer than a suite runs.
type object struct {
	kind string // "prog", "map", "link"
	id   uint32
}

// objects is a set of objects and, for people, what each is called.
type objects map[object]string

// describe lists the objects for a failure message.
func (o objects) describe() []string {
	var lines []string
	for object, name := range o {
		lines = append(lines, fmt.Sprintf("%s %d %s", object.kind, object.id, name))
	}
	return lines
}

// objectsAlive returns every object of the kernel, whoever made it.
func objectsAlive() (objects, error) {
	found := objects{}
	for id, err := ebpf.ProgramGetNextID(0); ; id, err = ebpf.ProgramGetNextID(id) {
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("walk programs: %w", err)
		}
		found[object{"prog", uint32(id)}] = ""
	}
	for id, err := ebpf.MapGetNextID(0); ; id, err = ebpf.MapGetNextID(id) {
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("walk maps: %w", err)
		}
		found[object{"map", uint32(id)}] = ""
	}
	links, deadline := new(link.Iterator), time.Now().Add(time.Second)
	for {
		for links.Next() {
			found[object{"link", uint32(links.ID)}] = ""
		}
		if err := links.Err(); err == nil {
			return found, nil
		} else if !errors.Is(err, unix.EAGAIN) || time.Now().After(deadline) { // EAGAIN: somebody is just attaching one
			return nil, fmt.Errorf("walk links: %w", err)
		}
		links = &link.Iterator{ID: links.ID}
	}
}

// reachable adds to roots what they keep alive: a program its maps, a prog array its programs, a link its program.
// Objects that go away meanwhile are left out.
func reachable(roots objects) objects {
	found := objects{}
	var visit func(o object)
	visit = func(o object) {
		if _, seen := found[o]; seen {
			return
		}
		name, next, err := examine(o)
		if err != nil {
			return
		}
		found[o] = name
		for _, o := range next {
			visit(o)
		}
	}
	for o := range roots {
		visit(o)
	}
	return found
}

// examine returns the name of o and the objects that it refers to.
func examine(o object) (name string, next []object, err error) {
	switch o.kind {
	case "prog":
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
			next = append(next, object{"map", uint32(id)})
		}
		return info.Name, next, nil
	case "map":
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
	return fmt.Sprint("of type ", info.Type), []object{{"prog", uint32(info.Program)}}, nil
}

func examineMap(id uint32) (name string, next []object, err error) {
	m, err := ebpf.NewMapFromID(ebpf.MapID(id))
	if err != nil {
		return "", nil, err
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return "", nil, err
	}
	if info.Type == ebpf.ProgramArray {
		var index, program uint32
		for entries := m.Iterate(); entries.Next(&index, &program); {
			next = append(next, object{"prog", program})
		}
	}
	return info.Name, next, nil
}

// pinned returns the objects below dir by path.
func pinned(dir string) (map[string]object, error) {
	found := map[string]object{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // others may remove theirs meanwhile
			return nil
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		p, err := pin.Load(path, nil)
		if err != nil {
			return nil //nolint:nilerr // gone, or an iterator: it keeps nothing that has another name
		}
		defer p.Close()
		found[path], err = identify(p)
		return err
	})
	return found, err
}

func identify(p pin.Pinner) (object, error) {
	switch p := p.(type) {
	case *ebpf.Program:
		info, err := p.Info()
		if err != nil {
			return object{}, err
		}
		id, _ := info.ID()
		return object{"prog", uint32(id)}, nil
	case *ebpf.Map:
		info, err := p.Info()
		if err != nil {
			return object{}, err
		}
		id, _ := info.ID()
		return object{"map", uint32(id)}, nil
	case link.Link:
		info, err := p.Info()
		if err != nil {
			return object{}, err
		}
		return object{"link", uint32(info.ID)}, nil
	}
	return object{}, fmt.Errorf("identify pin: unknown type %T", p)
}

// heldBy returns the objects that file descriptors of a process refer to (proc(5), fdinfo), none if it is gone.
func heldBy(pid string) objects {
	found := objects{}
	entries, _ := os.ReadDir(filepath.Join("/proc", pid, "fdinfo"))
	for _, entry := range entries {
		file, err := os.Open(filepath.Join("/proc", pid, "fdinfo", entry.Name()))
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(file); lines.Scan(); {
			key, value, _ := strings.Cut(lines.Text(), ":")
			kind, isID := strings.CutSuffix(key, "_id")
			id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			if isID && err == nil && (kind == "prog" || kind == "map" || kind == "link") {
				found[object{kind, uint32(id)}] = ""
			}
		}
		file.Close()
	}
	return found
}

// reached returns the objects that a pin or a file descriptor of any process leads to.
func reached() (objects, error) {
	roots := objects{}
	pins, err := pinned(bpffs)
	if err != nil {
		return nil, err
	}
	for _, o := range pins {
		roots[o] = ""
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, process := range processes {
		maps.Copy(roots, heldBy(filepath.Base(process)))
	}
	return reachable(roots), nil
}
