// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
)

// TestCheckFindsWhatIsMissing: keys that were lost between copying and comparing are counted, and no others.
func TestCheckFindsWhatIsMissing(t *testing.T) {
	b := mustBed(t, Options{Schema: 1, Keys: 1 << 12})
	c := b.mustCross(t, 2)
	copied, err := c.migration.Copy(t.Context(), nil)
	must(t, err)
	const lost = 17
	var keys [][]byte
	must(t, each(c.migration.Target, func(key, _ []byte) error {
		if len(keys) < lost {
			keys = append(keys, append([]byte(nil), key...))
		}
		return nil
	}))
	for _, key := range keys {
		must(t, c.migration.Target.Delete(key))
	}
	for _, want := range []uint64{lost, 0} { // what the lock was taken to see it has put there
		checked, err := c.migration.Check(t.Context())
		must(t, err)
		if checked.Missing != want || checked.Seen != copied.Seen() {
			t.Errorf("%+v, want %d missing of %d", checked, want, copied.Seen())
		}
	}
}

// TestCheckIsNotFooled: entries that are replaced all the time are never missing to a scan that asks under the lock of
// the bucket. The control looks as programs do, without: it has to miss some, or the test says nothing.
func TestCheckIsNotFooled(t *testing.T) {
	b := mustBed(t, Options{Schema: 1, Keys: 1 << 10})
	c := b.mustCross(t, 2)
	_, err := c.migration.Copy(t.Context(), nil)
	must(t, err)
	m := c.migration.Target
	var keys, values [][]byte
	must(t, each(m, func(key, value []byte) error {
		keys, values = append(keys, append([]byte(nil), key...)), append(values, append([]byte(nil), value...))
		return nil
	}))
	end := make(chan struct{})
	var replacing sync.WaitGroup
	for range 2 {
		replacing.Go(func() {
			for {
				for i := range keys {
					if err := m.Update(keys[i], values[i], ebpf.UpdateExist); err != nil {
						t.Error(err)
						return
					}
				}
				select {
				case <-end:
					return
				default:
				}
			}
		})
	}
	missed, looks := 0, 0
	value := make([]byte, m.ValueSize())
	for missed == 0 && looks < 50_000_000 {
		for _, key := range keys {
			if looks++; errors.Is(m.Lookup(key, &value), ebpf.ErrKeyNotExist) {
				missed++
			}
		}
		checked, err := c.migration.Check(t.Context())
		must(t, err)
		if checked.Missing > 0 {
			t.Fatalf("%+v", checked)
		}
	}
	close(end)
	replacing.Wait()
	t.Logf("%d of %d look-ups without the lock missed", missed, looks)
	if missed == 0 {
		t.Error("a look-up without the lock missed nothing: the test says nothing")
	}
}
