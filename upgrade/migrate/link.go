// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// Pair is a state map of the release that is to serve and the map whose entries it takes over. The two names have the
// same base.
type Pair struct {
	Target, Source string
}

// States lists the maps of an object that include state.h.
func States(spec *ebpf.CollectionSpec) []string {
	var names []string
	for name := range spec.Maps {
		if spec.Programs[name+"_copy"] != nil && spec.Programs[name+"__value"] != nil {
			names = append(names, name)
		}
	}
	return names
}

// Programs lists the programs that move the entries into a map; [Open] takes them.
func Programs(spec *ebpf.CollectionSpec, name string) []string {
	var names []string
	for _, part := range []string{"_copy", "_settle", "_check", "_reap"} {
		if spec.Programs[name+part] != nil {
			names = append(names, name+part)
		}
	}
	return names
}

// Placeholder names the map in a target's object that stands for the source of one of its maps, and the one for notes.
func Placeholder(name string) (source, notes string) { return name + "__source", name + "__notes" }

// Auxiliary reports whether a map or program of an object exists for migrations only.
func Auxiliary(name string) bool { return strings.Contains(name, "__") || name == bridgeMap }

// IsSide reports whether a map keeps fields that an older schema has no place for.
func IsSide(name string) bool { return strings.HasSuffix(name, "_side") }

const bridgeMap = "bridge"

// accessors are the functions of state.h that programs call, by what follows the name of the map.
var accessors = [...]string{"get", "add", "set", "remove"}

// Link returns a copy of target in which every program knows the source of each pair as well: accessors have the bodies
// of the bridge, conversions those of the newer of the two releases. Both are left as they are. The maps' sizes in the
// two are those of the maps that will be used. It returns an error that names the step if a conversion is missing.
func Link(target, source *ebpf.CollectionSpec, pairs []Pair) (*ebpf.CollectionSpec, error) {
	linked := target.Copy()
	l := &linker{target: linked, source: source, functions: make(map[string]asm.Instructions)}
	l.learn(linked, "")
	l.learn(source, sourcePrefix)
	replaced := make(map[string]string) // calls of the one go to the other
	for _, p := range pairs {
		if err := l.pair(p, replaced); err != nil {
			return nil, fmt.Errorf("bridge %s to %s: %w", p.Source, p.Target, err)
		}
	}
	for name, s := range linked.Programs {
		insns, err := l.flatten(name, replaced)
		if err != nil {
			return nil, fmt.Errorf("link program %s: %w", name, err)
		}
		s.Instructions = insns
	}
	return linked, nil
}

// sourcePrefix is before the names of functions and steps of the source's object, so that two releases may have
// different functions of one name.
const sourcePrefix = "source:"

type linker struct {
	target, source *ebpf.CollectionSpec
	functions      map[string]asm.Instructions // bodies, the first instruction carrying the name
}

// learn takes the functions of an object. Each program's instructions are its own followed by those of all that it
// calls.
func (l *linker) learn(spec *ebpf.CollectionSpec, prefix string) {
	for _, p := range spec.Programs {
		for _, body := range split(p.Instructions) {
			name := prefix + body[0].Symbol()
			if l.functions[name] == nil {
				l.functions[name] = body
			}
		}
	}
}

// split cuts a program into its functions.
func split(insns asm.Instructions) []asm.Instructions {
	var all []asm.Instructions
	start := 0
	for i := 1; i <= len(insns); i++ {
		if i == len(insns) || insns[i].Symbol() != "" {
			all = append(all, insns[start:i])
			start = i
		}
	}
	return all
}

func (l *linker) pair(p Pair, replaced map[string]string) error {
	from, to := l.source.Maps[p.Source], l.target.Maps[p.Target]
	if from == nil || to == nil {
		return fmt.Errorf("one of the releases has no such map")
	}
	for _, a := range accessors {
		plain, bridge := p.Target+"_"+a, p.Target+"_bridge_"+a
		if l.functions[bridge] != nil {
			replaced[plain] = bridge
		}
	}
	c, err := l.conversion(p)
	if err != nil {
		return err
	}
	for name, body := range map[string]asm.Instructions{
		p.Target + "__key":        c.keys(true),
		p.Target + "__source_key": c.keys(false),
		p.Target + "__value":      c.values(),
	} {
		placeholder := l.functions[name]
		if placeholder == nil {
			return fmt.Errorf("the object has no %s: map %s does not include state.h", name, p.Target)
		}
		body[0].Metadata = placeholder[0].Metadata // name, type and line
		l.functions[name] = body
	}
	stand, notes := Placeholder(p.Target)
	s := from.Copy()
	s.Name = stand
	l.target.Maps[stand] = s
	if n := l.target.Maps[notes]; n != nil {
		n.MaxEntries = to.MaxEntries
	}
	return nil
}

// flatten puts a program together again: its own instructions, then every function that it calls.
func (l *linker) flatten(name string, replaced map[string]string) (asm.Instructions, error) {
	own := split(l.target.Programs[name].Instructions)[0]
	out := append(asm.Instructions(nil), own...)
	done := make(map[string]bool)
	for i := 0; i < len(out); i++ {
		callee := out[i].Reference()
		if callee == "" || !out[i].IsFunctionReference() {
			continue
		}
		if done[callee] {
			continue
		}
		body := l.functions[callee]
		if other := replaced[callee]; other != "" {
			body = l.functions[other]
		}
		if body == nil {
			continue // of the kernel
		}
		done[callee] = true
		prefix := ""
		if strings.HasPrefix(callee, sourcePrefix) {
			prefix = sourcePrefix
		}
		for j, ins := range body {
			if prefix != "" && ins.IsFunctionReference() && ins.Reference() != "" {
				ins = ins.WithReference(prefix + ins.Reference())
			}
			if j == 0 {
				ins = static(ins.WithSymbol(callee))
			}
			out = append(out, ins)
		}
	}
	return out, l.borrowMaps(out)
}

// borrowMaps adds side maps that steps of the other release use.
func (l *linker) borrowMaps(insns asm.Instructions) error {
	for i := range insns {
		name := insns[i].Reference()
		if !insns[i].IsLoadFromMap() || name == "" || l.target.Maps[name] != nil {
			continue
		}
		other := l.source.Maps[name]
		if other == nil || !IsSide(name) {
			return fmt.Errorf("a step uses map %s: only maps that are named _side can be", name)
		}
		l.target.Maps[name] = other.Copy()
	}
	return nil
}

// static makes a function one that the verifier follows from its callers; as a global one it could neither return nor
// be given pointers.
func static(ins asm.Instruction) asm.Instruction {
	fn := btf.FuncMetadata(&ins)
	if fn == nil || fn.Linkage == btf.StaticFunc {
		return ins
	}
	local := *fn
	local.Linkage = btf.StaticFunc
	return btf.WithFuncMetadata(ins, &local)
}
