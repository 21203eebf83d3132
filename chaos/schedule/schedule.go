// SPDX-License-Identifier: Apache-2.0

// Package schedule has the sequences of faults of a random walk: how they are drawn, written on one line and read again,
// and cut down to what still fails.
package schedule

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/netsim/fault"
)

// Schedule is rounds, one after the other, of faults that are there at once.
type Schedule [][]fault.Spec

// Most is how many faults there are at once at most.
const Most = 3

// Draw draws rounds of one to Most faults out of some, those of a round without a conflict. The same random numbers make
// the same schedule.
func Draw(random *rand.Rand, rounds int, from []fault.Spec, conflict func(a, b fault.Spec) bool) Schedule {
	s := make(Schedule, 0, rounds)
	for range rounds {
		want := 1 + random.IntN(Most)
		var round []fault.Spec
		for _, n := range random.Perm(len(from)) {
			if len(round) < want && !slices.ContainsFunc(round, func(f fault.Spec) bool { return conflict(f, from[n]) }) {
				round = append(round, from[n])
			}
		}
		s = append(s, round)
	}
	return s
}

// String writes the schedule on one line: "kill agent/a + loss wire/a,b; stop agent/b". Parse reads it.
func (s Schedule) String() string {
	rounds := make([]string, 0, len(s))
	for _, round := range s {
		var faults []string
		for _, f := range round {
			faults = append(faults, f.String())
		}
		rounds = append(rounds, strings.Join(faults, " + "))
	}
	return strings.Join(rounds, "; ")
}

// Parse reads what String writes. The error says which fault is wrong, and how.
func Parse(text string) (Schedule, error) {
	var s Schedule
	for rounds := range strings.SplitSeq(text, ";") {
		var round []fault.Spec
		for one := range strings.SplitSeq(rounds, " + ") {
			f, err := fault.ParseSpec(strings.TrimSpace(one))
			if err == nil {
				_, err = fault.Lookup(f.Fault)
			}
			if err != nil {
				return nil, fmt.Errorf("schedule %q: %w", text, err)
			}
			round = append(round, f)
		}
		if len(round) > Most {
			return nil, fmt.Errorf("schedule %q: %d faults at once, %d are the most", text, len(round), Most)
		}
		s = append(s, round)
	}
	return s, nil
}

// Size is how many faults there are in all.
func (s Schedule) Size() (n int) {
	for _, round := range s {
		n += len(round)
	}
	return n
}

// without is the schedule without some of its faults, counted over all rounds from 0.
func (s Schedule) without(from, to int) Schedule {
	var rest Schedule
	n := 0
	for _, round := range s {
		var kept []fault.Spec
		for _, f := range round {
			if n < from || n >= to {
				kept = append(kept, f)
			}
			n++
		}
		if len(kept) > 0 {
			rest = append(rest, kept)
		}
	}
	return rest
}

// ErrEnough ends shrinking early.
var ErrEnough = errors.New("enough")

// Shrink returns the smallest schedule found that still fails: halves are left out, then quarters, down to one fault.
// fails is asked about each; ErrEnough from it ends the search with what there is by then.
func Shrink(s Schedule, fails func(Schedule) (bool, error)) (Schedule, error) {
	for part := (s.Size() + 1) / 2; part > 0; {
		smaller := false
		for from := 0; from < s.Size() && s.Size() > 1; {
			candidate := s.without(from, from+part)
			if candidate.Size() == 0 {
				break
			}
			failed, err := fails(candidate)
			if errors.Is(err, ErrEnough) {
				return s, nil
			}
			if err != nil {
				return s, err
			}
			if failed {
				s, smaller = candidate, true
			} else {
				from += part
			}
		}
		if part == 1 && !smaller {
			break
		}
		if !smaller || part > s.Size() {
			part = max(1, part/2)
		}
		if s.Size() == 1 {
			break
		}
	}
	return s, nil
}
