// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

// runHold runs flows side by side until standard input ends: hold [-interval D] [-timeout D] KIND=ADDRESS:PORT...
// Kinds are http, tcp, udp (one connection, kept), udp-free (an unconnected socket), and http-new, tcp-new, udp-new (a
// connection per request).
func runHold(args []string, s streams) error {
	flags := flag.NewFlagSet("hold", flag.ContinueOnError)
	interval := flags.Duration("interval", 5*time.Millisecond, "between two requests of a flow")
	timeout := flags.Duration("timeout", 3*time.Second, "of a request; one that takes longer has failed")
	if err := flags.Parse(args); err != nil {
		return err
	}
	done := untilEOF(s.in)
	print := make(chan report.Flow)
	var running sync.WaitGroup
	for i, arg := range flags.Args() {
		kind, to, _ := strings.Cut(arg, "=")
		ask, err := newAsker(asked{kind: kind, to: to, timeout: *timeout, name: fmt.Sprint(i)})
		if err != nil {
			return err
		}
		f := flow{Flow: report.Flow{Index: i, Kind: kind, To: to, Servers: map[string]uint64{}}, ask: ask, print: print}
		running.Go(func() { f.run(*interval, done) })
	}
	go func() { // ends when the flows have; the loop below is its owner and ends by it
		running.Wait()
		close(print)
	}()
	for line := range print {
		if err := s.out.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// progressEvery is how often a flow tells how far it is.
const progressEvery = 50 * time.Millisecond

// flow is one exchange and its totals.
type flow struct {
	report.Flow
	ask   asker
	print chan<- report.Flow
}

func (f *flow) run(interval time.Duration, done <-chan struct{}) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	last, told := time.Now(), time.Now()
	for {
		server, err := f.ask()
		now := time.Now()
		f.Gap = max(f.Gap, milliseconds(now.Sub(last)))
		if err != nil {
			f.fail(err)
		} else {
			f.Done++
			if server != "" {
				f.Servers[server]++
			}
			last = now
		}
		if f.Done+f.Failed == 1 {
			f.say("ready")
		} else if now.Sub(told) > progressEvery {
			f.say("progress")
			told = now
		}
		select {
		case <-done:
			f.say("end")
			return
		case <-tick.C:
		}
	}
}

func (f *flow) fail(err error) {
	f.Failed++
	if f.Failed == 1 {
		f.Error, f.At = err.Error(), monotonic()
		f.say("failed")
	}
}

func (f *flow) say(event string) {
	line := f.Flow
	line.Event = event
	if event != "end" {
		line.Servers = nil // it goes on being written
	}
	f.print <- line
}
