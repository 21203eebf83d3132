// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/upgrade/migrate"
)

// Attempt says how to upgrade, or to go back.
type Attempt struct {
	Progress func(Progress) // called between steps and while entries move; may be nil
	Canary   *Canary        // give it to a share of new connections first; nil to give it to all at once
}

// Progress is how far an upgrade has come.
type Progress struct {
	Doing string // what, for people
	Map   string // whose entries move, "" if none do
	Done  uint64 // entries that were looked at
	Total uint64
}

func (o *Attempt) say(p Progress) {
	if o.Progress != nil {
		o.Progress(p)
	}
}

// Upgrade makes the release that [Open] was given serve, and returns what was planned. Nothing that serves is touched
// before the new generation is pinned as a whole and verified: a [RefusedError] or any other error from before has cost
// nothing. Connections go on: on the old generation if no layout changes, else on the new one. It goes back by
// [Store.Rollback]. The caller writes no map meanwhile, and takes maps and programs anew afterwards.
func (s *Store) Upgrade(ctx context.Context, o Attempt) (*Plan, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.view.plan(s.object, s.release)
	if err != nil || p.Same {
		return p, err
	}
	if len(p.Refusals) > 0 {
		return p, &RefusedError{p.Refusals}
	}
	if s.busy {
		return p, errors.New("an upgrade is under way")
	}
	s.busy = true
	defer func() { s.busy = false }()
	if o.Canary != nil && !p.Canary {
		return p, errors.New("the layout of a shared map changes, so no share of the connections can try the release: " +
			"upgrade one node without a canary, and the others when it has held")
	}
	if err := s.upgrade(ctx, p, &o); err != nil {
		return p, fmt.Errorf("upgrade %s: %w", s.view.tree, err)
	}
	return p, nil
}

func (s *Store) upgrade(ctx context.Context, p *Plan, o *Attempt) error {
	if err := s.release.try(ctx); err != nil {
		return fmt.Errorf("the release was refused, what serves goes on untouched: %w", err)
	}
	numbers, err := s.makeRoom(ctx, p.room(s.object, s.release))
	if err != nil {
		return err
	}
	from := s.view.generations[s.Word().Serve()]
	if err := s.createFrozen(p); err != nil {
		return err
	}
	o.say(Progress{Doing: "building"})
	if len(p.pairs()) > 0 {
		return s.upgradeByBridge(ctx, p, o, from, numbers)
	}
	g, err := s.build(blueprint{object: s.release, number: numbers[0], use: p.shared(from), fill: p.filler(from)})
	if err != nil {
		return err
	}
	back := from.Number
	if p.Move == "floor" && len(numbers) > 1 {
		if back, err = s.buildWayBack(g, from, p, numbers[1]); err != nil {
			return err
		}
	} else if p.moves(ActionCopy) {
		back = 0
	}
	if err := s.addHooks(); err != nil {
		return err
	}
	if err := s.complete(g); err != nil {
		return err
	}
	if o.Canary != nil {
		if err := s.tryCanary(ctx, g, o); err != nil {
			return err
		}
	}
	word := s.Word()
	next := word.Upgrade(g.Number)
	if p.Move == "floor" {
		next = next.WithFloor(g.Number)
	}
	if err := s.commit(ctx, from, g, next, back, "%s, by the word", g.record.name()); err != nil {
		return err
	}
	o.say(Progress{Doing: "serving"})
	if err := s.holdServing(ctx, g, from, o); err != nil {
		return err
	}
	if p.moves(ActionCopy) { // what the owner writes from now on the generation before would not see
		return s.retire(ctx, from.Number)
	}
	return nil
}

// shared are the maps that the next generation has in common with the one that serves.
func (p *Plan) shared(from *Generation) map[string]*ebpf.Map {
	use := make(map[string]*ebpf.Map)
	for _, m := range p.Maps {
		if m.Action == ActionKeep && from.Maps[m.Name] != nil {
			use[m.Name] = from.Maps[m.Name]
		}
	}
	for name, m := range from.Maps { // what an older layout had no place for, for whoever comes after
		if migrate.IsSide(name) && use[name] == nil {
			use[name] = m
		}
	}
	return use
}

