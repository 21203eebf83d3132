// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/upgrade/migrate"
)

// object is a data plane whose object file was read, checked and given its sizes.
type object struct {
	DataPlane
	spec   *ebpf.CollectionSpec
	record record            // what is pinned beside a generation of it
	digest [sha256.Size]byte // identity: of the record, never of a version's name
}

func readObject(plane DataPlane) (*object, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(plane.Object))
	if err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	isSuper := func(name string) bool { return name == superMapSuper }
	plane.Frozen = slices.DeleteFunc(slices.Clone(plane.Frozen), isSuper)
	if err := plane.check(spec); err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	for name, size := range plane.Sizes {
		spec.Maps[name].MaxEntries = size
	}
	o := &object{DataPlane: plane, spec: spec}
	if err := o.checkReferences(); err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	if o.record.Release, err = plane.release(spec); err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	o.record.Label = plane.Label
	if o.digest, err = o.record.identity(); err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	if plane.Number != "" {
		if _, _, err := numberAt(spec, plane.Number); err != nil {
			return nil, fmt.Errorf("read object: %w", err)
		}
	}
	return o, nil
}

// checkReferences makes sure that entry programs outlive every generation, and that no state hides in global data.
func (o *object) checkReferences() error {
	for _, h := range o.Hooks {
		for _, name := range references(o.spec.Programs[h.Entry]) {
			if !o.common(name) && !internal(name) {
				return fmt.Errorf("entry program %s uses map %s, which belongs to a generation", h.Entry, name)
			}
		}
	}
	for _, program := range o.spec.Programs {
		for _, name := range references(program) {
			if internal(name) && !strings.HasPrefix(name, ".rodata") {
				return fmt.Errorf("program %s keeps state in %s, which would be lost with its generation", program.Name, name)
			}
		}
	}
	return nil
}

// common reports whether a map is shared by all generations: super, prog arrays, frozen maps.
func (o *object) common(name string) bool {
	isCalls := func(h Hook) bool { return callsName(h.Name) == name }
	return name == superMapSuper || slices.Contains(o.Frozen, name) || slices.ContainsFunc(o.Hooks, isCalls)
}

// own lists the maps of a generation, shared with the next or not. Prog arrays of hooks that the object has and the
// data plane leaves out are nobody's.
func (o *object) own() []string {
	names := slices.Sorted(maps.Keys(o.spec.Maps))
	return slices.DeleteFunc(names, func(n string) bool {
		auxiliary := o.record.Role == RolePlain && migrate.Auxiliary(n)
		return o.common(n) || internal(n) || auxiliary || strings.HasPrefix(n, callsName(""))
	})
}

// programs lists the programs of a generation.
func (o *object) programs() []string {
	names := slices.Clone(o.Programs)
	for _, h := range o.Hooks {
		names = append(names, h.Program)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// configure sets variables, and the number of the generation where the object wants to know it.
func (o *object) configure(spec *ebpf.CollectionSpec, generation uint16) error {
	if o.Configure != nil {
		if err := o.Configure(spec); err != nil {
			return fmt.Errorf("configure: %w", err)
		}
	}
	if o.Number == "" {
		return nil
	}
	v, at, err := numberAt(spec, o.Number)
	if err != nil {
		return err
	}
	if len(v.Value) < at+2 {
		return fmt.Errorf("variable %s has no value", v.Name)
	}
	binary.NativeEndian.PutUint16(v.Value[at:], generation)
	return nil
}

// load loads programs, using these maps, and makes the others that they or the caller want. Nothing is pinned.
// The caller owns the result.
func (o *object) load(
	generation uint16, programs, wanted []string, use map[string]*ebpf.Map,
) (*ebpf.Collection, error) {
	spec := o.spec.Copy()
	if err := o.configure(spec, generation); err != nil {
		return nil, err
	}
	needed := make(map[string]bool)
	for _, name := range wanted {
		needed[name] = true
	}
	maps.DeleteFunc(spec.Programs, func(name string, s *ebpf.ProgramSpec) bool {
		if !slices.Contains(programs, name) {
			return true
		}
		for _, m := range references(s) {
			needed[m] = true
		}
		return false
	})
	maps.DeleteFunc(spec.Maps, func(name string, _ *ebpf.MapSpec) bool { return !needed[name] })
	maps.DeleteFunc(spec.Variables, func(_ string, v *ebpf.VariableSpec) bool { return spec.Maps[v.SectionName] == nil })
	replace := make(map[string]*ebpf.Map)
	for name := range spec.Maps {
		switch m := use[name]; {
		case m != nil:
			replace[name] = m
			if slices.Contains(o.Frozen, name) {
				spec.Maps[name] = within(spec.Maps[name], m)
			}
		case o.common(name):
			return nil, fmt.Errorf("map %s is not there to be shared", name)
		}
	}
	loaded, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		return nil, fmt.Errorf("load object: %w", err)
	}
	return loaded, nil
}

// referenced reports whether any program uses a map.
func (o *object) referenced(name string) bool {
	for _, s := range o.spec.Programs {
		if slices.Contains(references(s), name) {
			return true
		}
	}
	isTarget := func(h Hook) bool { return h.Map == name }
	return slices.ContainsFunc(o.Hooks, isTarget)
}

// references lists the maps that a program's instructions name.
func references(s *ebpf.ProgramSpec) []string {
	var names []string
	for i := range s.Instructions {
		if ins := &s.Instructions[i]; ins.IsLoadFromMap() && ins.Reference() != "" {
			names = append(names, ins.Reference())
		}
	}
	return names
}

// internal reports whether a map is made of an ELF section. Those have dots, and are never pinned.
func internal(name string) bool { return strings.Contains(name, ".") }

func closeAll[K comparable, C io.Closer](objects map[K]C) {
	for _, c := range objects {
		c.Close()
	}
}
