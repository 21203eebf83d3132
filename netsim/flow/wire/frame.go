// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Sizes of a frame in bytes: a frame is a header and a payload of any content.
const (
	HeaderSize = 96
	MaxSize    = 1 << 20
)

// MaxDatagram is the largest frame that UDP carries over a wire with an MTU of 1500 without fragments (IPv6).
const MaxDatagram = 1500 - 40 - 8

// Magic is what a frame begins with.
var Magic = []byte("EVKF")

const magic = 0x45564b46 // the same

// Type says what a frame is for.
type Type uint8

// The frames of a flow. Data, Hello and Bye are answered by a frame of the same type and sequence number.
const (
	Hello    Type = iota + 1 // the client's first frame; its payload is a JSON object, see netsim/flow
	Data                     // a numbered frame; of a server that was told to push, it answers nothing
	Bye                      // the client's last; the server closes after the answer
	Greeting                 // the server's first, where the server speaks first
	Fault                    // the server saw something wrong and closes; the payload says what
)

// ErrCorrupt is returned for bytes that are not the frame that was sent.
var ErrCorrupt = errors.New("corrupt frame")

// Frame is the header of a frame. Times are nanoseconds of CLOCK_MONOTONIC, which all network namespaces of a machine
// share, so that a frame shows on which side of the wire time was lost.
//
//	 0 magic u32 · 4 CRC32C of all that follows it u32 · 8 length of header and payload u32 · 12 type u8 · 13 zero
//	16 flow u64 · 24 sequence u64 · 32 due · 40 sent · 48 own · 56 arrived · 64 answered, each i64
//	72 responder u64 · 80 socket u64 · 88 count u64
//
// All numbers are in network byte order.
type Frame struct {
	Type Type
	// Flow and Sequence number the frame. Each flow of a machine has another number; sequences begin at 0.
	Flow, Sequence uint64
	// Due is when the schedule wanted it sent, Sent when it was; Own is that part of the difference for which the sender
	// itself is to blame, not the connection.
	Due, Sent, Own int64
	// Arrived and Answered are when the server had read and when it wrote back.
	Arrived, Answered int64
	// Responder is the server process, Socket the SO_COOKIE of its end (0 for UDP), Count how many frames have come
	// on the connection.
	Responder, Socket, Count uint64
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode makes a frame of b: it writes the header and the checksum, and leaves the payload after HeaderSize as it is.
func (f *Frame) Encode(b []byte) {
	_ = b[:HeaderSize]
	e := binary.BigEndian
	e.PutUint32(b, magic)
	e.PutUint32(b[8:], uint32(len(b)))
	e.PutUint32(b[12:], uint32(f.Type)<<24)
	for i, v := range [...]uint64{
		f.Flow, f.Sequence, uint64(f.Due), uint64(f.Sent), uint64(f.Own), uint64(f.Arrived), uint64(f.Answered),
		f.Responder, f.Socket, f.Count,
	} {
		e.PutUint64(b[16+8*i:], v)
	}
	e.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
}

// Decode reads a frame that fills b. It returns ErrCorrupt for anything that Encode did not write.
func Decode(b []byte) (Frame, error) {
	if len(b) < HeaderSize {
		return Frame{}, fmt.Errorf("%w: %d bytes", ErrCorrupt, len(b))
	}
	length, err := frameLength(b)
	if err != nil {
		return Frame{}, err
	}
	if length != len(b) {
		return Frame{}, fmt.Errorf("%w: it says %d bytes and has %d", ErrCorrupt, length, len(b))
	}
	e := binary.BigEndian
	if want, got := e.Uint32(b[4:]), crc32.Checksum(b[8:], castagnoli); want != got {
		return Frame{}, fmt.Errorf("%w: CRC32C %08x, it says %08x", ErrCorrupt, got, want)
	}
	u := func(offset int) uint64 { return e.Uint64(b[offset:]) }
	return Frame{
		Type: Type(b[12]), Flow: u(16), Sequence: u(24), Due: int64(u(32)), Sent: int64(u(40)), Own: int64(u(48)),
		Arrived: int64(u(56)), Answered: int64(u(64)), Responder: u(72), Socket: u(80), Count: u(88),
	}, nil
}

// frameLength reads how long the frame is that begins at b, which has at least 12 bytes.
func frameLength(b []byte) (int, error) {
	if m := binary.BigEndian.Uint32(b); m != magic {
		return 0, fmt.Errorf("%w: it begins with %08x", ErrCorrupt, m)
	}
	length := binary.BigEndian.Uint32(b[8:])
	if length < HeaderSize || length > MaxSize {
		return 0, fmt.Errorf("%w: it says %d bytes", ErrCorrupt, length)
	}
	return int(length), nil
}

// Payload returns what follows the header.
func Payload(b []byte) []byte { return b[HeaderSize:] }
