// SPDX-License-Identifier: Apache-2.0

package tamper

import (
	"bytes"
	"math/bits"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

func TestOrdersSurvive(t *testing.T) {
	for _, o := range []Order{
		{Wrong: Hole, For: 30 * time.Millisecond}, {Wrong: Flip}, {Wrong: Duplicate}, {Wrong: Lose}, {Wrong: Cut},
		{Wrong: Allow, Port: 7100, Count: 10},
	} {
		if got, err := ParseOrder(o.String()); err != nil || got != o {
			t.Errorf("%s: %+v, %v", o, got, err)
		}
	}
}

func TestBadOrders(t *testing.T) {
	for text, want := range map[string]string{
		"": "empty", "holes": `"holes"`, "hole": "1 words", "hole x": "invalid duration", "hole 0s": "a duration",
		"hole -1s": "a duration", "flip 3": "2 words", "allow 1": "2 words", "allow 0 1": "no such ports",
		"allow 65535 2": "no such ports", "allow 1 0": "no such ports", "allow x 1": "invalid syntax",
	} {
		if _, err := ParseOrder(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParseOrder(f *testing.F) {
	f.Add("hole 30ms")
	f.Add("allow 7100 10")
	f.Fuzz(func(t *testing.T, text string) {
		o, err := ParseOrder(text)
		if err != nil {
			return
		}
		if again, err := ParseOrder(o.String()); err != nil || again != o {
			t.Errorf("%q is %+v, and that %+v, %v", text, o, again, err)
		}
	})
}

// An order is carried out once, on one unit, and flips one bit of what counts.
func TestOneBitOnce(t *testing.T) {
	for name, whole := range map[string]bool{"whole": true, "in a body": false} {
		v := &victim{rng: rand.New(rand.NewPCG(1, 2))}
		v.arm(Order{Wrong: Flip}, func() {})
		v.from = time.Time{}
		frame := make([]byte, wire.HeaderSize)
		(&wire.Frame{Type: wire.Data}).Encode(frame)
		unit := append([]byte("POST /flow HTTP/1.1\r\n\r\n"), frame...)
		times, flipped := 0, 0
		for range 100 {
			plain := []byte("HTTP/1.1 100 Continue\r\n\r\n") // in which nothing counts
			if !whole && v.take(plain, false) != nil {
				t.Errorf("%s: it was done to what does not count", name)
			}
			now := bytes.Clone(unit)
			if v.take(now, whole) != nil {
				times++
			}
			for i := range now {
				n := bits.OnesCount8(now[i] ^ unit[i])
				if n > 0 && !whole && i < len(unit)-len(frame) {
					t.Errorf("%s: byte %d is no part of the frame", name, i)
				}
				flipped += n
			}
		}
		if times != 1 || flipped != 1 {
			t.Errorf("%s: done %d times, %d bits", name, times, flipped)
		}
	}
}