// before are the maps that the release before goes on with: what is shared, and what only it has.
func (p *Plan) before(from *Generation, o *object) map[string]*ebpf.Map {
	use := p.shared(from)
	for _, m := range p.Maps {
		if m.Action == ActionRemove && !slices.Contains(o.Private, m.Name) {
			use[m.Name] = from.Maps[m.Name]
		}
	}
	return use
}

// filler copies what only the owner writes.
func (p *Plan) filler(from *Generation) func(*Generation) error {
	return func(g *Generation) error {
		for _, m := range p.Maps {
			if m.Action != ActionCopy || g.Maps[m.Name] == nil || from.Maps[m.Name] == nil {
				continue
			}
			if err := copyMap(from.Maps[m.Name], g.Maps[m.Name]); err != nil {
				return fmt.Errorf("rebuild map %s: %w", m.Name, err)
			}
		}
		return nil
	}
}

// buildWayBack builds the release before on the maps of the one after, whose sizes are the node's.
func (s *Store) buildWayBack(g, from *Generation, p *Plan, number uint16) (uint16, error) {
	o, err := s.object.resized(s.release)
	if err != nil {
		return 0, err
	}
	use := p.before(from, o)
	for name, m := range g.Maps {
		if o.spec.Maps[name] != nil && !slices.Contains(o.Private, name) {
			use[name] = m
		}
	}
	_, err = s.build(blueprint{object: o, number: number, use: use})
	return number, err
}

// resized is a release with the sizes of another, where the two have a map of one name.
func (o *object) resized(like *object) (*object, error) {
	plane := o.record.plane()
	for name := range plane.Sizes {
		if m := like.spec.Maps[name]; m != nil && !slices.Contains(o.Private, name) {
			plane.Sizes[name] = m.MaxEntries
		}
	}
	return readObject(plane)
}

// createFrozen makes maps that all generations are to share and that the release before did not have.
func (s *Store) createFrozen(p *Plan) error {
	for _, name := range s.release.Frozen {
		if s.view.maps[name] != nil {
			continue
		}
		m, err := ebpf.NewMap(s.release.roomy(s.release.spec.Maps[name]))
		if err != nil {
			return fmt.Errorf("create map %s: %w", name, err)
		}
		s.view.maps[name] = m
		path := join(pathMaps, name)
		if err := s.journal.do(StepPinMap, path, func() error { return pin(m, s.at(path)) }); err != nil {
			return err
		}
	}
	return nil
}

