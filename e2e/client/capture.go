// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

// runCapture counts the packets on a link that contain a text, until standard input ends: capture -text TEXT LINK.
func runCapture(args []string, s streams) error {
	flags := flag.NewFlagSet("capture", flag.ContinueOnError)
	text := flags.String("text", "", "what is looked for")
	if err := flags.Parse(args); err != nil {
		return err
	}
	link, err := net.InterfaceByName(flags.Arg(0))
	if err != nil {
		return fmt.Errorf("find link %s: %w", flags.Arg(0), err)
	}
	// Protocols are in network order here (packet(7)).
	var all [2]byte
	binary.BigEndian.PutUint16(all[:], unix.ETH_P_ALL)
	protocol := binary.NativeEndian.Uint16(all[:])
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "packets")
	defer socket.Close()
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index, Protocol: protocol}); err != nil {
		return fmt.Errorf("capture on %s: %w", link.Name, err)
	}
	if err := s.out.Encode(report.Capture{Link: link.Name}); err != nil {
		return err
	}
	go func() { // ends with the input; the read below ends by it
		<-untilEOF(s.in)
		socket.Close()
	}()
	seen := report.Capture{Link: link.Name}
	buffer := make([]byte, 1<<16)
	for {
		n, err := socket.Read(buffer)
		if errors.Is(err, os.ErrClosed) {
			return s.out.Encode(seen)
		}
		if err != nil {
			return fmt.Errorf("capture on %s: %w", link.Name, err)
		}
		if n > 0 && (buffer[0]>>4 == 4 || buffer[0]>>4 == 6) {
			seen.Packets++
		}
		if bytes.Contains(buffer[:n], []byte(*text)) {
			seen.Found++
		}
	}
}
