// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Load builds generation n of this release beside the one that serves, with which it shares every map that is not
// private, and makes it ready to be served: after it [Store.Swap] may name n. [Word.Next] finds the number. It must be
// higher than every one before: numbers do not come round yet, which ends the generations of a tree after 4095. The
// release must be the one that serves.
func (s *Store) Load(ctx context.Context, n uint16) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("load generation %d: %w", n, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.same {
		return fmt.Errorf("load generation %d: the release that serves is another", n)
	}
	if n >= generations {
		return fmt.Errorf("load generation %d: numbers are 1 to %d", n, generations-1)
	}
	if last := s.Last(); n <= last {
		return fmt.Errorf("load generation %d: numbers up to %d were given away, and sockets may carry them; "+
			"when they are used up, uninstall and start again", n, last)
	}
	for other := range s.view.generations {
		if other%places == n%places {
			return fmt.Errorf("load generation %d: generation %d has its place, retire that first", n, other)
		}
	}
	return s.build(n, s.view.generations[s.Word().Serve()])
}

// build loads, pins and publishes a generation and fills its slots. Until it is published it has a name that every
// later owner discards; before the word names it nothing runs it.
func (s *Store) build(n uint16, from *Generation) (err error) {
	s.journal.generation = n
	defer func() { s.journal.generation = 0 }()
	if err := s.takeNumber(n); err != nil {
		return err
	}
	use := s.view.common()
	if from != nil {
		for name, m := range from.Maps {
			if !slices.Contains(s.object.Private, name) {
				use[name] = m
			}
		}
	}
	loaded, err := s.object.load(n, s.object.programs(), s.object.own(), use)
	if err != nil {
		return fmt.Errorf("load generation %d: %w", n, err)
	}
	g := newGeneration(n)
	for _, name := range s.object.own() {
		g.Maps[name] = loaded.Maps[name]
		delete(loaded.Maps, name)
	}
	g.Programs, loaded.Programs = loaded.Programs, nil
	loaded.Close() // what is shared by all was cloned for loading
	if err := s.publish(g); err != nil {
		g.close()
		return err
	}
	s.view.generations[n] = g
	return s.fill(g)
}

// takeNumber makes sure that no generation ever gets the number again before numbers come round.
func (s *Store) takeNumber(n uint16) error {
	phase := s.view.super.phase()
	next := phase.withLast(n)
	return s.journal.do(StepSwapPhase, next.String(), func() error { return s.view.super.swapPhase(phase, next) })
}

func (s *Store) publish(g *Generation) error {
	final := generationPath(g.Number)
	path := final + suffixNew
	for _, dir := range []string{path, path + "/maps", path + "/progs"} {
		if err := s.journal.do(StepMakeDirectory, dir, func() error { return os.Mkdir(s.at(dir), 0o700) }); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(g.Maps) {
		p := join(path, "maps", name)
		if err := s.journal.do(StepPinMap, p, func() error { return pin(g.Maps[name], s.at(p)) }); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(g.Programs) {
		p := join(path, "progs", name)
		if err := s.journal.do(StepPinProgram, p, func() error { return pin(g.Programs[name], s.at(p)) }); err != nil {
			return err
		}
	}
	err := s.journal.do(StepRecordDigest, final, func() error {
		return s.view.super.record(s.journal.epoch, g.Number, s.object.digest)
	})
	if err != nil {
		return err
	}
	return s.journal.do(StepPublish, final, func() error { return unix.Rename(s.at(path), s.at(final)) })
}

// fill puts a generation's main programs where the slots do not hold them.
func (s *Store) fill(g *Generation) error {
	for _, h := range s.object.Hooks {
		calls, program := s.view.calls[h.Name], g.Programs[h.Program]
		id, err := slot(calls, Base(g.Number))
		if err != nil {
			return err
		}
		if program == nil || id == programID(program) {
			continue // or of a release that has another name for it
		}
		path := fmt.Sprintf("%s/%d", join(pathCalls, h.Name), Base(g.Number))
		if err := s.journal.do(StepFillSlot, path, func() error { return calls.Put(Base(g.Number), program) }); err != nil {
			return err
		}
	}
	return nil
}

// Retire removes a generation that no connection can run any more. It waits for a grace period, so that no program of
// it is running either. Maps that it shares with another generation stay.
func (s *Store) Retire(ctx context.Context, n uint16) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("retire generation %d: %w", n, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.view.generations[n]
	if g == nil {
		return fmt.Errorf("retire generation %d: there is none", n)
	}
	if word := s.Word(); slices.Contains(word.Live(), n) {
		return fmt.Errorf("retire generation %d: connections run it (%v)", n, word)
	}
	if err := grace(); err != nil {
		return fmt.Errorf("retire generation %d: %w", n, err)
	}
	s.journal.generation = n
	defer func() { s.journal.generation = 0 }()
	path := generationPath(n)
	err := s.journal.do(StepMarkDead, path, func() error { return unix.Rename(s.at(path), s.at(path+suffixDead)) })
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
	return s.discard(path + suffixDead)
}

// clear empties the slots that a generation owned at one hook.
func (s *Store) clear(hook string, n uint16) error {
	calls := s.view.calls[hook]
	for index := Base(n); index < Base(n)+uint32(slotsEach); index++ {
		id, err := slot(calls, index)
		if err != nil {
			return err
		}
		if id == 0 {
			continue
		}
		path := fmt.Sprintf("%s/%d", join(pathCalls, hook), index)
		if err := s.journal.do(StepClearSlot, path, func() error { return calls.Delete(index) }); err != nil {
			return err
		}
	}
	return nil
}
