// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/upgrade"
)

// trialNumber is the generation that the word has serve, as the release was loaded.
const trialNumber = 1

// tryInbound has a generation serve, and looks that what enters runs it.
func tryInbound(loaded *ebpf.Collection) error {
	super := loaded.Maps[bpf.MeshMapSuper]
	if super == nil {
		return nil
	}
	block := make([]byte, super.ValueSize())
	binary.LittleEndian.PutUint64(block[8:], uint64(upgrade.Word(0).WithFloor(trialNumber).WithServe(trialNumber)))
	if err := super.Put(uint32(0), block); err != nil {
		return fmt.Errorf("map super: %w", err)
	}
	return errors.Join(tryLookup(loaded), tryMessage(loaded))
}

// fillSlot puts the program of a hook into its slot; there is none if the release has not that hook.
func fillSlot(loaded *ebpf.Collection, h bpf.Hook) (entry *ebpf.Program, err error) {
	calls, program := loaded.Maps["calls_"+h.Name], loaded.Programs[h.Program]
	if entry = loaded.Programs[h.Entry]; entry == nil || calls == nil || program == nil {
		return nil, nil
	}
	if err := calls.Put(upgrade.Base(trialNumber), program); err != nil {
		return nil, fmt.Errorf("map calls_%s: %w", h.Name, err)
	}
	return entry, nil
}

// lookup is struct bpf_sk_lookup as a test run takes it: who asks for whose socket.
type lookup struct {
	Socket               uint64
	Family, Protocol     uint32
	RemoteIP4            uint32 // network order
	RemoteIP6            [4]uint32
	RemotePort, _        uint16
	LocalIP4             uint32
	LocalIP6             [4]uint32
	LocalPort, Interface uint32
}

// tryLookup runs the entry of new connections, before there is a program behind it and after.
func tryLookup(loaded *ebpf.Collection) error {
	h := bpf.Hooks()[bpf.MeshHookHOOK_SK_LOOKUP]
	run := func(what string, entry *ebpf.Program, want uint32) error {
		a := netip.MustParseAddr("10.9.8.1").As4()
		ip := binary.NativeEndian.Uint32(a[:])
		got, err := entry.Run(&ebpf.RunOptions{Context: lookup{
			Family: unix.AF_INET, Protocol: unix.IPPROTO_TCP, RemoteIP4: ip, LocalIP4: ip, LocalPort: 80,
		}})
		if err != nil {
			return fmt.Errorf("program %s: %s: %w", h.Program, what, err)
		}
		if got != want {
			return fmt.Errorf("program %s: %s: it says %d, not %d", h.Program, what, got, want)
		}
		return nil
	}
	const drop, pass = 0, 1
	if entry := loaded.Programs[h.Entry]; entry != nil {
		if err := run("a connection while nothing serves", entry, drop); err != nil {
			return err
		}
	}
	entry, err := fillSlot(loaded, h)
	if err != nil || entry == nil {
		return err
	}
	if err := run("a new connection", entry, pass); err != nil {
		return err
	}
	return expectCount(loaded, h.Program, bpf.MeshCountCOUNT_INBOUND, 1)
}

// tryMessage sends a byte from a socket in the map of the release's own.
func tryMessage(loaded *ebpf.Collection) error {
	h := bpf.Hooks()[bpf.MeshHookHOOK_SK_MSG]
	sockets := loaded.Maps[bpf.MeshMapAccelerated]
	entry, err := fillSlot(loaded, h)
	if err != nil || entry == nil || sockets == nil {
		return err
	}
	err = link.RawAttachProgram(link.RawAttachProgramOptions{Target: sockets.FD(), Program: entry, Attach: h.Attach})
	if err != nil {
		return fmt.Errorf("program %s: attach: %w", h.Entry, err)
	}
	if err := passMessage(sockets); err != nil {
		return fmt.Errorf("program %s: a message of a socket: %w", h.Program, err)
	}
	return expectCount(loaded, h.Program, bpf.MeshCountCOUNT_MESSAGES, 1)
}

// passMessage makes a connection of which one end is in the map, and sends a byte from there to the other.
func passMessage(sockets *ebpf.Map) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	const limit = 2 * time.Second
	client, err := net.DialTimeout("tcp", listener.Addr().String(), limit)
	if err != nil {
		return err
	}
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		return err
	}
	defer server.Close()
	raw, err := client.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	var inserted error
	err = raw.Control(func(fd uintptr) { inserted = sockets.Put(make([]byte, sockets.KeySize()), uint64(fd)) })
	if err := errors.Join(err, inserted); err != nil {
		return err
	}
	const said = 42
	got := []byte{0}
	end := time.Now().Add(limit)
	if err := errors.Join(client.SetDeadline(end), server.SetDeadline(end)); err != nil {
		return err
	}
	if _, err := client.Write([]byte{said}); err != nil {
		return err
	}
	if _, err := io.ReadFull(server, got); err != nil {
		return err
	}
	if got[0] != said {
		return fmt.Errorf("%d was sent, %d received", said, got[0])
	}
	return nil
}
