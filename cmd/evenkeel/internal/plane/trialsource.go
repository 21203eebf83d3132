// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/bpf"
)

// frame is an Ethernet frame of a type.
func frame(kind uint16, payload ...byte) []byte {
	return append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(kind >> 8), byte(kind)}, payload...)
}

// packet is a frame with the header of an IP packet from an address, of a protocol.
func packet(from string, protocol byte) []byte {
	a := netip.MustParseAddr(from)
	if a.Is4() {
		header := append([]byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, protocol, 0, 0}, a.AsSlice()...)
		return frame(0x0800, append(header, 10, 9, 8, 7)...)
	}
	header := append([]byte{0x60, 0, 0, 0, 0, 0, protocol, 64}, a.AsSlice()...)
	return frame(0x86dd, append(header, a.AsSlice()...)...)
}

// trySource runs the check of sources on packets of the loopback, which test runs are of.
func trySource(loaded *ebpf.Collection) error {
	const name = "mesh_tcx"
	program, workloads := loaded.Programs[name], loaded.Maps[bpf.MeshMapWorkloads]
	if program == nil || workloads == nil {
		return nil
	}
	const loopback, next, drop, udp, icmp6 = 1, 0xffffffff, 2, 17, 58
	const own4, own6 = "10.9.8.1", "fd00:9:8::1"
	run := func(what string, data []byte, want uint32) error {
		got, err := program.Run(&ebpf.RunOptions{Data: data})
		if err != nil {
			return fmt.Errorf("program %s: %s: %w", name, what, err)
		}
		if got != want {
			return fmt.Errorf("program %s: %s: it says %d, not %d", name, what, int32(got), int32(want))
		}
		return nil
	}
	if err := run("a packet of no workload", packet(own4, udp), next); err != nil {
		return err
	}
	workload := bpf.MeshWorkload{
		Ip4: bpf.AddressOf(netip.MustParseAddr(own4)), Ip6: bpf.AddressOf(netip.MustParseAddr(own6)),
		Interface: loopback, Flags: uint32(bpf.MeshWorkloadFlagWORKLOAD_SOURCE_CHECK),
	}
	key := bpf.MeshWorkloadKey{Id: loopback, By: uint32(bpf.MeshWorkloadByWORKLOAD_BY_INTERFACE)}
	if err := workloads.Put(key, workload); err != nil {
		return fmt.Errorf("map workloads: %w", err)
	}
	dropped := uint64(0)
	for _, v := range []struct {
		what string
		data []byte
		want uint32
	}{
		{"a packet with its workload's address", packet(own4, udp), next},
		{"a packet with another address", packet("10.9.8.2", udp), drop},
		{"an IPv6 packet with its workload's address", packet(own6, udp), next},
		{"an IPv6 packet with another address", packet("fd00:9:8::2", udp), drop},
		{"neighbour discovery", packet("fe80::1", icmp6), next},
		{"a datagram from a link-local address", packet("fe80::1", udp), drop},
		{"an ARP request", frame(0x0806, make([]byte, 28)...), next},
		{"a tagged frame", frame(0x8100, append([]byte{0, 1}, packet(own4, udp)[12:]...)...), drop},
	} {
		if err := run(v.what, v.data, v.want); err != nil {
			return err
		}
		if v.want == drop {
			dropped++
		}
	}
	return expectCount(loaded, name, bpf.MeshCountREFUSED_SOURCE, dropped)
}
