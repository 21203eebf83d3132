// SPDX-License-Identifier: Apache-2.0

// Command evenkeel-load makes the traffic of `evenkeel bench`, which runs it in pods. It is a program of its own because
// Fortio brings root certificates, profiling handlers and a megabyte of heap into every process that it is linked into,
// and a node agent should have none of them.
package main

import (
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/load"
)

const usage = `usage: evenkeel-load client|serve-one|serve-many|serve-http [--cpu N] [--congestion NAME] [--listen ADDRESS:PORT]

client reads blocks, a JSON object a line, from standard input and answers each. A server says "ready" on standard
output and ends when its standard input does. evenkeel bench runs both.
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "evenkeel-load:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 || !slices.Contains([]string{"client", "serve-one", "serve-many", "serve-http"}, args[0]) {
		if len(args) == 1 && (args[0] == "--help" || args[0] == "-h") {
			_, err := fmt.Print(usage) //nolint:forbidigo // it was asked for
			return err
		}
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	f := flag.NewFlagSet(args[0], flag.ExitOnError)
	f.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	cpu := f.Int("cpu", -1, "")
	congestion := f.String("congestion", "", "")
	listen := f.String("listen", "", "")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	if err := load.Prepare(*cpu); err != nil {
		return err
	}
	if *congestion != "" {
		if err := load.SetCongestion(*congestion); err != nil {
			return err
		}
	}
	if args[0] == "client" {
		return load.Serve(os.Stdin, os.Stdout, runFortio)
	}
	at, err := netip.ParseAddrPort(*listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // whatever ends it
		os.Exit(0)
	}()
	ready := func() error {
		_, err := fmt.Println("ready") //nolint:forbidigo // it is the protocol
		return err
	}
	switch args[0] {
	case "serve-one":
		return load.ServeOne(at, ready)
	case "serve-many":
		return load.ServeMany(at, ready)
	}
	return serveHTTP(at, ready)
}
