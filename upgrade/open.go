// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/bpf/rcu"
)

// Options say where a tree is and how it is taken.
type Options struct {
	Dir      string       // the tree, on a BPF file system; its parent must be there
	Cgroup   string       // directory of the unified hierarchy that cgroup hooks are attached to
	TakeOver *Holder      // kill this one, whom FindHolder has found, if it holds the lease still
	Log      *slog.Logger // may be nil
	Accept   Accept       // which pinned releases it may go on from
	// GoBack is a reason to serve what served before; it is done before the rest of the state is looked at, so that what
	// is wrong with that does not keep anybody from going back. Open returns ErrNoPrevious if there is nothing. "" for no.
	GoBack string
	Trace  func(Step, string) // called after each step with what it acted on, by whoever takes it; may be nil
}

// Accept says which releases that serve are taken over.
type Accept uint8

// What is accepted.
const (
	AcceptLayout  Accept = iota // any whose maps have the layout of this one's
	AcceptRelease               // this very release
	AcceptAny                   // any that has left what it was loaded from; those of before, by their layout
	AcceptUpgrade               // likewise, if it can be upgraded to this one
)

func (o *Options) log() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

// Open takes the lease and makes the data plane serve: it creates one in an empty tree, completes one that was being
// created, and adopts one that serves, of whose release it may be another as long as its maps have the same layout. An
// adopted one goes on with the programs it has; [Store.Differs] tells. What was lost is pinned, filled or attached
// again; nothing else is written but the epoch. An uninstall that was cut short is finished first.
//
// It returns a [HeldError] if another process has the lease, a [RefusedError] if the layout of the release is another
// or the cgroup is, a [DamageError] if what was lost cannot be restored. None of them changes anything, or has cost a
// holder its life.
func Open(ctx context.Context, plane DataPlane, o Options) (_ *Store, err error) {
	object, err := readObject(plane)
	if err != nil {
		return nil, err
	}
	cgroup, id, err := object.cgroup(o.Cgroup)
	if err != nil {
		return nil, err
	}
	s := &Store{
		object: object, release: object, journal: &journal{trace: o.Trace}, cgroup: o.Cgroup, inside: cgroup,
		accept: o.Accept, goBack: o.GoBack, log: o.log(), began: time.Now(),
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if o.TakeOver != nil {
		if err := object.fits(o.Dir, id, o.Accept); err != nil {
			return nil, err
		}
	}
	if err := s.take(ctx, o); err != nil {
		return nil, err
	}
	if err := s.settle(ctx, id); err != nil {
		return nil, err
	}
	s.Pods = s.pods()
	s.log.Info("pinned state is ours", "dir", o.Dir, "word", s.Word(), "same release", s.same)
	return s, nil
}

func (s *Store) pods() *Pods {
	own := *s.journal // for pods are worked on while generations are
	return &Pods{tree: s.view.tree, super: mapID(s.view.super.m), entries: s.view.entries, journal: &own}
}

// cgroup opens the cgroup for the hooks that need one.
func (o *object) cgroup(path string) (*os.File, uint64, error) {
	if !slices.ContainsFunc(o.Hooks, func(h Hook) bool { return h.At == Cgroup }) {
		return nil, 0, nil
	}
	return openCgroup(path)
}

// take gets the lease, and reads the tree.
func (s *Store) take(ctx context.Context, o Options) error {
	if err := CheckPlace(o.Dir); err != nil {
		return err
	}
	for s.lease == nil {
		if _, err := os.Stat(o.Dir); errors.Is(err, fs.ErrNotExist) {
			err := s.journal.do(StepMakeDirectory, o.Dir, func() error { return os.Mkdir(o.Dir, 0o700) })
			if err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
		var err error
		s.lease, err = takeLease(ctx, o.Dir, o.TakeOver)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // or else an uninstall has just ended
			return err
		}
	}
	if err := CheckPlace(o.Dir); err != nil { // for what was mounted meanwhile
		return err
	}
	var err error
	s.view, err = readView(tree(o.Dir))
	return err
}

// settle brings the tree, whatever state it is in, to one that serves.
func (s *Store) settle(ctx context.Context, id uint64) error {
	cgroup := s.inside
	v := s.view
	if v.super == nil && v.pins > 0 {
		if found, err := v.rescueSuper(); err != nil || !found {
			return errors.Join(err, s.foreign())
		}
	}
	if v.super == nil {
		return s.create(ctx, cgroup)
	}
	if err := s.release.measure(v); err != nil {
		return err
	}
	if err := v.super.arm(); err != nil {
		return err
	}
	if removing := v.super.phase().state() == phaseRemoving; removing || v.word().Serve() == 0 {
		if err := s.startAgain(ctx, removing); err != nil {
			return err
		}
		return s.create(ctx, cgroup)
	}
	if !known(v.super.phase()) {
		return &RefusedError{[]Change{{Name: "phase", Expected: "idle", Found: v.super.phase().String()}}}
	}
	if s.goBack != "" {
		if err := s.own(); err != nil {
			return err
		}
		if _, err := s.swapBack(s.goBack); err != nil {
			return fmt.Errorf("go back: %w", err)
		}
		s.log.Info("the generation before serves", "word", v.word(), "took", time.Since(s.began))
	}
	word := v.word()
	var err error
	accept, moving := s.accept, v.moving()
	if moving { // that is brought to its end first, by whichever release
		accept = AcceptAny
	}
	if s.object, err = v.basis(s.release, accept); err != nil {
		return err
	}
	a, err := examine(v, s.object, id)
	if err != nil {
		return err
	}
	if s.accept == AcceptUpgrade && !moving {
		if err := v.leadsTo(s.object, s.release); err != nil {
			return err
		}
	}
	s.hooks = a.hooks
	s.same = v.serves(s.release)
	if err := s.own(); err != nil {
		return err
	}
	if now := s.Word(); now != word.WithEpoch(s.journal.epoch) {
		return fmt.Errorf("adopt %s: it was changed while it was examined, start again: %w", v.tree, &StaleError{word, now})
	}
	if err := s.adopt(ctx, a, cgroup); err != nil {
		return err
	}
	if err := s.endCanary(ctx); err != nil || !moving {
		return err
	}
	s.log.Warn("going on with a move that was cut short", "word", s.Word())
	if err := s.advance(ctx, &Attempt{}); err != nil {
		return err
	}
	basis, err := v.basis(s.release, s.accept)
	if err != nil {
		return err
	}
	_, err = examine(v, basis, id)
	return err
}

// moving reports whether entries were moving from one layout to another.
func (v *view) moving() bool {
	g := v.generations[v.word().Serve()]
	return v.super.phase().state() == phaseMoving || g != nil && g.Role() != RolePlain
}

// known reports whether this package knows what to do in a phase.
func known(p Phase) bool { return p.state() == phaseIdle || p.state() == phaseMoving }

// foreign says what speaks against a tree without super.
func (s *Store) foreign() error {
	e := &DamageError{Dir: string(s.view.tree)}
	for _, stray := range s.view.stray {
		e.Damages = append(e.Damages, stray.damage())
	}
	if len(e.Damages) == 0 {
		e.Damages = []Damage{{pathSuper, "it is gone, and no program is left that holds it",
			"make sure that this is the right directory, then remove it"}}
	}
	return e
}

// own raises the epoch: from here on this process is the one that changes things.
func (s *Store) own() error {
	s.journal.super = nil
	err := s.journal.do(StepRaiseEpoch, pathSuper, func() (err error) {
		s.journal.epoch, err = s.view.super.raiseEpoch()
		return err
	})
	if err != nil {
		return err
	}
	s.journal.super = s.view.super
	return s.journal.super.log(s.journal.epoch, StepRaiseEpoch, 0)
}

// adopt takes over a tree that serves. Names come first, so that nothing is reachable that is not held, and links last.
func (s *Store) adopt(ctx context.Context, a *adoption, cgroup *os.File) error {
	waited := false
	for _, r := range a.repairs {
		if r.step == StepClearSlot && !waited { // who served a moment ago may still run
			if err := rcu.Synchronize(); err != nil {
				return err
			}
			waited = true
		}
		if err := s.journal.do(r.step, r.path, r.do); err != nil {
			return err
		}
		s.log.Warn("repaired pinned state", "step", r.step, "path", r.path)
	}
	if a.emptied {
		if err := s.keepFilled(); err != nil {
			return err
		}
	}
	if err := s.dropHooks(ctx, a.orphans); err != nil {
		return err
	}
	for _, path := range a.building {
		s.log.Info("discarding what was left half done", "path", path)
		if err := s.discard(path); err != nil {
			return err
		}
	}
	if err := s.pods().sweep(ctx, a.pods); err != nil {
		return err
	}
	for _, h := range a.attaches {
		l := s.view.links[h.Name]
		if l != nil && l.dying {
			s.log.Warn("attaching again: the cgroup was removed and made again, sockets of the old one live on", "hook", h.Name,
				"was", cgroupName(l.target), "path", s.cgroup)
		} else {
			s.log.Warn("attaching again what was not attached", "hook", h.Name)
		}
		if err := s.attach(ctx, h, cgroup); err != nil {
			return err
		}
	}
	return nil
}

// emptyTime is how long prog arrays are watched that had lost their last name. The kernel empties them in a worker that
// it starts when the name goes (prog_array_map_clear, kernel/bpf/arraymap.c), and that goes through with it though the
// array has a name again: 1 to 10 ms later here.
const emptyTime = 100 * time.Millisecond

// keepFilled fills slots of loaded generations as often as they are found empty.
func (s *Store) keepFilled() error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(emptyTime); time.Now().Before(end); <-tick.C {
		for _, n := range sortedKeys(s.view.generations) {
			if err := s.fill(s.view.generations[n]); err != nil {
				return err
			}
		}
	}
	return nil
}