// addHooks makes entries for hooks that the release before did not have. The generation that has them is published
// already, so whoever finds half of this knows what it belongs to. They are attached once it serves.
func (s *Store) addHooks() error {
	for _, h := range s.release.Hooks {
		if slices.ContainsFunc(s.hooks, func(x Hook) bool { return x.Name == h.Name }) {
			continue
		}
		if s.view.calls[h.Name] == nil {
			m, err := ebpf.NewMap(s.release.spec.Maps[callsName(h.Name)])
			if err != nil {
				return fmt.Errorf("create prog array of hook %s: %w", h.Name, err)
			}
			s.view.calls[h.Name] = m
			path := join(pathCalls, h.Name)
			if err := s.journal.do(StepPinCalls, path, func() error { return pin(m, s.at(path)) }); err != nil {
				return err
			}
		}
		kind := s.release.spec.Programs[h.Entry].Type
		for _, n := range sortedKeys(s.view.generations) {
			if err := s.letPass(s.view.generations[n], h, kind); err != nil {
				return err
			}
		}
		s.hooks = append(slices.Clone(s.hooks), h)
		for _, n := range sortedKeys(s.view.generations) {
			if err := s.fill(s.view.generations[n]); err != nil {
				return err
			}
		}
		if s.view.entries[h.Name] == nil {
			p, err := s.release.loadOne(0, h.Entry, s.view.common())
			if err != nil {
				return err
			}
			s.view.entries[h.Name] = p
			path := join(pathEntries, h.Name)
			if err := s.journal.do(StepPinEntry, path, func() error { return pin(p, s.at(path)) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// letPass gives a generation a program at a hook that its release does not have.
func (s *Store) letPass(g *Generation, h Hook, kind ebpf.ProgramType) error {
	if !g.lacks(h) && g.record != nil || g.main(h) != nil {
		return nil
	}
	p, err := passProgram(h, kind)
	if err != nil {
		return err
	}
	name := passName(h.Name)
	g.Programs[name] = p
	path := join(generationPath(g.Number), "progs", name)
	return s.journal.do(StepPinProgram, path, func() error { return pin(p, s.at(path)) })
}

// complete makes sure, by what the kernel says, that a generation has a program in its slot at every hook there is.
func (s *Store) complete(g *Generation) error {
	for _, h := range s.hooks {
		id, err := slot(s.view.calls[h.Name], Base(g.Number))
		if err != nil {
			return err
		}
		if p := g.main(h); p == nil || id == 0 || id != programID(p) {
			return fmt.Errorf("slot %d of hook %s does not hold the program of generation %d", Base(g.Number), h.Name, g.Number)
		}
	}
	return nil
}

// commit makes a generation serve. What a rollback would serve is written down before, and the hooks that are new are
// attached after.
func (s *Store) commit(ctx context.Context, from, to *Generation, next Word, back uint16, why string, args ...any) error {
	phase := s.view.super.phase()
	if err := s.setPhase(phase.withPrevious(back).withState(phaseIdle)); err != nil {
		return err
	}
	if err := s.store(s.Word(), next); err != nil {
		return err
	}
	s.object, s.same = s.release, true
	if err := s.attachNew(ctx); err != nil {
		return err
	}
	return s.tell(KindUpgrade, from.Number, to.Number, s.view.super.digest(to.Number), why, args...)
}

func (s *Store) setPhase(next Phase) error {
	phase := s.view.super.phase()
	if phase == next {
		return nil
	}
	return s.journal.do(StepSwapPhase, next.String(), func() error { return s.view.super.swapPhase(phase, next) })
}

// store swaps the word, without the checks of Swap, and points people to what serves.
func (s *Store) store(expect, next Word) error {
	next = next.WithEpoch(s.journal.epoch)
	if expect == next {
		return nil
	}
	s.journal.generation = next.Serve()
	defer func() { s.journal.generation = 0 }()
	err := s.journal.do(StepSwapWord, next.String(), func() error { return s.view.super.swap(expect, next) })
	if err != nil || next.Serve() == expect.Serve() {
		return err
	}
	return s.journal.do(StepLinkCurrent, pathCurrent, func() error { return s.view.tree.linkCurrent(next.Serve()) })
}

// attachNew attaches hooks of the whole node that are not attached yet, if the generation that serves has them.
func (s *Store) attachNew(ctx context.Context) error {
	serving := s.view.generations[s.Word().Serve()]
	off, _, err := s.detached()
	if err != nil {
		return err
	}
	for _, h := range off {
		if serving.lacks(h) {
			continue
		}
		if err := s.attach(ctx, h, s.inside); err != nil {
			return err
		}
	}
	return nil
}

// numbers chooses numbers for generations to come, and which of those that are there make room: first what nothing runs,
// then what a rollback would serve, at last what old connections run.
func (v *view) numbers(room int) (numbers, retire []uint16) {
	word, phase := v.word(), v.super.phase()
	live := word.Live()
	var spare, old []uint16
	for _, n := range sortedKeys(v.generations) {
		switch {
		case n == word.Serve():
		case slices.Contains(live, n) || n == phase.Previous():
			old = append(old, n)
		default:
			spare = append(spare, n)
		}
	}
	slices.SortFunc(old, func(a, b uint16) int { // the oldest of those that run first, the one to go back to last
		age := func(n uint16) int {
			if n == phase.Previous() {
				return int(places) + 1
			}
			return slices.Index(live, n)
		}
		return age(a) - age(b)
	})
	retire = spare
	taken := func(n uint16) bool {
		return slices.ContainsFunc(sortedKeys(v.generations), func(g uint16) bool {
			return g%places == n%places && !slices.Contains(retire, g)
		})
	}
	free := func() int {
		count := 0
		for n := range places {
			if !taken(n) {
				count++
			}
		}
		return count
	}
	for free() < room && len(old) > 0 {
		retire, old = append(retire, old[0]), old[1:]
	}
	n := phase.Last()
	for range int(generations) {
		if len(numbers) == room {
			break
		}
		if n = after(n); !taken(n) && !slices.ContainsFunc(numbers, func(x uint16) bool { return x%places == n%places }) {
			numbers = append(numbers, n)
		}
	}
	return numbers, retire
}

// makeRoom retires what has to go for so many generations, and returns numbers for them.
func (s *Store) makeRoom(ctx context.Context, room int) ([]uint16, error) {
	numbers, retire := s.view.numbers(room)
	if len(numbers) < room {
		return nil, ErrCrowded
	}
	for _, n := range retire {
		if s.view.super.phase().Previous() == n {
			if err := s.setPhase(s.view.super.phase().withPrevious(0)); err != nil {
				return nil, err
			}
		}
		if err := s.outlive(n); err != nil {
			return nil, err
		}
		if err := s.retire(ctx, n); err != nil {
			return nil, err
		}
	}
	if err := s.sweepFor(ctx, numbers); err != nil {
		return nil, err
	}
	return numbers, nil
}

// outlive carries the connections of a generation over to the next one that is live.
func (s *Store) outlive(n uint16) error {
	word := s.Word()
	live := word.Live()
	i := slices.Index(live, n)
	switch {
	case i < 0:
		return nil
	case n == word.Canary():
		return s.store(word, word.Withdraw())
	}
	return s.store(word, word.WithFloor(live[i+1]))
}

// retire removes a generation that no connection can run any more, and the hooks that only it had.
func (s *Store) retire(ctx context.Context, n uint16) error {
	g := s.view.generations[n]
	if g == nil {
		return nil
	}
	if word := s.Word(); slices.Contains(word.Live(), n) {
		return fmt.Errorf("retire generation %d: connections run it (%v)", n, word)
	}
	if s.view.super.phase().Previous() == n {
		if err := s.setPhase(s.view.super.phase().withPrevious(0)); err != nil {
			return err
		}
	}
	if err := grace(); err != nil {
		return fmt.Errorf("retire generation %d: %w", n, err)
	}
	s.journal.generation = n
	defer func() { s.journal.generation = 0 }()
	orphans, err := s.detachOrphans(ctx, n)
	if err != nil {
		return err
	}
	path := generationPath(n)
	err = s.journal.do(StepMarkDead, path, func() error { return unix.Rename(s.at(path), s.at(path+suffixDead)) })
	if err != nil {
		return err
	}
	delete(s.view.generations, n)
	g.close()
	for _, hook := range sortedKeys(s.view.calls) {
		if err := s.clear(hook, n); err != nil {
			return err
		}
	}
	if err := s.discard(path + suffixDead); err != nil {
		return err
	}
	return s.dropCalls(orphans)
}

// detachOrphans takes off the hooks that no generation but n has: links first, then entries. The prog arrays go last, when the
// generation is gone.
func (s *Store) detachOrphans(ctx context.Context, n uint16) (orphans []Hook, err error) {
	for _, h := range s.hooks {
		needed := false
		for other, g := range s.view.generations {
			needed = needed || other != n && !g.lacks(h)
		}
		if !needed {
			orphans = append(orphans, h)
		}
	}
	if err := s.dropEntries(ctx, orphans); err != nil {
		return nil, err
	}
	s.hooks = slices.DeleteFunc(slices.Clone(s.hooks), func(h Hook) bool { return slices.Contains(orphans, h) })
	return orphans, nil
}

// dropHooks takes hooks off for good.
func (s *Store) dropHooks(ctx context.Context, hooks []Hook) error {
	return errors.Join(s.dropEntries(ctx, hooks), s.dropCalls(hooks))
}

func (s *Store) dropEntries(ctx context.Context, hooks []Hook) error {
	r := &removal{tree: s.view.tree, journal: s.journal}
	for _, h := range hooks {
		if l := s.view.links[h.Name]; l != nil {
			err := l.takeOff()
			l.Close()
			delete(s.view.links, h.Name)
			if err != nil {
				return fmt.Errorf("detach %s: %w", join(pathLinks, h.Name), err)
			}
		}
		if h.At.node() {
			if err := r.unpinIf(join(pathLinks, h.Name)); err != nil {
				return err
			}
		} else if err := s.detachPods(ctx, h.Name); err != nil {
			return err
		}
		if p := s.view.entries[h.Name]; p != nil {
			p.Close()
			delete(s.view.entries, h.Name)
		}
		if err := r.unpinIf(join(pathEntries, h.Name)); err != nil {
			return err
		}
	}
	return nil
}

// unpinIf unpins what may be there.
func (r *removal) unpinIf(path string) error {
	if _, err := os.Lstat(r.tree.at(path)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return r.unpin(path)
}

func (s *Store) detachPods(ctx context.Context, hook string) error {
	p := s.pods()
	pods, err := p.List()
	if err != nil {
		return err
	}
	for _, pod := range pods {
		if err := p.takeOff(join(pathPods, pod, hook)); err != nil {
			return err
		}
		if err := p.Detach(ctx, pod, hook); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) dropCalls(orphans []Hook) error {
	r := &removal{tree: s.view.tree, journal: s.journal}
	for _, h := range orphans {
		if m := s.view.calls[h.Name]; m != nil {
			m.Close()
			delete(s.view.calls, h.Name)
		}
		if err := r.unpinIf(join(pathCalls, h.Name)); err != nil {
			return err
		}
		for _, n := range sortedKeys(s.view.generations) {
			g, name := s.view.generations[n], passName(h.Name)
			if g.Programs[name] == nil {
				continue
			}
			if err := r.unpin(join(generationPath(n), "progs", name)); err != nil {
				return err
			}
			g.Programs[name].Close()
			delete(g.Programs, name)
		}
	}
	return nil
}

// try loads a release a second time, with maps of its own, and has it answer what it is asked.
func (o *object) try(ctx context.Context) error {
	alone := *o
	alone.spec = o.spec.Copy()
	const few = 64
	for name, m := range alone.spec.Maps {
		if m.Type != ebpf.ProgramArray && !internal(name) {
			m.MaxEntries = min(m.MaxEntries, few)
		}
	}
	if err := alone.configure(alone.spec, 1); err != nil {
		return err
	}
	maps.DeleteFunc(alone.spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool {
		isEntry := func(h Hook) bool { return h.Entry == name }
		return !slices.Contains(o.programs(), name) && !slices.ContainsFunc(o.Hooks, isEntry)
	})
	maps.DeleteFunc(alone.spec.Maps, func(name string, _ *ebpf.MapSpec) bool {
		return !o.common(name) && !slices.Contains(o.own(), name) && !internal(name)
	})
	loaded, err := ebpf.NewCollection(alone.spec)
	if err != nil {
		return fmt.Errorf("load object: %w", err)
	}
	defer loaded.Close()
	if o.Trial == nil {
		return nil
	}
	if err := o.Trial(ctx, loaded); err != nil {
		return fmt.Errorf("trial: %w", err)
	}
	return nil
}

// retireAll retires whatever no connection runs, what a rollback would serve included.
func (s *Store) retireAll(ctx context.Context) error {
	word := s.Word()
	if err := s.store(word, word.WithFloor(word.Serve()).WithCanary(0, 0)); err != nil {
		return err
	}
	for _, n := range sortedKeys(s.view.generations) {
		if n != word.Serve() {
			if err := s.retire(ctx, n); err != nil {
				return err
			}
		}
	}
	return nil
}
