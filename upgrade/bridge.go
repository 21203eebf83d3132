// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/bpf/rcu"
	"github.com/evenkeel/evenkeel/upgrade/migrate"
)

// bridgeObject is a release whose programs also know the maps of another.
func bridgeObject(target, source *object, pairs []mapPair, role Role, targetNumber, sourceNumber uint16) (*object, error) {
	all := make([]migrate.Pair, len(pairs))
	for i, p := range pairs {
		all[i] = migrate.Pair(p)
	}
	linked, err := migrate.Link(target.spec, source.spec, all)
	if err != nil {
		return nil, err
	}
	o := &object{DataPlane: target.DataPlane, spec: linked, record: target.record}
	o.record.Role, o.record.Target, o.record.Source, o.record.Pairs = role, targetNumber, sourceNumber, pairs
	o.DataPlane.Programs = slices.Clone(target.DataPlane.Programs)
	for _, p := range pairs {
		o.DataPlane.Programs = append(o.DataPlane.Programs, migrate.Programs(linked, p.Target)...)
	}
	o.digest, err = o.record.identity()
	return o, err
}

// reversed are the pairs of the way back.
func reversed(pairs []mapPair) []mapPair {
	all := make([]mapPair, len(pairs))
	for i, p := range pairs {
		all[i] = mapPair{Target: p.Source, Source: p.Target}
	}
	return all
}

// standIns are the source's maps under the names that a bridge has for them.
func standIns(pairs []mapPair, source map[string]*ebpf.Map) map[string]*ebpf.Map {
	all := make(map[string]*ebpf.Map)
	for _, p := range pairs {
		stand, _ := migrate.Placeholder(p.Target)
		all[stand] = source[p.Source]
	}
	return all
}

// upgradeByBridge builds the bridge, the release and the way back, and serves the bridge; then entries move behind it.
func (s *Store) upgradeByBridge(ctx context.Context, p *Plan, o *Attempt, from *Generation, numbers []uint16) error {
	pairs := p.pairs()
	bridge, err := bridgeObject(s.release, s.object, pairs, RoleBridge, numbers[1], from.Number)
	if err != nil {
		return err
	}
	use := p.shared(from)
	for name, m := range standIns(pairs, from.Maps) {
		use[name] = m
	}
	b, err := s.build(blueprint{object: bridge, number: numbers[0], use: use, fill: p.filler(from)})
	if err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	g, err := s.build(blueprint{object: s.release, number: numbers[1], use: s.plainMaps(b, s.release)})
	if err != nil {
		return err
	}
	if len(numbers) > 2 {
		if err := s.buildReverse(p, from, g, numbers[2]); err != nil {
			return fmt.Errorf("the way back: %w", err)
		}
	}
	if err := s.addHooks(); err != nil {
		return err
	}
	for _, one := range []*Generation{b, g} {
		if err := s.complete(one); err != nil {
			return err
		}
	}
	if err := s.setPhase(s.view.super.phase().withState(phaseMoving).withPrevious(0)); err != nil {
		return err
	}
	word := s.Word()
	if err := s.store(word, word.Upgrade(b.Number).WithFloor(b.Number)); err != nil {
		return err
	}
	if err := s.attachNew(ctx); err != nil {
		return err
	}
	if err := s.tell(KindBridge, from.Number, g.Number, s.view.super.digest(g.Number), "entries move to %s", g.record.name()); err != nil {
		return err
	}
	return s.advance(ctx, o)
}

// plainMaps are the maps that a release takes from its bridge.
func (s *Store) plainMaps(bridge *Generation, o *object) map[string]*ebpf.Map {
	use := make(map[string]*ebpf.Map)
	for name, m := range bridge.Maps {
		if migrate.IsSide(name) || o.spec.Maps[name] != nil && !migrate.Auxiliary(name) && !slices.Contains(o.Private, name) {
			use[name] = m
		}
	}
	return use
}

