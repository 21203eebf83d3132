// SPDX-License-Identifier: Apache-2.0

// Command e2e-client is what the end-to-end suite runs inside pods: clients that show what a socket shows an
// application, without a library between that would try again or pick another family. It prints JSON lines (package
// report) and judges nothing; the exit code is 0 unless it could not do what it was asked.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// streams are the process's, so that no subcommand reaches for globals.
type streams struct {
	in  io.Reader
	out *json.Encoder
}

func main() {
	if err := keepSignalsAway(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e-client:", err)
		os.Exit(1)
	}
	if err := run(os.Args[1:], streams{in: os.Stdin, out: json.NewEncoder(os.Stdout)}); err != nil {
		fmt.Fprintln(os.Stderr, "e2e-client:", err)
		os.Exit(1)
	}
}

// keepSignalsAway keeps the signal by which Go's runtime preempts goroutines from the thread that makes blocking calls on
// sockets. A call with a timeout is not started again after a signal (signal(7)), whatever SA_RESTART says, and the
// EINTR would look like something that the data plane did.
func keepSignalsAway() error {
	runtime.LockOSThread()
	var set unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGURG - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
		return fmt.Errorf("block SIGURG: %w", err)
	}
	return nil
}

func run(args []string, s streams) error {
	commands := map[string]func([]string, streams) error{
		"tcp": runTCP, "udp": runUDP, "get": runGet, "draw": runDraw, "forge": runForge, "hold": runHold, "many": runMany,
		"receive": runReceive, "swallow": runSwallow, "capture": runCapture,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		return errors.New("the first argument is one of tcp, udp, get, draw, forge, hold, many, receive, swallow, capture")
	}
	return commands[args[0]](args[1:], s)
}

// untilEOF returns a channel that is closed when in ends: the suite ends a client by closing its standard input, which
// also happens when the suite dies.
func untilEOF(in io.Reader) <-chan struct{} {
	done := make(chan struct{})
	go func() { // ends with the process at the latest: a read of standard input cannot be cancelled
		defer close(done)
		_, _ = io.Copy(io.Discard, in) // its end is what counts
	}()
	return done
}
