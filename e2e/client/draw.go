// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

// runDraw connects UDP sockets by the thousand and reads from /proc which endpoint each was given: no packet is sent,
// and nothing has to listen. draw [-mapped] [-count N] [-batch N] ADDRESS:PORT...; -count 0 goes on until standard
// input ends. getpeername() would show the service.
func runDraw(args []string, s streams) error {
	flags := flag.NewFlagSet("draw", flag.ContinueOnError)
	mapped := flags.Bool("mapped", false, "reach IPv4 through an AF_INET6 socket")
	count := flags.Int("count", 1, "connections per address; 0: until standard input ends")
	batch := flags.Int("batch", 500, "connections per line of output")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var done <-chan struct{}
	if *count == 0 {
		done = untilEOF(s.in)
	}
	for left := *count; left > 0 || *count == 0; left -= *batch {
		select {
		case <-done:
			return nil
		default:
		}
		size := *batch
		if *count > 0 {
			size = min(size, left)
		}
		for _, arg := range flags.Args() {
			to, err := netip.ParseAddrPort(arg)
			if err != nil {
				return fmt.Errorf("parse address %q: %w", arg, err)
			}
			draw, err := drawBatch(to, *mapped, size)
			if err != nil {
				return err
			}
			if err := s.out.Encode(draw); err != nil {
				return err
			}
		}
	}
	return nil
}

func drawBatch(to netip.AddrPort, mapped bool, size int) (report.Draw, error) {
	draw := report.Draw{To: to.String(), Endpoints: map[string]int{}, Errors: map[string]int{}}
	inodes := make(map[uint64]bool, size)
	table := "/proc/thread-self/net/udp6"
	draw.Start = monotonic()
	for range size {
		sock, err := openSocket(to.Addr(), unix.SOCK_DGRAM, mapped, time.Second)
		if err != nil {
			return report.Draw{}, err
		}
		defer sock.close()
		if sock.inet {
			table = "/proc/thread-self/net/udp"
		}
		if err := unix.Connect(sock.fd, sock.sockaddr(to)); err != nil {
			draw.Errors[errnoName(err)]++
			continue
		}
		var stat unix.Stat_t
		if err := unix.Fstat(sock.fd, &stat); err != nil {
			return report.Draw{}, fmt.Errorf("stat socket: %w", err)
		}
		inodes[stat.Ino] = true
	}
	draw.End = monotonic()
	text, err := os.ReadFile(table)
	if err != nil {
		return report.Draw{}, fmt.Errorf("read sockets: %w", err)
	}
	counted, err := countRemotes(text, inodes, draw.Endpoints)
	draw.Ended = len(inodes) - counted
	return draw, err
}

// countRemotes counts the remote addresses of the sockets in inodes. A line of the table is: slot, local, remote,
// state, queues, timer, retransmits, uid, timeout, inode, ... (proc(5), /proc/net/udp).
func countRemotes(table []byte, inodes map[uint64]bool, counts map[string]int) (counted int, err error) {
	lines := bufio.NewScanner(bytes.NewReader(table))
	for lines.Scan() {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) < 10 {
			continue
		}
		inode, err := strconv.ParseUint(string(fields[9]), 10, 64)
		if err != nil || !inodes[inode] { // the heading has no number there
			continue
		}
		remote, err := parseProcAddress(string(fields[2]))
		if err != nil {
			return counted, err
		}
		counts[remote.String()]++
		counted++
	}
	return counted, lines.Err()
}

// parseProcAddress reads "0A00000A:1F90": words of the address as the machine stores them, the port as a number.
func parseProcAddress(text string) (netip.AddrPort, error) {
	digits, port, _ := bytes.Cut([]byte(text), []byte(":"))
	var address []byte
	for ; len(digits) >= 8; digits = digits[8:] {
		word, err := strconv.ParseUint(string(digits[:8]), 16, 32)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("parse address %q: %w", text, err)
		}
		address = binary.NativeEndian.AppendUint32(address, uint32(word))
	}
	number, err := strconv.ParseUint(string(port), 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("parse address %q: %w", text, err)
	}
	addr, ok := netip.AddrFromSlice(address)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("parse address %q: %d bytes", text, len(address))
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(number)), nil
}
