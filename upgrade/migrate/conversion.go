// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// conversion is the way from the source's schema to the target's, step by step.
type conversion struct {
	keySizes   []uint32 // at every stop of the way, the first the source's
	valueSizes []uint32
	steps      []step
	dead       string // the function that tells a tombstone of the source, "" if it has none
}

// step is one move between neighbouring schemas. Functions are "" where nothing changes.
type step struct {
	up                      bool
	value, key, keyBackward string
}

// conversion finds the steps of a pair, all in the newer of the two objects.
func (l *linker) conversion(p Pair) (*conversion, error) {
	base, from := Schema(p.Source)
	other, to := Schema(p.Target)
	if base != other {
		return nil, fmt.Errorf("they are not schemas of one map")
	}
	first, last := l.source.Maps[p.Source], l.target.Maps[p.Target]
	c := &conversion{keySizes: []uint32{first.KeySize}, valueSizes: []uint32{first.ValueSize}}
	if name := sourcePrefix + p.Source + "_is_dead"; l.functions[name] != nil {
		c.dead = name
	}
	up, prefix := to >= from, ""
	if !up {
		prefix = sourcePrefix
	}
	for at := from; at != to; {
		number := at // of the step: that of the newer schema
		if up {
			number++
		}
		s, key, value, err := l.step(prefix, Name(base, number), up)
		if err != nil {
			return nil, err
		}
		if key == 0 {
			key = c.keySizes[len(c.keySizes)-1]
		}
		c.steps = append(c.steps, s)
		c.keySizes, c.valueSizes = append(c.keySizes, key), append(c.valueSizes, value)
		if at++; !up {
			at -= 2
		}
	}
	end := len(c.keySizes) - 1
	if c.keySizes[end] != last.KeySize || c.valueSizes[end] != last.ValueSize {
		return nil, fmt.Errorf("the steps end with a key of %d bytes and a value of %d, the map has %d and %d",
			c.keySizes[end], c.valueSizes[end], last.KeySize, last.ValueSize)
	}
	return c, nil
}

// step finds the functions between a schema and the one before it, and the sizes where they lead to.
func (l *linker) step(prefix, name string, up bool) (s step, key, value uint32, err error) {
	forward, backward := "_up", "_down"
	if !up {
		forward, backward = backward, forward
	}
	s = step{up: up, value: prefix + name + forward}
	if l.functions[s.value] == nil {
		return s, 0, 0, fmt.Errorf("step %s is missing in the newer object", name+forward)
	}
	if value, err = pointed(l.functions[s.value], 2); err != nil {
		return s, 0, 0, fmt.Errorf("step %s: %w", name+forward, err)
	}
	if k := prefix + name + "_key" + forward; l.functions[k] != nil {
		s.key, s.keyBackward = k, prefix+name+"_key"+backward
		if l.functions[s.keyBackward] == nil {
			return s, 0, 0, fmt.Errorf("step %s is there, %s is not", name+"_key"+forward, name+"_key"+backward)
		}
		if key, err = pointed(l.functions[k], 1); err != nil {
			return s, 0, 0, fmt.Errorf("step %s: %w", name+"_key"+forward, err)
		}
	}
	return s, key, value, nil
}

// pointed is the size of what a parameter of a function points to.
func pointed(body asm.Instructions, parameter int) (uint32, error) {
	fn := btf.FuncMetadata(&body[0])
	if fn == nil {
		return 0, fmt.Errorf("it has no type information")
	}
	proto, ok := fn.Type.(*btf.FuncProto)
	if !ok || len(proto.Params) <= parameter {
		return 0, fmt.Errorf("it has %d parameters, it needs %d", len(proto.Params), parameter+1)
	}
	pointer, ok := btf.UnderlyingType(proto.Params[parameter].Type).(*btf.Pointer)
	if !ok {
		return 0, fmt.Errorf("parameter %d is not a pointer", parameter)
	}
	size, err := btf.Sizeof(pointer.Target)
	return uint32(size), err
}

// function writes a BPF function. Its arguments are kept in callee-saved registers, what is between two steps lies on
// its stack, zeroed.
type function struct {
	insns asm.Instructions
	stack int16
}

// pointer is something that a register or the stack holds the address of.
type pointer struct {
	register asm.Register // 0: on the stack
	offset   int16
}

func (f *function) add(insns ...asm.Instruction) { f.insns = append(f.insns, insns...) }

// buffer makes room on the stack.
func (f *function) buffer(size uint32) pointer {
	size = (size + 7) &^ 7
	f.stack -= int16(size)
	p := pointer{offset: f.stack}
	f.zero(p, size)
	return p
}

func (f *function) zero(p pointer, size uint32) {
	f.add(asm.Mov.Imm(asm.R0, 0))
	for at := p.offset; at < p.offset+int16(size); at += 8 {
		f.add(asm.StoreMem(asm.RFP, at, asm.R0, asm.DWord))
	}
}

