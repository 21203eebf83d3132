// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"io"
	"net"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// A socket keeps the sk_msg program that it was put into the map with. Since that is the entry, which jumps by the
// word, a live socket runs new code once the floor has moved; an update of the attachment would not reach it.
func TestLiveSocketsGetNewCode(t *testing.T) {
	needRoot(t)
	one := mustLoad(t, 1, nil)
	shared := map[string]*ebpf.Map{"super": one.Maps["super"], "accelerated": one.Maps["accelerated"]}
	two := mustLoad(t, 2, shared)
	calls := one.Maps["calls_sk_msg"]
	for generation, coll := range map[uint32]*ebpf.Collection{1: one, 2: two} {
		if err := calls.Put(16*generation, coll.Programs["mesh_sk_msg"]); err != nil {
			t.Fatal(err)
		}
	}
	putWord(t, one.Maps["super"], 1, 1)
	attached, err := link.AttachRawLink(link.RawLinkOptions{
		Target: one.Maps["accelerated"].FD(), Program: one.Programs["enter_sk_msg"], Attach: ebpf.AttachSkMsgVerdict,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer attached.Close()

	client, server := mustConnection(t)
	insert(t, one.Maps["accelerated"], client)
	exchange(t, client, server)
	if a, b := messages(t, one), messages(t, two); a != 1 || b != 0 {
		t.Fatalf("before the floor moved: generation 1 saw %d messages, want 1; generation 2 saw %d, want 0", a, b)
	}
	putWord(t, one.Maps["super"], 2, 2)
	exchange(t, client, server)
	if a, b := messages(t, one), messages(t, two); a != 1 || b != 1 {
		t.Fatalf("after the floor moved: generation 1 saw %d messages, want 1; generation 2 saw %d, want 1", a, b)
	}
	// The control: an empty slot refuses, so the messages above were really seen by way of it.
	if err := calls.Delete(uint32(32)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("x")); err == nil {
		t.Fatal("a message passed an empty slot")
	}
}

// putWord stores epoch 1 and the given floor and serve, as the owner of the pinned state does by a program.
func putWord(t *testing.T, super *ebpf.Map, floor, serve uint64) {
	t.Helper()
	block := make([]byte, super.ValueSize())
	*(*uint64)(unsafe.Pointer(&block[8])) = 1<<48 | floor<<36 | serve<<24
	if err := super.Put(uint32(0), block); err != nil {
		t.Fatal(err)
	}
}

func mustConnection(t *testing.T) (client, server net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err = net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

func insert(t *testing.T, sockets *ebpf.Map, conn net.Conn) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inserted error
	err = raw.Control(func(fd uintptr) {
		inserted = sockets.Put(make([]byte, sockets.KeySize()), uint64(fd))
	})
	if err != nil || inserted != nil {
		t.Fatal(err, inserted)
	}
}

func exchange(t *testing.T, client, server net.Conn) {
	t.Helper()
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func messages(t *testing.T, coll *ebpf.Collection) (sum uint64) {
	t.Helper()
	var perCPU []uint64
	if err := coll.Maps["counters"].Lookup(uint32(MeshCountCOUNT_MESSAGES), &perCPU); err != nil {
		t.Fatal(err)
	}
	for _, n := range perCPU {
		sum += n
	}
	return sum
}
