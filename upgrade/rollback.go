// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"
)

// ErrNoPrevious says that there is no generation to go back to.
var ErrNoPrevious = errors.New("there is no generation to go back to: either none was upgraded, or it was retired")

// Rollback serves the generation that served before, for all connections, those of the bad one included. It is one store
// and keeps all state. Where the layout had changed the programs of the release before serve at once, reading what the
// other wrote, and the copy back follows before Rollback returns. The reason goes to the history. It returns
// [ErrNoPrevious].
func (s *Store) Rollback(ctx context.Context, o Attempt, reason string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy {
		return errors.New("roll back: an upgrade is under way")
	}
	if err := s.rollback(ctx, &o, reason); err != nil {
		return fmt.Errorf("roll back %s: %w", s.view.tree, err)
	}
	return nil
}

func (s *Store) rollback(ctx context.Context, o *Attempt, reason string) error {
	to, err := s.swapBack(reason)
	if err != nil {
		return err
	}
	if to.Role() != RolePlain {
		return s.advance(ctx, o)
	}
	return s.reread()
}

// swapBack serves the generation before, and returns it. It looks at nothing but what it needs.
func (s *Store) swapBack(reason string) (*Generation, error) {
	word, phase := s.Word(), s.view.super.phase()
	to, from := s.view.generations[phase.Previous()], s.view.generations[word.Serve()]
	if to == nil || from == nil || to == from {
		return nil, ErrNoPrevious
	}
	for hook, calls := range s.view.calls {
		id, err := slot(calls, Base(to.Number))
		if err != nil {
			return nil, err
		}
		if id == 0 {
			return nil, fmt.Errorf("generation %d has nothing in its slot of hook %s", to.Number, hook)
		}
	}
	bad := s.view.super.digest(word.Serve())
	next := word.Rollback(to.Number)
	if to.Role() != RolePlain {
		if err := s.setPhase(phase.withState(phaseMoving)); err != nil {
			return nil, err
		}
		next = next.WithFloor(to.Number)
	}
	if err := s.store(word, next); err != nil {
		return nil, err
	}
	if err := s.setPhase(s.view.super.phase().withPrevious(0)); err != nil {
		return nil, err
	}
	return to, s.tell(KindRollback, from.Number, to.Number, bad, "%s", reason)
}

// reread finds out what serves now.
func (s *Store) reread() error {
	o, err := s.view.basis(s.release, AcceptAny)
	if err != nil {
		return err
	}
	s.object, s.same = o, s.view.serves(s.release)
	return nil
}
