// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

// runReceive prints every datagram that comes in until standard input ends: receive ADDRESS:PORT.
func runReceive(args []string, s streams) error {
	flags := flag.NewFlagSet("receive", flag.ContinueOnError)
	if err := flags.Parse(args); err != nil {
		return err
	}
	conn, err := net.ListenPacket("udp", flags.Arg(0))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := s.out.Encode(report.Listening{Listening: conn.LocalAddr().String()}); err != nil {
		return err
	}
	go func() { // ends with the input; the read below ends by it
		<-untilEOF(s.in)
		conn.Close()
	}()
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if err := s.out.Encode(report.Datagram{From: from.String(), Payload: string(buffer[:n])}); err != nil {
			return err
		}
	}
}

// runSwallow accepts TCP and answers UDP on each port until standard input ends: swallow PORT... It stands for whatever
// else a service address may reach when a data plane lets go of it.
func runSwallow(args []string, s streams) error {
	var closers []io.Closer
	var owned sync.WaitGroup
	for _, port := range args {
		listener, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		packets, err := net.ListenPacket("udp", ":"+port)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		closers = append(closers, listener, packets)
		owned.Go(func() { acceptAll(listener) })
		owned.Go(func() { answerAll(packets) })
	}
	if err := s.out.Encode(report.Listening{Listening: fmt.Sprint(args)}); err != nil {
		return err
	}
	<-untilEOF(s.in)
	for _, c := range closers {
		c.Close()
	}
	owned.Wait()
	return nil
}

func acceptAll(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, "swallowed") // the client may be gone
		conn.Close()
	}
}

func answerAll(packets net.PacketConn) {
	buffer := make([]byte, 1<<16)
	for {
		_, from, err := packets.ReadFrom(buffer)
		if err != nil {
			return
		}
		_, _ = packets.WriteTo([]byte("swallowed"), from) // the client may be gone
	}
}
