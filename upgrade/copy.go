// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"

	"github.com/cilium/ebpf"
)

// batch is how many elements one system call reads or writes.
const batch = 4096

// elements makes room for n elements of a size, as the library takes them for batches.
func elements(size uint32, n int) reflect.Value {
	return reflect.MakeSlice(reflect.SliceOf(reflect.ArrayOf(int(size), reflect.TypeFor[byte]())), n, n)
}

// raw are the bytes of such elements.
func raw(v reflect.Value, size uint32, n int) []byte {
	if n == 0 || size == 0 {
		return nil
	}
	out := make([]byte, n*int(size))
	for i := range n {
		reflect.Copy(reflect.ValueOf(out[i*int(size):(i+1)*int(size)]), v.Index(i))
	}
	return out
}

// eachBatch reads all elements of a hash or an array, by batches, which lock a bucket each.
func eachBatch(m *ebpf.Map, do func(keys, values []byte, n int) error) error {
	room := int(min(m.MaxEntries(), batch)) + 1024 // a batch is of whole buckets
	keys, values := elements(m.KeySize(), room), elements(m.ValueSize(), room)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys.Interface(), values.Interface(), nil)
		end := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !end {
			return err
		}
		if n > 0 {
			if err := do(raw(keys, m.KeySize(), n), raw(values, m.ValueSize(), n), n); err != nil {
				return err
			}
		}
		if end {
			return nil
		}
	}
}

// lastUsed is how many elements an array has up to the last that is not zero.
func lastUsed(m *ebpf.Map) (last uint64, err error) {
	at := uint64(0)
	size := int(m.ValueSize())
	err = eachBatch(m, func(_, values []byte, n int) error {
		for i := range n {
			if at++; bytes.ContainsFunc(values[i*size:(i+1)*size], func(r rune) bool { return r != 0 }) {
				last = at
			}
		}
		return nil
	})
	return last, err
}

// copyMap copies what the owner alone writes into a map that nothing reads yet, and compares the two.
func copyMap(from, to *ebpf.Map) error {
	key, value := int(from.KeySize()), int(from.ValueSize())
	each := func(do func(k, v []byte) error) error {
		at := uint32(0)
		return eachBatch(from, func(keys, values []byte, n int) error {
			for i := range n {
				v := values[i*value : (i+1)*value]
				if from.Type() == ebpf.Array {
					if at++; at > to.MaxEntries() && len(bytes.Trim(v, "\x00")) == 0 {
						continue
					}
					if len(bytes.Trim(v, "\x00")) == 0 {
						continue // as it was made
					}
				}
				if err := do(keys[i*key:(i+1)*key], v); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := each(func(k, v []byte) error { return to.Put(k, v) })
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	if from.Type() == ebpf.LRUHash {
		return nil // which may have evicted, and been written meanwhile
	}
	found := make([]byte, value)
	return each(func(k, v []byte) error {
		if err := to.Lookup(k, &found); err != nil {
			return fmt.Errorf("compare element %x: %w", k, err)
		}
		if !bytes.Equal(v, found) {
			return fmt.Errorf("compare element %x: %x was copied, %x is there", k, v, found)
		}
		return nil
	})
}