// buildReverse builds the release before as a bridge from the maps of the one after to fresh maps of its own layout,
// with sizes that are the node's.
func (s *Store) buildReverse(p *Plan, from, g *Generation, number uint16) error {
	old, err := s.object.resized(s.release)
	if err != nil {
		return err
	}
	pairs := reversed(p.pairs())
	for _, pair := range pairs {
		old.spec.Maps[pair.Target].MaxEntries = s.release.spec.Maps[pair.Source].MaxEntries
	}
	if old, err = readObject(old.replane()); err != nil {
		return err
	}
	reverse, err := bridgeObject(old, s.release, pairs, RoleReverse, 0, g.Number)
	if err != nil {
		return err
	}
	use := p.before(from, reverse)
	for name, m := range g.Maps {
		isTarget := slices.ContainsFunc(pairs, func(pair mapPair) bool { return pair.Target == name })
		if reverse.spec.Maps[name] != nil && !isTarget && !slices.Contains(reverse.Private, name) || migrate.IsSide(name) {
			use[name] = m
		}
	}
	for name, m := range standIns(pairs, g.Maps) {
		use[name] = m
	}
	for _, pair := range pairs {
		delete(use, pair.Target)
	}
	_, err = s.build(blueprint{object: reverse, number: number, use: use})
	return err
}

// replane is the data plane with the sizes that the spec has by now.
func (o *object) replane() DataPlane {
	plane := o.record.plane()
	for name := range plane.Sizes {
		plane.Sizes[name] = o.spec.Maps[name].MaxEntries
	}
	return plane
}

// bridgeState is struct bridge_state of migrate.h.
type bridgeState struct {
	Phase, Pad uint32
	Failed     uint64
}

const bridgeMap = "bridge"

// advance brings a bridge that serves to its end: entries move, then the release itself serves. It can be begun again at
// any point, by any release.
func (s *Store) advance(ctx context.Context, o *Attempt) error {
	b := s.view.generations[s.Word().Serve()]
	if b.Role() == RolePlain {
		return s.finish(ctx)
	}
	target, err := s.targetOf(ctx, b)
	if err != nil {
		return err
	}
	for range 2 { // for programs that read the word before, and for what they began then
		if err := rcu.Synchronize(); err != nil {
			return err
		}
	}
	moves, err := s.migrations(b, target)
	if err != nil {
		return err
	}
	for _, m := range moves {
		err := s.journal.do(StepSettle, m.Name, func() error { _, err := m.Settle(ctx); return err })
		if err != nil {
			return err
		}
	}
	state := bridgeState{Phase: 1}
	if err := b.Maps[bridgeMap].Lookup(uint32(0), &state); err != nil {
		return fmt.Errorf("read state of bridge: %w", err)
	}
	state.Phase = 1
	if err := b.Maps[bridgeMap].Put(uint32(0), &state); err != nil {
		return fmt.Errorf("end the notes of the bridge: %w", err)
	}
	for _, m := range moves {
		if err := s.move(ctx, m, o); err != nil {
			return err
		}
	}
	if err := b.Maps[bridgeMap].Lookup(uint32(0), &state); err != nil {
		return fmt.Errorf("read state of bridge: %w", err)
	}
	if state.Failed > 0 {
		return fmt.Errorf("%d entries that traffic asked for found no room: the bridge serves on; make the map larger", state.Failed)
	}
	word := s.Word()
	if err := s.store(word, word.Upgrade(target.Number).WithFloor(target.Number)); err != nil {
		return err
	}
	o.say(Progress{Doing: "serving"})
	return s.finish(ctx)
}

// targetOf finds, or builds, the generation that a bridge leads to.
func (s *Store) targetOf(ctx context.Context, b *Generation) (*Generation, error) {
	for _, n := range sortedKeys(s.view.generations) {
		g := s.view.generations[n]
		if g.Role() == RolePlain && g.Maps[b.record.Pairs[0].Target] != nil && b.Maps[b.record.Pairs[0].Target] != nil &&
			mapID(g.Maps[b.record.Pairs[0].Target]) == mapID(b.Maps[b.record.Pairs[0].Target]) {
			return g, nil
		}
	}
	target, err := readObject(b.record.plane())
	if err != nil {
		return nil, err
	}
	keep := []uint16{b.Number, b.record.Source}
	for _, n := range sortedKeys(s.view.generations) {
		if !slices.Contains(keep, n) && !slices.Contains(s.Word().Live(), n) {
			if err := s.retire(ctx, n); err != nil {
				return nil, err
			}
		}
	}
	n, err := s.nextFree(ctx)
	if err != nil {
		return nil, err
	}
	return s.build(blueprint{object: target, number: n, use: s.plainMaps(b, target)})
}

