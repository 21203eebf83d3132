// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// model is a node with many connections, walked at random through everything that can be done to a word. It remembers
// what the words forget: which generation, not merely which number, every connection was stamped with and ran.
type model struct {
	word    Word
	phase   Phase
	upgrade func(Word, uint16) Word // the move under test
	skipped bool                    // the latest number is not the one after the last

	births      int            // generations made so far
	of          map[uint16]int // birth of the generation that has a number now
	connections []*connection
	spoilt      map[int]bool // births rolled back or withdrawn: nothing may run them again
	rolls       int          // moves that may change what a connection runs
}

type connection struct {
	stamp uint16
	birth int // of the generation it was stamped with
	ran   int // birth of what it ran last
	roll  int // value of model.rolls then
}

func newModel(start uint16, upgrade func(Word, uint16) Word) *model {
	m := &model{upgrade: upgrade, of: make(map[uint16]int), spoilt: make(map[int]bool)}
	m.phase = m.phase.withLast(start)
	n, _ := m.word.Next(start)
	m.make(n)
	m.word = m.word.Upgrade(n) // the first serves in any case
	return m
}

func (m *model) make(n uint16) {
	m.births++
	m.of[n] = m.births
	m.phase = m.phase.withLast(n)
}

// step does one thing, chosen by two random numbers, then lets every connection send.
func (m *model) step(what, which int) error {
	before := m.word
	forward, roll := true, false
	switch what % 8 {
	case 0:
		m.connections = append(m.connections, m.connect(uint16(which), which%7 == 0))
	case 1:
		if len(m.connections) > 0 {
			m.connections = slices.Delete(m.connections, which%len(m.connections), which%len(m.connections)+1)
		}
	case 2:
		roll = m.serveNext()
	case 3:
		m.word, _ = m.word.Raise(m.pick(which))
		roll = m.word != before
	case 4:
		m.try(uint16(which))
	case 5:
		if n := m.word.Canary(); n != 0 && which%2 == 0 {
			m.word = m.upgrade(m.word, n)
			roll = m.word.Floor() != before.Floor()
		} else if n != 0 {
			m.spoilt[m.of[n]] = true
			m.word = m.word.Withdraw()
			forward, roll = false, true
		}
	case 6:
		forward, roll = false, m.rollback(m.pick(which))
	case 7: // a new owner, which knows the two words and nothing else
		m.word = m.word.WithEpoch(m.word.Epoch() + 1)
	}
	if roll {
		m.rolls++
	}
	return m.check(before, forward)
}

// connect makes a socket and stamps it.
func (m *model) connect(random uint16, chosen bool) *connection {
	stamp := m.word.Stamp(random, chosen)
	return &connection{stamp: stamp, birth: m.of[stamp], ran: m.of[stamp], roll: m.rolls}
}

// pick chooses a generation of floor to serve.
func (m *model) pick(which int) uint16 {
	live := m.word.WithCanary(0, 0).Live()
	return live[which%len(live)]
}

// number gets the next number; where numbers come round, sockets are swept first.
func (m *model) number() (uint16, bool) {
	n, err := m.word.Next(m.phase.Last())
	if err != nil {
		return 0, false
	}
	if Sweep(m.phase.Last(), n) {
		for _, c := range m.connections {
			if floor := m.word.Floor(); m.word.Run(c.stamp) == floor && c.stamp != floor {
				c.stamp, c.birth = floor, m.of[floor]
			}
		}
	}
	m.skipped = n != after(m.phase.Last())
	m.make(n)
	return n, true
}

func (m *model) serveNext() (roll bool) {
	canary := m.word.Canary()
	n, ok := m.number()
	if !ok {
		return false
	}
	if canary != 0 {
		m.spoilt[m.of[canary]] = true // an upgrade withdraws it
	}
	floor := m.word.Floor()
	m.word = m.upgrade(m.word, n)
	return m.word.Floor() != floor || canary != 0
}

func (m *model) try(share uint16) {
	n, ok := m.word.Canary(), true
	if n == 0 {
		n, ok = m.number()
	}
	if ok {
		m.word, _ = m.word.Try(n, share%generations)
	}
}

func (m *model) rollback(to uint16) (roll bool) {
	for _, n := range m.word.Live() {
		if m.of[n] > m.of[to] {
			m.spoilt[m.of[n]] = true
		}
	}
	before := m.word
	m.word = m.word.Rollback(to)
	return m.word != before
}

