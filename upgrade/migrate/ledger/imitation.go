// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// ByCopy is the plain way, and a control: copy, then switch. What traffic does between the two is in the old map only.
func (c *Crossing) ByCopy(ctx context.Context) error {
	if _, err := c.migration.Copy(ctx, nil); err != nil {
		return err
	}
	return c.commit()
}

// The schemes of other systems, as their sources had them in 2026, on this map and this traffic. Each ends with the new
// release serving. What they do around it (pins, links, order of hooks) costs none of these updates and is left out.
var imitations = map[string]func(*Crossing, context.Context) error{
	// Calico Felix (felix/bpf/maps): a map of the new version, a first copy of all entries by user space before programs
	// are attached, and a second one after, both with BPF_ANY: what the new programs have written since is overwritten by
	// what the old map holds, and what they removed comes back.
	"calico": (*Crossing).twice,
	// Cilium (pkg/bpf): "Removing map to allow for property upgrade (expect map data loss)": an empty map takes the place
	// of one with other properties, and programs are attached that use it.
	"cilium": (*Crossing).empty,
	// Tetragon (cmd/tetragon): the directory of the old release becomes _old, everything is loaded anew beside it with maps
	// of its own, and _old is deleted. While both are attached each counts every event into its own map; those of the old
	// go with it.
	"tetragon": (*Crossing).empty,
	// Kmesh (pkg/bpf/restart): the layouts are compared field by field, a map of the new layout is created, empty, and the
	// links get the new programs one by one; nothing that would move entries was written.
	"kmesh": (*Crossing).empty,
}

// Imitations lists the systems whose schemes [Crossing.Imitate] knows.
func Imitations() []string { return slices.Sorted(maps.Keys(imitations)) }

// Imitate crosses in the way of another system, from schema 1 to 2.
func (c *Crossing) Imitate(ctx context.Context, system string) error {
	do := imitations[system]
	if do == nil || c.bed.Schema != 1 || c.to != 2 {
		return fmt.Errorf("imitate %q from schema %d to %d: only %v are known, from 1 to 2", system, c.bed.Schema, c.to, Imitations())
	}
	if err := do(c, ctx); err != nil {
		return fmt.Errorf("imitate %s: %w", system, err)
	}
	return nil
}

func (c *Crossing) empty(context.Context) error { return c.commit() }

func (c *Crossing) twice(ctx context.Context) error {
	source := c.bed.State
	pass := func() error {
		return each(source, func(key, value []byte) error {
			if _, _, dead := read(1, key, value); dead {
				return nil
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			return c.migration.Target.Put(key, widened(value))
		})
	}
	if err := pass(); err != nil {
		return err
	}
	if err := c.commit(); err != nil {
		return err
	}
	return pass()
}

// widened makes a value of schema 2 of one of schema 1.
func widened(old []byte) []byte {
	const size, zone = 32, 28
	value := make([]byte, size)
	copy(value, old[:deadAt[1]])
	value[zone] = 1
	return value
}
