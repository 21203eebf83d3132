// SPDX-License-Identifier: Apache-2.0

package upgrade

import "fmt"

// Numbers of the word's layout; word.h has the same in C.
const (
	generations = uint16(superWordLayoutWORD_GENERATIONS)
	places      = uint16(superWordLayoutWORD_LIVE)
	slotsEach   = uint16(superWordLayoutWORD_SLOTS)
	mask        = generations - 1
)

// Word says which generation serves. From the high bits to the low ones
//
//	epoch:16 | floor:12 | serve:12 | canary:12 | share:12
//
// New connections are stamped serve, or canary for share/4096 of them. Generation 0 does not exist, so a zero serve
// means that nothing was ever served, and a zero canary that there is none. The zero Word is that of a new tree.
type Word uint64

// Epoch counts the owners that the tree has had; a change that names another epoch than the current is refused.
func (w Word) Epoch() uint16 { return uint16(w >> 48) }

// Floor is the oldest live generation; stamps that are not live run it.
func (w Word) Floor() uint16 { return uint16(w>>36) & mask }

// Serve is the generation that new connections are stamped with.
func (w Word) Serve() uint16 { return uint16(w>>24) & mask }

// Canary is a further live generation, 0 for none.
func (w Word) Canary() uint16 { return uint16(w>>12) & mask }

// Share is how many of 4096 new connections are stamped Canary.
func (w Word) Share() uint16 { return uint16(w) & mask }

// WithEpoch returns w with another epoch.
func (w Word) WithEpoch(epoch uint16) Word { return w&^(0xffff<<48) | Word(epoch)<<48 }

// WithFloor returns w with another floor; only the low 12 bits count, as in the other three.
func (w Word) WithFloor(n uint16) Word { return w&^(0xfff<<36) | Word(n&mask)<<36 }

// WithServe returns w with another serve.
func (w Word) WithServe(n uint16) Word { return w&^(0xfff<<24) | Word(n&mask)<<24 }

// WithCanary returns w with another canary, which takes share/4096 of the new connections.
func (w Word) WithCanary(n, share uint16) Word {
	return w&^0xffffff | Word(n&mask)<<12 | Word(share&mask)
}

// String shows the fields; canary only where there is one.
func (w Word) String() string {
	s := fmt.Sprintf("epoch %d, floor %d, serve %d", w.Epoch(), w.Floor(), w.Serve())
	if w.Canary() != 0 {
		s += fmt.Sprintf(", canary %d for %d/4096", w.Canary(), w.Share())
	}
	return s
}

// Run is the generation that a connection with this stamp runs: its own while that is live, the floor otherwise. It is
// word_run of word.h.
func (w Word) Run(stamp uint16) uint16 {
	if stamp != 0 && ((stamp-w.Floor())&mask <= (w.Serve()-w.Floor())&mask || stamp == w.Canary()) {
		return stamp
	}
	return w.Floor()
}

// Stamp is what a new connection gets, for a random number of which the low 12 bits count. A chosen workload takes
// every canary. It is word_stamp of word.h.
func (w Word) Stamp(random uint16, chosen bool) uint16 {
	if w.Canary() != 0 && (chosen || random&mask < w.Share()) {
		return w.Canary()
	}
	return w.Serve()
}

// Live lists the generations that some connection may run, oldest first: floor to serve, then the canary.
func (w Word) Live() []uint16 {
	if w.Serve() == 0 {
		return nil
	}
	live := []uint16{w.Floor()}
	for n := w.Floor(); n != w.Serve(); live = append(live, n) {
		n = after(n)
	}
	if w.Canary() != 0 {
		live = append(live, w.Canary())
	}
	return live
}

// Base is the first of the slots that generation n owns in every prog array; it owns 16.
func Base(n uint16) uint32 { return uint32(n % places * slotsEach) }

// after is the number after n; 0 is left out.
func after(n uint16) uint16 {
	if n = (n + 1) & mask; n == 0 {
		return 1
	}
	return n
}

// Phase is the second word of super. From the high bits to the low ones
//
//	epoch:16 | reserved:8 | previous:12 | last:12 | state:16
//
// Last is the number given to a generation last, so that none is given twice before they come round. Previous is the
// generation that a rollback would serve, 0 for none.
type Phase uint64

// What the owner of a tree is in the middle of. Stored, so the values never change.
const (
	phaseIdle     = 0
	phaseMoving   = 1  // entries move from one layout to another, or a frozen map is replaced; whoever comes next goes on
	phaseRemoving = 15 // an uninstall was started; whoever comes next finishes it
)

// Epoch is the epoch of the owner that stored the phase.
func (p Phase) Epoch() uint16 { return uint16(p >> 48) }

// Last is the number given away last, 0 for none.
func (p Phase) Last() uint16 { return uint16(p>>16) & mask }

// Previous is the generation that a rollback would serve, 0 for none.
func (p Phase) Previous() uint16 { return uint16(p>>28) & mask }

func (p Phase) state() uint16 { return uint16(p) }

func (p Phase) withEpoch(epoch uint16) Phase { return p&^(0xffff<<48) | Phase(epoch)<<48 }
func (p Phase) withLast(n uint16) Phase      { return p&^(0xfff<<16) | Phase(n&mask)<<16 }
func (p Phase) withState(s uint16) Phase     { return p&^0xffff | Phase(s) }
func (p Phase) withPrevious(n uint16) Phase  { return p&^(0xfff<<28) | Phase(n&mask)<<28 }

// String names the state.
func (p Phase) String() string {
	switch p.state() {
	case phaseIdle:
		return "idle"
	case phaseMoving:
		return "moving"
	case phaseRemoving:
		return "removing"
	}
	return fmt.Sprintf("unknown phase %d", p.state())
}