// turns are two buffers in turn, for what one step makes and the next one reads: the stack of a chain of calls is short.
type turns struct {
	f    *function
	size uint32 // of the largest
	both []pointer
	at   int
}

// next returns a buffer that the one before it is not, zeroed.
func (t *turns) next() pointer {
	t.at++
	if len(t.both) < 2 {
		t.both = append(t.both, t.f.buffer(t.size))
		return t.both[len(t.both)-1]
	}
	p := t.both[(t.at-1)%2]
	t.f.zero(p, (t.size+7)&^7)
	return p
}

func (f *function) argument(r asm.Register, p pointer) {
	if p.register != 0 {
		f.add(asm.Mov.Reg(r, p.register))
		return
	}
	f.add(asm.Mov.Reg(r, asm.RFP), asm.Add.Imm(r, int32(p.offset)))
}

// call calls a function and returns what it returned, unless that is 0.
func (f *function) call(name string, arguments ...pointer) {
	for i, p := range arguments {
		f.argument(asm.R1+asm.Register(i), p)
	}
	over := asm.Instruction{OpCode: asm.JEq.Op(asm.ImmSource), Dst: asm.R0, Offset: 1}
	f.add(asm.Call.Label(name), over, asm.Return())
}

// copy copies bytes by the largest words that fit.
func (f *function) copy(to, from pointer, size uint32) {
	f.argument(asm.R1, from)
	f.argument(asm.R2, to)
	for at := uint32(0); at < size; {
		word := asm.DWord
		for at+uint32(word.Sizeof()) > size {
			word = map[asm.Size]asm.Size{asm.DWord: asm.Word, asm.Word: asm.Half, asm.Half: asm.Byte}[word]
		}
		f.add(asm.LoadMem(asm.R3, asm.R1, int16(at), word), asm.StoreMem(asm.R2, int16(at), asm.R3, word))
		at += uint32(word.Sizeof())
	}
}

func (f *function) end() asm.Instructions {
	f.add(asm.Mov.Imm(asm.R0, 0), asm.Return())
	return f.insns
}

// begin keeps n arguments.
func begin(n int) (*function, []pointer) {
	f := &function{}
	var kept []pointer
	for i := range n {
		r := asm.R6 + asm.Register(i)
		f.add(asm.Mov.Reg(r, asm.R1+asm.Register(i)))
		kept = append(kept, pointer{register: r})
	}
	return f, kept
}

// keys is the function that turns a key of the source into one of the target, or the other way round:
//
//	int f(const void *from, void *to)
func (c *conversion) keys(forward bool) asm.Instructions {
	f, arguments := begin(2)
	type move struct {
		name string
		size uint32 // of the key that it makes
	}
	var moves []move
	for i := range c.steps {
		m := move{c.steps[i].key, c.keySizes[i+1]}
		if !forward {
			s := len(c.steps) - 1 - i
			m = move{c.steps[s].keyBackward, c.keySizes[s]}
		}
		if m.name != "" {
			moves = append(moves, m)
		}
	}
	at, to := arguments[0], arguments[1]
	for i, m := range moves {
		next := to
		if i < len(moves)-1 {
			next = f.buffer(m.size)
		}
		f.call(m.name, at, next)
		at = next
	}
	if len(moves) == 0 {
		f.copy(to, at, c.keySizes[0])
	}
	return f.end()
}

// values is the function that turns an entry of the source into a value of the target:
//
//	int f(const void *source_key, const void *source, void *value)
//
// Steps are given the key of the newer of their two schemas.
func (c *conversion) values() asm.Instructions {
	f, arguments := begin(3)
	key, value, to := arguments[0], arguments[1], arguments[2]
	if c.dead != "" {
		f.call(c.dead, value)
	}
	if len(c.steps) > 0 { // what an iterator shows may be read, but not be looked up
		own := f.buffer(c.keySizes[0])
		f.copy(own, key, c.keySizes[0])
		key = own
	}
	between, keys := turns{f: f, size: slices.Max(c.valueSizes)}, turns{f: f, size: slices.Max(c.keySizes)}
	for i, s := range c.steps {
		next, nextKey := to, key
		if i < len(c.steps)-1 {
			next = between.next()
		}
		if s.key != "" && (s.up || i < len(c.steps)-1) {
			nextKey = keys.next()
			f.call(s.key, key, nextKey)
		}
		if s.up {
			f.call(s.value, nextKey, value, next)
		} else {
			f.call(s.value, key, value, next)
		}
		key, value = nextKey, next
	}
	if len(c.steps) == 0 {
		f.copy(to, value, c.valueSizes[0])
	}
	return f.end()
}
