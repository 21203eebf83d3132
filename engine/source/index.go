// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"iter"
	"slices"

	"github.com/evenkeel/evenkeel/engine/manifest"
)

// index finds objects by something that they have or depend on: a label, an address, a pod's name. It keeps lists,
// not sets, because nearly all of them have one member. Every object knows its place in each of its lists, so that
// leaving one of 100,000 members costs no more than leaving one of two.
type index[T comparable] struct {
	members map[T][]manifest.Key
	places  map[manifest.Key][]place[T]
}

type place[T comparable] struct {
	term T
	at   int
}

func newIndex[T comparable]() *index[T] {
	return &index[T]{members: map[T][]manifest.Key{}, places: map[manifest.Key][]place[T]{}}
}

// put replaces the terms of an object, which must be distinct; without terms it is removed.
func (x *index[T]) put(key manifest.Key, terms []T) {
	before := x.places[key]
	if slices.EqualFunc(before, terms, func(p place[T], t T) bool { return p.term == t }) {
		return
	}
	for _, p := range before {
		x.leave(p)
	}
	if len(terms) == 0 {
		delete(x.places, key)
		return
	}
	places := make([]place[T], 0, len(terms))
	for _, t := range terms {
		places = append(places, place[T]{t, len(x.members[t])})
		x.members[t] = append(x.members[t], key)
	}
	x.places[key] = places
}

// leave fills the place with the last member of the list.
func (x *index[T]) leave(p place[T]) {
	list := x.members[p.term]
	last := len(list) - 1
	if last == 0 {
		delete(x.members, p.term)
		return
	}
	moved := list[last]
	list[p.at] = moved
	x.members[p.term] = list[:last]
	for i := range x.places[moved] {
		if q := &x.places[moved][i]; q.term == p.term {
			q.at = p.at
		}
	}
}

// with returns the objects that have a term, in no order.
func (x *index[T]) with(term T) iter.Seq[manifest.Key] { return slices.Values(x.members[term]) }

// count returns how many objects have a term.
func (x *index[T]) count(term T) int { return len(x.members[term]) }

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
