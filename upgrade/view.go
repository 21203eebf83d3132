// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Generation is one complete set of programs and of the maps that are theirs.
type Generation struct {
	Number   uint16
	Maps     map[string]*ebpf.Map     // those shared with other generations, and its own
	Programs map[string]*ebpf.Program // main programs of hooks, and the further ones

	record *record   // what it was loaded from; nil where a release did so that kept none
	text   *ebpf.Map // the same, where it is still to be pinned
}

func newGeneration(n uint16) *Generation {
	return &Generation{Number: n, Maps: make(map[string]*ebpf.Map), Programs: make(map[string]*ebpf.Program)}
}

// Role says what the generation is for.
func (g *Generation) Role() Role {
	if g.record == nil {
		return RolePlain
	}
	return g.record.Role
}

// Release is what the generation was loaded from, nil where that was not kept.
func (g *Generation) Release() *Release {
	if g.record == nil {
		return nil
	}
	return &g.record.Release
}

// main is the program of a generation at a hook, nil if it has none: its own, or one that lets everything pass where
// its release does not have the hook.
func (g *Generation) main(h Hook) *ebpf.Program {
	if p := g.Programs[passName(h.Name)]; p != nil {
		return p
	}
	return g.Programs[h.Program]
}

func (g *Generation) close() {
	closeAll(g.Maps)
	closeAll(g.Programs)
	if g.text != nil {
		g.text.Close()
	}
}

// view is everything that was pinned in a tree when it was read. It owns the descriptors. Reading writes nothing and
// takes no lock.
type view struct {
	tree        tree
	super       *super // nil if there is none to trust
	maps        map[string]*ebpf.Map
	calls       map[string]*ebpf.Map     // by hook
	entries     map[string]*ebpf.Program // by hook
	links       map[string]*attachment   // by hook
	pods        map[string][]string      // hooks by pod; the links are not opened
	generations map[uint16]*Generation
	building    []string // paths of what is being built or removed
	stray       []stray  // what is not what its place says
	pins        int      // everything but directories
	names       map[ebpf.MapID]string
}

// stray is something in the tree that its place has no use for.
type stray struct{ path, want, found string }

// evict is what to do about what somebody else put into the tree. The agent then restores what belongs there.
const evict = "find out who put it there, remove it and restart the agent"

func (s stray) damage() Damage {
	return Damage{s.path, fmt.Sprintf("it is %s, not %s", s.found, s.want), evict}
}

func (v *view) close() {
	if v.super != nil {
		v.super.close()
	}
	closeAll(v.maps)
	closeAll(v.calls)
	closeAll(v.entries)
	closeAll(v.links)
	for _, g := range v.generations {
		g.close()
	}
}

func (v *view) isStray(path string) bool {
	return slices.ContainsFunc(v.stray, func(s stray) bool { return s.path == path })
}

// word is the word, zero where there is no super.
func (v *view) word() Word {
	if v.super == nil {
		return 0
	}
	return v.super.word()
}

// slot reads which program lies in a prog array; 0 for none.
func slot(calls *ebpf.Map, index uint32) (ebpf.ProgramID, error) {
	var id uint32
	err := calls.Lookup(index, &id)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read slot %d: %w", index, err)
	}
	return ebpf.ProgramID(id), nil
}

// uses lists the maps that a program holds, by the names that the kernel keeps.
func (v *view) uses(p *ebpf.Program) (map[string]ebpf.MapID, error) {
	ids, err := mapsOf(p)
	if err != nil {
		return nil, err
	}
	names := make(map[string]ebpf.MapID, len(ids))
	for _, id := range ids {
		name, err := v.nameOf(id)
		if err != nil {
			return nil, err
		}
		names[name] = id
	}
	return names, nil
}

// nameOf is the name that the kernel has for a map. To ask for that of a map that is not pinned it has to open it, once:
// closing the only descriptor of a prog array has it emptied anew (see [Store.keepFilled]).
func (v *view) nameOf(id ebpf.MapID) (string, error) {
	if name, ok := v.names[id]; ok {
		return name, nil
	}
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return "", fmt.Errorf("open map %d: %w", id, err)
	}
	defer m.Close()
	about, err := readMap(m)
	if err != nil {
		return "", fmt.Errorf("read map %d: %w", id, err)
	}
	name := unix.ByteSliceToString(about.name[:])
	v.remember(id, name)
	return name, nil
}

func (v *view) remember(id ebpf.MapID, name string) {
	if v.names == nil {
		v.names = make(map[ebpf.MapID]string)
	}
	v.names[id] = name
}

// holds reports whether a program uses a map.
func holds(p *ebpf.Program, id ebpf.MapID) (bool, error) {
	ids, err := mapsOf(p)
	return id != 0 && slices.Contains(ids, id), err
}

func sortedKeys[K interface{ ~string | ~uint16 }, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}

func join(parts ...string) string { return strings.Join(parts, "/") }
