// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"slices"
)

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
