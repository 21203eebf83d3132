// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/bpf/rcu"
	"github.com/evenkeel/evenkeel/upgrade/migrate"
)

// Crossing is a way from the schema that a bed has to another: programs and maps that are loaded and not serving yet.
// One of its By methods is called, once.
type Crossing struct {
	bed            *Bed
	to             int
	migration      *migrate.Migration
	bridge         *ebpf.Map
	bridged, final uint32 // slots
}

// Outcome is what a crossing took.
type Outcome struct {
	Settled, Copied, Reaped migrate.Count
	Checked                 migrate.Checked
	Copy, Check             time.Duration
	Updates                 uint64        // that traffic made from the first copied entry to the last compared
	Bridged                 time.Duration // from the switch to the bridge to that to the new release
}

// Cross prepares the move to another schema.
func (b *Bed) Cross(to int) (*Crossing, error) { return b.CrossInto(to, 0) }

// CrossInto prepares the move to a schema, the same perhaps, in a map with room for so many entries; 0 for as many as
// [Spec] says.
func (b *Bed) CrossInto(to int, room uint32) (*Crossing, error) {
	source, err := Spec(b.Schema, b.Keys)
	if err != nil {
		return nil, err
	}
	target, err := Spec(to, b.Keys)
	if err != nil {
		return nil, err
	}
	from, name := Name(b.Schema), Name(to)
	source.Maps[from].MaxEntries = b.State.MaxEntries()
	if room > 0 {
		target.Maps[name].MaxEntries = room
	}
	linked, err := migrate.Link(target, source, []migrate.Pair{{Target: name, Source: from}})
	if err != nil {
		return nil, err
	}
	stand, notes := migrate.Placeholder(name)
	use := maps.Clone(b.Sides)
	use[stand] = b.State
	all, err := b.load(linked, use, append(migrate.Programs(linked, name), "event")...)
	if err != nil {
		return nil, err
	}
	c := &Crossing{bed: b, to: to, bridge: all.Maps["bridge"], migration: &migrate.Migration{
		Name: name, Source: b.State, Target: all.Maps[name], Notes: all.Maps[notes], Programs: all.Programs,
	}}
	if c.bridged, err = b.put(all.Programs["event"]); err != nil {
		return nil, err
	}
	for n, m := range all.Maps {
		if migrate.IsSide(n) {
			b.Sides[n] = m
		}
	}
	plain, err := b.load(target, map[string]*ebpf.Map{name: all.Maps[name]}, "event")
	if err != nil {
		return nil, err
	}
	c.final, err = b.put(plain.Programs["event"])
	return c, err
}

// bridgeState is struct bridge_state of migrate.h.
type bridgeState struct {
	Phase, Pad uint32
	Failed     uint64
}

// ByBridge is how it is done: docs/design/upgrade.md. Without settle nothing makes up for what old code did that was still
// running, which is for a control.
func (c *Crossing) ByBridge(ctx context.Context, settle bool) (o Outcome, err error) {
	start := time.Now()
	if err := c.bed.serve(c.bridged); err != nil {
		return o, err
	}
	for range 2 {
		if err := rcu.Synchronize(); err != nil {
			return o, err
		}
	}
	if settle {
		if o.Settled, err = c.migration.Settle(ctx); err != nil {
			return o, err
		}
	}
	const copying = 1 // enum bridge_phase
	if err := c.bridge.Put(uint32(0), bridgeState{Phase: copying}); err != nil {
		return o, fmt.Errorf("end notes: %w", err)
	}
	before, err := c.bed.Totals()
	if err != nil {
		return o, err
	}
	began := time.Now()
	if o.Copied, err = c.migration.Copy(ctx, nil); err != nil {
		return o, err
	}
	o.Copy = time.Since(began)
	if o.Checked, err = c.migration.Check(ctx); err != nil {
		return o, err
	}
	o.Check = time.Since(began) - o.Copy
	if o.Checked.Missing > 0 || o.Checked.Seen != o.Copied.Seen() {
		return o, fmt.Errorf("%d keys of %d are missing, %d were copied", o.Checked.Missing, o.Checked.Seen, o.Copied.Seen())
	}
	after, err := c.bed.Totals()
	if err != nil {
		return o, err
	}
	o.Updates = after.Events - before.Events
	if err := c.commit(); err != nil {
		return o, err
	}
	o.Bridged = time.Since(start)
	if o.Reaped, err = c.migration.Reap(ctx); err != nil {
		return o, err
	}
	var state bridgeState
	if err := c.bridge.Lookup(uint32(0), &state); err != nil {
		return o, fmt.Errorf("read state of the bridge: %w", err)
	}
	if state.Failed > 0 {
		return o, fmt.Errorf("%d entries that traffic asked for could not be taken over", state.Failed)
	}
	return o, nil
}

// commit has the release with the new schema serve by itself.
func (c *Crossing) commit() error {
	if err := c.bed.serve(c.final); err != nil {
		return err
	}
	if err := rcu.Synchronize(); err != nil {
		return err
	}
	c.bed.State, c.bed.Schema = c.migration.Target, c.to
	return nil
}
