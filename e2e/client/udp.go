// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"flag"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

// runUDP asks every address from one socket (-connected: from one connected socket each), count times over. With -stdin
// a round is made for each line of standard input, so that one socket can be asked before and after something changed.
func runUDP(args []string, s streams) error {
	flags := flag.NewFlagSet("udp", flag.ContinueOnError)
	mapped := flags.Bool("mapped", false, "reach IPv4 through an AF_INET6 socket")
	connected := flags.Bool("connected", false, "connect() the socket")
	named := flags.Bool("named", false, "with -connected: name the address in each datagram, too")
	say := flags.String("say", "hello", "the datagram")
	count := flags.Int("count", 1, "rounds")
	stdin := flags.Bool("stdin", false, "a round for each line of standard input instead")
	wait := flags.Bool("wait", false, "in the end, wait for a datagram that nobody sends")
	timeout := flags.Duration("timeout", 3*time.Second, "of each call")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var peers []peer
	for _, arg := range flags.Args() {
		to, err := netip.ParseAddrPort(arg)
		if err != nil {
			return fmt.Errorf("parse address %q: %w", arg, err)
		}
		p := peer{to: to, connected: *connected, named: *named}
		if *connected || len(peers) == 0 {
			if p.sock, err = openSocket(to.Addr(), unix.SOCK_DGRAM, *mapped, *timeout); err != nil {
				return err
			}
			defer p.sock.close()
		} else {
			p.sock = peers[0].sock
		}
		peers = append(peers, p)
	}
	round := func() error {
		for i := range peers {
			if err := s.out.Encode(peers[i].ask(*say)); err != nil {
				return err
			}
		}
		return nil
	}
	if *stdin {
		lines := bufio.NewScanner(s.in)
		for lines.Scan() {
			if err := round(); err != nil {
				return err
			}
		}
		return lines.Err()
	}
	for range *count {
		if err := round(); err != nil {
			return err
		}
	}
	if *wait {
		return s.out.Encode(peers[0].wait())
	}
	return nil
}

// peer is one destination; those of an unconnected socket share it.
type peer struct {
	to        netip.AddrPort
	sock      socket
	connected bool
	named     bool
	dialled   bool
}

func (p *peer) ask(say string) report.Attempt {
	attempt := report.Attempt{To: p.to.String()}
	start := time.Now()
	attempt.Call, attempt.Errno = p.exchange(say, &attempt)
	attempt.Took = milliseconds(time.Since(start))
	return attempt
}

// wait returns when the socket has something to say, a datagram or an error.
func (p *peer) wait() report.Attempt {
	attempt := report.Attempt{To: p.to.String()}
	start := time.Now()
	forever := unix.Timeval{}
	if err := unix.SetsockoptTimeval(p.sock.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &forever); err != nil {
		attempt.Call, attempt.Errno = "setsockopt", errnoName(err)
		return attempt
	}
	if _, _, err := unix.Recvfrom(p.sock.fd, make([]byte, 1), 0); err != nil {
		attempt.Call, attempt.Errno = "recvfrom", errnoName(err)
	}
	attempt.Took = milliseconds(time.Since(start))
	return attempt
}

// exchange returns the call that failed and its error, or nothing.
func (p *peer) exchange(say string, attempt *report.Attempt) (call, errno string) {
	if p.connected && !p.dialled {
		if err := unix.Connect(p.sock.fd, p.sock.sockaddr(p.to)); err != nil {
			return "connect", errnoName(err)
		}
		p.dialled = true
	}
	if p.connected {
		shown, err := unix.Getpeername(p.sock.fd)
		if err != nil {
			return "getpeername", errnoName(err)
		}
		attempt.Peer = addressOf(shown)
	}
	if p.connected && !p.named {
		if _, err := unix.Write(p.sock.fd, []byte(say)); err != nil {
			return "write", errnoName(err)
		}
	} else if err := unix.Sendto(p.sock.fd, []byte(say), 0, p.sock.sockaddr(p.to)); err != nil {
		return "sendto", errnoName(err)
	}
	buffer := make([]byte, 4096)
	n, from, err := unix.Recvfrom(p.sock.fd, buffer, 0)
	if err != nil {
		return "recvfrom", errnoName(err)
	}
	attempt.From, attempt.Answer = addressOf(from), string(buffer[:n])
	return "", ""
}
