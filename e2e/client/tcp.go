// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

// runTCP connects to each address in turn: tcp [-mapped] [-say TEXT] [-count N] ADDRESS:PORT...
func runTCP(args []string, s streams) error {
	flags := flag.NewFlagSet("tcp", flag.ContinueOnError)
	mapped := flags.Bool("mapped", false, "reach IPv4 through an AF_INET6 socket")
	say := flags.String("say", "", "send this and read an answer")
	count := flags.Int("count", 1, "connections per address")
	timeout := flags.Duration("timeout", 3*time.Second, "of each call")
	if err := flags.Parse(args); err != nil {
		return err
	}
	for range *count {
		for _, arg := range flags.Args() {
			to, err := netip.ParseAddrPort(arg)
			if err != nil {
				return fmt.Errorf("parse address %q: %w", arg, err)
			}
			sock, err := openSocket(to.Addr(), unix.SOCK_STREAM, *mapped, *timeout)
			if err != nil {
				return err
			}
			attempt := connectTCP(sock, to, *say)
			if err := sock.close(); err != nil {
				return fmt.Errorf("close socket: %w", err)
			}
			if err := s.out.Encode(attempt); err != nil {
				return err
			}
		}
	}
	return nil
}

func connectTCP(sock socket, to netip.AddrPort, say string) report.Attempt {
	attempt := report.Attempt{To: to.String()}
	start := time.Now()
	attempt.Call, attempt.Errno = exchangeTCP(sock, to, say, &attempt)
	attempt.Took = milliseconds(time.Since(start))
	return attempt
}

// exchangeTCP returns the call that failed and its error, or nothing.
func exchangeTCP(sock socket, to netip.AddrPort, say string, attempt *report.Attempt) (call, errno string) {
	if err := unix.Connect(sock.fd, sock.sockaddr(to)); err != nil {
		return "connect", errnoName(err)
	}
	peer, err := unix.Getpeername(sock.fd)
	if err != nil {
		return "getpeername", errnoName(err)
	}
	attempt.Peer = addressOf(peer)
	if say == "" {
		return "", ""
	}
	if _, err := unix.Write(sock.fd, []byte(say)); err != nil {
		return "write", errnoName(err)
	}
	buffer := make([]byte, 4096)
	n, err := unix.Read(sock.fd, buffer)
	if err != nil {
		return "read", errnoName(err)
	}
	attempt.Answer = string(buffer[:n])
	return "", ""
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
