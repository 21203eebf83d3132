// SPDX-License-Identifier: Apache-2.0

package tamper

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

// Wrong is what is done to a connection.
type Wrong string

// The wrongs. A unit is a frame where the relay sees frames, else what one read returns.
const (
	Hole      Wrong = "hole"      // nothing passes for a while, then all of it
	Flip      Wrong = "flip"      // one bit of one unit changes
	Duplicate Wrong = "duplicate" // one frame passes twice
	Lose      Wrong = "lose"      // one frame does not pass
	Cut       Wrong = "cut"       // both ends are reset
	Allow     Wrong = "allow"     // a port takes one connection, and is closed as before
)

// Order is what the relay is told in one line of its standard input: "hole DURATION", "allow PORT COUNT", or the name
// of another wrong.
type Order struct {
	Wrong Wrong
	// For is how long a hole is.
	For time.Duration
	// Port is the first of Count ports that take one connection each.
	Port, Count int
}

// String is the order as ParseOrder reads it.
func (o Order) String() string {
	switch o.Wrong {
	case Hole:
		return fmt.Sprintf("%s %v", o.Wrong, o.For)
	case Allow:
		return fmt.Sprintf("%s %d %d", o.Wrong, o.Port, o.Count)
	}
	return string(o.Wrong)
}

// ParseOrder reads an order.
func ParseOrder(text string) (o Order, err error) {
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return Order{}, fmt.Errorf("parse order %q: it is empty", text)
	}
	o.Wrong = Wrong(fields[0])
	words := 1
	switch o.Wrong {
	case Hole:
		words = 2
	case Allow:
		words = 3
	case Flip, Duplicate, Lose, Cut:
	default:
		return Order{}, fmt.Errorf("parse order %q: %q is not known", text, fields[0])
	}
	if len(fields) != words {
		return Order{}, fmt.Errorf("parse order %q: it has %d words, not %d", text, len(fields), words)
	}
	switch o.Wrong {
	case Hole:
		if o.For, err = time.ParseDuration(fields[1]); err == nil && o.For <= 0 {
			err = errors.New("a hole has a duration")
		}
	case Allow:
		o.Port, err = strconv.Atoi(fields[1])
		if err == nil {
			o.Count, err = strconv.Atoi(fields[2])
		}
		if err == nil && (o.Port < 1 || o.Count < 1 || o.Port > 65536-o.Count) {
			err = errors.New("there are no such ports")
		}
	}
	if err != nil {
		return Order{}, fmt.Errorf("parse order %q: %w", text, err)
	}
	return o, nil
}

// spread is the time within which an order is carried out on each connection, at a moment of its own.
const spread = 500 * time.Millisecond

// victim is one connection and what is to be done to it.
type victim struct {
	mu    sync.Mutex
	order *Order
	from  time.Time // not before
	cut   func()    // resets both ends; nil for UDP
	rng   *rand.Rand
	done  func() // counts
}

// arm gives a connection an order.
func (v *victim) arm(o Order, done func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.order, v.done = &o, done
	wait := time.Duration(v.rng.Int64N(int64(spread)))
	v.from = time.Now().Add(wait)
	if o.Wrong == Cut && v.cut != nil { // it needs no unit
		time.AfterFunc(wait, func() {
			v.cut()
			done()
		})
		v.order = nil
	}
}

// take returns the order if it is to be carried out now, on a unit that passes in a direction: half the time it waits for
// the next, which may go the other way. Once only. whole says that every bit of the unit counts.
func (v *victim) take(unit []byte, whole bool) *Order {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.order == nil || time.Now().Before(v.from) || v.rng.IntN(2) == 0 {
		return nil
	}
	o := v.order
	if o.Wrong == Flip {
		part := unit
		if !whole { // what HTTP has around a frame may change on the way, and does where proxies are
			i := bytes.Index(unit, wire.Magic)
			if i < 0 {
				return nil
			}
			part = unit[i:min(i+wire.HeaderSize, len(unit))]
		}
		part[v.rng.IntN(len(part))] ^= 1 << v.rng.IntN(8)
	}
	v.order = nil
	return o
}
