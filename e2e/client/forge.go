// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// runForge sends UDP datagrams from an address that need not be the sender's: forge -from ADDRESS:PORT [-say TEXT]
// [-count N] ADDRESS:PORT. It prints nothing: whether they arrive is seen at the other end.
func runForge(args []string, _ streams) error {
	flags := flag.NewFlagSet("forge", flag.ContinueOnError)
	source := flags.String("from", "", "the source to claim")
	say := flags.String("say", "forged", "the datagram")
	count := flags.Int("count", 1, "datagrams")
	if err := flags.Parse(args); err != nil {
		return err
	}
	from, err := netip.ParseAddrPort(*source)
	if err != nil {
		return fmt.Errorf("parse source %q: %w", *source, err)
	}
	to, err := netip.ParseAddrPort(flags.Arg(0))
	if err != nil {
		return fmt.Errorf("parse address %q: %w", flags.Arg(0), err)
	}
	if from.Addr().Is4() != to.Addr().Is4() {
		return fmt.Errorf("source %s and destination %s are of two families", from, to)
	}
	family, sockaddr := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: to.Addr().As16()})
	packet := packet6(from, to, []byte(*say))
	if to.Addr().Is4() {
		family, sockaddr = unix.AF_INET, &unix.SockaddrInet4{Addr: to.Addr().As4()}
		packet = packet4(from, to, []byte(*say))
	}
	// IPPROTO_RAW: the packet is sent with the header that it has (raw(7), RFC 3542 section 3 for IPv6).
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("open raw socket: %w", err)
	}
	defer unix.Close(fd)
	for range *count {
		if err := unix.Sendto(fd, packet, 0, sockaddr); err != nil {
			return fmt.Errorf("send packet from %s to %s: %w", from, to, err)
		}
	}
	return nil
}

// packet4 returns an IPv4 packet (RFC 791) with a datagram; the kernel fills the header's checksum and length.
func packet4(from, to netip.AddrPort, payload []byte) []byte {
	source, destination := from.Addr().As4(), to.Addr().As4()
	header := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	header = append(header, source[:]...)
	header = append(header, destination[:]...)
	return append(header, datagram(from, to, payload)...)
}

// packet6 returns an IPv6 packet (RFC 8200) with a datagram.
func packet6(from, to netip.AddrPort, payload []byte) []byte {
	source, destination := from.Addr().As16(), to.Addr().As16()
	body := datagram(from, to, payload)
	header := []byte{0x60, 0, 0, 0, byte(len(body) >> 8), byte(len(body)), unix.IPPROTO_UDP, 64}
	header = append(header, source[:]...)
	header = append(header, destination[:]...)
	return append(header, body...)
}

// datagram returns UDP (RFC 768) with its checksum, which IPv6 demands.
func datagram(from, to netip.AddrPort, payload []byte) []byte {
	length := uint16(8 + len(payload))
	var udp []byte
	udp = binary.BigEndian.AppendUint16(udp, from.Port())
	udp = binary.BigEndian.AppendUint16(udp, to.Port())
	udp = binary.BigEndian.AppendUint16(udp, length)
	udp = append(udp, 0, 0)
	udp = append(udp, payload...)

	pseudo := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_UDP)
	pseudo = binary.BigEndian.AppendUint16(pseudo, length)
	binary.BigEndian.PutUint16(udp[6:], checksum(append(pseudo, udp...)))
	return udp
}

// checksum returns the Internet checksum (RFC 1071), all ones for zero as UDP wants it.
func checksum(data []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	if len(data)%2 == 1 {
		sum += uint32(data[len(data)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	if sum == 0xffff {
		return 0xffff
	}
	return ^uint16(sum)
}