// nextFree is the next number whose place nothing has.
func (s *Store) nextFree(ctx context.Context) (uint16, error) {
	n := s.view.super.phase().Last()
	for range places + 1 {
		if n = after(n); s.free(n) {
			return n, s.sweepFor(ctx, []uint16{n})
		}
	}
	return 0, ErrCrowded
}

func (s *Store) free(n uint16) bool {
	return !slices.ContainsFunc(sortedKeys(s.view.generations), func(g uint16) bool { return g%places == n%places })
}

// migrations are what a bridge moves.
func (s *Store) migrations(b, target *Generation) ([]*migrate.Migration, error) {
	var all []*migrate.Migration
	for _, p := range b.record.Pairs {
		stand, notes := migrate.Placeholder(p.Target)
		m := &migrate.Migration{
			Name: p.Target, Source: b.Maps[stand], Target: target.Maps[p.Target], Notes: b.Maps[notes], Programs: b.Programs,
		}
		if m.Source == nil || m.Target == nil || m.Notes == nil || b.Maps[bridgeMap] == nil {
			return nil, &DamageError{string(s.view.tree), []Damage{{generationPath(b.Number), "a map of the bridge is gone: it " +
				"serves, but what it has not moved yet cannot be found", "uninstall, then start the agent"}}}
		}
		all = append(all, m)
	}
	return all, nil
}

// move copies the entries of one map and compares.
func (s *Store) move(ctx context.Context, m *migrate.Migration, o *Attempt) error {
	total, err := countEntries(m.Source)
	if err != nil {
		return err
	}
	evicts := m.Target.Type() == ebpf.LRUHash || m.Target.Type() == ebpf.LRUCPUHash
	err = s.journal.do(StepCopy, m.Name, func() error {
		_, err := m.Copy(ctx, func(seen uint64) {
			o.say(Progress{Doing: "copying", Map: m.Name, Done: seen, Total: max(total, seen)})
		})
		var full *migrate.FullError
		if errors.As(err, &full) && evicts {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	o.say(Progress{Doing: "comparing", Map: m.Name, Done: total, Total: total})
	checked, err := m.Check(ctx)
	if err != nil {
		return err
	}
	if checked.Missing > 0 && !evicts {
		return fmt.Errorf("compare %s: %d of %d keys are missing in the copy: the bridge serves on", m.Name, checked.Missing, checked.Seen)
	}
	return nil
}

// finish ends a move after its release serves: the way back is written down, tombstones go, and so do the bridge and
// what it came from. It can be begun again.
func (s *Store) finish(ctx context.Context) error {
	serving := s.view.generations[s.Word().Serve()]
	back, came := uint16(0), uint16(0)
	var spent []uint16
	for _, n := range sortedKeys(s.view.generations) {
		g := s.view.generations[n]
		switch {
		case g == serving:
		case g.Role() == RoleReverse && g.record.Source == serving.Number:
			back = n
		case g.Role() != RolePlain && came == 0:
			came = g.record.Source
			spent = append(spent, n)
		default:
			spent = append(spent, n)
		}
	}
	moving := s.view.super.phase().state() == phaseMoving
	if err := rcu.Synchronize(); err != nil {
		return err
	}
	for _, n := range spent { // while the phase says that it is not over
		g := s.view.generations[n]
		if g.Role() == RolePlain {
			continue
		}
		all, err := s.migrations(g, serving)
		if err != nil {
			continue // another's
		}
		for _, m := range all {
			if mapID(m.Target) != mapID(g.Maps[m.Name]) {
				continue
			}
			if err := s.journal.do(StepReap, m.Name, func() error { _, err := m.Reap(ctx); return err }); err != nil {
				return err
			}
		}
	}
	if moving {
		kind, text := KindUpgrade, serving.record.name()+", over a bridge"
		if err := s.tell(kind, came, serving.Number, s.view.super.digest(serving.Number), "%s", text); err != nil {
			return err
		}
	}
	if err := s.setPhase(s.view.super.phase().withState(phaseIdle).withPrevious(back)); err != nil {
		return err
	}
	for _, n := range spent {
		if err := s.retire(ctx, n); err != nil {
			return err
		}
	}
	return s.reread()
}