// check lets every connection send once.
func (m *model) check(before Word, forward bool) error {
	live := m.word.Live()
	if len(live) > int(places) {
		return fmt.Errorf("%v: %d generations are live", m.word, len(live))
	}
	for _, c := range m.connections {
		n := m.word.Run(c.stamp)
		runs := m.of[n]
		switch {
		case !slices.Contains(live, n):
			return fmt.Errorf("{%v} to {%v}: stamp %d runs %d, which is not live", before, m.word, c.stamp, n)
		case m.spoilt[runs]:
			return fmt.Errorf("{%v} to {%v}: stamp %d runs %d, which was rolled back", before, m.word, c.stamp, n)
		case runs != c.ran && c.roll == m.rolls:
			return fmt.Errorf("{%v} to {%v}: stamp %d goes from generation %d to %d without a roll",
				before, m.word, c.stamp, c.ran, runs)
		case runs < c.ran && forward:
			return fmt.Errorf("{%v} to {%v}: stamp %d goes back from generation %d to %d", before, m.word, c.stamp, c.ran, runs)
		case n == c.stamp && runs != c.birth:
			return fmt.Errorf("{%v} to {%v}: stamp %d of generation %d came to life in generation %d",
				before, m.word, c.stamp, c.birth, runs)
		}
		c.ran, c.roll = runs, m.rolls
	}
	return nil
}

// No walk mixes generations, brings a bad one back to life, or runs what is not live. Many begin shortly before numbers
// come round or the half where sockets are swept.
func TestNoWalkMixesGenerations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		near := rapid.OneOf(rapid.Just(uint16(0)), rapid.Uint16Range(4080, 4095), rapid.Uint16Range(2035, 2050))
		start := near.Draw(t, "start")
		m := newModel(start, Word.Upgrade)
		for i := range rapid.IntRange(1, 300).Draw(t, "steps") {
			what, which := rapid.IntRange(0, 7).Draw(t, "what"), rapid.IntRange(0, 1<<20).Draw(t, "which")
			if err := m.step(what, which); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		}
	})
}

// Ten thousand numbers, so more than two rounds, with sockets that live as long as they like.
func TestNumbersComeRound(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	m := newModel(4000, Word.Upgrade)
	for i := 0; m.births < 10_000; i++ {
		what := random.IntN(8)
		if what == 0 && len(m.connections) > 64 {
			what = 1
		}
		if err := m.step(what, random.IntN(1<<20)); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
}

// Four thousand walks of plain random numbers, which go further than rapid's.
func TestFourThousandWalks(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for walk := range 4000 {
		m := newModel([]uint16{0, 2040, 4088}[walk%3], Word.Upgrade)
		for i := range 120 {
			if err := m.step(random.IntN(8), random.IntN(1<<20)); err != nil {
				t.Fatalf("walk %d, step %d: %v", walk, i, err)
			}
		}
	}
}

// The control: if the first serve move after a rollback or withdrawal left the floor where it is, walks would be found
// that go wrong.
func TestAFloorBelowASpentNumberIsFound(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	wrong := 0
	const walks = 4000
	for range walks {
		m := newModel(0, nil)
		m.upgrade = func(w Word, n uint16) Word {
			if m.skipped {
				return w.Upgrade(n)
			}
			return w.WithServe(n).WithCanary(0, 0)
		}
		for range 120 {
			if m.step(random.IntN(8), random.IntN(1<<20)) != nil {
				wrong++
				break
			}
		}
	}
	if wrong == 0 {
		t.Fatalf("none of %d walks went wrong: the model does not see what it is for", walks)
	}
	t.Logf("%d of %d walks went wrong", wrong, walks)
}

// Another control: without sweeps, stamps of a generation long gone come to life in its namesake.
func TestNumbersWithoutSweepsAreFound(t *testing.T) {
	m := newModel(0, Word.Upgrade)
	m.connections = append(m.connections, m.connect(0, false))
	for range 2 * generations {
		n, err := m.word.Next(m.phase.Last())
		if err != nil {
			t.Fatal(err)
		}
		before := m.word
		m.make(n)
		m.word = m.word.Upgrade(n)
		m.word, _ = m.word.Raise(n)
		m.rolls++
		if m.check(before, true) != nil {
			return
		}
	}
	t.Fatal("a stamp met its own number again, and the model did not see it")
}
