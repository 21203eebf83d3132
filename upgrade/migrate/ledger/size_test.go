// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"testing"

	"github.com/evenkeel/evenkeel/upgrade/migrate"
)

// A map grows and shrinks, and changes its layout with its size, while two CPUs write it: the state is what the books say.
// Copying instead loses, and what has no room is refused before the new map serves by itself.
func TestSizesUnderWriters(t *testing.T) {
	const keys = 1 << 13
	begin := func(t *testing.T, schema int) (*Bed, *Traffic) {
		b := mustBed(t, Options{Schema: schema, Keys: keys})
		traffic := b.Start(t.Context(), 2, 5e5)
		must(t, traffic.Await(1000))
		return b, traffic
	}
	type size struct {
		schema int
		room   uint32
	}
	for name, walk := range map[string][]size{
		"hash":     {{1, 8 * keys}, {1, keys}, {1, 3 * keys}, {1, keys + 1}, {1, 2 * keys}},
		"LRU hash": {{5, 8 * keys}, {5, 2 * keys}, {5, 4 * keys}},
		"both":     {{2, 4 * keys}, {1, keys}, {4, 2 * keys}, {6, 8 * keys}, {3, keys}},
	} {
		t.Run(name, func(t *testing.T) {
			b, traffic := begin(t, walk[0].schema)
			for _, to := range walk {
				c, err := b.CrossInto(to.schema, to.room)
				must(t, err)
				o, err := c.ByBridge(t.Context(), true)
				must(t, err)
				if got := b.State.MaxEntries(); got != to.room {
					t.Fatalf("room for %d, want %d", got, to.room)
				}
				t.Logf("schema %d, room for %d: %d entries, %d updates meanwhile", to.schema, to.room, o.Copied.Seen(), o.Updates)
				must(t, traffic.Await(5000))
			}
			must(t, traffic.Stop())
			if a := b.wrong(t); a.Lost+a.Resurrected+a.Duplicated > 0 {
				t.Errorf("%+v", a)
			}
		})
	}
	for name, room := range map[string]uint32{"grown": 8 * keys, "shrunk": keys} {
		t.Run("control: copied, "+name, func(t *testing.T) {
			b, traffic := begin(t, 1)
			c, err := b.CrossInto(1, room)
			must(t, err)
			must(t, c.ByCopy(t.Context()))
			must(t, traffic.Await(1e5))
			must(t, traffic.Stop())
			if a := b.wrong(t); a.Lost == 0 {
				t.Errorf("%+v", a)
			}
		})
	}
	t.Run("too small", func(t *testing.T) {
		b := mustBed(t, Options{Schema: 1, Keys: keys})
		before := contents(t, b.State)
		c, err := b.CrossInto(1, keys/2)
		must(t, err)
		var full *migrate.FullError
		if _, err := c.ByBridge(t.Context(), true); !errors.As(err, &full) || full.Failed != keys/2 {
			t.Errorf("%d entries into a map for %d: %v", keys, keys/2, err)
		}
		if b.State == c.migration.Target {
			t.Error("the map that is too small serves")
		}
		if after := contents(t, b.State); len(after) != len(before) {
			t.Errorf("%d of %d entries are left", len(after), len(before))
		}
	})
}
