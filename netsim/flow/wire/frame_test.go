// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sample(size int) (Frame, []byte) {
	f := Frame{Type: Data, Flow: 1 << 40, Sequence: 7, Due: 10, Sent: 11, Own: 1, Arrived: 12, Answered: 13,
		Responder: 99, Socket: 5, Count: 8}
	b := bytes.Repeat([]byte{0xa5}, size)
	f.Encode(b)
	return f, b
}

func TestFrameSurvives(t *testing.T) {
	for _, size := range []int{HeaderSize, HeaderSize + 1, 64 << 10} {
		want, b := sample(size)
		got, err := Decode(b)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d bytes: %s", size, diff)
		}
	}
}

// The layout is what a capture shows; a change is a change of the format.
func TestFrameLayout(t *testing.T) {
	f := Frame{Type: Bye, Flow: 0x0102030405060708, Sequence: 0x11, Due: 0x22, Sent: 0x33, Own: 0x44, Arrived: 0x55,
		Answered: 0x66, Responder: 0x77, Socket: 0x88, Count: 0x99}
	b := make([]byte, HeaderSize)
	f.Encode(b)
	copy(b[4:], []byte{0, 0, 0, 0})
	want := []byte("EVKF\x00\x00\x00\x00\x00\x00\x00\x60\x03\x00\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08")
	for _, last := range []byte{0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99} {
		want = append(want, 0, 0, 0, 0, 0, 0, 0, last)
	}
	if diff := cmp.Diff(want, b); diff != "" {
		t.Error(diff)
	}
}

// Every single flipped bit of header and payload is noticed.
func TestEveryFlippedBitIsCorrupt(t *testing.T) {
	_, b := sample(HeaderSize + 32)
	for i := range 8 * len(b) {
		b[i/8] ^= 1 << (i % 8)
		if _, err := Decode(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("bit %d: %v", i, err)
		}
		b[i/8] ^= 1 << (i % 8)
	}
}

func FuzzDecode(f *testing.F) {
	_, b := sample(HeaderSize + 5)
	f.Add(b)
	f.Add(b[:HeaderSize-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v is no ErrCorrupt", err)
			}
			return
		}
		again := bytes.Clone(b)
		frame.Encode(again)
		if !bytes.Equal(again, b) {
			t.Errorf("%x decodes, and encodes to %x", b, again)
		}
	})
}

// FuzzStream feeds a stream in any bytes: it returns frames or an error, and never more than was there.
func FuzzStream(f *testing.F) {
	_, b := sample(HeaderSize + 5)
	f.Add(append(bytes.Clone(b), b...))
	f.Add(b[:20])
	f.Fuzz(func(t *testing.T, text []byte) {
		s := newStream(bytes.NewReader(text), nil)
		total := 0
		for {
			b, err := s.Receive()
			if err != nil {
				return
			}
			if total += len(b); total > len(text) {
				t.Fatalf("%d bytes of frames out of %d", total, len(text))
			}
		}
	})
}
