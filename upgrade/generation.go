// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/upgrade/migrate"
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
	_, err := s.build(blueprint{object: s.object, number: n, use: s.sharing(s.view.generations[s.Word().Serve()])})
	return err
}

// blueprint is a generation that is to be built.
type blueprint struct {
	object *object
	number uint16
	use    map[string]*ebpf.Map // maps that it shares, by name; it gets the others anew
	// fill gives its own maps their contents, before anything can reach it. May be nil.
	fill func(*Generation) error
}

// sharing are the maps that a generation of the same release has in common with another.
func (s *Store) sharing(from *Generation) map[string]*ebpf.Map {
	use := make(map[string]*ebpf.Map)
	if from != nil {
		for name, m := range from.Maps {
			if !slices.Contains(s.object.Private, name) {
				use[name] = m
			}
		}
	}
	return use
}

// build loads, pins and publishes a generation and fills its slots. Until it is published it has a name that every
// later owner discards; before the word names it nothing runs it.
func (s *Store) build(b blueprint) (_ *Generation, err error) {
	n, o := b.number, b.object
	s.journal.generation = n
	defer func() { s.journal.generation = 0 }()
	if err := s.takeNumber(n); err != nil {
		return nil, err
	}
	use := s.view.common()
	for name, m := range b.use {
		use[name] = m
	}
	loaded, err := o.load(n, o.programs(), o.own(), use)
	if err != nil {
		return nil, fmt.Errorf("load generation %d: %w", n, err)
	}
	g := newGeneration(n)
	for _, name := range o.own() {
		g.Maps[name] = loaded.Maps[name]
		delete(loaded.Maps, name)
	}
	for name, m := range b.use {
		if g.Maps[name] != nil || !migrate.IsSide(name) {
			continue
		}
		if g.Maps[name], err = m.Clone(); err != nil {
			return nil, fmt.Errorf("keep map %s: %w", name, err)
		}
	}
	g.Programs, loaded.Programs = loaded.Programs, nil
	loaded.Close() // what is shared by all was cloned for loading
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	r := o.record
	g.record = &r
	if g.text, err = makeRecord(g.record); err != nil {
		return nil, err
	}
	for _, h := range s.hooks {
		if !g.lacks(h) {
			continue
		}
		if g.Programs[passName(h.Name)], err = passProgram(h, s.view.entries[h.Name].Type()); err != nil {
			return nil, err
		}
	}
	if b.fill != nil {
		if err := b.fill(g); err != nil {
			return nil, err
		}
	}
	if err := s.publish(g, o.digest); err != nil {
		return nil, err
	}
	s.view.generations[n] = g
	return g, s.fill(g)
}

// passProgram is what a generation has at a hook that its release does not know: everything passes as if the hook were
// not there.
func passProgram(h Hook, kind ebpf.ProgramType) (*ebpf.Program, error) {
	pass := int32(1) // as connect, sk_lookup and sk_msg say it
	if kind == ebpf.SchedCLS {
		pass = -1 // on to the next program
	}
	name := passName(h.Name)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name[:min(len(name), maxName)], Type: kind, AttachType: h.Attach, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("load a program that passes everything, for hook %s: %w", h.Name, err)
	}
	return p, nil
}

// takeNumber makes sure that no generation ever gets the number again before numbers come round.
func (s *Store) takeNumber(n uint16) error {
	phase := s.view.super.phase()
	next := phase.withLast(n)
	return s.journal.do(StepSwapPhase, next.String(), func() error { return s.view.super.swapPhase(phase, next) })
}

func (s *Store) publish(g *Generation, digest [32]byte) error {
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
	release := join(path, pathRelease)
	if err := s.journal.do(StepPinRelease, release, func() error { return pin(g.text, s.at(release)) }); err != nil {
		return err
	}
	err := s.journal.do(StepRecordDigest, final, func() error {
		return s.view.super.record(s.journal.epoch, g.Number, digest)
	})
	if err != nil {
		return err
	}
	return s.journal.do(StepPublish, final, func() error { return unix.Rename(s.at(path), s.at(final)) })
}

// fill puts a generation's main programs where the slots do not hold them.
func (s *Store) fill(g *Generation) error {
	for _, h := range s.hooks {
		calls, program := s.view.calls[h.Name], g.main(h)
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
