// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"

	"github.com/cilium/ebpf"
)

// Offsets of fields in the value of a schema, in bytes.
var (
	countAt = [...]int{1: 0, 2: 0, 3: 8, 4: 8, 5: 8, 6: 8}
	deadAt  = [...]int{1: 16, 2: 24, 3: 24, 4: 24, 5: 24, 6: 20}
)

// read takes an entry of a schema apart.
func read(schema int, key, value []byte) (id uint32, count uint64, dead bool) {
	id = binary.LittleEndian.Uint32(key)
	count = binary.LittleEndian.Uint64(value[countAt[schema]:])
	return id, count, binary.LittleEndian.Uint32(value[deadAt[schema]:]) != 0
}

// each calls do for every element of a hash, by batches, which lock a bucket each and so miss none.
func each(m *ebpf.Map, do func(key, value []byte) error) error {
	const room = 1 << 16
	keys, values := elements(m.KeySize(), room), elements(m.ValueSize(), room)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys.Interface(), values.Interface(), nil)
		end := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !end {
			return fmt.Errorf("read map: %w", err)
		}
		for i := range n {
			if err := do(bytesOf(keys.Index(i)), bytesOf(values.Index(i))); err != nil {
				return err
			}
		}
		if end {
			return nil
		}
	}
}

// elements makes a slice of n elements of a size, as the library takes them.
func elements(size uint32, n int) reflect.Value {
	return reflect.MakeSlice(reflect.SliceOf(reflect.ArrayOf(int(size), reflect.TypeFor[byte]())), n, n)
}

func bytesOf(array reflect.Value) []byte { return array.Slice(0, array.Len()).Bytes() }
