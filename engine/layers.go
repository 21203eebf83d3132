// SPDX-License-Identifier: Apache-2.0

package engine

// layers holds what each source says about the keys of one kind, in rising precedence. A key is what the highest
// source that has it says, whole; the next one's comes back when that source deletes it.
type layers[T any] []map[string]*T

func newLayers[T any](sources int) layers[T] {
	l := make(layers[T], sources)
	for i := range l {
		l[i] = make(map[string]*T)
	}
	return l
}

// source returns the index of the source that wins, -1 if none has the key.
func (l layers[T]) source(key string) int {
	for i := len(l) - 1; i >= 0; i-- {
		if l[i][key] != nil {
			return i
		}
	}
	return -1
}

// winner returns nil if no source has the key.
func (l layers[T]) winner(key string) *T {
	if i := l.source(key); i >= 0 {
		return l[i][key]
	}
	return nil
}

// set makes source say value about key, nil for nothing, and returns what won before and what wins now.
func (l layers[T]) set(source int, key string, value *T) (before, after *T) {
	before = l.winner(key)
	if value == nil {
		delete(l[source], key)
	} else {
		l[source][key] = value
	}
	return before, l.winner(key)
}

// all returns what wins of every key.
func (l layers[T]) all() map[string]*T {
	all := make(map[string]*T)
	for _, m := range l {
		for key, value := range m {
			all[key] = value
		}
	}
	return all
}
