// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Main runs the processes that a supervisor needs: "shim SOCKET COMMAND…" and "trace SOCKET CALLS". A binary that
// supervises serves it under arguments of its own; see [Options].
func Main(args []string) error {
	switch {
	case len(args) > 2 && args[0] == "shim":
		return Shim(args[1], args[2:])
	case len(args) == 3 && args[0] == "trace":
		var calls []string
		if args[2] != "" {
			calls = strings.Split(args[2], ",")
		}
		return trace(args[1], calls, os.Stdin, os.Stdout)
	}
	return fmt.Errorf("supervise: arguments %q are neither shim SOCKET COMMAND… nor trace SOCKET CALLS", args)
}

// trace waits for a process at a socket and traces it to its end, or until orders end. It reports what went wrong; an
// error is returned only where that is not possible.
func trace(socket string, calls []string, orders io.Reader, reports io.Writer) error {
	// The kernel knows a tracer by its thread. If that ends, in whatever way, so does all that it traces.
	runtime.LockOSThread()
	t := &tracer{reports: json.NewEncoder(reports), answers: make(chan order), resume: make(chan struct{}, 1),
		threads: map[int]int{}}
	last := report{Ended: true}
	err := t.run(socket, calls, orders)
	if last.Status = uint32(t.status); err != nil {
		last.Error = err.Error()
	}
	return t.reports.Encode(last)
}

func (t *tracer) run(socket string, calls []string, orders io.Reader) error {
	filter, err := newFilter(calls)
	if err != nil {
		return err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen for process: %w", err)
	}
	defer listener.Close()
	// Every stop of a traced thread raises SIGCHLD. It only says that there is something to look at.
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, unix.SIGCHLD)
	defer signal.Stop(changes)
	if err := t.reports.Encode(report{}); err != nil {
		return err
	}
	decoder := json.NewDecoder(orders)
	var first order
	if err := decoder.Decode(&first); err != nil {
		return fmt.Errorf("read first order: %w", err)
	}
	t.watch = first.Watch
	go t.listen(decoder)
	if err := t.accept(listener, filter); err != nil {
		return err
	}
	defer unix.Close(t.pidfd)
	for {
		ended, err := t.drain()
		if ended && !t.running {
			err = fmt.Errorf("process %d ended before it became the command", t.pid)
		}
		if ended || err != nil {
			return err
		}
		select { // only while something is held: else drain has waited
		case <-changes:
		case <-t.resume:
			if err := t.resumeHeld(); err != nil {
				return err
			}
		}
	}
}

// listen hands orders on. When they end, so does this process, at once: the kernel then ends what it traces.
func (t *tracer) listen(decoder *json.Decoder) {
	for {
		var o order
		if err := decoder.Decode(&o); err != nil {
			os.Exit(0)
		}
		if !o.Resume {
			t.answers <- o
			continue
		}
		select {
		case t.resume <- struct{}{}:
		default: // it was asked for already
		}
	}
}

// accept waits for the shim and becomes its tracer.
func (t *tracer) accept(listener *net.UnixListener, filter []unix.SockFilter) error {
	conn, err := listener.AcceptUnix()
	if err != nil {
		return fmt.Errorf("wait for process: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return fmt.Errorf("wait for process: %w", err)
	}
	var text [8]byte
	if _, err := io.ReadFull(conn, text[:]); err != nil {
		return fmt.Errorf("read from process: %w", err)
	}
	tid := int(binary.NativeEndian.Uint64(text[:]))
	if t.pid = processOf(tid); t.pid == 0 {
		return fmt.Errorf("process of thread %d is gone", tid)
	}
	if err := seize(tid); err != nil {
		return err
	}
	if t.pidfd, err = unix.PidfdOpen(t.pid, 0); err != nil {
		return fmt.Errorf("watch process %d: %w", t.pid, err)
	}
	_, err = conn.Write(encodeFilter(filter))
	if err := errors.Join(err, t.reports.Encode(report{PID: t.pid})); err != nil {
		return fmt.Errorf("send filter to process %d: %w", t.pid, err)
	}
	return nil
}
