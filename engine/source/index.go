// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"hash/maphash"
	"iter"
	"slices"

	"github.com/evenkeel/evenkeel/engine/manifest"
)

// index finds objects by something that they have or depend on: a label, an address, a pod's name.
//
// There are 100,000 terms, nearly all of one object each, so it keeps 34 bytes of one: hashes of terms and numbers of
// objects. Two terms of one hash (one pair in 2^64) have their objects in common: callers take what they are given for
// something to look at, not for the truth.
type index[T comparable] struct {
	seed    maphash.Seed
	numbers map[manifest.Key]uint32
	objects []object // by number
	free    []uint32 // numbers that no object has
	// one has the object of a term that one has, more those of a term that several have.
	one  map[uint64]uint32
	more map[uint64]map[uint32]struct{}
	room []uint64 // for the hashes of one object
}

// object is an object and the hashes of its terms, sorted.
type object struct {
	key   manifest.Key
	terms []uint64
}

func newIndex[T comparable]() *index[T] {
	return &index[T]{
		seed: maphash.MakeSeed(), numbers: map[manifest.Key]uint32{},
		one: map[uint64]uint32{}, more: map[uint64]map[uint32]struct{}{},
	}
}

// grow makes room for terms and objects that are about to come, where there are none yet: a map that grows to 100,000
// entries moves each of them several times.
func (x *index[T]) grow(objects, terms int) {
	if len(x.objects) == 0 {
		x.numbers, x.one = make(map[manifest.Key]uint32, objects), make(map[uint64]uint32, terms)
		x.objects = make([]object, 0, objects)
	}
}

func (x *index[T]) hash(term T) uint64 { return maphash.Comparable(x.seed, term) }

// put replaces the terms of an object, in whatever order; without terms it is removed.
func (x *index[T]) put(key manifest.Key, terms []T) {
	hashes := x.room[:0]
	for _, t := range terms {
		hashes = append(hashes, x.hash(t))
	}
	x.room = hashes
	slices.Sort(hashes)
	hashes = slices.Compact(hashes)
	number, there := x.numbers[key]
	switch {
	case there && slices.Equal(x.objects[number].terms, hashes):
		return
	case there:
		for _, h := range x.objects[number].terms {
			x.leave(h, number)
		}
	case len(hashes) > 0:
		number = x.number(key)
	}
	if len(hashes) == 0 {
		if there {
			delete(x.numbers, key)
			x.objects[number] = object{}
			x.free = append(x.free, number)
		}
		return
	}
	hashes = slices.Clone(hashes)
	x.objects[number].terms = hashes
	for _, h := range hashes {
		x.join(h, number)
	}
}

// number gives an object a number.
func (x *index[T]) number(key manifest.Key) uint32 {
	var n uint32
	if last := len(x.free) - 1; last >= 0 {
		n, x.free = x.free[last], x.free[:last]
	} else {
		n = uint32(len(x.objects))
		x.objects = append(x.objects, object{})
	}
	x.objects[n].key = key
	x.numbers[key] = n
	return n
}

func (x *index[T]) join(hash uint64, number uint32) {
	if all := x.more[hash]; all != nil {
		all[number] = struct{}{}
		return
	}
	first, taken := x.one[hash]
	if !taken {
		x.one[hash] = number
		return
	}
	delete(x.one, hash)
	x.more[hash] = map[uint32]struct{}{first: {}, number: {}}
}

func (x *index[T]) leave(hash uint64, number uint32) {
	all := x.more[hash]
	if all == nil {
		delete(x.one, hash)
		return
	}
	delete(all, number)
	if len(all) == 1 {
		for last := range all {
			x.one[hash] = last
		}
		delete(x.more, hash)
	}
}

// with returns the objects that have a term, in no order.
func (x *index[T]) with(term T) iter.Seq[manifest.Key] {
	return func(yield func(manifest.Key) bool) {
		hash := x.hash(term)
		if number, is := x.one[hash]; is {
			yield(x.objects[number].key)
			return
		}
		for number := range x.more[hash] {
			if !yield(x.objects[number].key) {
				return
			}
		}
	}
}

// count returns how many objects have a term.
func (x *index[T]) count(term T) int {
	hash := x.hash(term)
	if _, is := x.one[hash]; is {
		return 1
	}
	return len(x.more[hash])
}

// label is a term that pods have and services select.
type label struct {
	namespace, name, value string
}

// labelsOf returns the terms of a set of labels, sorted.
func labelsOf(namespace string, labels map[string]string) []label {
	terms := make([]label, 0, len(labels))
	for name, value := range labels {
		terms = append(terms, label{namespace, name, value})
	}
	slices.SortFunc(terms, func(a, b label) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.value, b.value))
	})
	return terms
}
