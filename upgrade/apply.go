// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"
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
	if err := s.release.measure(s.view); err != nil { // of maps that had lost their names, too
		return nil, err
	}
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
