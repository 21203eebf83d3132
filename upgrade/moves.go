// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"slices"
)

// ErrCrowded says that all four places of generations are live, so that there is no number to give to another.
var ErrCrowded = errors.New("four generations are live: raise the floor or withdraw the canary first")

// The moves below are pure: they say what the word would be, and [Store.Swap] stores it. One rule keeps all of them
// honest: the floor stays only when serve goes to the very next number. Any gap means that a number in between was
// given away and then rolled back, withdrawn or skipped, and connections may still carry it; a floor left below the gap
// would bring it back to life. So the first serve move after a rollback, and a skip, are floor moves, without a flag
// that a crash could lose.

// Next is the number for another generation, after the last one that was given away: the first whose place (mod 4) is
// not live. It returns [ErrCrowded] if every place is.
func (w Word) Next(last uint16) (uint16, error) {
	live := w.Live()
	n := after(last)
	for range places + 1 { // one more than there are places, for leaving out 0 skips one
		taken := func(l uint16) bool { return l%places == n%places }
		if !slices.ContainsFunc(live, taken) {
			return n, nil
		}
		n = after(n)
	}
	return 0, ErrCrowded
}

// Sweep reports whether every socket that runs the floor without being stamped so must be stamped so before the
// generation next, given away after last, can be stamped: numbers come round, and a stamp that is long dead would come
// back to life. That is twice a round, so that a number is never reached that was live at the latest sweep.
func Sweep(last, next uint16) bool {
	return last != 0 && (last^next)&(generations/2) != 0
}

// Upgrade serves generation n. Connections of the generations since the floor finish on them if n is the next number,
// else they are carried over to n. A canary that is not n is withdrawn.
func (w Word) Upgrade(n uint16) Word {
	next := w.WithServe(n).WithCanary(0, 0)
	if w.Serve() == 0 || n != after(w.Serve()) {
		next = next.WithFloor(n)
	}
	return next
}

// Raise lifts the floor to generation n, which carries over the connections of all before it. It refuses an n outside
// floor to serve.
func (w Word) Raise(n uint16) (Word, error) {
	if !w.between(n) {
		return w, fmt.Errorf("raise floor to %d: not from floor %d to serve %d", n, w.Floor(), w.Serve())
	}
	return w.WithFloor(n), nil
}

// Try makes generation n the canary, for share/4096 of new connections, or changes the share of the one there is. It
// refuses an n that serves already, and another while there is a canary.
func (w Word) Try(n, share uint16) (Word, error) {
	switch {
	case n == 0 || w.between(n):
		return w, fmt.Errorf("try generation %d: it is not a new one (%v)", n, w)
	case w.Canary() != 0 && w.Canary() != n:
		return w, fmt.Errorf("try generation %d: withdraw canary %d first", n, w.Canary())
	}
	return w.WithCanary(n, share), nil
}

// Withdraw ends the canary; its connections are carried over to the floor. The number is spent.
func (w Word) Withdraw() Word { return w.WithCanary(0, 0) }

// Rollback serves generation n again, which came before the one that serves now; the canary ends, too. Numbers above n
// are spent.
func (w Word) Rollback(n uint16) Word {
	next := w.WithServe(n).WithCanary(0, 0)
	if !w.between(n) {
		next = next.WithFloor(n)
	}
	return next
}

// between reports whether n is live as one of floor to serve.
func (w Word) between(n uint16) bool {
	return n != 0 && w.Serve() != 0 && (n-w.Floor())&mask <= (w.Serve()-w.Floor())&mask
}
