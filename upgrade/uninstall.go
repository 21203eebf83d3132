// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
)

// Uninstall removes a data plane: first what attaches it, so that traffic goes its own way again, then all the rest.
// Connections that were sent to another address than they dialled stay with it. Killed at any point it is finished by
// the next Uninstall or [Open]; where there is nothing it does nothing. What does not belong to the data plane stays,
// and is named by a [ForeignError]. It returns a [HeldError] if a process has the lease.
func Uninstall(ctx context.Context, o Options) (err error) {
	if _, err := os.Stat(o.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s := &Store{journal: &journal{trace: o.Trace}, log: o.log()}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.take(ctx, o); err != nil {
		return err
	}
	v := s.view
	if v.super == nil && v.pins > 0 {
		if found, err := v.rescueSuper(); err != nil || !found {
			return errors.Join(err, s.foreign())
		}
	}
	if v.super != nil {
		if err := v.super.arm(); err != nil {
			return err
		}
		if err := s.own(); err != nil {
			return err
		}
	}
	r := &removal{tree: v.tree, journal: s.journal}
	if err := s.removeAll(ctx, r); err != nil {
		return err
	}
	if err := r.strangers("."); err != nil {
		return err
	}
	if err := r.rmdir("."); err != nil {
		return err
	}
	s.log.Info("data plane removed", "dir", o.Dir)
	return r.foreigners()
}

// removeAll takes away the whole tree but its directory, which is the lease. Super goes last, for it says that a
// removal was begun.
func (s *Store) removeAll(ctx context.Context, r *removal) error {
	unlock, err := lockWriters(ctx, r.tree, true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !s.view.isStray(pathWriters) { // what nobody can lock
		return err
	}
	if err == nil {
		defer unlock()
	}
	super := s.view.super
	if super != nil {
		phase := super.phase()
		next := phase.withState(phaseRemoving)
		err := s.journal.do(StepSwapPhase, next.String(), func() error { return super.swapPhase(phase, next) })
		if err != nil {
			return err
		}
	}
	if err := r.contents(super); err != nil {
		return err
	}
	if s.view.isStray(pathSuper) {
		r.foreign = append(r.foreign, pathSuper)
	} else if super != nil {
		s.journal.super = nil
		if err := r.unpin(pathSuper); err != nil {
			return err
		}
	}
	for _, dir := range slices.Backward(directories[:]) {
		if err := r.strangers(dir); err != nil {
			return err
		}
		if err := r.rmdir(dir); err != nil {
			return err
		}
	}
	return nil
}

// startAgain empties a tree in which nothing serves, because its creation or its removal was cut short. After a
// creation super stays.
func (s *Store) startAgain(ctx context.Context, removing bool) error {
	if err := s.own(); err != nil {
		return err
	}
	r := &removal{tree: s.view.tree, journal: s.journal}
	if removing {
		if err := s.removeAll(ctx, r); err != nil {
			return err
		}
	} else if err := r.contents(s.view.super); err != nil {
		return err
	}
	if err := r.foreigners(); err != nil {
		return err
	}
	v, err := readView(s.view.tree)
	if err != nil {
		return err
	}
	s.view.close()
	s.view, s.journal.super = v, v.super
	if v.super == nil {
		return nil
	}
	return v.super.arm()
}
