// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf/rcu"
)

// Retire removes a generation that no connection can run any more. It waits for a grace period, so that no program of
// it is running either. Maps that it shares with another generation stay.
func (s *Store) Retire(ctx context.Context, n uint16) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("retire generation %d: %w", n, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view.generations[n] == nil {
		return fmt.Errorf("retire generation %d: there is none", n)
	}
	return s.retire(ctx, n)
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
	if err := rcu.Synchronize(); err != nil {
		return fmt.Errorf("retire generation %d: %w", n, err)
	}
	s.journal.generation = n
	defer func() { s.journal.generation = 0 }()
	if err := s.dropHooks(ctx, s.orphans(n)); err != nil {
		return err
	}
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
