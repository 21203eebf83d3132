// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

// runMany keeps many connections to an echo server: many [-connections N] [-interval D] ADDRESS:PORT. Each has a number, and
// sends it with the number of the request: first when it is made, then at its turn, and once more in the end, which is the
// window "last". A line of standard input begins a window of that name, and ends the one before; so does the end of the input,
// after which there is a total of the windows of each name.
func runMany(args []string, s streams) error {
	flags := flag.NewFlagSet("many", flag.ContinueOnError)
	connections := flags.Int("connections", 1000, "how many there are")
	interval := flags.Duration("interval", time.Second, "between two requests of a connection")
	timeout := flags.Duration("timeout", 30*time.Second, "of a request: what has not come back by then was lost")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("many: %q: one address and port", flags.Args())
	}
	all := make([]net.Conn, *connections)
	var dialing errgroup.Group
	dialing.SetLimit(64)
	for i := range all {
		dialing.Go(func() (err error) {
			if all[i], err = net.DialTimeout("tcp", flags.Arg(0), *timeout); err != nil {
				return err
			}
			return askNumbered(all[i], uint32(i), 0, time.Now().Add(*timeout))
		})
	}
	if err := dialing.Wait(); err != nil {
		return fmt.Errorf("many: %w", err)
	}
	m := &many{all: map[string][]time.Duration{}, few: make(chan struct{}, 64)}
	done, last := make(chan struct{}), make(chan struct{})
	var talking, ending sync.WaitGroup
	for i, conn := range all {
		talking.Add(1)
		ending.Go(func() {
			defer conn.Close()
			request, err := m.talk(conn, uint32(i), *interval*time.Duration(i)/time.Duration(len(all)), *interval, *timeout, done)
			talking.Done()
			if <-last; err == nil {
				m.ask(conn, uint32(i), request, *timeout)
			}
		})
	}
	if err := s.out.Encode(report.Window{Event: "ready"}); err != nil {
		return err
	}
	name := ""
	for lines := bufio.NewScanner(s.in); lines.Scan(); name = lines.Text() {
		if err := s.out.Encode(m.window(name)); err != nil {
			return err
		}
	}
	close(done)
	talking.Wait()
	if err := s.out.Encode(m.window(name)); err != nil {
		return err
	}
	close(last)
	ending.Wait()
	if err := s.out.Encode(m.window("last")); err != nil {
		return err
	}
	for name, took := range m.all {
		if err := s.out.Encode(measured(report.Window{Event: "total", Name: name}, took)); err != nil {
			return err
		}
	}
	return nil
}

// many is what happened in the window that lasts.
type many struct {
	mu     sync.Mutex
	took   []time.Duration
	failed int
	first  error
	all    map[string][]time.Duration // of windows that have ended, by name
	few    chan struct{}              // who asks in the end: not all at once
}

// talk asks from its first turn on until it is done or the connection breaks, and says which request is next.
func (m *many) talk(conn net.Conn, number uint32, turn, interval, timeout time.Duration, done <-chan struct{}) (uint32, error) {
	next := time.NewTimer(turn)
	defer next.Stop()
	for request := uint32(1); ; request++ {
		select {
		case <-done:
			return request, nil
		case <-next.C:
			next.Reset(interval)
		}
		begin := time.Now()
		err := askNumbered(conn, number, request, begin.Add(timeout))
		m.add(time.Since(begin), err)
		if err != nil {
			return request, err
		}
	}
}

// ask asks when few others do.
func (m *many) ask(conn net.Conn, number, request uint32, timeout time.Duration) {
	m.few <- struct{}{}
	defer func() { <-m.few }()
	begin := time.Now()
	err := askNumbered(conn, number, request, begin.Add(timeout))
	m.add(time.Since(begin), err)
}

// askNumbered sends two numbers and reads them back: nothing that was said on this connection is lost, or said twice.
func askNumbered(conn net.Conn, number, request uint32, deadline time.Time) error {
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	var said, heard [8]byte
	binary.BigEndian.PutUint32(said[:], number)
	binary.BigEndian.PutUint32(said[4:], request)
	if _, err := conn.Write(said[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, heard[:]); err != nil {
		return err
	}
	if said != heard {
		return fmt.Errorf("connection %d, request %d: %x came back", number, request, heard)
	}
	return nil
}

func (m *many) add(took time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.took = append(m.took, took)
	if err == nil {
		return
	}
	m.failed++
	if m.first == nil {
		m.first = err
	}
}

// window ends the window of that name.
func (m *many) window(name string) report.Window {
	m.mu.Lock()
	took, failed, first := m.took, m.failed, m.first
	m.took, m.failed, m.first = nil, 0, nil
	m.mu.Unlock()
	m.all[name] = append(m.all[name], took...)
	w := report.Window{Event: "window", Name: name, Failed: failed}
	if first != nil {
		w.Error = first.Error()
	}
	return measured(w, took)
}

// measured adds how long answers took.
func measured(w report.Window, took []time.Duration) report.Window {
	w.Requests = len(took)
	if slices.Sort(took); len(took) > 0 {
		w.Median, w.P999 = milliseconds(took[len(took)/2]), milliseconds(took[len(took)*999/1000])
		w.Worst = milliseconds(took[len(took)-1])
	}
	return w
}
